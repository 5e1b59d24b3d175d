-- What feature sets over readings compute when a reading arrives: see features/relation.py.

-- name: lock
-- One process at a time tells the sets what changed: for a moment, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('hyperfeast reading changes', 0))

-- name: forget_retired
-- A set that is not computed any more gathers no marks; if it comes back, it begins from the beginning.
DELETE FROM reading_sets AS r
USING feature_sets AS s
WHERE s.name = r.name AND s.version = r.version AND NOT s.is_active
    AND (r.name, r.version) <> (%(name)s, %(version)s)

-- name: register
-- From here on the set gets every mark. A row if the set, or its table, is new here: all is to be computed.
INSERT INTO reading_sets AS r (name, version, relation)
VALUES (%(name)s, %(version)s, to_regclass(quote_ident(%(table)s))::oid)
ON CONFLICT (name, version) DO UPDATE
    SET relation = excluded.relation, registered_at = clock_timestamp()
    WHERE r.relation <> excluded.relation
RETURNING name

-- name: mark_all
-- Everything that there is: of a set that is new, or is to be computed again.
INSERT INTO reading_marks (name, version, user_id, metric, first, last)
SELECT
    %(name)s, %(version)s, user_id, metric,
    (min(day) AT TIME ZONE 'UTC')::date, (max(day) AT TIME ZONE 'UTC')::date
FROM user_baseline_daily
WHERE %(users)s::uuid[] IS NULL OR user_id = ANY(%(users)s::uuid[])
GROUP BY user_id, metric

-- name: distribute
-- Hands every mark to every set that follows readings. A set that is registered later finds the rows themselves.
WITH taken AS (
    DELETE FROM reading_changes RETURNING user_id, metric, first, last
)
INSERT INTO reading_marks (name, version, user_id, metric, first, last)
SELECT DISTINCT s.name, s.version, t.user_id, t.metric, t.first, t.last
FROM taken AS t CROSS JOIN reading_sets AS s

-- name: moment
SELECT clock_timestamp() AS moment

-- name: claim
-- The marks of the next users, which are gone once their rows are in. Others leave them alone meanwhile.
DELETE FROM reading_marks
WHERE id IN (
    SELECT id FROM reading_marks
    WHERE name = %(name)s AND version = %(version)s AND due_at <= %(moment)s
        AND (%(users)s::uuid[] IS NULL OR user_id = ANY(%(users)s::uuid[]))
    ORDER BY user_id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
RETURNING user_id, metric, first, last

-- name: lock_users
-- One writer of a user's rows at a time, until it commits, in the order of the users: whoever reads later also
-- writes later. What other versions write is no concern of this one.
SELECT pg_advisory_xact_lock(hashtextextended(%(table)s || '/' || key, 0))
FROM (SELECT DISTINCT key FROM unnest(%(users)s::text[]) AS key ORDER BY key) AS ordered

-- name: share_set
-- With everybody but those who write the set as a whole (see features, lock).
SELECT pg_advisory_xact_lock_shared(hashtextextended(%(table)s, 0))

-- name: stored
-- The newest revision of each row of some series between two moments: the first left out, the last not.
SELECT DISTINCT ON (t.user_id, t.metric, t.event_timestamp)
    t.user_id, t.metric, t.event_timestamp, t.recorded_at, {features}
FROM unnest({users}::text[], {metrics}::text[], {first}::timestamptz[], {last}::timestamptz[])
    AS w (of_user, of_metric, first, last)
JOIN {table} AS t ON t.user_id = w.of_user AND t.metric = w.of_metric
    AND t.event_timestamp > w.first AND t.event_timestamp <= w.last
ORDER BY t.user_id, t.metric, t.event_timestamp, t.recorded_at DESC

-- name: mark_unfinished
-- A day that is not over is computed again when it is.
INSERT INTO reading_marks (name, version, user_id, metric, first, last, due_at)
SELECT %(name)s, %(version)s, u.user_id, u.metric, today.day, today.day, today.ends
FROM unnest(%(users)s::uuid[], %(metrics)s::text[], %(last)s::date[]) AS u (user_id, metric, last)
CROSS JOIN (
    SELECT (now() AT TIME ZONE 'UTC')::date AS day, date_trunc('day', now(), 'UTC') + interval '24 hours' AS ends
) AS today
WHERE u.last >= today.day AND NOT EXISTS (
    SELECT FROM reading_marks AS m
    WHERE m.name = %(name)s AND m.version = %(version)s AND m.user_id = u.user_id AND m.metric = u.metric
        AND m.due_at = today.ends
)

-- name: pending
-- What is due of a set, by user: the first day that changed.
SELECT user_id, min(first) AS first
FROM (
    SELECT user_id, first FROM reading_marks
    WHERE name = %(name)s AND version = %(version)s AND due_at <= clock_timestamp()
    UNION ALL
    SELECT user_id, first FROM reading_changes
) AS due
GROUP BY user_id
ORDER BY user_id
