-- depends: 0014.dirty-days

-- Without continuous aggregates: rollups kept in tables by a refresh of what is dirty. What is read are the views:
-- the kept rows of clean days, and dirty days recomputed on the fly. So a read is always right, whenever the last
-- refresh was; the refresh makes it cheap.
CREATE TRIGGER candles_mark_delete AFTER DELETE ON candles
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_candles();
CREATE TRIGGER user_baseline_raw_mark_delete AFTER DELETE ON user_baseline_raw
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_user_baseline_raw();

CREATE TABLE candles_5m_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_5m_key ON candles_5m_kept (symbol, ts DESC);
COMMENT ON TABLE candles_5m_kept IS
    '5-minute bars as of the last refresh. Read candles_5m: it knows which of these are stale.';
COMMENT ON COLUMN candles_5m_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_5m_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_5m_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_5m_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_5m_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_5m_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_5m_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_5m_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_5m_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_5m_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE VIEW candles_5m AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_5m_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT stale.key AS symbol, now.ts, now.o, now.h, now.l, now.c, now.v, now.vwap, now.n, now.notional
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_candles_5m(stale.key, stale.since, stale.until) AS now
WHERE stale.relation = 'candles';
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

CREATE TABLE candles_15m_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_15m_key ON candles_15m_kept (symbol, ts DESC);
COMMENT ON TABLE candles_15m_kept IS
    '15-minute bars as of the last refresh. Read candles_15m: it knows which of these are stale.';
COMMENT ON COLUMN candles_15m_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_15m_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_15m_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_15m_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_15m_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_15m_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_15m_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_15m_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_15m_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_15m_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE VIEW candles_15m AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_15m_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT stale.key AS symbol, now.ts, now.o, now.h, now.l, now.c, now.v, now.vwap, now.n, now.notional
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_candles_15m(stale.key, stale.since, stale.until) AS now
WHERE stale.relation = 'candles';
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

CREATE TABLE candles_1h_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_1h_key ON candles_1h_kept (symbol, ts DESC);
COMMENT ON TABLE candles_1h_kept IS
    '1-hour bars as of the last refresh. Read candles_1h: it knows which of these are stale.';
COMMENT ON COLUMN candles_1h_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1h_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1h_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_1h_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_1h_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1h_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_1h_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1h_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1h_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1h_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE VIEW candles_1h AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_1h_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT stale.key AS symbol, now.ts, now.o, now.h, now.l, now.c, now.v, now.vwap, now.n, now.notional
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_candles_1h(stale.key, stale.since, stale.until) AS now
WHERE stale.relation = 'candles';
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

CREATE TABLE candles_4h_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_4h_key ON candles_4h_kept (symbol, ts DESC);
COMMENT ON TABLE candles_4h_kept IS
    '4-hour bars as of the last refresh. Read candles_4h: it knows which of these are stale.';
COMMENT ON COLUMN candles_4h_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_4h_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_4h_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_4h_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_4h_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_4h_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_4h_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_4h_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_4h_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_4h_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE VIEW candles_4h AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_4h_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT stale.key AS symbol, now.ts, now.o, now.h, now.l, now.c, now.v, now.vwap, now.n, now.notional
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_candles_4h(stale.key, stale.since, stale.until) AS now
WHERE stale.relation = 'candles';
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

CREATE TABLE candles_1d_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_1d_key ON candles_1d_kept (symbol, ts DESC);
COMMENT ON TABLE candles_1d_kept IS
    'Daily bars as of the last refresh. Read candles_1d: it knows which of these are stale.';
COMMENT ON COLUMN candles_1d_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1d_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1d_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_1d_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_1d_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1d_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_1d_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1d_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1d_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1d_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

CREATE VIEW candles_1d AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_1d_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT stale.key AS symbol, now.ts, now.o, now.h, now.l, now.c, now.v, now.vwap, now.n, now.notional
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_candles_1d(stale.key, stale.since, stale.until) AS now
WHERE stale.relation = 'candles';
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

CREATE TABLE candles_1w_kept (
    symbol text NOT NULL,
    ts timestamptz NOT NULL,
    o double precision NOT NULL,
    h double precision NOT NULL,
    l double precision NOT NULL,
    c double precision NOT NULL,
    v double precision NOT NULL,
    vwap double precision,
    n bigint NOT NULL,
    notional double precision NOT NULL
);
CREATE UNIQUE INDEX candles_1w_key ON candles_1w_kept (symbol, ts DESC);
COMMENT ON TABLE candles_1w_kept IS
    'Weekly bars as of the last refresh. Read candles_1w: it knows which of these are stale.';
COMMENT ON COLUMN candles_1w_kept.symbol IS 'The instrument.';
COMMENT ON COLUMN candles_1w_kept.ts IS 'The start of the bucket, UTC: an event time. Known when it has passed.';
COMMENT ON COLUMN candles_1w_kept.o IS 'The first open.';
COMMENT ON COLUMN candles_1w_kept.h IS 'The highest high.';
COMMENT ON COLUMN candles_1w_kept.l IS 'The lowest low.';
COMMENT ON COLUMN candles_1w_kept.c IS 'The last close.';
COMMENT ON COLUMN candles_1w_kept.v IS 'The sum of the volumes.';
COMMENT ON COLUMN candles_1w_kept.vwap IS 'Volume-weighted price: notional / v. Null where nothing was traded.';
COMMENT ON COLUMN candles_1w_kept.n IS 'How many 1m bars it is made of.';
COMMENT ON COLUMN candles_1w_kept.notional IS
    'The sum of volume times vwap, or times (h + l + c) / 3 of a 1m bar that has none.';

-- A week is stale if one of its days is: its clean days are kept, its dirty ones are computed.
CREATE VIEW candles_1w AS
SELECT symbol, ts, o, h, l, c, v, vwap, n, notional
FROM candles_1w_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'candles' AND d.key = kept.symbol
        AND d.day >= (kept.ts AT TIME ZONE 'UTC')::date AND d.day < (kept.ts AT TIME ZONE 'UTC')::date + 7
        AND d.day >= (SELECT (raw_kept_since('candles', '1m') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT
    week.symbol, week.ts, bar.o, bar.h, bar.l, bar.c, bar.v, bar.notional / nullif(bar.v, 0) AS vwap,
    bar.n, bar.notional
FROM (
    SELECT DISTINCT
        key AS symbol, date_bin('7 days', since, timestamptz '2000-01-03 00:00+00') AS ts
    FROM stale_days
    WHERE relation = 'candles'
) AS week
CROSS JOIN LATERAL (
    SELECT
        (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
        (array_agg(c ORDER BY ts))[count(*)::integer] AS c, sum(v ORDER BY ts) AS v,
        sum(n)::bigint AS n, sum(notional ORDER BY ts) AS notional
    FROM (
        SELECT kept.ts, o, h, l, c, v, n, notional
        FROM candles_1d_kept AS kept
        WHERE kept.symbol = week.symbol AND kept.ts >= week.ts AND kept.ts < week.ts + interval '168 hours'
            AND NOT EXISTS (
                SELECT FROM dirty_days AS d
                WHERE d.relation = 'candles' AND d.key = kept.symbol
                    AND d.day = (kept.ts AT TIME ZONE 'UTC')::date
            )
        UNION ALL
        SELECT now.ts, now.o, now.h, now.l, now.c, now.v, now.n, now.notional
        FROM stale_days AS stale
        CROSS JOIN LATERAL recomputed_candles_1d(stale.key, stale.since, stale.until) AS now
        WHERE stale.relation = 'candles' AND stale.key = week.symbol
            AND stale.day >= (week.ts AT TIME ZONE 'UTC')::date
            AND stale.day < (week.ts AT TIME ZONE 'UTC')::date + 7
    ) AS days
    HAVING count(*) > 0
) AS bar;
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

CREATE TABLE user_baseline_daily_kept (
    user_id uuid NOT NULL,
    metric text NOT NULL,
    source text NOT NULL,
    day timestamptz NOT NULL,
    n bigint NOT NULL,
    sum double precision NOT NULL,
    sum_of_squares double precision NOT NULL,
    min double precision NOT NULL,
    max double precision NOT NULL
);
CREATE UNIQUE INDEX user_baseline_daily_key ON user_baseline_daily_kept (user_id, metric, source, day);
COMMENT ON TABLE user_baseline_daily_kept IS
    'Daily sums as of the last refresh. Read user_baseline_daily: it knows which of these are stale.';
COMMENT ON COLUMN user_baseline_daily_kept.user_id IS 'Whose readings.';
COMMENT ON COLUMN user_baseline_daily_kept.metric IS 'What was measured.';
COMMENT ON COLUMN user_baseline_daily_kept.source IS 'The device.';
COMMENT ON COLUMN user_baseline_daily_kept.day IS 'The start of the UTC day: an event time, not available time.';
COMMENT ON COLUMN user_baseline_daily_kept.n IS 'How many readings.';
COMMENT ON COLUMN user_baseline_daily_kept.sum IS 'The sum of the values.';
COMMENT ON COLUMN user_baseline_daily_kept.sum_of_squares IS 'The sum of the squared values.';
COMMENT ON COLUMN user_baseline_daily_kept.min IS 'The lowest value.';
COMMENT ON COLUMN user_baseline_daily_kept.max IS 'The highest value.';

-- The same columns as before: what stands on the view does not notice.
CREATE OR REPLACE VIEW user_baseline_daily AS
SELECT user_id, metric, source, day, n, sum, sum_of_squares, min, max
FROM user_baseline_daily_kept AS kept
WHERE NOT EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = 'user_baseline_raw' AND d.key = kept.user_id::text
        AND d.day = (kept.day AT TIME ZONE 'UTC')::date
        AND d.day >= (SELECT (raw_kept_since('user_baseline_raw', '') AT TIME ZONE 'UTC')::date)
)
UNION ALL
SELECT
    stale.key::uuid AS user_id, now.metric, now.source, now.day, now.n, now.sum, now.sum_of_squares, now.min,
    now.max
FROM stale_days AS stale
CROSS JOIN LATERAL recomputed_user_baseline_daily(stale.key::uuid, stale.since, stale.until) AS now
WHERE stale.relation = 'user_baseline_raw';

-- What is there already has not been aggregated yet.
INSERT INTO dirty_days (relation, key, day)
SELECT DISTINCT 'candles', symbol, (ts AT TIME ZONE 'UTC')::date FROM candles WHERE tf = '1m';
INSERT INTO dirty_days (relation, key, day)
SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM user_baseline_raw;
