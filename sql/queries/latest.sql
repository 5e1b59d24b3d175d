-- name: indexes
-- The columns of every usable index of a table, in order, and which of them descend. A view has none.
SELECT
    array_agg(a.attname::text ORDER BY k.position) AS columns,
    array_agg(o.bits & 1 = 1 ORDER BY k.position) AS descending
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_am AS m ON m.oid = c.relam AND m.amname = 'btree'
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, position)
JOIN LATERAL unnest(i.indoption::int2[]) WITH ORDINALITY AS o (bits, position) USING (position)
LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
WHERE i.indrelid = to_regclass(%(table)s) AND i.indisvalid AND i.indpred IS NULL
GROUP BY i.indexrelid

-- name: is_never_null
-- An index keeps NULL first where times descend, and we want it last: where there is none, both are one.
SELECT FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attname = %(column)s AND attnotnull

-- name: is_chunked
-- Whether TimescaleDB keeps the table in chunks: then an index is one a chunk, and none over all.
SELECT EXISTS (
    SELECT FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhparent
    WHERE h.inhparent = to_regclass(%(table)s) AND c.relkind = 'r'
) AS chunked

-- name: estimate
-- What the server's own planner makes of a query, from its statistics: nothing is run.
EXPLAIN (FORMAT JSON) {query}

-- name: rows_in_window
SELECT 1 FROM {relation} AS source WHERE {window}

-- name: entities
SELECT DISTINCT {keys} FROM {relation} AS source WHERE {known}

-- name: within
-- Rows whose event time lies between two moments, both included.
{timestamp} BETWEEN {start} AND {end}

-- name: within_or_late
-- Besides, rows behind the first moment that were recorded since: they arrived after their time had been read.
({timestamp} BETWEEN {start} AND {end}
    OR ({created} BETWEEN {recorded_from} AND {end} AND {timestamp} <= {end}))

-- name: all_rows
SELECT {columns}
FROM {relation} AS source
WHERE {window}

-- name: newest_of_all
-- Without a join key there is one entity.
SELECT {columns}
FROM {relation} AS source
WHERE {window}
ORDER BY {newest}
LIMIT 1

-- name: newest_by_scan
-- One pass over the rows of the window: for few rows an entity, and where no index helps.
SELECT DISTINCT ON ({keys}) {columns}
FROM {relation} AS source
WHERE {known} AND {window}
ORDER BY {entities}, {newest}

-- name: newest_by_entity
-- From entity to entity by the index, and for each to its newest row: what lies between is not read.
WITH RECURSIVE entities AS (
    (SELECT {keys} FROM {relation} AS source WHERE {known} ORDER BY {keys} LIMIT 1)
    UNION ALL
    SELECT next.*
    FROM entities AS e
    CROSS JOIN LATERAL (
        SELECT {keys} FROM {relation} AS source WHERE ({keys}) > ({entity_keys}) ORDER BY {keys} LIMIT 1
    ) AS next
)
SELECT newest.*
FROM entities AS e
CROSS JOIN LATERAL (
    SELECT {columns} FROM {relation} AS source
    WHERE {same_entity} AND {window}
    ORDER BY {newest}
    LIMIT 1
) AS newest

-- name: newest_by_listed_entity
-- The same over chunks: TimescaleDB lists the entities by their indexes.
SELECT newest.*
FROM (SELECT DISTINCT {keys} FROM {relation} AS source WHERE {known}) AS e
CROSS JOIN LATERAL (
    SELECT {columns} FROM {relation} AS source
    WHERE {same_entity} AND {window}
    ORDER BY {newest}
    LIMIT 1
) AS newest
