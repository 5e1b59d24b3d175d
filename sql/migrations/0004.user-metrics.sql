-- depends: 0003.ingestion

-- Readings of personal metrics.
CREATE TABLE user_baseline_raw (
    user_id uuid NOT NULL,
    metric text NOT NULL CHECK (metric ~ '^[a-z][a-z0-9_]{0,62}$'),
    value double precision NOT NULL CHECK (value > '-Infinity' AND value < 'Infinity'),
    ts timestamptz NOT NULL,
    source text NOT NULL DEFAULT 'unknown',
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT user_baseline_raw_key UNIQUE (user_id, metric, source, ts)
);
COMMENT ON TABLE user_baseline_raw IS 'One reading of one metric of one user by one device.';
COMMENT ON COLUMN user_baseline_raw.source IS 'The device. A change of device begins a new segment.';
