-- depends: 0004.user-metrics

-- One table a feature set and version. The columns equal the set's declaration: a test holds them
-- together. Revisions are rows: the newest recorded_at is served, the earlier ones stay.
CREATE TABLE features_market_technical_v1 (
    symbol text NOT NULL,
    event_timestamp timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ema_12 double precision,
    ema_26 double precision,
    ema_50 double precision,
    rsi_14 double precision,
    macd double precision,
    macd_signal double precision,
    macd_histogram double precision,
    bollinger_upper double precision,
    bollinger_middle double precision,
    bollinger_lower double precision,
    bollinger_percent_b double precision,
    bollinger_width double precision,
    atr_14 double precision,
    log_return_1 double precision,
    log_return_5 double precision,
    log_return_20 double precision,
    realized_volatility_20 double precision,
    volume_z_score_20 double precision,
    distance_to_52w_high double precision,
    PRIMARY KEY (symbol, event_timestamp, recorded_at)
);
COMMENT ON TABLE features_market_technical_v1 IS 'Feature set market_technical, version 1.';
COMMENT ON COLUMN features_market_technical_v1.event_timestamp IS
    'Available time: the close of the bar''s session.';

CREATE TABLE features_personal_baseline_v1 (
    user_id text NOT NULL,
    metric text NOT NULL,
    event_timestamp timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    day_mean double precision,
    mean_30d double precision,
    std_30d double precision,
    n_30d bigint,
    days_present_30d bigint,
    z_score double precision,
    PRIMARY KEY (user_id, metric, event_timestamp, recorded_at)
);
COMMENT ON TABLE features_personal_baseline_v1 IS 'Feature set personal_baseline, version 1.';
COMMENT ON COLUMN features_personal_baseline_v1.event_timestamp IS
    'Available time: the end of the UTC day described.';
