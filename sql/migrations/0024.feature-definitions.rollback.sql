CREATE OR REPLACE VIEW feature_values AS
SELECT
    feature.key AS feature_name, symbol AS entity_id, timestamp,
    (feature.value #>> '{}')::double precision AS value,
    jsonb_build_object('set', set_name, 'version', version, 'recorded_at', created_at) AS metadata
FROM feature_store
CROSS JOIN LATERAL jsonb_each(feature_set) AS feature;

CREATE OR REPLACE VIEW feature_store AS
SELECT
    symbol, event_timestamp AS timestamp, 'market_technical' AS set_name,
    to_jsonb(newest) - '{symbol,event_timestamp,recorded_at}'::text[] AS feature_set,
    1 AS version, recorded_at AS created_at
FROM (
    SELECT DISTINCT ON (symbol, event_timestamp) *
    FROM features_market_technical_v1
    ORDER BY symbol, event_timestamp, recorded_at DESC
) AS newest
UNION ALL
SELECT
    user_id || '/' || metric, event_timestamp, 'personal_baseline',
    to_jsonb(newest) - '{user_id,metric,event_timestamp,recorded_at}'::text[],
    1, recorded_at
FROM (
    SELECT DISTINCT ON (user_id, metric, event_timestamp) *
    FROM features_personal_baseline_v1
    ORDER BY user_id, metric, event_timestamp, recorded_at DESC
) AS newest;

DROP INDEX features_personal_baseline_v1_recorded;
DROP INDEX features_market_technical_v1_recorded;

-- Of features of one name in several sets one stays on record.
DELETE FROM feature_definitions AS d USING feature_definitions AS other
WHERE (d.name, d.version) = (other.name, other.version) AND d.feature_set > other.feature_set;
ALTER TABLE feature_definitions DROP CONSTRAINT feature_definitions_pkey;
ALTER TABLE feature_definitions ADD PRIMARY KEY (name, version);
ALTER TABLE feature_definitions DROP COLUMN feature_set;
