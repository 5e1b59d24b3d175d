-- name: table
-- The queue's table of jobs, or null where the queue was never set up.
SELECT to_regclass('procrastinate_jobs') AS jobs
