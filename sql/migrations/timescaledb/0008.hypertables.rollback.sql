-- A hypertable goes with its table: the rollbacks before this one drop them.
SELECT 1;
