-- depends: 0016.quality

-- What the database knew at a moment: `at` is compared with recorded_at, by the database's own clock. A revision
-- counts from when it was recorded until it was replaced. One SELECT each, so that the planner looks through the
-- function: WHERE symbol = ... and ts >= ... reach the indexes. A row that was deleted by hand is not known any more.

CREATE FUNCTION candles_as_known_at(at timestamptz) RETURNS TABLE (
    symbol text, tf text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, taker_buy_vol double precision,
    source text, recorded_at timestamptz, published_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT symbol, tf, ts, o, h, l, c, v, vwap, taker_buy_vol, source, recorded_at, published_at
    FROM candles
    WHERE recorded_at <= at
    UNION ALL
    SELECT symbol, tf, ts, o, h, l, c, v, vwap, taker_buy_vol, source, recorded_at, published_at
    FROM candle_revisions
    WHERE recorded_at <= at AND replaced_at > at
$$;
COMMENT ON FUNCTION candles_as_known_at(timestamptz) IS 'The candles that were served at a moment.';

CREATE FUNCTION market_data_as_known_at(at timestamptz) RETURNS TABLE (
    "time" timestamptz, symbol text, open double precision, high double precision, low double precision,
    close double precision, volume double precision
) LANGUAGE sql STABLE AS $$
    SELECT ts, symbol, o, h, l, c, v FROM candles_as_known_at(at) WHERE tf = '1d'
$$;
COMMENT ON FUNCTION market_data_as_known_at(timestamptz) IS 'The daily candles that were served at a moment.';

CREATE FUNCTION candles_rolled_up_as_known_at(width interval, at timestamptz) RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint
) LANGUAGE sql STABLE AS $$
    SELECT
        symbol, bucket, (array_agg(o ORDER BY ts))[1], max(h), min(l), (array_agg(c ORDER BY ts DESC))[1],
        sum(v ORDER BY ts),
        sum(coalesce(vwap, (h + l + c) / 3) * v ORDER BY ts) / nullif(sum(v ORDER BY ts), 0), count(*)
    FROM (
        -- A Monday, so that weeks begin on Mondays.
        SELECT k.*, date_bin(width, k.ts, '2000-01-03 00:00+00') AS bucket
        FROM candles_as_known_at(at) AS k
        WHERE k.tf = '1m'
    ) AS minutes
    GROUP BY symbol, bucket
$$;
COMMENT ON FUNCTION candles_rolled_up_as_known_at(interval, timestamptz) IS
    'What candles_5m ... candles_1w would have said at a moment: rolled up from the 1m bars known then.';

CREATE FUNCTION corporate_actions_as_known_at(at timestamptz) RETURNS TABLE (
    symbol text, ex_date date, kind text, ratio double precision, amount double precision, source text,
    recorded_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (symbol, ex_date, kind) symbol, ex_date, kind, ratio, amount, source, recorded_at
    FROM corporate_actions
    WHERE recorded_at <= at
    ORDER BY symbol, ex_date, kind, recorded_at DESC
$$;
COMMENT ON FUNCTION corporate_actions_as_known_at(timestamptz) IS
    'The newest revision of every corporate action that was known at a moment.';

CREATE FUNCTION user_baseline_raw_as_known_at(at timestamptz) RETURNS TABLE (
    user_id uuid, metric text, value double precision, ts timestamptz, source text, recorded_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT user_id, metric, value, ts, source, recorded_at
    FROM user_baseline_raw
    WHERE recorded_at <= at
    UNION ALL
    SELECT user_id, metric, value, ts, source, recorded_at
    FROM user_baseline_revisions
    WHERE recorded_at <= at AND replaced_at > at
$$;
COMMENT ON FUNCTION user_baseline_raw_as_known_at(timestamptz) IS 'The readings that were served at a moment.';

CREATE FUNCTION user_baseline_daily_as_known_at(at timestamptz) RETURNS TABLE (
    user_id uuid, metric text, source text, day timestamptz, n bigint, sum double precision,
    sum_of_squares double precision, min double precision, max double precision
) LANGUAGE sql STABLE AS $$
    SELECT
        user_id, metric, source, date_trunc('day', ts, 'UTC'), count(*), sum(value ORDER BY ts),
        sum(value * value ORDER BY ts), min(value), max(value)
    FROM user_baseline_raw_as_known_at(at)
    GROUP BY user_id, metric, source, date_trunc('day', ts, 'UTC')
$$;
COMMENT ON FUNCTION user_baseline_daily_as_known_at(timestamptz) IS
    'What user_baseline_daily said at a moment.';

CREATE FUNCTION features_market_technical_v1_as_known_at(at timestamptz)
RETURNS SETOF features_market_technical_v1 LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (symbol, event_timestamp) *
    FROM features_market_technical_v1
    WHERE recorded_at <= at
    ORDER BY symbol, event_timestamp, recorded_at DESC
$$;
COMMENT ON FUNCTION features_market_technical_v1_as_known_at(timestamptz) IS
    'The feature rows that were served at a moment.';

CREATE FUNCTION features_personal_baseline_v1_as_known_at(at timestamptz)
RETURNS SETOF features_personal_baseline_v1 LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (user_id, metric, event_timestamp) *
    FROM features_personal_baseline_v1
    WHERE recorded_at <= at
    ORDER BY user_id, metric, event_timestamp, recorded_at DESC
$$;
COMMENT ON FUNCTION features_personal_baseline_v1_as_known_at(timestamptz) IS
    'The feature rows that were served at a moment.';
