-- depends: 0013.ingestion-engine

-- Which days of which raw rows have changed since the aggregates were last brought up to date. Filled by the
-- database itself, so that it does not matter who writes; emptied by a refresh.
CREATE TABLE dirty_days (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation text NOT NULL CHECK (relation IN ('candles', 'user_baseline_raw')),
    key text NOT NULL,
    day date NOT NULL,
    copied boolean NOT NULL DEFAULT false,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX dirty_days_key ON dirty_days (relation, key, day);
COMMENT ON TABLE dirty_days IS
    'Days whose raw rows changed since they were aggregated. One row a write, key and day: doubles do no harm.';
COMMENT ON COLUMN dirty_days.id IS 'What a refresh claims, and deletes once it has done the day.';
COMMENT ON COLUMN dirty_days.relation IS 'The raw table: candles (1m bars only) or user_baseline_raw.';
COMMENT ON COLUMN dirty_days.key IS 'The symbol, or the user_id as text.';
COMMENT ON COLUMN dirty_days.day IS 'The UTC day.';
COMMENT ON COLUMN dirty_days.copied IS
    'Whether the rows came by COPY, which continuous aggregates do not always notice: they are told.';
COMMENT ON COLUMN dirty_days.marked_at IS 'When the writer marked it.';

-- Retention deletes raw rows and keeps what was aggregated from them: nothing is marked under
-- SET LOCAL hyperfeast.retention = 'on'.
CREATE FUNCTION mark_candles() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO dirty_days (relation, key, day, copied)
            SELECT DISTINCT
                'candles', symbol, (ts AT TIME ZONE 'UTC')::date, current_query() ~* '^\s*copy\M'
            FROM new_rows WHERE tf = '1m';
        WHEN 'UPDATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date FROM new_rows WHERE tf = '1m'
            UNION
            SELECT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date FROM old_rows WHERE tf = '1m';
        WHEN 'DELETE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date
            FROM old_rows WHERE tf = '1m';
        WHEN 'TRUNCATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date
            FROM candles WHERE tf = '1m';
    END CASE;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_candles() IS
    'Marks the days of the 1m bars that a statement touched, in its transaction.';

CREATE FUNCTION mark_user_baseline_raw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO dirty_days (relation, key, day, copied)
            SELECT DISTINCT
                'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date,
                current_query() ~* '^\s*copy\M'
            FROM new_rows;
        WHEN 'UPDATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM new_rows
            UNION
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM old_rows;
        WHEN 'DELETE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM old_rows;
        WHEN 'TRUNCATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM user_baseline_raw;
    END CASE;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_user_baseline_raw() IS
    'Marks the days of the readings that a statement touched, in its transaction.';

-- By statement, with transition tables: a bulk load costs one call. What deletes needs differs by edition: the
-- migration of the aggregates adds it.
CREATE TRIGGER candles_mark_insert AFTER INSERT ON candles
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_candles();
CREATE TRIGGER candles_mark_update AFTER UPDATE ON candles
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mark_candles();
CREATE TRIGGER candles_mark_truncate BEFORE TRUNCATE ON candles
    FOR EACH STATEMENT EXECUTE FUNCTION mark_candles();
CREATE TRIGGER user_baseline_raw_mark_insert AFTER INSERT ON user_baseline_raw
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_user_baseline_raw();
CREATE TRIGGER user_baseline_raw_mark_update AFTER UPDATE ON user_baseline_raw
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mark_user_baseline_raw();
CREATE TRIGGER user_baseline_raw_mark_truncate BEFORE TRUNCATE ON user_baseline_raw
    FOR EACH STATEMENT EXECUTE FUNCTION mark_user_baseline_raw();

-- The table of what retention has dropped comes with a later migration: until then everything is there.
CREATE FUNCTION raw_kept_since(raw text, timeframe text) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    IF to_regclass('lifecycle_in_force') IS NULL THEN
        RETURN '-infinity';
    END IF;
    RETURN coalesce(
        (SELECT dropped_before FROM lifecycle_in_force WHERE relation = raw AND tf = timeframe), '-infinity'
    );
END
$$;
COMMENT ON FUNCTION raw_kept_since(text, text) IS
    'Retention''s horizon, a Monday 00:00 UTC: raw rows before it are gone, what was aggregated from them stays.';

-- What the aggregates hold, computed from the raw rows. Sums are ordered and each level is computed from the next
-- finer one, here as where they are kept, so that both agree to the last bit. Weeks begin on Monday: that is where
-- the origin lies. The functions are inlined into the query that calls them.
CREATE FUNCTION recomputed_candles_5m(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('5 minutes', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(coalesce(vwap, (h + l + c) / 3) * v ORDER BY ts)
        / nullif(sum(v ORDER BY ts), 0) AS vwap,
    count(*) AS n, sum(coalesce(vwap, (h + l + c) / 3) * v ORDER BY ts) AS notional
FROM candles
WHERE symbol = of_symbol AND tf = '1m' AND ts >= since AND ts < until
GROUP BY symbol, date_bin('5 minutes', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_5m(text, timestamptz, timestamptz) IS
    '5-minute bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_candles_15m(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('15 minutes', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM recomputed_candles_5m(of_symbol, since, until)
GROUP BY symbol, date_bin('15 minutes', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_15m(text, timestamptz, timestamptz) IS
    '15-minute bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_candles_1h(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('1 hour', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM recomputed_candles_15m(of_symbol, since, until)
GROUP BY symbol, date_bin('1 hour', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_1h(text, timestamptz, timestamptz) IS
    '1-hour bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_candles_4h(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('4 hours', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM recomputed_candles_1h(of_symbol, since, until)
GROUP BY symbol, date_bin('4 hours', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_4h(text, timestamptz, timestamptz) IS
    '4-hour bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_candles_1d(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('1 day', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM recomputed_candles_4h(of_symbol, since, until)
GROUP BY symbol, date_bin('1 day', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_1d(text, timestamptz, timestamptz) IS
    'Daily bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_candles_1w(of_symbol text, since timestamptz, until timestamptz)
RETURNS TABLE (
    symbol text, ts timestamptz, o double precision, h double precision, l double precision,
    c double precision, v double precision, vwap double precision, n bigint, notional double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    symbol, date_bin('7 days', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
    sum(notional ORDER BY ts) / nullif(sum(v ORDER BY ts), 0) AS vwap,
    sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
FROM recomputed_candles_1d(of_symbol, since, until)
GROUP BY symbol, date_bin('7 days', ts, timestamptz '2000-01-03 00:00+00')
$$;
COMMENT ON FUNCTION recomputed_candles_1w(text, timestamptz, timestamptz) IS
    'Weekly bars of one symbol in [since, until), from raw 1m bars; whole buckets.';

CREATE FUNCTION recomputed_user_baseline_daily(of_user uuid, since timestamptz, until timestamptz)
RETURNS TABLE (
    user_id uuid, metric text, source text, day timestamptz, n bigint,
    sum double precision, sum_of_squares double precision, min double precision, max double precision
)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT
    user_id, metric, source,
    date_trunc('day', ts, 'UTC') AS day,
    count(*) AS n,
    sum(value ORDER BY ts) AS sum,
    sum(value * value ORDER BY ts) AS sum_of_squares,
    min(value) AS min,
    max(value) AS max
FROM user_baseline_raw
WHERE user_id = of_user AND ts >= since AND ts < until
GROUP BY user_id, metric, source, date_trunc('day', ts, 'UTC')
$$;
COMMENT ON FUNCTION recomputed_user_baseline_daily(uuid, timestamptz, timestamptz) IS
    'The daily sums of one user in [since, until), from raw readings; whole UTC days.';

CREATE VIEW stale_days AS
SELECT DISTINCT
    relation, key, day,
    day::timestamp AT TIME ZONE 'UTC' AS since, (day + 1)::timestamp AT TIME ZONE 'UTC' AS until
FROM dirty_days
WHERE day >= CASE relation
    WHEN 'candles' THEN (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
    ELSE (SELECT (raw_kept_since('user_baseline_raw', '') AT TIME ZONE 'UTC')::date)
END;
COMMENT ON VIEW stale_days IS 'The days that a refresh has to do: dirty, and with their raw rows still there.';
COMMENT ON COLUMN stale_days.relation IS 'The raw table: candles (1m bars only) or user_baseline_raw.';
COMMENT ON COLUMN stale_days.key IS 'The symbol, or the user_id as text.';
COMMENT ON COLUMN stale_days.day IS 'The UTC day.';
COMMENT ON COLUMN stale_days.since IS 'Where the day begins.';
COMMENT ON COLUMN stale_days.until IS 'Where the next day begins.';
