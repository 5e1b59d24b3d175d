-- name: stage
CREATE TEMPORARY TABLE staged_metrics ON COMMIT DROP AS
SELECT user_id, metric, source, ts, value FROM user_baseline_raw WITH NO DATA

-- name: lock
-- One writer of readings at a time, until it commits: two that insert the same rows would wait for each
-- other in whatever order the rows come.
SELECT pg_advisory_xact_lock(hashtextextended('user_baseline_raw', 0))

-- name: correct
-- The old value is overwritten: this table keeps no revisions.
UPDATE user_baseline_raw AS r
SET value = s.value, recorded_at = %(moment)s
FROM staged_metrics AS s
WHERE r.user_id = s.user_id AND r.metric = s.metric AND r.source = s.source AND r.ts = s.ts
    AND r.value IS DISTINCT FROM s.value

-- name: insert
INSERT INTO user_baseline_raw (user_id, metric, source, ts, value, recorded_at)
SELECT user_id, metric, source, ts, value, %(moment)s
FROM staged_metrics
ON CONFLICT (user_id, metric, source, ts) DO NOTHING
