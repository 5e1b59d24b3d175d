-- depends: 0014.dirty-days

-- TimescaleDB community: rollups that the database keeps, each on the next finer one, real-time for what is not
-- materialized yet. The policies keep the newest months; their windows end well above what retention may have
-- dropped (6 months of 1m bars by default): a refresh of dropped rows would drop their bars too. What changes
-- further back is found in dirty_days.

CREATE MATERIALIZED VIEW candles_5m
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('5 minutes', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(coalesce(vwap, (h + l + c) / 3) * v ORDER BY ts)
        / nullif(sum(v ORDER BY ts), 0) AS vwap,
    count(*) AS n, sum(coalesce(vwap, (h + l + c) / 3) * v ORDER BY ts) AS notional
FROM candles
WHERE tf = '1m'
GROUP BY symbol, time_bucket('5 minutes', ts)
WITH NO DATA;
CREATE INDEX candles_5m_key ON candles_5m (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_5m',
    start_offset => interval '5 months', end_offset => interval '5 minutes',
    schedule_interval => interval '5 minutes'
);
COMMENT ON VIEW candles_5m IS '5-minute bars in UTC, from 1m candles.';
COMMENT ON COLUMN candles_5m.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_5m.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_5m.o IS 'The first open.';
COMMENT ON COLUMN candles_5m.h IS 'The highest high.';
COMMENT ON COLUMN candles_5m.l IS 'The lowest low.';
COMMENT ON COLUMN candles_5m.c IS 'The last close.';
COMMENT ON COLUMN candles_5m.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_5m.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_5m.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_5m.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE MATERIALIZED VIEW candles_15m
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('15 minutes', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM candles_5m
GROUP BY symbol, time_bucket('15 minutes', ts)
WITH NO DATA;
CREATE INDEX candles_15m_key ON candles_15m (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_15m',
    start_offset => interval '5 months', end_offset => interval '15 minutes',
    schedule_interval => interval '15 minutes'
);
COMMENT ON VIEW candles_15m IS '15-minute bars in UTC, from candles_5m.';
COMMENT ON COLUMN candles_15m.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_15m.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_15m.o IS 'The first open.';
COMMENT ON COLUMN candles_15m.h IS 'The highest high.';
COMMENT ON COLUMN candles_15m.l IS 'The lowest low.';
COMMENT ON COLUMN candles_15m.c IS 'The last close.';
COMMENT ON COLUMN candles_15m.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_15m.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_15m.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_15m.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE MATERIALIZED VIEW candles_1h
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('1 hour', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM candles_15m
GROUP BY symbol, time_bucket('1 hour', ts)
WITH NO DATA;
CREATE INDEX candles_1h_key ON candles_1h (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_1h',
    start_offset => interval '5 months', end_offset => interval '1 hour',
    schedule_interval => interval '30 minutes'
);
COMMENT ON VIEW candles_1h IS '1-hour bars in UTC, from candles_15m.';
COMMENT ON COLUMN candles_1h.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1h.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1h.o IS 'The first open.';
COMMENT ON COLUMN candles_1h.h IS 'The highest high.';
COMMENT ON COLUMN candles_1h.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1h.c IS 'The last close.';
COMMENT ON COLUMN candles_1h.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1h.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1h.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1h.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE MATERIALIZED VIEW candles_4h
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('4 hours', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM candles_1h
GROUP BY symbol, time_bucket('4 hours', ts)
WITH NO DATA;
CREATE INDEX candles_4h_key ON candles_4h (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_4h',
    start_offset => interval '5 months', end_offset => interval '4 hours',
    schedule_interval => interval '1 hour'
);
COMMENT ON VIEW candles_4h IS '4-hour bars in UTC, from candles_1h.';
COMMENT ON COLUMN candles_4h.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_4h.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_4h.o IS 'The first open.';
COMMENT ON COLUMN candles_4h.h IS 'The highest high.';
COMMENT ON COLUMN candles_4h.l IS 'The lowest low.';
COMMENT ON COLUMN candles_4h.c IS 'The last close.';
COMMENT ON COLUMN candles_4h.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_4h.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_4h.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_4h.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE MATERIALIZED VIEW candles_1d
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('1 day', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM candles_4h
GROUP BY symbol, time_bucket('1 day', ts)
WITH NO DATA;
CREATE INDEX candles_1d_key ON candles_1d (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_1d',
    start_offset => interval '5 months', end_offset => interval '1 day',
    schedule_interval => interval '1 hour'
);
COMMENT ON VIEW candles_1d IS 'Daily bars in UTC, from candles_4h. A UTC day, which is no exchange''s session.';
COMMENT ON COLUMN candles_1d.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1d.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1d.o IS 'The first open.';
COMMENT ON COLUMN candles_1d.h IS 'The highest high.';
COMMENT ON COLUMN candles_1d.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1d.c IS 'The last close.';
COMMENT ON COLUMN candles_1d.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1d.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1d.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1d.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE MATERIALIZED VIEW candles_1w
WITH (
    timescaledb.continuous,
    timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false
) AS
SELECT
    symbol, time_bucket('1 week', ts) AS ts,
    first(o, ts) AS o, max(h) AS h, min(l) AS l, last(c, ts) AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM candles_1d
GROUP BY symbol, time_bucket('1 week', ts)
WITH NO DATA;
CREATE INDEX candles_1w_key ON candles_1w (symbol, ts DESC);
SELECT add_continuous_aggregate_policy(
    'candles_1w',
    start_offset => interval '5 months', end_offset => interval '1 week',
    schedule_interval => interval '6 hours'
);
COMMENT ON VIEW candles_1w IS 'Weekly bars in UTC, from candles_1d. Weeks begin on Monday.';
COMMENT ON COLUMN candles_1w.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1w.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1w.o IS 'The first open.';
COMMENT ON COLUMN candles_1w.h IS 'The highest high.';
COMMENT ON COLUMN candles_1w.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1w.c IS 'The last close.';
COMMENT ON COLUMN candles_1w.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1w.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1w.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1w.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

-- By row: a trigger with a transition table for deleted rows makes compression impossible. Rows mostly go in the
-- order of their days: only where the day changes is it marked again.
CREATE FUNCTION mark_deleted_candle() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    marked text := concat_ws('/', OLD.symbol, (OLD.ts AT TIME ZONE 'UTC')::date);
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on'
        OR current_setting('hyperfeast.marked_candle', true) = marked THEN
        RETURN NULL;
    END IF;
    INSERT INTO dirty_days (relation, key, day)
    VALUES ('candles', OLD.symbol, (OLD.ts AT TIME ZONE 'UTC')::date);
    PERFORM set_config('hyperfeast.marked_candle', marked, true);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_deleted_candle() IS 'Marks the day of a deleted 1m bar, in its transaction.';
CREATE TRIGGER candles_mark_delete AFTER DELETE ON candles
    FOR EACH ROW WHEN (OLD.tf = '1m') EXECUTE FUNCTION mark_deleted_candle();

CREATE FUNCTION mark_deleted_reading() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    marked text := concat_ws('/', OLD.user_id, (OLD.ts AT TIME ZONE 'UTC')::date);
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on'
        OR current_setting('hyperfeast.marked_reading', true) = marked THEN
        RETURN NULL;
    END IF;
    INSERT INTO dirty_days (relation, key, day)
    VALUES ('user_baseline_raw', OLD.user_id::text, (OLD.ts AT TIME ZONE 'UTC')::date);
    PERFORM set_config('hyperfeast.marked_reading', marked, true);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_deleted_reading() IS 'Marks the day of a deleted reading, in its transaction.';
CREATE TRIGGER user_baseline_raw_mark_delete AFTER DELETE ON user_baseline_raw
    FOR EACH ROW EXECUTE FUNCTION mark_deleted_reading();

-- What is there already has not been aggregated yet.
INSERT INTO dirty_days (relation, key, day)
SELECT DISTINCT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date FROM candles WHERE tf = '1m';
INSERT INTO dirty_days (relation, key, day)
SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM user_baseline_raw;
