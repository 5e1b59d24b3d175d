-- depends: 0017.as-known-at

-- What `hyperfeast lifecycle apply` put in force, and how far rows were dropped.
CREATE TABLE lifecycle_in_force (
    relation text NOT NULL,
    tf text NOT NULL DEFAULT '' CHECK (tf IN ('', '1m', '5m', '15m', '1h', '4h', '1d', '1w')),
    chunk_interval interval CHECK (chunk_interval > interval '0'),
    compress_after interval CHECK (compress_after > interval '0'),
    keep_for interval CHECK (keep_for > interval '0'),
    dropped_before timestamptz CHECK (
        dropped_before = date_trunc('week', dropped_before, 'UTC')
        AND dropped_before > '-infinity' AND dropped_before < 'infinity'
    ),
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relation, tf)
);
COMMENT ON TABLE lifecycle_in_force IS
    'How long which rows are kept: what is declared in sql/lifecycle.toml, once it was applied.';
COMMENT ON COLUMN lifecycle_in_force.relation IS 'The table.';
COMMENT ON COLUMN lifecycle_in_force.tf IS
    'The timeframe, where a table is kept by timeframe; otherwise, and for the table as a whole, empty.';
COMMENT ON COLUMN lifecycle_in_force.chunk_interval IS
    'How much time a chunk holds; null where the table has no chunks, and in the rows of timeframes.';
COMMENT ON COLUMN lifecycle_in_force.compress_after IS
    'The age at which a chunk is compressed; null for never, and in the rows of timeframes.';
COMMENT ON COLUMN lifecycle_in_force.keep_for IS 'The age at which a row expires; null for never.';
COMMENT ON COLUMN lifecycle_in_force.dropped_before IS
    'Rows older than this Monday, 00:00 UTC, are gone or about to go. It never moves back, and it is '
    'recorded before the first row goes: rollups of older rows must not be computed again.';
COMMENT ON COLUMN lifecycle_in_force.applied_at IS 'When it was put in force.';
