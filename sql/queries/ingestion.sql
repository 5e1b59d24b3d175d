-- name: begin_batch
-- Committed before anything else, so that a batch that dies is seen. The session holds a lock in the batch's
-- name from before anyone can see the row, and loses it with the process.
INSERT INTO ingest_batches (source, symbol, tf, rows_in)
VALUES (%(source)s, %(symbol)s, %(tf)s, %(rows_in)s)
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
-- Committed with the batch's rows: a batch is COMPLETED if and only if they are there.
UPDATE ingest_batches
SET inserted = %(inserted)s, corrected = %(corrected)s, unchanged = %(unchanged)s,
    quarantined = %(quarantined)s, status = 'COMPLETED', finished_at = clock_timestamp(), error = NULL,
    range = CASE WHEN %(first)s::timestamptz IS NOT NULL
        THEN tstzrange(%(first)s::timestamptz, %(last)s::timestamptz, '[]')
    END
WHERE batch_id = %(batch_id)s

-- name: fail_batch
-- Only while it runs: an error after the commit (a broken connection) does not undo what is there.
UPDATE ingest_batches
SET status = 'FAILED', finished_at = clock_timestamp(), error = %(error)s
WHERE batch_id = %(batch_id)s AND status = 'RUNNING'

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
