-- name: server
SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb') AS timescaledb

-- name: edition
-- No row without TimescaleDB. The license is known where the extension is created.
SELECT current_setting('timescaledb.license', true) AS license
FROM pg_extension WHERE extname = 'timescaledb'

-- name: table
-- How much a table holds, and how new its newest row is.
SELECT count(*) AS rows, max({newest}) AS newest FROM {table}

-- name: relation
-- Null where there is no such table or view.
SELECT to_regclass(%s) AS found
