-- name: table
-- The queue's table of jobs, or null where the queue was never set up; and this product's own beside it.
SELECT to_regclass('procrastinate_jobs') AS jobs, to_regclass('job_attempts') AS attempts

-- name: put
-- One job each, unless an equal one waits already: that one gets the higher of the two priorities.
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args)
SELECT queue, task, priority, lock, queueing_lock, args
FROM jsonb_to_recordset(%(jobs)s)
    AS asked (queue text, task text, priority integer, lock text, queueing_lock text, args jsonb)
ON CONFLICT (queueing_lock) WHERE status = 'todo'
DO UPDATE SET priority = greatest(procrastinate_jobs.priority, excluded.priority)
RETURNING id, xmax = 0 AS is_new

-- name: fetch
-- The next job, its attempt on record in the same statement: a worker that dies right after has left its name.
WITH fetched AS MATERIALIZED (
    SELECT * FROM procrastinate_fetch_job_v2(%(queues)s::varchar[], %(worker_id)s)
), begun AS (
    INSERT INTO job_attempts AS a (job_id, attempt, worker)
    SELECT id, attempts + 1, %(worker)s FROM fetched WHERE id IS NOT NULL
    ON CONFLICT (job_id, attempt) DO UPDATE SET
        worker = excluded.worker, started_at = excluded.started_at, done = NULL, total = NULL, progressed_at = NULL,
        finished_at = NULL, outcome = NULL, error = NULL, traceback = NULL
)
SELECT
    id, status, task_name, priority, lock, queueing_lock, args, scheduled_at, queue_name, attempts, worker_id
FROM fetched

-- name: hold
-- Names the session after its worker, and holds the job until the transaction ends, so that nobody takes it from
-- this attempt meanwhile; no row if somebody has. A cancellation does not wait for it.
WITH named AS MATERIALIZED (SELECT set_config('application_name', %(name)s, false))
SELECT id FROM procrastinate_jobs, named
WHERE id = %(job)s AND status = 'doing' AND attempts = %(attempts)s
FOR KEY SHARE OF procrastinate_jobs

-- name: name_session
SELECT set_config('application_name', %(name)s, false)

-- name: progress
UPDATE job_attempts SET done = %(done)s, total = %(total)s, progressed_at = clock_timestamp()
WHERE job_id = %(job_id)s AND attempt = %(attempts)s + 1 AND finished_at IS NULL

-- name: finish
-- Ends an attempt and its job; no row if the job is another attempt's by now, or nobody's.
WITH held AS MATERIALIZED (
    SELECT id FROM procrastinate_jobs
    WHERE id = %(job_id)s AND status = 'doing' AND attempts = %(attempts)s
    FOR UPDATE
), ended AS (
    UPDATE job_attempts AS a
    SET finished_at = clock_timestamp(), outcome = %(outcome)s, error = %(error)s, traceback = %(traceback)s
    FROM held WHERE a.job_id = held.id AND a.attempt = %(attempts)s + 1
)
SELECT id, procrastinate_finish_job_v1(id, %(status)s, %(delete)s) FROM held

-- name: retry_later
-- Ends an attempt, and lets the job wait for the next one, by this server's clock; no row if it is another
-- attempt's by now.
WITH held AS MATERIALIZED (
    SELECT id FROM procrastinate_jobs
    WHERE id = %(job_id)s AND status = 'doing' AND attempts = %(attempts)s
    FOR UPDATE
), ended AS (
    UPDATE job_attempts AS a
    SET finished_at = clock_timestamp(), outcome = %(outcome)s, error = %(error)s, traceback = %(traceback)s
    FROM held WHERE a.job_id = held.id AND a.attempt = %(attempts)s + 1
)
SELECT id, procrastinate_retry_job_v2(id, now() + make_interval(secs => %(wait)s), NULL, NULL, NULL) FROM held

-- name: hand_back
-- The job of a worker that is being stopped waits for another one. That was no attempt.
WITH held AS MATERIALIZED (
    UPDATE procrastinate_jobs
    SET status = CASE WHEN abort_requested THEN 'aborted' ELSE 'todo' END::procrastinate_job_status,
        abort_requested = false, scheduled_at = NULL
    WHERE id = %(job_id)s AND status = 'doing' AND attempts = %(attempts)s
    RETURNING id, queue_name
), ended AS (
    UPDATE job_attempts AS a
    SET finished_at = clock_timestamp(), outcome = 'handed back'
    FROM held WHERE a.job_id = held.id AND a.attempt = %(attempts)s + 1
)
SELECT id, pg_notify('procrastinate_queue_v1#' || queue_name, told), pg_notify('procrastinate_any_queue_v1', told)
FROM (SELECT *, json_build_object('type', 'job_inserted', 'job_id', id)::text AS told FROM held) AS told

-- name: stalled
-- Running jobs whose worker has not been heard of for so many seconds, or is gone.
SELECT
    j.id, j.task_name, j.queue_name, j.priority, j.lock, j.queueing_lock, j.args, j.scheduled_at, j.status,
    j.attempts, j.worker_id, j.abort_requested, a.worker
FROM procrastinate_jobs AS j
LEFT JOIN procrastinate_workers AS w ON w.id = j.worker_id
LEFT JOIN job_attempts AS a ON a.job_id = j.id AND a.attempt = j.attempts + 1
WHERE j.status = 'doing' AND (w.id IS NULL OR w.last_heartbeat < now() - make_interval(secs => %(dead_after)s))
ORDER BY j.id

-- name: end_sessions
-- A frozen worker's transaction is open, with its locks; a second is enough for a session to end.
SELECT count(pg_terminate_backend(pid, 1000)) AS ended
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = %(worker)s AND pid <> pg_backend_pid()

-- name: of_id
SELECT * FROM computation_jobs WHERE job_id = %(job_id)s

-- name: newest
-- What runs, then what waits, then what has ended last.
SELECT * FROM computation_jobs
WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(feature_set)s::text IS NULL OR feature_set = %(feature_set)s)
ORDER BY
    array_position(ARRAY['doing', 'todo'], status),
    CASE WHEN status = 'todo' THEN -priority END,
    CASE WHEN status = 'todo' THEN job_id ELSE -job_id END
LIMIT %(most)s

-- name: progress_of
-- How far jobs are: those given, or those that have not ended.
SELECT * FROM computation_jobs
WHERE CASE WHEN %(job_ids)s::bigint[] IS NULL THEN status IN ('todo', 'doing') ELSE job_id = ANY (%(job_ids)s) END
ORDER BY job_id

-- name: attempts_of
SELECT attempt, worker, started_at, finished_at, outcome, done, total, error, traceback
FROM job_attempts WHERE job_id = %(job_id)s ORDER BY attempt

-- name: cancel
-- A job that waits is canceled; one that runs is asked to stop. Null if it is neither.
SELECT procrastinate_cancel_job_v1(%(job_id)s, true, false) AS id

-- name: retry
-- A job that has ended without success waits again, from now on.
WITH retried AS MATERIALIZED (
    UPDATE procrastinate_jobs
    SET status = 'todo', abort_requested = false, scheduled_at = NULL, worker_id = NULL
    WHERE id = %(job_id)s AND status IN ('failed', 'cancelled', 'aborted')
        AND NOT EXISTS (
            SELECT FROM procrastinate_jobs AS other
            WHERE other.queueing_lock = procrastinate_jobs.queueing_lock AND other.status = 'todo')
    RETURNING id, queue_name
)
SELECT id, pg_notify('procrastinate_queue_v1#' || queue_name, told), pg_notify('procrastinate_any_queue_v1', told)
FROM (SELECT *, json_build_object('type', 'job_inserted', 'job_id', id)::text AS told FROM retried) AS told

-- name: waiting_equal
-- The job that waits for the same thing.
SELECT other.id FROM procrastinate_jobs AS other
JOIN procrastinate_jobs AS j USING (queueing_lock)
WHERE j.id = %(job_id)s AND other.status = 'todo' AND other.id <> j.id

-- name: forget
-- Jobs that ended so long ago, and what is on record of jobs that are gone.
WITH ended AS (
    SELECT j.id
    FROM procrastinate_jobs AS j
    WHERE j.status NOT IN ('todo', 'doing')
        AND (SELECT max(e.at) FROM procrastinate_events AS e WHERE e.job_id = j.id)
            < now() - CASE WHEN j.status = 'succeeded' THEN %(succeeded)s::interval ELSE %(others)s::interval END
), deleted AS (
    DELETE FROM procrastinate_jobs USING ended WHERE procrastinate_jobs.id = ended.id RETURNING procrastinate_jobs.id
), orphans AS (
    DELETE FROM job_attempts AS a
    WHERE a.job_id IN (SELECT id FROM ended)
        OR (a.started_at < now() - %(succeeded)s::interval
            AND NOT EXISTS (SELECT FROM procrastinate_jobs AS j WHERE j.id = a.job_id))
)
SELECT count(*) AS jobs FROM deleted

-- name: known_symbols
-- All instruments, or those of the given ones that there are.
SELECT symbol AS key FROM instruments WHERE %(keys)s::text[] IS NULL OR symbol = ANY (%(keys)s) ORDER BY symbol

-- name: known_users
-- All users with readings, or those of the given ones that have any. By leaps: there are many readings of each.
WITH RECURSIVE known AS (
    (SELECT user_id FROM user_baseline_raw WHERE %(keys)s::uuid[] IS NULL ORDER BY user_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.user_id FROM user_baseline_raw AS r WHERE r.user_id > known.user_id ORDER BY r.user_id LIMIT 1)
    FROM known WHERE known.user_id IS NOT NULL
)
SELECT user_id::text AS key FROM known WHERE user_id IS NOT NULL
UNION ALL
SELECT asked::text FROM unnest(%(keys)s::uuid[]) AS asked
WHERE EXISTS (SELECT FROM user_baseline_raw AS r WHERE r.user_id = asked)
ORDER BY key
