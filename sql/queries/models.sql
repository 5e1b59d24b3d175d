-- The registry of model versions.

-- name: lock
-- One registration or promotion of a name at a time, to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('model_registry/' || %(name)s, 0))

-- name: active
-- The version of a name that serves.
SELECT model_id, model_name, model_type, version, training_date, metrics, hyperparameters,
       feature_columns, feature_service, artifact_path, artifact_sha256, run_id, is_active, created_at
  FROM model_registry
 WHERE model_name = %(name)s AND is_active

-- name: versions
-- Every version, newest first within a name.
SELECT model_id, model_name, model_type, version, training_date, metrics, hyperparameters,
       feature_columns, feature_service, artifact_path, artifact_sha256, run_id, is_active, created_at
  FROM model_registry
 ORDER BY model_name, version DESC

-- name: next_version
-- The number that the next version of a name takes. Only under the lock.
SELECT coalesce(max(version), 0) + 1 AS version FROM model_registry WHERE model_name = %(name)s

-- name: retire
-- The active version of a name stops serving.
UPDATE model_registry SET is_active = false WHERE model_name = %(name)s AND is_active

-- name: register
-- A new version.
INSERT INTO model_registry (
       model_name, model_type, version, training_date, metrics, hyperparameters, feature_columns,
       feature_service, artifact_path, artifact_sha256, run_id, is_active)
VALUES (%(name)s, %(model_type)s, %(version)s, clock_timestamp(), %(metrics)s, %(hyperparameters)s,
        %(feature_columns)s, %(feature_service)s, %(artifact_path)s, %(artifact_sha256)s, %(run_id)s,
        %(is_active)s)
RETURNING model_id, model_name, model_type, version, training_date, metrics, hyperparameters,
          feature_columns, feature_service, artifact_path, artifact_sha256, run_id, is_active, created_at
