DROP VIEW computation_jobs;
DROP FUNCTION computation_jobs_now();
DROP TABLE job_attempts;
CREATE FUNCTION computation_jobs_now() RETURNS TABLE (
    job_id bigint, feature_set text, scope jsonb, status text, priority integer, attempts integer,
    enqueued timestamptz, started timestamptz, finished timestamptz, error text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('procrastinate_jobs') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE $jobs$
        SELECT
            j.id, coalesce(j.args ->> 'feature_set', j.task_name), j.args, j.status::text,
            j.priority, j.attempts, happened.enqueued, happened.started, happened.finished,
            CASE WHEN j.status = 'failed' THEN 'failed: the log of the worker that ran it says why' END
        FROM procrastinate_jobs AS j
        LEFT JOIN LATERAL (
            SELECT
                min(e.at) FILTER (WHERE e.type IN ('deferred', 'scheduled')) AS enqueued,
                max(e.at) FILTER (WHERE e.type = 'started') AS started,
                max(e.at) FILTER (
                    WHERE e.type IN ('succeeded', 'failed', 'cancelled', 'aborted')) AS finished
            FROM procrastinate_events AS e
            WHERE e.job_id = j.id
        ) AS happened ON true
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
COMMENT ON COLUMN computation_jobs.finished IS 'When it ended.';
COMMENT ON COLUMN computation_jobs.error IS 'Where to read what went wrong; null if nothing did.';
