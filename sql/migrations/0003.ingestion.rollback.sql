DROP TABLE quarantine;
DROP TABLE ingest_batches;
