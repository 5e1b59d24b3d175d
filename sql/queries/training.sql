-- The record of trainings.

-- name: begin
-- A training begins; the row is there even if the process dies. The session holds a lock in its name from
-- before anyone can see the row, and loses it with the process.
INSERT INTO training_runs (
       model_name, data_range, symbols, training_params, feature_service, definition_hashes,
       git_commit, random_seed, as_known_at)
VALUES (%(model_name)s,
        CASE WHEN %(first)s::date IS NOT NULL
             THEN daterange(%(first)s::date, %(last)s::date, '[]') END,
        %(symbols)s, %(training_params)s, %(feature_service)s, %(definition_hashes)s,
        %(git_commit)s, %(random_seed)s, %(as_known_at)s)
RETURNING run_id, pg_advisory_lock(hashtextextended('training_runs/' || run_id, 0))

-- name: fail_abandoned
-- Trainings of a model that no living session holds a lock for. Read from pg_locks, and not by trying the
-- lock: to look takes nothing away from anyone, and a lock of one's own session counts too.
UPDATE training_runs
   SET status = 'FAILED', end_time = clock_timestamp(),
       error_log = 'the process ended before it was finished'
 WHERE model_name = %(model_name)s AND status = 'RUNNING'
   AND NOT EXISTS (
       SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND classid::bigint << 32 | objid::bigint
              = hashtextextended('training_runs/' || run_id, 0))

-- name: complete
-- It ended well. Runs in the transaction that registers the model.
UPDATE training_runs
   SET status = 'COMPLETED', end_time = clock_timestamp(), total_samples = %(total_samples)s,
       metrics = %(metrics)s, error_log = NULL
 WHERE run_id = %(run_id)s

-- name: fail
-- It ended without a model, for this reason. Not after it is complete: a connection may break then, too.
UPDATE training_runs
   SET status = 'FAILED', end_time = clock_timestamp(), error_log = %(reason)s
 WHERE run_id = %(run_id)s AND status = 'RUNNING'

-- name: importance
-- How much a feature matters to a new version. All rows of one transaction have one moment.
INSERT INTO feature_importance (model_id, feature_name, method, importance, rank, ts)
VALUES (%(model_id)s, %(feature_name)s, %(method)s, %(importance)s, %(rank)s, transaction_timestamp())

-- name: importances
-- How much each feature mattered to each version of the models, by every method.
SELECT m.model_name AS model, m.version, i.method, i.feature_name AS feature, i.importance, i.rank, i.ts
FROM feature_importance AS i
JOIN model_registry AS m USING (model_id)
ORDER BY m.model_name, m.version, i.ts, i.method, i.rank
