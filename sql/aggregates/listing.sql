-- name: marks
-- The dirty days of a raw table, and since when the oldest of them waits.
SELECT count(DISTINCT (key, day)) AS days, min(marked_at) AS oldest
FROM dirty_days WHERE relation = %(raw)s

-- name: kept_table
-- A table that a refresh fills: rows as of the last ANALYZE, or counted where there was none.
SELECT CASE WHEN c.reltuples >= 0 THEN c.reltuples::bigint ELSE (SELECT count(*) FROM {kept}) END AS rows,
    (SELECT max({bucket}) FROM {kept}) AS newest
FROM pg_class AS c WHERE c.oid = %(kept)s::regclass

-- name: continuous_aggregate
-- What the database keeps, the policy that keeps it, and how many rows it holds by its statistics.
SELECT
    approximate_row_count(
        format('%%I.%%I', a.materialization_hypertable_schema, a.materialization_hypertable_name)::regclass
    ) AS rows,
    (SELECT max({bucket}) FROM {relation}) AS newest,
    j.schedule_interval::text AS every, j.config ->> 'start_offset' AS start_offset,
    j.config ->> 'end_offset' AS end_offset
FROM timescaledb_information.continuous_aggregates AS a
LEFT JOIN timescaledb_information.jobs AS j
    ON j.proc_name = 'policy_refresh_continuous_aggregate'
    AND j.hypertable_schema IN (a.view_schema, a.materialization_hypertable_schema)
    AND j.hypertable_name IN (a.view_name, a.materialization_hypertable_name)
WHERE a.view_schema = current_schema() AND a.view_name = %(relation)s
