-- depends: 0022.baseline-windows

-- The queue's own tables keep neither why a job failed nor how far it is, and are made by the first worker: there is
-- nothing to refer to. What is left of jobs that are gone is deleted at night.
CREATE TABLE job_attempts (
    job_id bigint NOT NULL,
    attempt integer NOT NULL CHECK (attempt > 0),
    worker text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    done integer CHECK (done >= 0),
    total integer CHECK (total >= done),
    progressed_at timestamptz,
    finished_at timestamptz,
    outcome text CHECK (outcome IN ('succeeded', 'failed', 'aborted', 'handed back', 'lost')),
    error text,
    traceback text,
    PRIMARY KEY (job_id, attempt)
);
COMMENT ON TABLE job_attempts IS 'Every attempt at a job of the queue: who, how far, and what went wrong.';
COMMENT ON COLUMN job_attempts.job_id IS 'The job.';
COMMENT ON COLUMN job_attempts.attempt IS 'The first is 1. A job that was handed back goes on under the same number.';
COMMENT ON COLUMN job_attempts.worker IS 'The process: host, process id, and a random part. Its sessions bear the same name.';
COMMENT ON COLUMN job_attempts.started_at IS 'When it began.';
COMMENT ON COLUMN job_attempts.done IS 'Symbols that are done; null of a job that counts none.';
COMMENT ON COLUMN job_attempts.total IS 'Symbols in all.';
COMMENT ON COLUMN job_attempts.progressed_at IS 'When done was last written.';
COMMENT ON COLUMN job_attempts.finished_at IS 'When it ended; null while it runs.';
COMMENT ON COLUMN job_attempts.outcome IS
    'succeeded, failed, aborted (canceled while it ran), handed back (its worker was stopped), or lost (its worker died or froze).';
COMMENT ON COLUMN job_attempts.error IS 'What went wrong, in one line; null if nothing did.';
COMMENT ON COLUMN job_attempts.traceback IS 'Where, of an error that hyperfeast does not know.';

DROP VIEW computation_jobs;
DROP FUNCTION computation_jobs_now();
CREATE FUNCTION computation_jobs_now() RETURNS TABLE (
    job_id bigint, feature_set text, scope jsonb, status text, priority integer, attempts integer,
    enqueued timestamptz, started timestamptz, finished timestamptz, error text,
    task text, queue text, not_before timestamptz, stop_requested boolean, worker text, done integer, total integer
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('procrastinate_jobs') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE $jobs$
        SELECT
            j.id, coalesce(j.args ->> 'feature_set', j.task_name), j.args, j.status::text,
            j.priority, j.attempts, happened.enqueued, happened.started, happened.finished,
            CASE
                WHEN j.status = 'succeeded' THEN NULL
                ELSE coalesce(
                    wrong.error,
                    CASE WHEN j.status = 'failed' THEN 'failed: the log of the worker that ran it says why' END)
            END,
            j.task_name::text, j.queue_name::text,
            CASE WHEN j.status = 'todo' THEN j.scheduled_at END, j.abort_requested AND j.status = 'doing',
            newest.worker, newest.done, newest.total
        FROM procrastinate_jobs AS j
        LEFT JOIN LATERAL (
            SELECT
                min(e.at) FILTER (WHERE e.type IN ('deferred', 'scheduled')) AS enqueued,
                max(e.at) FILTER (WHERE e.type = 'started') AS started,
                CASE WHEN j.status NOT IN ('todo', 'doing') THEN
                    max(e.at) FILTER (WHERE e.type IN ('succeeded', 'failed', 'cancelled', 'aborted'))
                END AS finished
            FROM procrastinate_events AS e
            WHERE e.job_id = j.id
        ) AS happened ON true
        LEFT JOIN LATERAL (
            SELECT a.worker, a.done, a.total FROM job_attempts AS a
            WHERE a.job_id = j.id ORDER BY a.attempt DESC LIMIT 1
        ) AS newest ON true
        LEFT JOIN LATERAL (
            SELECT a.error FROM job_attempts AS a
            WHERE a.job_id = j.id AND a.error IS NOT NULL ORDER BY a.attempt DESC LIMIT 1
        ) AS wrong ON true
    $jobs$;
END
$$;
CREATE VIEW computation_jobs AS SELECT * FROM computation_jobs_now();
COMMENT ON VIEW computation_jobs IS 'The jobs of the queue.';
COMMENT ON COLUMN computation_jobs.job_id IS 'The job.';
COMMENT ON COLUMN computation_jobs.feature_set IS 'What it computes, or its task.';
COMMENT ON COLUMN computation_jobs.scope IS 'Its arguments.';
COMMENT ON COLUMN computation_jobs.status IS 'todo, doing, succeeded, failed, cancelled or aborted.';
COMMENT ON COLUMN computation_jobs.priority IS 'Higher runs first.';
COMMENT ON COLUMN computation_jobs.attempts IS 'How often it was tried.';
COMMENT ON COLUMN computation_jobs.enqueued IS 'When it was asked for.';
COMMENT ON COLUMN computation_jobs.started IS 'When the last attempt began.';
COMMENT ON COLUMN computation_jobs.finished IS 'When it ended; null until then.';
COMMENT ON COLUMN computation_jobs.error IS 'What last went wrong; null if nothing did, or once it has succeeded.';
COMMENT ON COLUMN computation_jobs.task IS 'What the worker calls.';
COMMENT ON COLUMN computation_jobs.queue IS 'Where it waits.';
COMMENT ON COLUMN computation_jobs.not_before IS 'When it is tried again; null of a job that need not wait.';
COMMENT ON COLUMN computation_jobs.stop_requested IS 'Whether it was canceled while it runs.';
COMMENT ON COLUMN computation_jobs.worker IS 'Who ran it last, or runs it.';
COMMENT ON COLUMN computation_jobs.done IS 'Symbols that are done; null of a job that counts none.';
COMMENT ON COLUMN computation_jobs.total IS 'Symbols in all.';
