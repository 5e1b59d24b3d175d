-- name: stage
CREATE TEMPORARY TABLE staged_candles ON COMMIT DROP AS
SELECT symbol, tf, ts, {values}, source FROM candles WITH NO DATA

-- name: correct
-- What differs goes to the revisions as it was, and is replaced: readable as known at any moment, with
-- no moment that knows both or neither. Columns that the batch does not have stay as they are.
WITH stale AS (
    SELECT c.*
    FROM candles AS c
    JOIN staged_candles AS s USING (symbol, tf, ts)
    WHERE ROW({candle_values}) IS DISTINCT FROM ROW({staged_values})
),
kept AS (
    INSERT INTO candle_revisions
        (symbol, tf, ts, o, h, l, c, v, vwap, taker_buy_vol, source, recorded_at, replaced_at)
    SELECT symbol, tf, ts, o, h, l, c, v, vwap, taker_buy_vol, source, recorded_at, %(moment)s
    FROM stale
)
UPDATE candles AS c
SET ({values}, source, recorded_at, features) = ROW({staged_values}, s.source, %(moment)s, NULL)
FROM staged_candles AS s
WHERE c.symbol = s.symbol AND c.tf = s.tf AND c.ts = s.ts
    AND ROW({candle_values}) IS DISTINCT FROM ROW({staged_values})

-- name: insert
-- What is new. The conflict clause is for a writer that does not lock the instrument first.
INSERT INTO candles (symbol, tf, ts, {values}, source, recorded_at)
SELECT symbol, tf, ts, {values}, source, %(moment)s
FROM staged_candles
ON CONFLICT (symbol, tf, ts) DO NOTHING
