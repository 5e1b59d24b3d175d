-- depends: 0002.candles

-- What was taken in, and what was refused.
CREATE TABLE ingest_batches (
    batch_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    source text NOT NULL,
    symbol text,
    tf text,
    range tstzrange,
    rows_in bigint NOT NULL DEFAULT 0,
    inserted bigint NOT NULL DEFAULT 0,
    corrected bigint NOT NULL DEFAULT 0,
    unchanged bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    status text NOT NULL DEFAULT 'RUNNING' CHECK (status IN ('RUNNING', 'COMPLETED', 'FAILED')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    error text,
    idempotency_key text UNIQUE
);
COMMENT ON TABLE ingest_batches IS 'One row a batch: a file, a request.';
COMMENT ON COLUMN ingest_batches.rows_in IS
    'Rows read, identical duplicates included: inserted + corrected + unchanged + quarantined.';

CREATE TABLE quarantine (
    batch_id uuid NOT NULL,
    target text NOT NULL,
    rule text NOT NULL,
    row jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX quarantine_batch ON quarantine (batch_id);
COMMENT ON TABLE quarantine IS 'Rows that were refused, as they came, with the first rule they broke.';
COMMENT ON COLUMN quarantine.target IS 'The table that the row was meant for.';
