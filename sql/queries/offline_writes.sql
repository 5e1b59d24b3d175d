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
-- From the staged rows, whose types are Arrow's, to the table's own types: how many were added, of how many. A key
-- that is there already is left alone, so that the same rows may come twice.
WITH added AS (
    INSERT INTO {table} ({columns}) SELECT {values} FROM {staged} AS staged
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM added), (SELECT count(*) FROM {staged})

-- name: differing
-- A staged row that the table does not have: its key is there with other values. As text, because JSON has no equality.
SELECT ROW({values})::text FROM {staged} AS staged
EXCEPT
SELECT ROW({columns})::text FROM {table} WHERE {timestamp} IN (SELECT {moments} FROM {staged} AS staged)
LIMIT 1

-- name: lock_table
-- Two processes that log for the first time would both create the table.
SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))

-- name: create_log
-- What a feature service answered: one row a request and entity.
CREATE TABLE IF NOT EXISTS {table} ({columns})

-- name: widen_log
-- A service that has gained features since logs them too.
ALTER TABLE {table} {additions}

-- name: index_by
-- Whether an index of a table begins with a column.
SELECT FROM pg_index AS i
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass(%(name)s) AND a.attname = %(column)s

-- name: index_log
-- Logs are read by time. The server names the index: names cut to their length may meet.
CREATE INDEX ON {table} ({timestamp})

-- name: as_json
ALTER TABLE {table} {columns}

-- name: drop
DROP TABLE {table}

-- name: rename
ALTER TABLE {table} RENAME TO {name}
