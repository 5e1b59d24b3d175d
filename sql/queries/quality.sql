-- name: stale_calendars
-- The calendars whose stored sessions end too soon, or come from another version of the library.
SELECT used.calendar
FROM (SELECT DISTINCT calendar FROM instruments WHERE calendar <> %(always_open)s) AS used
LEFT JOIN LATERAL (
    SELECT max(closes) AS reach, bool_and(source = %(source)s) AS same_source
    FROM market_sessions AS s
    WHERE s.calendar = used.calendar
) AS stored ON true
WHERE %(force)s OR stored.reach IS NULL OR stored.reach < %(until)s OR NOT stored.same_source
ORDER BY used.calendar

-- name: lock_sessions
-- One writer of sessions at a time: two would delete and insert the same rows.
SELECT pg_advisory_xact_lock(hashtextextended('market_sessions', 0))

-- name: stage_sessions
CREATE TEMPORARY TABLE staged_sessions ON COMMIT DROP AS
SELECT calendar, session, opens, closes, break_starts, break_ends, source
FROM market_sessions WITH NO DATA

-- name: remove_sessions
DELETE FROM market_sessions AS s
WHERE s.calendar = %(calendar)s
    AND NOT EXISTS (SELECT FROM staged_sessions AS staged WHERE staged.session = s.session)

-- name: correct_sessions
UPDATE market_sessions AS s
SET opens = staged.opens, closes = staged.closes, break_starts = staged.break_starts,
    break_ends = staged.break_ends, source = staged.source
FROM staged_sessions AS staged
WHERE s.calendar = %(calendar)s AND s.session = staged.session
    AND ROW(s.opens, s.closes, s.break_starts, s.break_ends, s.source)
        IS DISTINCT FROM ROW(staged.opens, staged.closes, staged.break_starts, staged.break_ends, staged.source)

-- name: insert_sessions
INSERT INTO market_sessions (calendar, session, opens, closes, break_starts, break_ends, source)
SELECT calendar, session, opens, closes, break_starts, break_ends, source
FROM staged_sessions
WHERE calendar = %(calendar)s
ON CONFLICT DO NOTHING

-- name: known_symbol
SELECT symbol FROM instruments WHERE symbol = %(symbol)s

-- name: unknown_keys
-- What has neither been registered, nor has bars or readings, nor sums of readings that are gone.
SELECT DISTINCT wanted.key
FROM unnest(%(keys)s::text[], %(ids)s::uuid[]) AS wanted (key, id)
WHERE NOT EXISTS (SELECT FROM instruments AS i WHERE i.symbol = wanted.key)
    AND NOT EXISTS (SELECT FROM candles AS c WHERE c.symbol = wanted.key)
    AND NOT EXISTS (SELECT FROM user_baseline_raw AS r WHERE r.user_id = wanted.id)
    AND NOT EXISTS (SELECT FROM user_baseline_daily AS d WHERE d.user_id = wanted.id)
ORDER BY 1

-- name: series
-- Every instrument and timeframe that has bars; a timeframe that is asked for, of every instrument.
-- One probe of the index each: to look for the distinct ones would read the whole table.
SELECT i.symbol, t.tf
FROM instruments AS i
CROSS JOIN unnest(%(timeframes)s::text[]) WITH ORDINALITY AS t (tf, place)
LEFT JOIN LATERAL (
    SELECT true AS found FROM candles AS c WHERE c.symbol = i.symbol AND c.tf = t.tf LIMIT 1
) AS bars ON true
WHERE (%(symbol)s::text IS NULL OR i.symbol = %(symbol)s::text) AND (%(also_empty)s OR bars.found)
ORDER BY i.symbol COLLATE "C", t.place

-- name: completeness
SELECT s.symbol, s.tf, d.expected, d.present, d.missing
FROM unnest(%(symbols)s::text[], %(timeframes)s::text[]) WITH ORDINALITY AS s (symbol, tf, place)
CROSS JOIN LATERAL data_completeness(s.symbol, s.tf, %(since)s::timestamptz, %(until)s::timestamptz) AS d
ORDER BY s.place

-- name: monthly_completeness
-- By the month, UTC, of the bar's open.
SELECT s.symbol, s.tf, date_trunc('month', e.ts, 'UTC')::date AS month,
    count(*) AS expected, count(*) FILTER (WHERE e.present) AS present
FROM unnest(%(symbols)s::text[], %(timeframes)s::text[]) WITH ORDINALITY AS s (symbol, tf, place)
CROSS JOIN LATERAL expected_candles(s.symbol, s.tf, %(since)s::timestamptz) AS e
GROUP BY s.symbol, s.tf, s.place, month
ORDER BY s.place, month

-- name: metric_gaps
-- Each device's usual distance between readings (the median: holes and bursts do not move it), how
-- often a reading is missing by it, and the ranges in which it is. The gaps are the longer ones
-- than `tolerance` times that distance.
WITH spaced AS (
    SELECT user_id, metric, source, ts,
        lead(ts) OVER (PARTITION BY user_id, metric, source ORDER BY ts) AS next
    FROM user_baseline_raw
    WHERE (%(user_id)s::uuid IS NULL OR user_id = %(user_id)s::uuid)
        AND (%(metric)s::text IS NULL OR metric = %(metric)s::text)
        AND (%(since)s::timestamptz IS NULL OR ts >= %(since)s::timestamptz)
        AND (%(until)s::timestamptz IS NULL OR ts < %(until)s::timestamptz)
),
devices AS (
    SELECT user_id, metric, source, count(*) AS present,
        coalesce(
            (%(declared)s::jsonb ->> source)::double precision,
            CASE WHEN count(next) >= %(least_gaps)s
                THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM next - ts)::double precision)
            END
        ) AS seconds
    FROM spaced
    GROUP BY user_id, metric, source
),
gaps AS (
    SELECT s.user_id, s.metric, s.source,
        greatest(round(extract(epoch FROM s.next - s.ts)::double precision / d.seconds)::bigint - 1, 1) AS absent,
        tstzrange(s.ts + make_interval(secs => d.seconds), s.next) AS range
    FROM spaced AS s
    JOIN devices AS d USING (user_id, metric, source)
    WHERE s.next - s.ts > make_interval(secs => d.seconds * %(tolerance)s)
)
SELECT d.user_id::text AS user_id, d.metric, d.source, d.seconds, d.present,
    d.present + coalesce(g.absent, 0)::bigint AS expected, coalesce(g.missing, '{}') AS missing
FROM devices AS d
LEFT JOIN (
    SELECT user_id, metric, source, sum(absent) AS absent, range_agg(range) AS missing
    FROM gaps
    GROUP BY user_id, metric, source
) AS g USING (user_id, metric, source)
ORDER BY d.user_id, d.metric, d.source

-- name: splits
-- The newest revision of every split.
SELECT DISTINCT ON (symbol, ex_date) symbol, ex_date, ratio
FROM corporate_actions
WHERE kind = 'split'
ORDER BY symbol, ex_date, recorded_at DESC

-- name: bars_to_judge
-- The closes of the instruments $1 from $3 on, and the $4 bars before it that their scores rest on.
SELECT i.symbol, i.calendar, c.ts, c.c AS close
FROM unnest($1::text[]) AS wanted (symbol)
JOIN instruments AS i USING (symbol)
CROSS JOIN LATERAL (
    SELECT coalesce(
        (SELECT ts FROM candles WHERE symbol = i.symbol AND tf = $2 AND ts < $3
            ORDER BY ts DESC OFFSET $4::bigint - 1 LIMIT 1),
        '-infinity'::timestamptz
    ) AS ts
) AS earliest
JOIN candles AS c ON c.symbol = i.symbol AND c.tf = $2 AND c.ts >= earliest.ts
ORDER BY i.symbol, c.ts

-- name: sessions
SELECT calendar, session, opens, closes FROM market_sessions WHERE calendar = ANY($1::text[])

-- name: lock_flags
-- One writer of flags at a time, until it commits.
SELECT pg_advisory_xact_lock(hashtextextended('outlier_flags', 0))

-- name: stage_flags
CREATE TEMPORARY TABLE staged_flags (
    symbol text, ts timestamptz, method text, score double precision, close double precision,
    log_return double precision, rests_on timestamptz
) ON COMMIT DROP

-- name: clear_flags
-- What was judged again and is an outlier no longer.
DELETE FROM outlier_flags AS f
WHERE f.relation = %(relation)s AND f.tf = %(tf)s AND f.key = ANY(%(symbols)s) AND f.ts >= %(since)s
    AND NOT EXISTS (
        SELECT FROM staged_flags AS s WHERE s.symbol = f.key AND s.ts = f.ts AND s.method = f.method
    )

-- name: raise_flags
-- A flag that stands as it is keeps the moment that it was first raised.
INSERT INTO outlier_flags AS f (relation, key, tf, ts, method, score, observed, rests_on)
SELECT %(relation)s, symbol, %(tf)s, ts, method, score,
    jsonb_build_object('close', close, 'log_return', log_return), rests_on
FROM staged_flags
ON CONFLICT (relation, key, tf, ts, method) DO UPDATE
SET score = EXCLUDED.score, observed = EXCLUDED.observed, rests_on = EXCLUDED.rests_on
WHERE (f.score, f.observed, f.rests_on)
    IS DISTINCT FROM (EXCLUDED.score, EXCLUDED.observed, EXCLUDED.rests_on)

-- name: store_result
INSERT INTO data_quality_results ("check", scope, ts, passed, observed, expectation)
VALUES (%(check)s, %(scope)s, %(ts)s, %(passed)s, %(observed)s::jsonb, %(expectation)s::jsonb)

-- name: latest_results
SELECT ts, "check", scope, passed, observed
FROM (
    SELECT DISTINCT ON ("check", scope) ts, "check", scope, passed, observed
    FROM data_quality_results
    ORDER BY "check", scope, ts DESC
) AS newest
ORDER BY passed, scope, "check"

-- name: pass_rates
SELECT day, checks, passed
FROM (
    SELECT date_trunc('day', ts, 'UTC') AS day, count(*) AS checks, count(*) FILTER (WHERE passed) AS passed
    FROM data_quality_results
    GROUP BY day
    ORDER BY day DESC
    LIMIT %(days)s
) AS newest
ORDER BY day

-- name: timeframes_present
SELECT tf
FROM unnest(%(timeframes)s::text[]) WITH ORDINALITY AS t (tf, place)
WHERE EXISTS (
    SELECT FROM instruments AS i, LATERAL (
        SELECT FROM candles AS c WHERE c.symbol = i.symbol AND c.tf = t.tf LIMIT 1
    ) AS c
)
ORDER BY place

-- name: sample_candles
-- The newest bars of timeframe $1 of every instrument, about $2 in all. A bar is on the grid if it opens on
-- the UTC grid of its timeframe, or a whole number of bars after its session's open or lunch break.
WITH here AS (
    SELECT i.symbol, i.calendar
    FROM instruments AS i
    CROSS JOIN LATERAL (SELECT FROM candles AS c WHERE c.symbol = i.symbol AND c.tf = $1 LIMIT 1) AS bars
),
sample AS (
    SELECT here.calendar, c.*
    FROM here CROSS JOIN LATERAL (
        SELECT symbol, ts, o, h, l, c, v, vwap, taker_buy_vol
        FROM candles
        WHERE symbol = here.symbol AND tf = $1
        ORDER BY ts DESC
        LIMIT ceil($2::double precision / (SELECT count(*) FROM here))::bigint
    ) AS c
)
SELECT s.symbol, s.ts, s.o, s.h, s.l, s.c, s.v, s.vwap, s.taker_buy_vol,
    CASE WHEN $1 = '1d' THEN coalesce(m.closes, s.ts + timeframe_width($1))
        WHEN $1 = '1w' THEN coalesce(m.closes, s.ts + timeframe_width($1))
        ELSE least(s.ts + timeframe_width($1), m.closes)
    END AS closes,
    date_bin(timeframe_width($1), s.ts, '1970-01-05 00:00+00') = s.ts
        OR ($1 NOT IN ('1d', '1w') AND m.opens IS NOT NULL AND (
            date_bin(timeframe_width($1), s.ts, m.opens) = s.ts
            OR coalesce(date_bin(timeframe_width($1), s.ts, m.break_ends) = s.ts, false)
        )) AS on_grid,
    s.calendar = '24/7' OR m.opens IS NOT NULL AS in_session
FROM sample AS s
LEFT JOIN LATERAL (
    -- The last session that the bar touches: of its date, of its week, or open while the bar is.
    SELECT m.opens, m.closes, m.break_ends
    FROM market_sessions AS m
    WHERE m.calendar = s.calendar
        AND m.session BETWEEN (s.ts AT TIME ZONE 'UTC')::date - 2 AND (s.ts AT TIME ZONE 'UTC')::date + 7
        AND CASE $1
            WHEN '1d' THEN m.session = (s.ts AT TIME ZONE 'UTC')::date
            WHEN '1w' THEN m.session BETWEEN (s.ts AT TIME ZONE 'UTC')::date AND (s.ts AT TIME ZONE 'UTC')::date + 6
            ELSE m.opens < s.ts + timeframe_width($1) AND m.closes > s.ts
                AND NOT coalesce(s.ts >= m.break_starts AND s.ts + timeframe_width($1) <= m.break_ends, false)
        END
    ORDER BY m.session DESC
    LIMIT 1
) AS m ON true

-- name: sample_metrics
SELECT user_id::text AS user_id, metric, source, ts, value
FROM user_baseline_raw
ORDER BY ts DESC
LIMIT $1::bigint

-- name: sample_actions
SELECT symbol, ex_date::timestamp AT TIME ZONE 'UTC' AS ex_date, kind, ratio, amount,
    CASE kind WHEN 'split' THEN ratio IS NOT NULL WHEN 'dividend' THEN amount IS NOT NULL ELSE true END AS stated
FROM (
    SELECT DISTINCT ON (symbol, ex_date, kind) symbol, ex_date, kind, ratio, amount
    FROM corporate_actions
    ORDER BY symbol, ex_date, kind, recorded_at DESC
) AS newest

-- name: sample_features
-- The newest rows, each by its newest revision.
WITH newest AS (
    SELECT DISTINCT ON ({keys}, event_timestamp) {keys}, event_timestamp, {features}
    FROM (SELECT * FROM {table} ORDER BY event_timestamp DESC LIMIT $1::bigint) AS rows
    ORDER BY {keys}, event_timestamp, recorded_at DESC
),
totals AS (
    SELECT {keys}, count(DISTINCT event_timestamp) AS total FROM {table} GROUP BY {keys}
)
SELECT newest.*, total - row_number() OVER (PARTITION BY {keys} ORDER BY event_timestamp DESC) + 1 AS age
FROM newest JOIN totals USING ({keys})

-- name: candle_invariants
-- One pass over the bars.
SELECT 'candles/' || tf AS scope, count(*) AS rows,
    count(*) FILTER (WHERE NOT (l > 0 AND l <= o AND l <= c AND o <= h AND c <= h AND h < 'Infinity')) AS ohlc_whole,
    count(*) FILTER (WHERE NOT (v >= 0 AND v < 'Infinity')) AS volumes_whole,
    count(*) FILTER (WHERE ts + CASE WHEN tf IN ('1d', '1w') THEN interval '0' ELSE timeframe_width(tf) END
        > now() OR ts < '1970-01-01 00:00+00') AS time_whole,
    count(*) FILTER (
        WHERE tf IN ('1m', '1d', '1w') AND date_bin(timeframe_width(tf), ts, '1970-01-05 00:00+00') <> ts
    ) AS grid_whole
FROM candles
GROUP BY tf
ORDER BY timeframe_width(tf)

-- name: daily_sessions
-- Daily bars of dates that are no session of their instrument's calendar.
SELECT count(*) AS broken, (array_agg(c.symbol || ' ' || (c.ts AT TIME ZONE 'UTC')::date))[1:5] AS examples
FROM candles AS c
JOIN instruments AS i USING (symbol)
WHERE c.tf = '1d' AND i.calendar <> '24/7'
    AND NOT EXISTS (
        SELECT FROM market_sessions AS m
        WHERE m.calendar = i.calendar AND m.session = (c.ts AT TIME ZONE 'UTC')::date
    )

-- name: known_instruments
-- Symbols of bars without an instrument. A step through the index a symbol, not a scan.
WITH RECURSIVE symbols AS (
    (SELECT symbol FROM candles ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (SELECT c.symbol FROM candles AS c WHERE c.symbol > s.symbol ORDER BY c.symbol LIMIT 1)
    FROM symbols AS s
    WHERE s.symbol IS NOT NULL
)
SELECT count(*) AS broken, (array_agg(symbol))[1:5] AS examples
FROM symbols
WHERE symbol IS NOT NULL AND NOT EXISTS (SELECT FROM instruments AS i WHERE i.symbol = symbols.symbol)

-- name: revision_order
SELECT count(*) AS broken, (array_agg(symbol || ' ' || tf || ' ' || ts))[1:5] AS examples
FROM candle_revisions
WHERE replaced_at < recorded_at

-- name: metric_times
SELECT count(*) AS broken, (array_agg(user_id || ' ' || metric || ' ' || ts))[1:5] AS examples
FROM user_baseline_raw
WHERE ts > now() OR ts < '1970-01-01 00:00+00'

-- name: feature_times
-- Rows of the future, and rows that were written before they could be known.
SELECT count(*) AS broken, (array_agg(event_timestamp::text))[1:5] AS examples
FROM {table}
WHERE event_timestamp > now() OR recorded_at < event_timestamp

-- name: column_types
SELECT column_name AS name, data_type AS type
FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = %(table)s
ORDER BY ordinal_position

-- name: newest_outliers
SELECT relation, key, tf, ts, method, score, observed
FROM outlier_flags
ORDER BY ts DESC, key, method
LIMIT %(limit)s

-- name: outlier_counts
SELECT method, count(*) AS flags FROM outlier_flags GROUP BY method ORDER BY method

-- name: quarantine_counts
SELECT target, rule, count(*) AS rows, max(recorded_at) AS newest
FROM quarantine
GROUP BY target, rule
ORDER BY rows DESC, target, rule
