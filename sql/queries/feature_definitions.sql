-- name: turn
-- One at a time changes what is on record, until the end of its transaction.
SELECT pg_advisory_xact_lock(hashtextextended('hyperfeast feature definitions', 0))

-- name: recorded_sets
SELECT name, version, entity, description, features, metadata, is_active
FROM feature_sets
ORDER BY name, version

-- name: recorded_features
SELECT feature_set, name, version, description, data_type, computation_rule, warmup, definition_hash, tags
FROM feature_definitions

-- name: record_set
-- Words change under a version; what it computes does not, which is seen to before.
INSERT INTO feature_sets AS r (name, version, entity, description, features, metadata)
VALUES (%(name)s, %(version)s, %(entity)s, %(description)s, %(features)s, %(metadata)s)
ON CONFLICT (name, version) DO UPDATE
SET description = excluded.description, metadata = excluded.metadata, is_active = true
WHERE (r.description, r.metadata, r.is_active) IS DISTINCT FROM (excluded.description, excluded.metadata, true)

-- name: record_feature
INSERT INTO feature_definitions AS r (
    feature_set, name, version, description, data_type, source_table, computation_rule, warmup,
    definition_hash, tags
)
VALUES (
    %(feature_set)s, %(name)s, %(version)s, %(description)s, %(data_type)s, %(source_table)s,
    %(computation_rule)s, %(warmup)s, %(definition_hash)s, %(tags)s
)
ON CONFLICT (feature_set, name, version) DO UPDATE
SET description = excluded.description, tags = excluded.tags, is_active = true
WHERE (r.description, r.tags, r.is_active) IS DISTINCT FROM (excluded.description, excluded.tags, true)

-- name: retire
-- What is declared no more is computed no more; its rows stay.
WITH retired AS (
    UPDATE feature_sets SET is_active = false
    WHERE is_active AND name || '_v' || version <> ALL (%(declared)s)
    RETURNING name, version
),
features AS (
    UPDATE feature_definitions AS d SET is_active = false
    FROM retired WHERE (d.feature_set, d.version) = (retired.name, retired.version)
)
SELECT name, version FROM retired ORDER BY name, version

-- name: tables_present
SELECT relname AS name
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND relname = ANY (%(tables)s)

-- name: create_table
CREATE TABLE {table} (
    {keys},
    event_timestamp timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    {features},
    PRIMARY KEY ({key_names}, event_timestamp, recorded_at)
)

-- name: create_index
-- What was recorded since, and what happened since: bringing online asks for either. Rows lie in the order in
-- which they were recorded: a summary of each range of pages is some hundred times smaller than a tree.
CREATE INDEX {index} ON {table} USING brin (recorded_at, event_timestamp) WITH (pages_per_range = 32, autosummarize)

-- name: create_known_at
-- A parameter with a name would be taken for a feature of that name.
CREATE FUNCTION {function}(timestamptz) RETURNS SETOF {table} LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON ({key_names}, event_timestamp) *
    FROM {table}
    WHERE recorded_at <= $1
    ORDER BY {key_names}, event_timestamp, recorded_at DESC
$$

-- name: comment_known_at
COMMENT ON FUNCTION {function}(timestamptz) IS 'The feature rows that were served at a moment.'

-- name: comment_table
COMMENT ON TABLE {table} IS {text}

-- name: comment_column
COMMENT ON COLUMN {column} IS {text}

-- name: make_hypertable
-- As long a chunk as sql/lifecycle.toml declares for tables that it does not name.
SELECT create_hypertable(
    {name}, 'event_timestamp', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true
)

-- name: make_compressible
-- How chunks are to be compressed. When is for `hyperfeast lifecycle apply` to say.
ALTER TABLE {table} SET (
    timescaledb.compress, timescaledb.compress_segmentby = {segment_by},
    timescaledb.compress_orderby = 'event_timestamp DESC, recorded_at DESC'
)

-- name: served_rows
-- One set's part of the view feature_store: the newest revision of every row as one JSON document. It names no
-- feature, so that the table may gain or lose a column; and none of them begins with an underscore.
SELECT
    {entity} AS symbol, event_timestamp AS timestamp, {set_name}::text AS set_name,
    _document - {own_columns}::text[] AS feature_set, {version}::integer AS version, recorded_at AS created_at
FROM (
    SELECT DISTINCT ON ({key_names}, event_timestamp) {key_names}, event_timestamp, recorded_at, to_jsonb(_row.*) AS _document
    FROM {table} AS _row
    ORDER BY {key_names}, event_timestamp, recorded_at DESC
) AS newest

-- name: no_rows
SELECT
    NULL::text AS symbol, NULL::timestamptz AS timestamp, NULL::text AS set_name, NULL::jsonb AS feature_set,
    NULL::integer AS version, NULL::timestamptz AS created_at
WHERE false

-- name: replace_feature_store
CREATE OR REPLACE VIEW feature_store AS
{parts}

-- name: is_empty
SELECT NOT EXISTS (SELECT FROM {table}) AS empty

-- name: bars
SELECT count(*) AS rows FROM candles WHERE tf = %(timeframe)s

-- name: extent
SELECT count(*) AS rows, max(event_timestamp) AS newest, max(recorded_at) AS recorded FROM {table}
