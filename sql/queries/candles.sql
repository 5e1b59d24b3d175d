-- name: overlap
-- Whether any bar is there within the span of its symbol: if not, there is nothing to compare with. The
-- newest one is asked for, so that the index answers in one step a symbol, whatever the statistics say.
-- The span of all is said once more, as values that the planner sees: other chunks are not even opened.
SELECT EXISTS (
    SELECT
    FROM unnest(%(symbols)s::text[], %(firsts)s::timestamptz[], %(lasts)s::timestamptz[])
        AS span (symbol, first, last)
    CROSS JOIN LATERAL (
        SELECT
        FROM candles AS c
        WHERE c.symbol = span.symbol AND c.tf = %(tf)s
            AND c.ts BETWEEN span.first AND span.last
            AND c.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
        ORDER BY c.ts DESC
        LIMIT 1
    ) AS newest
) AS overlap

-- name: stage
CREATE TEMPORARY TABLE staged_candles ON COMMIT DROP AS
SELECT symbol, ts, {values}, published_at FROM candles WITH NO DATA

-- name: stage_comparison
CREATE TEMPORARY TABLE compared_candles ON COMMIT DROP AS
SELECT s.*, bar AS served, false AS is_new, false AS is_outdated
FROM staged_candles AS s CROSS JOIN candles AS bar
WITH NO DATA

-- name: compare
-- One pass over what is staged and what is there; only what has to be written comes out of it: a bar that is
-- there with equal values is not touched, not even locked.
INSERT INTO compared_candles
SELECT
    s.*, bar AS served, bar.symbol IS NULL AS is_new,
    coalesce(s.published_at < bar.published_at, false) AS is_outdated
FROM staged_candles AS s
LEFT JOIN candles AS bar
    ON bar.symbol = s.symbol AND bar.tf = %(tf)s AND bar.ts = s.ts
    AND bar.symbol = ANY(%(symbols)s)
    AND bar.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz
WHERE bar.symbol IS NULL
    OR ROW({bar_values}) IS DISTINCT FROM ROW({staged_values})
    OR s.published_at IS NOT NULL AND s.published_at IS DISTINCT FROM bar.published_at

-- name: compared
-- How much there is to do, and the span of what is to be corrected.
SELECT
    count(*) FILTER (WHERE is_new) AS inserted,
    count(*) FILTER (WHERE is_outdated) AS outdated,
    count(*) FILTER (WHERE NOT is_new AND NOT is_outdated) AS corrected,
    array_agg(DISTINCT symbol) FILTER (WHERE NOT is_new AND NOT is_outdated) AS symbols,
    min(ts) FILTER (WHERE NOT is_new AND NOT is_outdated) AS first,
    max(ts) FILTER (WHERE NOT is_new AND NOT is_outdated) AS last
FROM compared_candles

-- name: correct
-- The old bar goes to the revisions as it was, so that no moment knows both or neither. Columns that the batch
-- does not have stay as they are. An update unpacks all compressed rows that its conditions leave possible, so
-- it is bounded by what is to be corrected.
WITH replaced AS (
    INSERT INTO candle_revisions
        (symbol, tf, ts, o, h, l, c, v, vwap, taker_buy_vol, source, published_at, recorded_at, replaced_at)
    SELECT
        symbol, %(tf)s, ts, (served).o, (served).h, (served).l, (served).c, (served).v, (served).vwap,
        (served).taker_buy_vol, (served).source, (served).published_at, (served).recorded_at, %(moment)s
    FROM compared_candles
    WHERE NOT is_new AND NOT is_outdated
    ORDER BY symbol, ts
)
UPDATE candles AS bar
SET ({values}, published_at, source, recorded_at, features)
    = ROW({staged_values}, s.published_at, %(source)s, %(moment)s, NULL)
FROM compared_candles AS s
WHERE NOT s.is_new AND NOT s.is_outdated
    AND bar.symbol = s.symbol AND bar.tf = %(tf)s AND bar.ts = s.ts
    AND bar.symbol = ANY(%(symbols)s)
    AND bar.ts BETWEEN %(first)s::timestamptz AND %(last)s::timestamptz

-- name: keep_outdated
-- A revision that its source published before the one that is served goes to the revisions at once, if it is
-- not there.
INSERT INTO candle_revisions
    (symbol, tf, ts, {values}, source, published_at, recorded_at, replaced_at, reason)
SELECT
    s.symbol, %(tf)s, s.ts, {staged_values}, %(source)s, s.published_at, %(moment)s, %(moment)s,
    'outdated'
FROM compared_candles AS s
WHERE s.is_outdated AND NOT EXISTS (
    SELECT
    FROM candle_revisions AS bar
    WHERE bar.symbol = s.symbol AND bar.tf = %(tf)s AND bar.ts = s.ts
        AND bar.published_at = s.published_at
        AND ROW({bar_values}) IS NOT DISTINCT FROM ROW({staged_values})
)

-- name: insert
INSERT INTO candles (symbol, tf, ts, {values}, published_at, source, recorded_at)
SELECT symbol, %(tf)s, ts, {values}, published_at, %(source)s, %(moment)s
FROM compared_candles
WHERE is_new
ORDER BY symbol, ts DESC
