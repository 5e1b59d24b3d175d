-- depends: 0009.user-baseline-daily

-- The trailing 30 days that end with `as_of`. Sums of daily sums, so that the window is exact;
-- days without readings are missing, never zero; another device (source) is another segment.
-- Hours, not days: '1 day' would follow the daylight saving of whatever zone a session is set to.
CREATE VIEW user_baseline_30d AS
SELECT
    user_id, metric, source, as_of, mean,
    CASE WHEN n > 1 THEN sqrt(greatest(squares - n * mean * mean, 0) / (n - 1)) END AS std,
    n, days_present, days_present / 30.0::double precision AS confidence
FROM (
    SELECT
        user_id, metric, source,
        day + interval '24 hours' AS as_of,
        (sum(n) OVER thirty_days)::bigint AS n,
        (sum(sum) OVER thirty_days) / (sum(n) OVER thirty_days)::double precision AS mean,
        sum(sum_of_squares) OVER thirty_days AS squares,
        count(*) OVER thirty_days AS days_present
    FROM user_baseline_daily
    WINDOW thirty_days AS (
        PARTITION BY user_id, metric, source ORDER BY day
        RANGE BETWEEN interval '696 hours' PRECEDING AND CURRENT ROW
    )
) AS windows;
COMMENT ON VIEW user_baseline_30d IS 'Mean and sample deviation of each metric over the trailing 30 days.';
COMMENT ON COLUMN user_baseline_30d.as_of IS
    'Available time: the end of the last day counted, UTC.';
COMMENT ON COLUMN user_baseline_30d.confidence IS 'Days with readings out of 30.';
