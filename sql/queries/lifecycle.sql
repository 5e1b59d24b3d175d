-- name: try_turn
-- One run at a time in a database. It ends with the connection, however that ends.
SELECT pg_try_advisory_lock(hashtextextended('hyperfeast lifecycle', 0)) AS granted

-- name: end_turn
SELECT pg_advisory_unlock(hashtextextended('hyperfeast lifecycle', 0))

-- name: in_force
SELECT relation, tf, keep_for::text AS keep_for, dropped_before FROM lifecycle_in_force

-- name: tables
-- The tables of the schema with their columns. A size without chunks: those of a hypertable are its own.
SELECT c.relname AS relation, greatest(c.reltuples, 0)::bigint AS rows, pg_total_relation_size(c.oid) AS bytes,
    array_agg(a.attname::text) AS columns,
    (
        SELECT array_agg(k.attname::text ORDER BY p.position)
        FROM pg_index AS i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS p (number, position)
        JOIN pg_attribute AS k ON k.attrelid = i.indrelid AND k.attnum = p.number
        WHERE i.indrelid = c.oid AND i.indisprimary
    ) AS primary_key
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'
GROUP BY c.oid, c.relname, c.reltuples

-- name: hypertables
SELECT d.hypertable_name AS relation, d.column_name AS time_column, d.time_interval::text AS chunk_interval,
    approximate_row_count(format('%I.%I', d.hypertable_schema, d.hypertable_name)::regclass) AS rows
FROM timescaledb_information.dimensions AS d
WHERE d.hypertable_schema = current_schema() AND d.dimension_number = 1

-- name: chunks
-- The chunks of one hypertable with their sizes, the oldest first. One without an end never expires.
SELECT c.chunk_schema AS schema, c.chunk_name AS name, c.range_start, c.range_end,
    coalesce(c.is_compressed, false) AS compressed, s.total_bytes AS bytes
FROM timescaledb_information.chunks AS c
JOIN chunks_detailed_size(%(relation)s::text::regclass) AS s
    ON s.chunk_schema = c.chunk_schema AND s.chunk_name = c.chunk_name
WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %(relation)s::text
    AND isfinite(c.range_start) AND isfinite(c.range_end)
ORDER BY c.range_start

-- name: compression_settings
SELECT hypertable_name AS relation, attname AS column, segmentby_column_index AS segment, orderby_asc AS ascending
FROM timescaledb_information.compression_settings
WHERE hypertable_schema = current_schema()
ORDER BY hypertable_name, segmentby_column_index, orderby_column_index

-- name: compressed_sizes
-- The compressed chunks of one hypertable: what they would take otherwise, and what they take.
SELECT coalesce(sum(before_compression_total_bytes), 0)::bigint AS before,
    coalesce(sum(after_compression_total_bytes), 0)::bigint AS after
FROM chunk_compression_stats(%(relation)s::regclass)
WHERE compression_status = 'Compressed'

-- name: policies
-- The database's own schedule: a continuous aggregate bears its view's name.
SELECT job_id, hypertable_name AS relation, proc_name AS kind,
    CASE WHEN isfinite(next_start) THEN next_start END AS next_start,
    config ->> 'compress_after' AS compress_after, config ->> 'drop_after' AS drop_after,
    config ->> 'start_offset' AS start_offset
FROM timescaledb_information.jobs
WHERE hypertable_schema = current_schema()
    AND proc_name IN ('policy_compression', 'policy_retention', 'policy_refresh_continuous_aggregate')

-- name: horizons
-- The Mondays, 00:00 UTC, before which rows have expired; by the database's clock unless told a moment.
SELECT date_trunc('week', coalesce(%(now)s, now()) - kept::interval, 'UTC') AS horizon
FROM unnest(%(keep_for)s::text[]) WITH ORDINALITY AS declared (kept, position)
ORDER BY position

-- name: moment
SELECT coalesce(%(now)s, now()) - %(age)s::interval AS moment

-- name: count_in_chunks
-- Rows by chunk and timeframe.
SELECT n.nspname AS schema, c.relname AS name, counted.tf, counted.rows
FROM (
    SELECT tableoid AS chunk, {tf} AS tf, count(*) AS rows
    FROM {relation} WHERE {time} < %(before)s
    GROUP BY 1, 2
) AS counted
JOIN pg_class AS c ON c.oid = counted.chunk
JOIN pg_namespace AS n ON n.oid = c.relnamespace

-- name: count_in_table
-- Rows by timeframe, and how many of them have expired.
SELECT counted.tf, count(*) AS rows, count(*) FILTER (WHERE counted.moment < expiry.horizon) AS expired
FROM (SELECT {tf} AS tf, {time} AS moment FROM {relation}) AS counted
LEFT JOIN unnest(%(tfs)s::text[], %(horizons)s::timestamptz[]) AS expiry (tf, horizon) USING (tf)
GROUP BY 1

-- name: newest_and_oldest
SELECT min({time}) AS oldest, max({time}) AS newest FROM {relation}

-- name: lock_in_force
-- Writers that read the horizon with FOR SHARE are through, or wait.
SELECT dropped_before FROM lifecycle_in_force
WHERE relation = %(relation)s AND tf = %(tf)s FOR UPDATE

-- name: unrefreshed_days
-- Days whose rollups were never told of a change, and could not be once their rows are gone.
SELECT count(DISTINCT day) AS days FROM dirty_days
WHERE relation = %(relation)s AND day < %(horizon)s::date
    AND day >= coalesce(%(dropped_before)s::date, '-infinity')

-- name: move_horizon
UPDATE lifecycle_in_force SET dropped_before = greatest(dropped_before, %(horizon)s)
WHERE relation = %(relation)s AND tf = %(tf)s

-- name: silence_marks
-- For this transaction: what retention drops is no change that a rollup has to follow.
SELECT set_config('hyperfeast.retention', 'on', true), set_config('lock_timeout', '10s', true)

-- name: lock_chunk
LOCK TABLE {chunk} IN EXCLUSIVE MODE

-- name: kept_rows
-- One row if a chunk holds anything of a timeframe that has not expired.
SELECT 1 AS found FROM {chunk} WHERE {tf} <> ALL (%(tfs)s) LIMIT 1

-- name: drop_chunk
-- Exactly the chunk of this range.
SELECT drop_chunks(%(relation)s::regclass, older_than => %(range_end)s, newer_than => %(range_start)s)

-- name: pages
SELECT pg_relation_size(%(table)s::regclass) / current_setting('block_size')::bigint AS pages

-- name: sweep
-- Expired rows in a range of a table's pages. A table is swept once from end to end: no index is needed,
-- and no row that was deleted is met again.
DELETE FROM {table} AS t
USING unnest(%(tfs)s::text[], %(horizons)s::timestamptz[]) AS expiry (timeframe, horizon)
WHERE t.ctid >= %(first)s::tid AND t.ctid < %(last)s::tid
    AND {tf} = expiry.timeframe AND t.{time} < expiry.horizon

-- name: decompress_chunk
SELECT decompress_chunk(%(chunk)s::regclass, if_compressed => true)

-- name: compress_chunk
SELECT compress_chunk(%(chunk)s::regclass, if_not_compressed => true)

-- name: set_chunk_interval
SELECT set_chunk_time_interval(%(relation)s::regclass, %(interval)s::interval)

-- name: set_compression
ALTER TABLE {relation} SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = {segment_by},
    timescaledb.compress_orderby = {order_by}
)

-- name: remove_compression_policy
SELECT remove_compression_policy(%(relation)s::regclass, if_exists => true)

-- name: add_compression_policy
SELECT add_compression_policy(%(relation)s::regclass, compress_after => %(after)s::interval)

-- name: remove_retention_policy
SELECT remove_retention_policy(%(relation)s::regclass, if_exists => true)

-- name: add_retention_policy
SELECT add_retention_policy(%(relation)s::regclass, drop_after => %(after)s::interval)

-- name: set_refresh_start
-- How far back a refresh policy of a continuous aggregate reaches.
SELECT alter_job(job_id, config => jsonb_set(config, '{start_offset}', to_jsonb(%(offset)s::interval::text)))
FROM timescaledb_information.jobs
WHERE job_id = %(job)s

-- name: put_in_force
INSERT INTO lifecycle_in_force (relation, tf, chunk_interval, compress_after, keep_for)
VALUES (%(relation)s, %(tf)s, %(chunk_interval)s::interval, %(compress_after)s::interval, %(keep_for)s::interval)
ON CONFLICT (relation, tf) DO UPDATE SET
    chunk_interval = excluded.chunk_interval, compress_after = excluded.compress_after,
    keep_for = excluded.keep_for, applied_at = clock_timestamp()
