-- depends: 0022.baseline-windows

-- Sets may have features of one name: RSI of days, RSI of hours.
ALTER TABLE feature_definitions ADD COLUMN feature_set text NOT NULL DEFAULT '';
ALTER TABLE feature_definitions DROP CONSTRAINT feature_definitions_pkey;
ALTER TABLE feature_definitions ADD PRIMARY KEY (feature_set, name, version);
COMMENT ON COLUMN feature_definitions.feature_set IS 'The set that it belongs to.';

-- What was recorded since, and what happened since: bringing online asks for either. Tables that
-- `hyperfeast features apply` makes have the same.
CREATE INDEX features_market_technical_v1_recorded
ON features_market_technical_v1 USING brin (recorded_at, event_timestamp)
WITH (pages_per_range = 32, autosummarize);
CREATE INDEX features_personal_baseline_v1_recorded
ON features_personal_baseline_v1 USING brin (recorded_at, event_timestamp)
WITH (pages_per_range = 32, autosummarize);

-- It names no feature, so that the tables may gain columns. Made anew by `hyperfeast features apply`.
CREATE OR REPLACE VIEW feature_store AS
SELECT
    symbol, event_timestamp AS timestamp, 'market_technical'::text AS set_name,
    _document - '{symbol,event_timestamp,recorded_at}'::text[] AS feature_set,
    1 AS version, recorded_at AS created_at
FROM (
    SELECT DISTINCT ON (symbol, event_timestamp) symbol, event_timestamp, recorded_at, to_jsonb(_row.*) AS _document
    FROM features_market_technical_v1 AS _row
    ORDER BY symbol, event_timestamp, recorded_at DESC
) AS newest
UNION ALL
SELECT
    user_id || '/' || metric, event_timestamp, 'personal_baseline'::text,
    _document - '{user_id,metric,event_timestamp,recorded_at}'::text[],
    1, recorded_at
FROM (
    SELECT DISTINCT ON (user_id, metric, event_timestamp)
        user_id, metric, event_timestamp, recorded_at, to_jsonb(_row.*) AS _document
    FROM features_personal_baseline_v1 AS _row
    ORDER BY user_id, metric, event_timestamp, recorded_at DESC
) AS newest;

-- A list of numbers is a row a number: returns_30[1] is its oldest.
CREATE OR REPLACE VIEW feature_values AS
SELECT
    feature.key || number.place AS feature_name, symbol AS entity_id, timestamp,
    (number.value #>> '{}')::double precision AS value,
    jsonb_build_object('set', set_name, 'version', version, 'recorded_at', created_at) AS metadata
FROM feature_store
CROSS JOIN LATERAL jsonb_each(feature_set) AS feature
CROSS JOIN LATERAL (
    SELECT '' AS place, feature.value WHERE jsonb_typeof(feature.value) <> 'array'
    UNION ALL
    SELECT '[' || ordinality || ']', one
    FROM jsonb_array_elements(
        CASE jsonb_typeof(feature.value) WHEN 'array' THEN feature.value END
    ) WITH ORDINALITY AS listed (one, ordinality)
) AS number;
