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

-- name: estimate
-- What the planner thinks of the table's size now: it knows how large the file is, whatever the statistics say.
EXPLAIN (FORMAT JSON) SELECT FROM {table}

-- name: newest
SELECT max({newest}) AS newest FROM {table}

-- name: newest_since
SELECT max({newest}) AS newest FROM {table} WHERE {newest} >= %(since)s

-- name: newest_chunk
-- Where the newest chunk begins, of a hypertable that is cut by the column.
SELECT c.range_start AS since
FROM timescaledb_information.chunks AS c
WHERE c.hypertable_schema = current_schema() AND c.hypertable_name = %(table)s
    AND c.primary_dimension = %(newest)s
ORDER BY c.range_start DESC
LIMIT 1

-- name: newest_of_series
-- By leaps through the index: from each series to the next, and to the newest row of each.
WITH RECURSIVE found AS (
    (SELECT {series} FROM {table} ORDER BY {series} LIMIT 1)
    UNION ALL
    SELECT following.*
    FROM found AS one
    CROSS JOIN LATERAL (
        SELECT {series} FROM {table} WHERE ({series}) > ({of_series}) ORDER BY {series} LIMIT 1
    ) AS following
)
SELECT max(last.newest) AS newest
FROM found AS one
CROSS JOIN LATERAL (
    SELECT {newest} AS newest FROM {table} WHERE ({series}) = ({of_series})
    ORDER BY {newest} DESC LIMIT 1
) AS last

-- name: relation
-- Null where there is no such table or view.
SELECT to_regclass(%s) AS found
