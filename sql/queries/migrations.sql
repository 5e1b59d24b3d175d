-- name: lock
-- One migrator at a time in a database. It ends with the connection, however that ends.
SELECT pg_advisory_lock(hashtextextended('hyperfeast migrate', 0))

-- name: has_record
-- One row if the record of migrations is there.
SELECT 1 AS found
FROM information_schema.tables
WHERE table_schema = current_schema() AND table_name = '_yoyo_migration'

-- name: applied
-- What the record holds.
SELECT migration_id AS id FROM _yoyo_migration ORDER BY migration_id

-- name: drop_record
-- An empty database keeps no record either.
DROP TABLE IF EXISTS _yoyo_migration, _yoyo_log, _yoyo_version, yoyo_lock

-- name: creatable_timescaledb
-- One row if TimescaleDB is installed on the server, preloaded (its loader defines the setting), and
-- not yet created in this database.
SELECT 1 AS found
FROM pg_available_extensions
WHERE name = 'timescaledb' AND installed_version IS NULL
    AND current_setting('timescaledb.disable_load', true) IS NOT NULL

-- name: create_timescaledb
CREATE EXTENSION IF NOT EXISTS timescaledb

-- name: timescaledb_license
-- NULL until the extension is created, unless the server's configuration names it.
SELECT current_setting('timescaledb.license', true) AS license
