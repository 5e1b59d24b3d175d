-- Features as of moments: what the offline store asks of any repository's tables. A {relation} is a
-- source's table, or its query in parentheses; names are composed as identifiers.

-- name: columns
-- What a relation has, without reading it.
SELECT * FROM {relation} AS described LIMIT 0

-- name: type_names
-- A domain by the type that it is made of.
SELECT t.oid::int8 AS oid, coalesce(base.typname, t.typname)::text AS typname
FROM pg_type AS t
LEFT JOIN pg_type AS base ON base.oid = t.typbasetype AND t.typtype = 'd'
WHERE t.oid = ANY (%(codes)s::oid[])

-- name: rows
-- A view's rows, for the merge: keys, event time, created time, features.
SELECT {columns} FROM {relation} AS source WHERE {condition}

-- name: lookup
-- One view's newest row for each row of the spine.
LEFT JOIN LATERAL (
    SELECT {columns} FROM {relation} AS source
    WHERE {condition}
    ORDER BY {order} LIMIT 1
) AS {alias} ON true

-- name: looked_up
-- Features of every row of the staged spine, in its order.
SELECT {columns}
FROM {spine} AS spine
{lookups}
ORDER BY spine.{number}

-- name: explained
-- What the planner expects of a query.
EXPLAIN (FORMAT JSON) {query}

-- name: analyzed
-- Without statistics the planner takes a staged spine for a few rows.
ANALYZE {table}

-- name: unstaged
-- The staged spine goes with its transaction, unless another one is to be staged in it.
DROP TABLE IF EXISTS {table}

-- name: snapshot
-- All views are read as of one moment of the database.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: known_at_function
-- Whether a table has a function that gives it as it was known at a moment, and that function's own name.
SELECT n.nspname::text AS schema, p.proname::text AS name
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_class AS c ON c.oid = to_regclass(%(table)s) AND c.relnamespace = n.oid
WHERE p.proname = c.relname || '_as_known_at'
  AND p.pronargs = 1 AND p.proargtypes[0] = 'timestamptz'::regtype

-- name: spine_of_range
-- Date-range mode: every moment at which a row of any view was knowable is a row of the spine.
SELECT * FROM ({moments}) AS moments ORDER BY {order}

-- name: moments_of_view
SELECT DISTINCT {columns} FROM {relation} AS source WHERE {condition}

-- name: range_of_view
-- Date-range mode with one view: of the rows of an entity and an event time one, the newest if that can be told.
SELECT * FROM (
    SELECT DISTINCT ON ({identity}) {columns} FROM {relation} AS source
    WHERE {condition} ORDER BY {newest}
) AS events
ORDER BY {order}
