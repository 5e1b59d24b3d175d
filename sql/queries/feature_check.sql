-- Trying declared sets: on bars of the database, and on copies of what a relation reads.

-- name: symbols
-- The instruments that have bars of a timeframe.
SELECT i.symbol FROM instruments AS i
WHERE EXISTS (SELECT FROM candles AS c WHERE c.symbol = i.symbol AND c.tf = %(tf)s)
ORDER BY i.symbol

-- name: define
-- The relation as a view of this session, so that PostgreSQL says what it reads.
CREATE TEMPORARY VIEW checked_relation AS {relation}

-- name: sources
-- The tables and views that it reads, and the functions that are not PostgreSQL's own.
SELECT DISTINCT n.nspname AS schema, coalesce(c.relname, p.proname) AS name, p.oid IS NOT NULL AS is_function
FROM pg_rewrite AS r
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
LEFT JOIN pg_class AS c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
LEFT JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
JOIN pg_namespace AS n ON n.oid = coalesce(c.relnamespace, p.pronamespace)
WHERE r.ev_class = 'pg_temp.checked_relation'::regclass AND c.oid IS DISTINCT FROM r.ev_class
    AND n.nspname <> 'pg_catalog'
ORDER BY 2

-- name: columns
-- The columns of a source, and whether they are times or numbers.
SELECT a.attname AS name, a.atttypid IN ('timestamptz'::regtype, 'date'::regtype) AS is_time,
    a.atttypid IN ('float8'::regtype, 'int8'::regtype, 'int4'::regtype, 'numeric'::regtype) AS is_number
FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(name)s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: copy_entities
-- The newest rows of some entities, under the source's own name: a session looks at its own tables first.
CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS
SELECT * FROM {schema}.{name}
WHERE ({keys}) IN (SELECT DISTINCT {keys} FROM {schema}.{name} ORDER BY {keys} LIMIT 20)
ORDER BY {time} DESC LIMIT 15000

-- name: copy
CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS
SELECT * FROM {schema}.{name} ORDER BY {time} DESC LIMIT 15000

-- name: analyze
-- What a session has copied has no statistics yet, and is joined as if it were small.
ANALYZE {name}

-- name: compute
CREATE TEMPORARY TABLE checked_rows ON COMMIT DROP AS
SELECT {keys}, event_timestamp, {features} FROM ({relation}) AS computed

-- name: moments
-- Event timestamps to change what comes after, spread over all but the newest.
SELECT max(event_timestamp) AS moment
FROM (
    SELECT event_timestamp, ntile(%(count)s) OVER (ORDER BY event_timestamp) AS part
    FROM (SELECT DISTINCT event_timestamp FROM checked_rows) AS times
    WHERE event_timestamp < (SELECT max(event_timestamp) FROM checked_rows)
) AS parts
GROUP BY part
ORDER BY moment

-- name: known_after
CASE WHEN {time} + interval {after} <= now() THEN {time} + interval {after} ELSE {time} END

-- name: remove_later
DELETE FROM {name} WHERE {known} > %(moment)s

-- name: change_later
UPDATE {name} SET {column} = {column} * 3 + 7 WHERE {known} > %(moment)s

-- name: changed
-- The rows up to a moment that are other now, with what each side says.
SELECT to_jsonb(was) AS was, to_jsonb(again) AS again,
    coalesce(was.event_timestamp, again.event_timestamp) AS at
FROM (SELECT * FROM checked_rows WHERE event_timestamp <= %(moment)s) AS was
FULL JOIN (
    SELECT {keys}, event_timestamp, {features} FROM ({relation}) AS computed
    WHERE event_timestamp <= %(moment)s
) AS again USING ({keys}, event_timestamp)
WHERE to_jsonb(was) IS DISTINCT FROM to_jsonb(again)
ORDER BY at
LIMIT 100

-- name: rows
SELECT * FROM checked_rows
