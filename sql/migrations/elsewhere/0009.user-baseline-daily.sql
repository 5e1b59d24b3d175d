-- depends: 0007.signals

-- Without continuous aggregates: computed when it is read, so never stale.
CREATE VIEW user_baseline_daily AS
SELECT
    user_id, metric, source,
    date_trunc('day', ts, 'UTC') AS day,
    count(*) AS n,
    sum(value ORDER BY ts) AS sum,
    sum(value * value ORDER BY ts) AS sum_of_squares,
    min(value) AS min,
    max(value) AS max
FROM user_baseline_raw
GROUP BY user_id, metric, source, date_trunc('day', ts, 'UTC');
COMMENT ON VIEW user_baseline_daily IS 'Sums a UTC day, so that any window over days is exact.';
COMMENT ON COLUMN user_baseline_daily.day IS 'The start of the UTC day: an event time, not an available time.';
