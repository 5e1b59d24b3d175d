-- depends: 0001.instruments

-- Bars as they are known now, and what each correction replaced.
CREATE TABLE candles (
    symbol text NOT NULL REFERENCES instruments,
    tf text NOT NULL CHECK (tf IN ('1m', '5m', '15m', '1h', '4h', '1d', '1w')),
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL DEFAULT 0,
    vwap double precision,
    taker_buy_vol double precision,
    source text NOT NULL DEFAULT 'file',
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    features jsonb,
    CONSTRAINT candles_key UNIQUE (symbol, tf, ts),
    CONSTRAINT candles_prices CHECK (
        l > 0 AND l <= o AND l <= c AND o <= h AND c <= h AND h < 'Infinity'
    ),
    CONSTRAINT candles_volume CHECK (v >= 0 AND v < 'Infinity'),
    CONSTRAINT candles_vwap CHECK (vwap > 0 AND vwap < 'Infinity'),
    CONSTRAINT candles_taker CHECK (taker_buy_vol >= 0 AND taker_buy_vol < 'Infinity')
);
CREATE INDEX candles_newest ON candles (symbol, tf, ts DESC);
COMMENT ON TABLE candles IS 'Unadjusted OHLCV bars: the newest revision of each.';
COMMENT ON COLUMN candles.ts IS
    'The bar''s open, UTC. A daily bar carries its session''s date at 00:00 UTC. Not when it was known.';
COMMENT ON COLUMN candles.recorded_at IS 'When this database learnt of this revision.';

CREATE TABLE candle_revisions (
    symbol text NOT NULL,
    tf text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    taker_buy_vol double precision,
    source text NOT NULL,
    recorded_at timestamptz NOT NULL,
    replaced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason text NOT NULL DEFAULT 'corrected'
);
CREATE INDEX candle_revisions_key ON candle_revisions (symbol, tf, ts, recorded_at DESC);
COMMENT ON TABLE candle_revisions IS
    'What a correction replaced: readable as known at any moment in [recorded_at, replaced_at).';
