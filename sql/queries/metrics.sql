-- name: stage
CREATE TEMPORARY TABLE staged_metrics ON COMMIT DROP AS
SELECT user_id, metric, source, ts, value FROM user_baseline_raw WITH NO DATA

-- name: lock
-- One writer of readings at a time, until it commits: two that insert the same rows would wait for each
-- other in whatever order the rows come.
SELECT pg_advisory_xact_lock(hashtextextended('user_baseline_raw', 0))

-- name: merge
-- Only what has to be written comes out of `compared`: a reading that is there is not touched. What a
-- correction replaces goes to the revisions as it was.
WITH compared AS MATERIALIZED (
    SELECT s.*, r AS served, r.user_id IS NULL AS is_new
    FROM staged_metrics AS s
    LEFT JOIN user_baseline_raw AS r
        ON r.user_id = s.user_id AND r.metric = s.metric AND r.source = s.source AND r.ts = s.ts
        AND r.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
    WHERE r.user_id IS NULL OR r.value IS DISTINCT FROM s.value
),
replaced AS (
    INSERT INTO user_baseline_revisions
        (user_id, metric, source, ts, value, recorded_at, replaced_at)
    SELECT user_id, metric, source, ts, (served).value, (served).recorded_at, %(moment)s
    FROM compared
    WHERE NOT is_new
),
corrected AS (
    UPDATE user_baseline_raw AS r
    SET value = s.value, recorded_at = %(moment)s
    FROM compared AS s
    WHERE NOT s.is_new
        AND r.user_id = s.user_id AND r.metric = s.metric AND r.source = s.source AND r.ts = s.ts
        AND r.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
),
inserted AS (
    INSERT INTO user_baseline_raw (user_id, metric, source, ts, value, recorded_at)
    SELECT user_id, metric, source, ts, value, %(moment)s
    FROM compared
    WHERE is_new
    ORDER BY user_id, metric, source, ts
)
SELECT
    count(*) FILTER (WHERE is_new) AS inserted,
    count(*) FILTER (WHERE NOT is_new) AS corrected
FROM compared
