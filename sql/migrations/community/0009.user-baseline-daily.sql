-- depends: 0008.hypertables

-- TimescaleDB community: kept by the database, real-time for what is not yet materialized.
CREATE MATERIALIZED VIEW user_baseline_daily
WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
SELECT
    user_id, metric, source,
    time_bucket('1 day', ts) AS day,
    count(*) AS n,
    sum(value ORDER BY ts) AS sum,
    sum(value * value ORDER BY ts) AS sum_of_squares,
    min(value) AS min,
    max(value) AS max
FROM user_baseline_raw
GROUP BY user_id, metric, source, time_bucket('1 day', ts)
WITH NO DATA;
-- From the beginning: days behind the newest materialized one are read from what is materialized only,
-- so history that a window left out would be missing. Only what changed is computed again.
SELECT add_continuous_aggregate_policy(
    'user_baseline_daily',
    start_offset => NULL, end_offset => interval '1 hour',
    schedule_interval => interval '15 minutes'
);
COMMENT ON VIEW user_baseline_daily IS 'Sums a UTC day, so that any window over days is exact.';
COMMENT ON COLUMN user_baseline_daily.day IS 'The start of the UTC day: an event time, not an available time.';
