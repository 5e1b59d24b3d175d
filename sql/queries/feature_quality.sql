-- The quality of a set's rows.

-- name: size
-- How many rows its table has, superseded revisions included.
SELECT count(*) AS rows FROM {table}

-- name: served
-- The newest revision of one row in $1 (every revision of a row is in, or none), with the event timestamp from which
-- on its entity has $2 earlier rows.
SELECT DISTINCT ON ({keys}, event_timestamp) {keys}, event_timestamp, {features}, warm_from
FROM {table}
LEFT JOIN (
    SELECT {entity_keys}, earliest.event_timestamp AS warm_from
    FROM (SELECT DISTINCT {keys} FROM {table}) AS entity
    CROSS JOIN LATERAL (
        SELECT DISTINCT t.event_timestamp FROM {table} AS t
        WHERE {same_entity}
        ORDER BY t.event_timestamp OFFSET $2::bigint LIMIT 1
    ) AS earliest
) AS warm USING ({keys})
WHERE $1::bigint <= 1 OR mod(hashtextextended(ROW({keys}, event_timestamp)::text, 0), $1::bigint) = 0
ORDER BY {keys}, event_timestamp, recorded_at DESC

-- name: newest
-- The newest row of every entity, and when it was recorded.
SELECT DISTINCT ON ({keys}) {keys}, event_timestamp AS newest, recorded_at
FROM {table}
ORDER BY {keys}, event_timestamp DESC, recorded_at DESC

-- name: delisted
SELECT symbol, delisted_at FROM instruments WHERE delisted_at IS NOT NULL
