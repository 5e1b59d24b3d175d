-- Who had used values of features that were revised since. `since` bounds when they were revised; `symbol` whose
-- they are; null for all.

-- name: corrections
SELECT feature_set || '_v' || version AS view, entity, first_event, last_event, revised, features, recorded_at
FROM feature_corrections
WHERE (%(since)s::timestamptz IS NULL OR recorded_at >= %(since)s)
    AND (%(symbol)s::text IS NULL OR entity[1] = %(symbol)s)
ORDER BY recorded_at DESC, entity

-- name: trainings
-- Of every run that this set was declared for: the rows of its symbols and dates that were served at its beginning
-- (or at the moment whose knowledge it asked for) with other values than now. Where its model says which features
-- it read, only these count.
SELECT
    r.run_id, r.model_name, r.status, r.start_time, r.as_known_at, m.version AS model_version,
    coalesce(m.is_active, false) AS is_active, c.symbol, count(*) AS rows,
    min(used.event_timestamp) AS first_event, max(used.event_timestamp) AS last_event,
    max(used.recorded_at) AS corrected_at,
    ARRAY(SELECT DISTINCT unnest(string_to_array(string_agg(array_to_string(used.features, ','), ','), ',')) ORDER BY 1)
        AS features
FROM training_runs AS r
LEFT JOIN model_registry AS m USING (run_id)
CROSS JOIN LATERAL (
    SELECT
        coalesce(r.as_known_at, r.start_time) AS known_at,
        lower(r.data_range)::timestamp AT TIME ZONE 'UTC' - %(freshness)s::interval AS first,
        upper(r.data_range)::timestamp AT TIME ZONE 'UTC' + interval '24 hours' AS last
) AS of_run
CROSS JOIN LATERAL (
    SELECT
        c.entity[1] AS symbol, greatest(min(c.first_event), of_run.first) AS first,
        least(max(c.last_event), of_run.last) AS last
    FROM feature_corrections AS c
    WHERE c.feature_set = %(name)s AND c.version = %(version)s
        AND c.recorded_at > of_run.known_at
        AND (%(since)s::timestamptz IS NULL OR c.recorded_at >= %(since)s)
        AND (%(symbol)s::text IS NULL OR c.entity[1] = %(symbol)s)
        AND (r.symbols IS NULL OR c.entity[1] = ANY(r.symbols))
        AND c.last_event >= of_run.first AND c.first_event < of_run.last
    GROUP BY c.entity[1]
) AS c
CROSS JOIN LATERAL (
    SELECT revised.event_timestamp, now.recorded_at, {differing_before} AS features
    FROM (
        SELECT DISTINCT t.event_timestamp
        FROM {table} AS t
        WHERE t.symbol = c.symbol AND t.event_timestamp BETWEEN c.first AND c.last
            AND t.recorded_at > of_run.known_at
    ) AS revised
    JOIN LATERAL (
        SELECT * FROM {table} AS t
        WHERE t.symbol = c.symbol AND t.event_timestamp = revised.event_timestamp
            AND t.recorded_at <= of_run.known_at
        ORDER BY t.recorded_at DESC LIMIT 1
    ) AS before ON true
    JOIN LATERAL (
        SELECT * FROM {table} AS t
        WHERE t.symbol = c.symbol AND t.event_timestamp = revised.event_timestamp
        ORDER BY t.recorded_at DESC LIMIT 1
    ) AS now ON true
) AS used
WHERE r.definition_hashes ?| ARRAY[%(view)s, %(name)s]
    AND (m.feature_columns IS NULL AND used.features <> '{{}}' OR used.features && m.feature_columns)
GROUP BY
    r.run_id, r.model_name, r.status, r.start_time, r.as_known_at, m.version, m.is_active, c.symbol
ORDER BY r.start_time DESC, c.symbol

-- name: signals
-- Predictions whose served vector differs from what the row that it was made of says now.
SELECT DISTINCT ON (s.ts, s.id)
    s.id, s.ts, s.symbol, s.label, s.model_id, now.event_timestamp, now.recorded_at AS corrected_at,
    {differing_served} AS features
FROM feature_corrections AS c
JOIN signals AS s
    ON s.symbol = c.entity[1] AND s.ts >= c.first_event AND s.feature_ages ? %(view)s
CROSS JOIN LATERAL (
    SELECT s.ts - make_interval(secs => (s.feature_ages ->> %(view)s)::double precision) AS moment
) AS event
JOIN LATERAL (
    SELECT * FROM {table} AS t
    WHERE t.symbol = s.symbol
        AND t.event_timestamp BETWEEN event.moment - interval '1 millisecond' AND event.moment + interval '1 millisecond'
    ORDER BY t.event_timestamp DESC, t.recorded_at DESC LIMIT 1
) AS now ON true
WHERE c.feature_set = %(name)s AND c.version = %(version)s
    AND (%(since)s::timestamptz IS NULL OR c.recorded_at >= %(since)s)
    AND (%(symbol)s::text IS NULL OR c.entity[1] = %(symbol)s)
    AND now.event_timestamp BETWEEN c.first_event AND c.last_event
    AND {differing_served} <> '{{}}'
ORDER BY s.ts DESC, s.id
