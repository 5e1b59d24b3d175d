-- name: stage
CREATE TEMPORARY TABLE staged_metrics ON COMMIT DROP AS
SELECT user_id, metric, source, ts, value FROM user_baseline_raw WITH NO DATA

-- name: lock
-- One writer of readings at a time, until it commits: two that insert the same rows would wait for each
-- other in whatever order the rows come.
SELECT pg_advisory_xact_lock(hashtextextended('user_baseline_raw', 0))

-- name: stage_comparison
CREATE TEMPORARY TABLE compared_metrics ON COMMIT DROP AS
SELECT s.*, r AS served, false AS is_new
FROM staged_metrics AS s CROSS JOIN user_baseline_raw AS r
WITH NO DATA

-- name: compare
-- Only what has to be written comes out of it: a reading that is there is not touched.
INSERT INTO compared_metrics
SELECT s.*, r AS served, r.user_id IS NULL AS is_new
FROM staged_metrics AS s
LEFT JOIN user_baseline_raw AS r
    ON r.user_id = s.user_id AND r.metric = s.metric AND r.source = s.source AND r.ts = s.ts
    AND r.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
WHERE r.user_id IS NULL OR r.value IS DISTINCT FROM s.value

-- name: compared
-- How much there is to do, and the span of what is to be corrected.
SELECT
    count(*) FILTER (WHERE is_new) AS inserted,
    count(*) FILTER (WHERE NOT is_new) AS corrected,
    array_agg(DISTINCT user_id) FILTER (WHERE NOT is_new) AS users,
    min(ts) FILTER (WHERE NOT is_new) AS first,
    max(ts) FILTER (WHERE NOT is_new) AS last
FROM compared_metrics

-- name: correct
-- What is replaced goes to the revisions as it was. An update unpacks all compressed rows that its conditions
-- leave possible, so it is bounded by what is to be corrected.
WITH replaced AS (
    INSERT INTO user_baseline_revisions
        (user_id, metric, source, ts, value, recorded_at, replaced_at)
    SELECT user_id, metric, source, ts, (served).value, (served).recorded_at, %(moment)s
    FROM compared_metrics
    WHERE NOT is_new
)
UPDATE user_baseline_raw AS r
SET value = s.value, recorded_at = %(moment)s
FROM compared_metrics AS s
WHERE NOT s.is_new
    AND r.user_id = s.user_id AND r.metric = s.metric AND r.source = s.source AND r.ts = s.ts
    AND r.user_id = ANY(%(users)s)
    AND r.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz

-- name: insert
INSERT INTO user_baseline_raw (user_id, metric, source, ts, value, recorded_at)
SELECT user_id, metric, source, ts, value, %(moment)s
FROM compared_metrics
WHERE is_new
ORDER BY user_id, metric, source, ts
