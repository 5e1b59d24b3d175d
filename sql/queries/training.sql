-- The record of trainings.

-- name: begin
-- A training begins; the row is there even if the process dies.
INSERT INTO training_runs (
       model_name, data_range, symbols, training_params, feature_service, definition_hashes,
       git_commit, random_seed, as_known_at)
VALUES (%(model_name)s,
        CASE WHEN %(first)s::date IS NOT NULL
             THEN daterange(%(first)s::date, %(last)s::date, '[]') END,
        %(symbols)s, %(training_params)s, %(feature_service)s, %(definition_hashes)s,
        %(git_commit)s, %(random_seed)s, %(as_known_at)s)
RETURNING run_id

-- name: complete
-- It ended well. Runs in the transaction that registers the model.
UPDATE training_runs
   SET status = 'COMPLETED', end_time = clock_timestamp(), total_samples = %(total_samples)s,
       metrics = %(metrics)s
 WHERE run_id = %(run_id)s

-- name: fail
-- It ended without a model, for this reason.
UPDATE training_runs
   SET status = 'FAILED', end_time = clock_timestamp(), error_log = %(reason)s
 WHERE run_id = %(run_id)s
