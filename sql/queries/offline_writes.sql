-- name: locate
-- A table by its name as a repository writes it: its parts, and its name as SQL, or NULL while it is not there.
SELECT parse_ident(%(name)s) AS parts, to_regclass(%(name)s)::text AS found

-- name: columns
-- What can be written of a table, and its types as casts take them.
SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type
FROM pg_attribute
WHERE attrelid = to_regclass(%(name)s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum

-- name: append
-- From the staged rows, whose types are Arrow's, to the table's own types.
INSERT INTO {table} ({columns}) SELECT {values} FROM {staged} AS staged

-- name: lock_table
-- Two processes that log for the first time would both create the table.
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))

-- name: create_log
-- What a feature service answered: one row a request and entity.
CREATE TABLE IF NOT EXISTS {table} ({columns})

-- name: widen_log
-- A service that has gained features since logs them too.
ALTER TABLE {table} {additions}

-- name: index_log
-- Logs are read by time.
CREATE INDEX IF NOT EXISTS {index} ON {table} ({timestamp})

-- name: as_json
ALTER TABLE {table} {columns}

-- name: drop
DROP TABLE {table}

-- name: rename
ALTER TABLE {table} RENAME TO {name}
