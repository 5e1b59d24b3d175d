-- name: hold_key
-- One sender of a key at a time: the others wait until it has committed or is gone, and then see which.
SELECT pg_advisory_lock(hashtextextended('ingest_batches/key/' || %(key)s, 0))

-- name: sent_before
SELECT
    batch_id, rows_in, inserted, corrected, unchanged, quarantined, refused, body_sha256,
    extract(epoch FROM finished_at - started_at)::double precision AS seconds
FROM ingest_batches
WHERE idempotency_key = %(key)s AND status = 'COMPLETED'

-- name: begin_batch
-- Committed before anything else, so that a batch that dies is seen. The session holds a lock in the batch's
-- name from before anyone can see the row, and loses it with the process. A batch of the same key that came
-- to nothing is begun again.
INSERT INTO ingest_batches AS b (source, symbol, tf, user_id, rows_in, idempotency_key, body_sha256)
VALUES (%(source)s, %(symbol)s, %(tf)s, %(user_id)s::uuid, %(rows_in)s, %(key)s, %(body_sha256)s)
ON CONFLICT (idempotency_key) DO UPDATE
SET source = excluded.source, symbol = excluded.symbol, tf = excluded.tf, user_id = excluded.user_id,
    rows_in = excluded.rows_in,
    body_sha256 = excluded.body_sha256, status = 'RUNNING', started_at = clock_timestamp(),
    finished_at = NULL, error = NULL
WHERE b.status <> 'COMPLETED'
RETURNING batch_id, started_at, pg_advisory_lock(hashtextextended('ingest_batches/' || batch_id, 0))

-- name: fail_abandoned
-- Batches that no living session holds a lock for. Read from pg_locks, and not by trying the lock: to look
-- takes nothing away from anyone, and a lock of one's own session counts too.
UPDATE ingest_batches
SET status = 'FAILED', finished_at = clock_timestamp(),
    error = 'the process ended before it was finished'
WHERE status = 'RUNNING'
    AND NOT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND classid::bigint << 32 | objid::bigint
                = hashtextextended('ingest_batches/' || batch_id, 0))

-- name: complete_batch
-- Committed with the batch's rows: a batch is COMPLETED if and only if they are there. Not if it was begun
-- again meanwhile by another sender of its key, who took this one for dead.
UPDATE ingest_batches
SET inserted = %(inserted)s, corrected = %(corrected)s, unchanged = %(unchanged)s,
    quarantined = %(quarantined)s, refused = %(refused)s, status = 'COMPLETED',
    finished_at = clock_timestamp(), error = NULL,
    range = CASE WHEN %(first)s::timestamptz IS NOT NULL
        THEN tstzrange(%(first)s::timestamptz, %(last)s::timestamptz, '[]')
    END
WHERE batch_id = %(batch_id)s AND started_at = %(started_at)s

-- name: judged
-- What the gate said of a batch, beside what the scheduled checks say.
INSERT INTO data_quality_results ("check", scope, passed, observed, expectation, batch_id)
VALUES ('gate', %(scope)s, %(passed)s, %(observed)s, %(expectation)s, %(batch_id)s)

-- name: fail_batch
-- Only while it runs: an error after the commit (a broken connection) does not undo what is there.
UPDATE ingest_batches
SET status = 'FAILED', finished_at = clock_timestamp(), error = %(error)s
WHERE batch_id = %(batch_id)s AND started_at = %(started_at)s AND status = 'RUNNING'

-- name: stage_refused
CREATE TEMPORARY TABLE refused_rows (rule text NOT NULL, row jsonb NOT NULL) ON COMMIT DROP

-- name: quarantine
-- A row that was refused before, by the same rule, is there: the same file again adds nothing.
INSERT INTO quarantine (batch_id, target, rule, row)
SELECT %(batch_id)s, %(target)s, rule, row
FROM refused_rows AS refused
WHERE NOT EXISTS (
    SELECT FROM quarantine AS kept
    WHERE kept.target = %(target)s AND kept.rule = refused.rule AND kept.row = refused.row
        AND jsonb_hash_extended(kept.row, 0) = jsonb_hash_extended(refused.row, 0)
)

-- name: quarantined
SELECT recorded_at, batch_id, target, rule, row
FROM quarantine
WHERE %(batch_id)s::uuid IS NULL OR batch_id = %(batch_id)s::uuid
ORDER BY recorded_at DESC
LIMIT %(limit)s

-- name: moment
SELECT clock_timestamp() AS moment

-- name: analyze
-- A temporary table has no statistics until told: without them a large batch is joined row by row.
ANALYZE {table}

-- name: memory
-- Enough to compare a batch with what is there without a temporary file; and TimescaleDB may unpack as many
-- compressed rows as a correction touches.
SELECT
    set_config('work_mem', '64MB', true),
    set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)

-- name: horizon
-- The moment before which retention has dropped rows: what is older cannot be aggregated again.
SELECT max(dropped_before) AS moment
FROM lifecycle_in_force
WHERE relation = %(relation)s AND tf = %(tf)s

-- name: hold_horizon
-- The horizon stays until the transaction ends: retention locks the row before it moves it.
SELECT dropped_before FROM lifecycle_in_force WHERE relation = %(relation)s AND tf = %(tf)s FOR SHARE

-- name: add_instruments
-- In the symbols' order, as every batch does: two batches can wait for each other in one direction only.
INSERT INTO instruments (symbol, calendar)
SELECT symbol, calendar
FROM unnest(%(symbols)s::text[], %(calendars)s::text[]) AS wanted (symbol, calendar)
ORDER BY symbol COLLATE "C"
ON CONFLICT DO NOTHING

-- name: lock_instruments
-- One writer of an instrument's rows at a time, until it commits. Readers are not held up.
SELECT symbol, calendar
FROM instruments
WHERE symbol = ANY(%(symbols)s)
ORDER BY symbol COLLATE "C"
FOR NO KEY UPDATE

-- name: calendars
SELECT symbol, calendar FROM instruments WHERE symbol = ANY(%(symbols)s)

-- name: completed_keys
-- Which of the keys stand for a batch that is in.
SELECT idempotency_key
FROM ingest_batches
WHERE idempotency_key = ANY(%(keys)s) AND status = 'COMPLETED'

-- name: newest_sources
-- Where the newest bar of each series came from: one look at the index a series.
SELECT series.symbol, series.tf, newest.source
FROM unnest(%(symbols)s::text[], %(timeframes)s::text[]) AS series (symbol, tf)
CROSS JOIN LATERAL (
    SELECT c.source FROM candles AS c
    WHERE c.symbol = series.symbol AND c.tf = series.tf
    ORDER BY c.ts DESC
    LIMIT 1
) AS newest
