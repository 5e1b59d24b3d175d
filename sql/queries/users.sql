-- Everything that belongs to one user: where it is, what it says, and its end.

-- name: tables_of_users
-- Every table of this schema with a column user_id, and what lies below the continuous aggregates that have one.
-- Batches are not the user's: they are told apart below.
SELECT n.nspname AS schema, c.relname AS name, c.relname AS shown
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
    AND a.atttypid IN ('uuid'::regtype, 'text'::regtype, 'varchar'::regtype)
    AND c.relname <> 'ingest_batches' AND NOT c.relispartition
ORDER BY c.relname

-- name: has_continuous_aggregates
SELECT to_regclass('timescaledb_information.continuous_aggregates') IS NOT NULL AS found

-- name: continuous_tables_of_users
SELECT
    g.materialization_hypertable_schema AS schema, g.materialization_hypertable_name AS name,
    g.view_name AS shown
FROM timescaledb_information.continuous_aggregates AS g
WHERE g.view_schema = current_schema() AND EXISTS (
    SELECT FROM pg_attribute AS a
    WHERE a.attrelid = format('%%I.%%I', g.view_schema, g.view_name)::regclass AND a.attname = 'user_id'
)
ORDER BY g.view_name

-- name: existing
-- Which of these tables there are.
SELECT name FROM unnest(%(names)s::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL

-- name: texts
-- Every column of the other tables that may name somebody, and its type.
SELECT
    c.relname AS name, a.attname AS column, a.atttypid::regtype::text AS type
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.atttypid IN (
        'text'::regtype, 'varchar'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text[]'::regtype, 'uuid'::regtype
    )
    AND a.attgenerated = '' AND NOT c.relname = ANY(%(left_out)s)
    AND c.relname NOT LIKE 'candles%%' AND c.relname NOT LIKE 'features\_%%' AND c.relname NOT LIKE '\_yoyo%%'
ORDER BY c.relname, a.attnum

-- name: hold
-- Whoever writes something of a user has committed before this goes on, and begins again only after it: readings,
-- aggregates, the features' sets, baselines. What was computed from what is deleted does not come back.
SELECT
    pg_advisory_xact_lock(hashtextextended('user_baseline_raw', 0)),
    pg_advisory_xact_lock(hashtextextended('hyperfeast aggregates', 0)),
    pg_advisory_xact_lock(hashtextextended('hyperfeast reading changes', 0)),
    pg_advisory_xact_lock(hashtextextended('baseline_history/' || %(text)s, 0))

-- name: hold_set
SELECT pg_advisory_xact_lock(hashtextextended(%(table)s, 0))

-- name: hold_windows
LOCK TABLE user_baseline_windows IN SHARE ROW EXCLUSIVE MODE

-- name: options
-- A deletion is no change that anybody should follow, and may unpack as many compressed rows as there are.
SELECT
    set_config('hyperfeast.retention', 'on', true),
    set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true)

-- name: delete
DELETE FROM {table} AS t WHERE {condition}

-- name: select
SELECT to_jsonb(t) AS row FROM {table} AS t WHERE {condition}

-- name: count
SELECT count(*) AS rows FROM {table} AS t WHERE {condition}

-- name: redact
-- The rest of the row is others': only the name goes.
UPDATE {table} AS t SET {assignments} WHERE {condition}

-- name: release_batches
UPDATE ingest_batches SET user_id = NULL WHERE user_id = %(text)s::uuid

-- name: receipt
INSERT INTO audit_log (action, object, after)
VALUES (%(action)s, 'user/' || %(text)s, %(after)s)

-- name: receipts
SELECT to_jsonb(t) AS row FROM audit_log AS t WHERE object = 'user/' || %(text)s OR object LIKE 'user/' || %(text)s || '/%%'

-- name: was_forgotten
SELECT EXISTS (
    SELECT FROM audit_log WHERE action = 'forgot user' AND object = 'user/' || %(text)s
) AS found
