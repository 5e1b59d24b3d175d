-- name: lock_user
-- One writer of a user's baselines at a time, until it commits: each is saved after the one before.
SELECT pg_advisory_xact_lock(hashtextextended('baseline_history/' || %(user_id)s::text, 0))

-- name: save
-- Adds a baseline, and drops those beyond the newest ten; nothing if the newest lies in the clock's future.
-- The log says which metrics, and no value.
WITH there AS MATERIALIZED (
    SELECT
        clock_timestamp() AS now,
        (SELECT max(created_at) FROM baseline_history WHERE user_id = %(user_id)s) AS newest
), saved AS (
    INSERT INTO baseline_history (user_id, baseline, created_at)
    SELECT %(user_id)s, %(baseline)s, greatest(now, newest + interval '1 microsecond')
    FROM there
    WHERE coalesce(newest <= now + %(tolerance)s::interval, true)
        AND %(as_of)s::timestamptz <= now + %(tolerance)s::interval
    RETURNING created_at
), dropped AS (
    DELETE FROM baseline_history
    WHERE user_id = %(user_id)s AND EXISTS (SELECT FROM saved)
        AND created_at NOT IN (
            SELECT created_at FROM baseline_history
            WHERE user_id = %(user_id)s ORDER BY created_at DESC LIMIT %(kept_before)s
        )
), logged AS (
    INSERT INTO audit_log (action, object, after)
    SELECT
        'save baseline', 'user/' || %(user_id)s::text || '/baseline',
        jsonb_build_object('created_at', created_at, 'as_of', %(as_of)s::timestamptz, 'metrics', %(metrics)s::text[])
    FROM saved
)
SELECT there.now, there.newest, (SELECT created_at FROM saved) AS created_at FROM there

-- name: history
-- The newest baselines of a user, or those that were the newest at a moment.
SELECT user_id, baseline, created_at
FROM baseline_history
WHERE user_id = %(user_id)s AND created_at <= coalesce(%(at)s::timestamptz, 'infinity')
ORDER BY created_at DESC
LIMIT %(limit)s

-- name: keep
-- Takes over baselines as they were saved elsewhere; of all, the newest stay. One that is there is not touched.
WITH given AS (
    SELECT DISTINCT ON (created_at) created_at, baseline
    FROM unnest(%(moments)s::timestamptz[], %(baselines)s::jsonb[]) AS g (created_at, baseline)
), newest AS (
    SELECT created_at FROM baseline_history WHERE user_id = %(user_id)s
    UNION
    SELECT created_at FROM given
    ORDER BY created_at DESC
    LIMIT %(kept)s
), added AS (
    INSERT INTO baseline_history (user_id, baseline, created_at)
    SELECT %(user_id)s, baseline, created_at FROM given JOIN newest USING (created_at)
    ON CONFLICT DO NOTHING
    RETURNING created_at
), dropped AS (
    DELETE FROM baseline_history
    WHERE user_id = %(user_id)s AND created_at NOT IN (SELECT created_at FROM newest)
), logged AS (
    INSERT INTO audit_log (action, object, after)
    SELECT
        'keep baselines', 'user/' || %(user_id)s::text || '/baseline', jsonb_build_object('added', count(*))
    FROM added
    HAVING count(*) > 0
)
SELECT count(*) AS added FROM added

-- name: delete
-- Forgets a user's baselines; the log keeps how many there were.
WITH gone AS (
    DELETE FROM baseline_history WHERE user_id = %(user_id)s RETURNING created_at
), logged AS (
    INSERT INTO audit_log (action, object, before)
    SELECT
        'delete baselines', 'user/' || %(user_id)s::text || '/baseline', jsonb_build_object('deleted', count(*))
    FROM gone
    HAVING count(*) > 0
)
SELECT count(*) AS gone FROM gone

-- name: users
SELECT DISTINCT user_id FROM baseline_history ORDER BY user_id

-- name: readings
-- The readings of a user in [$2, $3), with the revisions that corrections replaced: each was served in
-- [recorded_at, replaced_at). $4 is a metric, or null for all.
SELECT metric, source, ts, value, recorded_at, NULL::timestamptz AS replaced_at
FROM user_baseline_raw
WHERE user_id = $1::uuid AND ts >= $2 AND ts < $3 AND ($4::text IS NULL OR metric = $4)
UNION ALL
SELECT metric, source, ts, value, recorded_at, replaced_at
FROM user_baseline_revisions
WHERE user_id = $1::uuid AND ts >= $2 AND ts < $3 AND ($4::text IS NULL OR metric = $4)

-- name: last_reading
SELECT max(ts) AS ts FROM user_baseline_raw WHERE user_id = %(user_id)s

-- name: window_metrics
-- The metrics that have windows to refresh: those that were read in the 30 days before a day, or have a window.
SELECT metric FROM user_baseline_daily WHERE day >= %(since)s AND day < %(as_of)s
UNION
SELECT metric FROM user_baseline_windows
ORDER BY metric

-- name: refresh_windows
-- The window of every series of one metric, or of one user's: 30 days before as_of from the daily sums, in the
-- order of the days, so that refreshing one user gives to the last bit what refreshing all gives. Squared
-- distances are taken within each day and between the days' means: a large mean does not swallow them.
WITH days AS (
    SELECT
        user_id, source, day, n, sum / n AS mean,
        greatest(sum_of_squares - sum * (sum / n), 0) AS squares,
        sum(sum) OVER whole / sum(n) OVER whole::double precision AS window_mean
    FROM user_baseline_daily
    WHERE metric = %(metric)s AND day >= %(since)s::timestamptz AND day < %(as_of)s::timestamptz
        AND (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s::uuid)
    WINDOW whole AS (
        PARTITION BY user_id, source ORDER BY day
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    )
), fresh AS MATERIALIZED (
    SELECT
        user_id, source, sum(n)::bigint AS n, count(*)::integer AS days_present, min(window_mean) AS mean,
        CASE WHEN sum(n) > 1 THEN sqrt(
            sum(squares + n * (mean - window_mean) * (mean - window_mean) ORDER BY day)
            / (sum(n) - 1)::double precision
        ) END AS std
    FROM days
    GROUP BY user_id, source
), written AS (
    INSERT INTO user_baseline_windows AS w
        (user_id, metric, source, as_of, n, mean, std, days_present, confidence)
    SELECT
        user_id, %(metric)s, source, %(as_of)s::timestamptz, n, mean, std, days_present,
        days_present / 30.0::double precision
    FROM fresh
    ON CONFLICT (user_id, metric, source) DO UPDATE
    SET as_of = excluded.as_of, n = excluded.n, mean = excluded.mean, std = excluded.std,
        days_present = excluded.days_present, confidence = excluded.confidence,
        refreshed_at = clock_timestamp()
    WHERE w.as_of <= excluded.as_of
        AND (w.as_of, w.n, w.mean, w.std, w.days_present)
            IS DISTINCT FROM (excluded.as_of, excluded.n, excluded.mean, excluded.std, excluded.days_present)
    RETURNING 1
), emptied AS (
    DELETE FROM user_baseline_windows AS w
    WHERE w.metric = %(metric)s AND w.as_of <= %(as_of)s::timestamptz
        AND (%(user_id)s::uuid IS NULL OR w.user_id = %(user_id)s::uuid)
        AND NOT EXISTS (
            SELECT FROM fresh WHERE fresh.user_id = w.user_id AND fresh.source = w.source
        )
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM fresh) AS series, (SELECT count(*) FROM written) AS written,
    (SELECT count(*) FROM emptied) AS emptied
