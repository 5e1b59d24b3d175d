DROP INDEX quarantine_row;
DROP INDEX ingest_batches_running;
DROP TABLE user_baseline_revisions;
ALTER TABLE ingest_batches DROP COLUMN refused, DROP COLUMN body_sha256;
ALTER TABLE candle_revisions DROP COLUMN published_at;
ALTER TABLE candles DROP COLUMN published_at;
DROP INDEX candles_key;
ALTER TABLE candles ADD CONSTRAINT candles_key UNIQUE (symbol, tf, ts);
CREATE INDEX candles_newest ON candles (symbol, tf, ts DESC);
ALTER TABLE candles
    ADD CONSTRAINT candles_symbol_fkey FOREIGN KEY (symbol) REFERENCES instruments;
