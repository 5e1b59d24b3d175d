-- name: lock
-- One process at a time tells the sets what changed: for a moment, until its transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('hyperfeast feature changes', 0))

-- name: forget_retired
-- A set that is not computed any more gathers no marks; if it comes back, it begins from the beginning.
DELETE FROM tracked_feature_sets AS t
USING feature_sets AS s
WHERE s.name = t.feature_set AND s.version = t.version AND NOT s.is_active
    AND (t.feature_set, t.version) <> (%(name)s, %(version)s)

-- name: track
-- A row if the set, or its table, is new here: then everything is to be computed.
INSERT INTO tracked_feature_sets (feature_set, version, tf, relation)
VALUES (%(name)s, %(version)s, %(tf)s, to_regclass(quote_ident(%(table)s))::oid)
ON CONFLICT (feature_set, version) DO UPDATE
    SET tf = excluded.tf, relation = excluded.relation, tracked_since = clock_timestamp()
    WHERE (tracked_feature_sets.tf, tracked_feature_sets.relation) IS DISTINCT FROM (excluded.tf, excluded.relation)
RETURNING feature_set

-- name: distribute
-- Marks go to the sets that read their timeframe, each of which has marks of its own from then on. Marks of one
-- symbol become one that holds them all.
WITH taken AS (DELETE FROM changed_bars RETURNING symbol, tf, first, last)
INSERT INTO feature_backlog (feature_set, version, symbol, first, last)
SELECT s.feature_set, s.version, c.symbol, min(c.first), max(c.last)
FROM taken AS c
JOIN tracked_feature_sets AS s ON s.tf = coalesce(c.tf, s.tf)
GROUP BY s.feature_set, s.version, c.symbol

-- name: mark_all
-- All bars of the instruments that are named, or of all.
INSERT INTO feature_backlog (feature_set, version, symbol, first, last)
SELECT %(name)s, %(version)s, symbol, '1000-01-01 00:00+00', '9999-01-01 00:00+00'
FROM instruments
WHERE %(symbols)s::text[] IS NULL OR symbol = ANY(%(symbols)s)

-- name: waiting
-- What has to be computed, by symbol.
SELECT symbol, array_agg(id) AS ids, min(first) AS first, max(last) AS last
FROM feature_backlog
WHERE feature_set = %(name)s AND version = %(version)s
    AND (%(symbols)s::text[] IS NULL OR symbol = ANY(%(symbols)s))
GROUP BY symbol
ORDER BY symbol

-- name: settle
-- Whoever deletes the marks writes the rows: of two who computed the same, the second finds them gone. Locked in
-- order, so that they wait for each other in no circle.
WITH held AS MATERIALIZED (
    SELECT id FROM feature_backlog WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE
)
DELETE FROM feature_backlog AS b USING held WHERE b.id = held.id

-- name: leave
-- Of marks that were settled for a part of the time, what is left.
INSERT INTO feature_backlog (feature_set, version, symbol, first, last)
SELECT %(name)s, %(version)s, symbol, first, last
FROM unnest(%(symbols)s::text[], %(firsts)s::timestamptz[], %(lasts)s::timestamptz[]) AS m (symbol, first, last)

-- name: correct
-- That rows which had been served were revised.
INSERT INTO feature_corrections
    (feature_set, version, entity, first_event, last_event, revised, features, recorded_at)
VALUES (
    %(name)s, %(version)s, %(entity)s, %(first_event)s, %(last_event)s, %(revised)s, %(features)s,
    %(recorded_at)s
)
