-- depends: 0006.models

-- Every prediction that was answered.
CREATE TABLE signals (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    label text NOT NULL CHECK (label IN ('BUY', 'SELL', 'HOLD')),
    pred double precision NOT NULL,
    proba double precision NOT NULL CHECK (proba BETWEEN 0 AND 1),
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    symbol text NOT NULL,
    tf text NOT NULL,
    features jsonb NOT NULL,
    feature_ages jsonb NOT NULL,
    model_id uuid NOT NULL,
    request_id uuid NOT NULL,
    outcome text,
    realized_rr double precision,
    latency_ms double precision NOT NULL,
    PRIMARY KEY (id, ts),
    UNIQUE (request_id, symbol, ts)
);
CREATE INDEX signals_newest ON signals (symbol, ts DESC);
CREATE INDEX signals_features ON signals USING gin (features);
COMMENT ON TABLE signals IS 'Every prediction that was answered, with the vector that was served.';
COMMENT ON COLUMN signals.ts IS 'When it was answered.';
COMMENT ON COLUMN signals.features IS 'The served vector: feature name -> value, null where missing.';
COMMENT ON COLUMN signals.feature_ages IS 'Feature view -> seconds since its event timestamp, when answered.';
