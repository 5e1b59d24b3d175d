-- name: states
-- How the batches ended, if they did.
SELECT batch_id, status FROM ingest_batches WHERE batch_id = ANY(%(ids)s)

-- name: order
-- The completed ones, in the order in which they took effect: two that share a row take turns.
SELECT batch_id
FROM ingest_batches
WHERE batch_id = ANY(%(ids)s) AND status = 'COMPLETED'
ORDER BY finished_at, batch_id

-- name: began
-- The first of them, and when it began.
SELECT batch_id, started_at AS began
FROM ingest_batches
WHERE batch_id = ANY(%(ids)s)
ORDER BY started_at, batch_id
LIMIT 1

-- name: candles_parts
-- The symbols with bars that were recorded since the files began.
SELECT DISTINCT symbol AS part FROM candles WHERE tf = %(tf)s AND recorded_at >= %(began)s

-- name: user_baseline_raw_parts
-- The users with readings that were recorded since the files began.
SELECT DISTINCT user_id::text AS part FROM user_baseline_raw WHERE recorded_at >= %(began)s

-- name: candles
SELECT symbol, ts, o, h, l, c, v, vwap, taker_buy_vol, recorded_at
FROM candles
WHERE tf = $1 AND symbol = ANY($2)

-- name: user_baseline_raw
SELECT user_id::text AS user_id, metric, source, ts, value, recorded_at
FROM user_baseline_raw
WHERE user_id::text = ANY($1)

-- name: candles_before
-- Bars that were there before the files began, whatever became of them.
SELECT symbol, ts FROM candles WHERE tf = $1 AND symbol = ANY($2) AND recorded_at < $3
UNION
SELECT symbol, ts FROM candle_revisions WHERE tf = $1 AND symbol = ANY($2) AND recorded_at < $3

-- name: user_baseline_raw_before
-- Readings that were there before the files began, whatever became of them.
SELECT user_id::text AS user_id, metric, source, ts FROM user_baseline_raw
WHERE user_id::text = ANY($1) AND recorded_at < $2
UNION
SELECT user_id::text, metric, source, ts FROM user_baseline_revisions
WHERE user_id::text = ANY($1) AND recorded_at < $2
