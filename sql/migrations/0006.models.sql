-- depends: 0005.features

-- What was trained, and which of it serves.
CREATE TABLE training_runs (
    run_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    model_name text NOT NULL,
    start_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    end_time timestamptz,
    status text NOT NULL DEFAULT 'RUNNING' CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED')),
    data_range daterange,
    symbols text[],
    total_samples bigint,
    training_params jsonb,
    metrics jsonb,
    feature_service text NOT NULL,
    definition_hashes jsonb NOT NULL,
    git_commit text,
    random_seed bigint NOT NULL,
    as_known_at timestamptz,
    error_log text,
    created_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE training_runs IS 'Every training that was begun, with what it takes to repeat it.';

CREATE TABLE model_registry (
    model_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    model_name text NOT NULL,
    model_type text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    training_date timestamptz NOT NULL,
    metrics jsonb NOT NULL,
    hyperparameters jsonb NOT NULL,
    feature_columns text[] NOT NULL,
    feature_service text NOT NULL,
    artifact_path text NOT NULL,
    artifact_sha256 text NOT NULL CHECK (artifact_sha256 ~ '^[0-9a-f]{64}$'),
    run_id uuid NOT NULL REFERENCES training_runs,
    is_active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (model_name, version)
);
CREATE UNIQUE INDEX model_registry_one_active ON model_registry (model_name) WHERE is_active;
COMMENT ON TABLE model_registry IS 'Model versions. At most one of a name is active: the champion.';
