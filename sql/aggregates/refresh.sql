-- name: lock
-- One refresher of a database at a time. The session holds it: it ends with the connection, however that ends.
SELECT pg_advisory_lock(hashtextextended('hyperfeast aggregates', 0))

-- name: try_lock
-- The same, if nobody holds it.
SELECT pg_try_advisory_lock(hashtextextended('hyperfeast aggregates', 0)) AS locked

-- name: horizon
-- Before this the raw rows are gone; null where nothing was ever dropped.
SELECT nullif(raw_kept_since(%(raw)s, %(timeframe)s), '-infinity') AS horizon

-- name: hold_horizon
-- Retention moves its horizon past no dirty day, and cannot move it between this and the end of the
-- transaction: a day that is marked in it keeps its raw rows until it is refreshed.
SELECT FROM lifecycle_in_force WHERE relation = %(raw)s AND tf = %(timeframe)s FOR SHARE

-- name: has_lifecycle
SELECT to_regclass('lifecycle_in_force') IS NOT NULL AS found

-- name: mark
-- Every day of the range that has raw rows, or rows of an aggregate.
INSERT INTO dirty_days (relation, key, day)
SELECT DISTINCT %(raw)s, key, (moment AT TIME ZONE 'UTC')::date
FROM ({rows}) AS rows (key, moment)
WHERE moment >= coalesce(%(since)s::date::timestamp AT TIME ZONE 'UTC', '-infinity')
    AND moment >= raw_kept_since(%(raw)s, %(timeframe)s)
    AND moment < coalesce(%(until)s::date::timestamp AT TIME ZONE 'UTC', 'infinity')

-- name: rows_of
SELECT {key}::text, {bucket} FROM {relation}
WHERE {of_timeframe} AND (%(keys)s::text[] IS NULL OR {key} = ANY(%(keys)s::{key_type}[]))

-- name: newest_mark
-- What is marked from now on is for the next refresh: otherwise busy writers could keep this one going for ever.
SELECT coalesce(max(id), 0) AS newest FROM dirty_days

-- name: discard
-- Marks of days whose raw rows retention has dropped: what was aggregated from them stays as it is.
DELETE FROM dirty_days
WHERE relation = %(raw)s AND day < (raw_kept_since(%(raw)s, %(timeframe)s) AT TIME ZONE 'UTC')::date

-- name: pending
-- How many days of how many keys there are to do.
SELECT count(*) AS days
FROM (SELECT DISTINCT key, day FROM dirty_days WHERE {wanted}) AS days

-- name: wanted
-- Of the marks there were at the beginning, those of the keys and the range that were asked for.
relation = %(raw)s AND id <= %(newest)s
    AND (%(keys)s::text[] IS NULL OR key = ANY(%(keys)s))
    AND (%(since)s::date IS NULL OR day >= %(since)s)
    AND (%(until)s::date IS NULL OR day < %(until)s)

-- name: claim_days
-- The marks of the next days, key by key, so that the days of a week go together.
SELECT id, key, day FROM dirty_days
WHERE {wanted} AND (key, day) IN (
    SELECT DISTINCT key, day FROM dirty_days WHERE {wanted} ORDER BY key, day LIMIT %(slice)s
)

-- name: claim
-- All marks at once: a continuous aggregate is refreshed by time alone, and level by level.
CREATE TEMPORARY TABLE claimed_days AS SELECT id, key, day, copied FROM dirty_days WHERE {wanted}

-- name: claimed_weeks
-- What there is to do, week by week: a week of all keys is what one transaction takes on.
SELECT
    min(day) AS first, max(day) AS last, bool_or(copied) AS copied, count(DISTINCT (key, day)) AS days
FROM claimed_days
GROUP BY date_trunc('week', day::timestamp)
ORDER BY first

-- name: settle_claimed
-- Exactly the marks that were claimed: one that came in between stays.
DELETE FROM dirty_days USING claimed_days WHERE dirty_days.id = claimed_days.id

-- name: forget_claimed
DROP TABLE IF EXISTS claimed_days

-- name: settle
-- Exactly the marks that were claimed: one that came in between stays.
DELETE FROM dirty_days WHERE id = ANY(%(ids)s)

-- name: keep
-- The buckets of the claimed ranges as they are now. Rows that are equal are not written.
WITH claimed AS (
    SELECT DISTINCT key, since, until
    FROM unnest(%(keys)s::text[], %(since)s::timestamptz[], %(until)s::timestamptz[])
        AS claimed (key, since, until)
),
now AS MATERIALIZED (
    {recomputation}
),
gone AS (
    DELETE FROM {kept} AS kept USING claimed
    WHERE kept.{key} = claimed.key::{key_type}
        AND kept.{bucket} >= claimed.since AND kept.{bucket} < claimed.until
        AND NOT EXISTS (SELECT FROM now WHERE ({identity_now}) = ({identity_kept}))
)
INSERT INTO {kept} AS kept ({columns})
SELECT {columns} FROM now
ON CONFLICT ({identity}) DO UPDATE SET ({values}) = ROW({values_now})
WHERE ROW({values_kept}) IS DISTINCT FROM ROW({values_now})

-- name: from_raw
SELECT now.*
FROM claimed CROSS JOIN LATERAL {recomputed}(claimed.key::{key_type}, claimed.since, claimed.until) AS now

-- name: from_finer
-- Bars from the next finer ones, which have just been brought up to date in the same transaction.
SELECT
    finer.symbol, date_bin(%(width)s, finer.ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(finer.o ORDER BY finer.ts))[1] AS o, max(finer.h) AS h, min(finer.l) AS l,
    (array_agg(finer.c ORDER BY finer.ts))[count(*)::integer] AS c, sum(finer.v ORDER BY finer.ts) AS v,
    sum(finer.notional ORDER BY finer.ts) / nullif(sum(finer.v ORDER BY finer.ts), 0) AS vwap,
    sum(finer.n)::bigint AS n, sum(finer.notional ORDER BY finer.ts) AS notional
FROM claimed
JOIN {finer} AS finer
    ON finer.symbol = claimed.key AND finer.ts >= claimed.since AND finer.ts < claimed.until
GROUP BY 1, 2

-- name: watermark
-- Where a continuous aggregate goes over from what is kept to what is computed as it is read; null if nothing
-- is kept. An empty one's watermark is too early for a timestamp to be read by clients.
SELECT nullif(
    greatest(_timescaledb_functions.to_timestamp(_timescaledb_functions.cagg_watermark(h.id)), '0001-01-01'),
    '0001-01-01'
) AS watermark
FROM timescaledb_information.continuous_aggregates AS a
JOIN _timescaledb_catalog.hypertable AS h
    ON h.schema_name = a.materialization_hypertable_schema AND h.table_name = a.materialization_hypertable_name
WHERE a.view_schema = current_schema() AND a.view_name = %(relation)s

-- name: takes_options
-- Newer versions split a refresh into batches of ten buckets unless told otherwise, and each of them scans whole
-- chunks.
SELECT EXISTS (
    SELECT FROM pg_proc
    WHERE proname = 'refresh_continuous_aggregate' AND 'options' = ANY(proargnames)
) AS found

-- name: refresh_whole
CALL refresh_continuous_aggregate(
    %(relation)s, %(since)s::timestamptz, %(until)s::timestamptz, force => %(force)s,
    options => '{"buckets_per_batch": 0}'
)

-- name: refresh_continuous_aggregate
CALL refresh_continuous_aggregate(%(relation)s, %(since)s::timestamptz, %(until)s::timestamptz, force => %(force)s)

-- name: moment
SELECT clock_timestamp() AS moment
