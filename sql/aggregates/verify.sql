-- name: keys
-- Every symbol that has raw rows, by leaps through the index; the registered ones; those that have bars only.
WITH RECURSIVE raw (key) AS (
    (SELECT symbol FROM candles WHERE tf = '1m' ORDER BY symbol LIMIT 1)
    UNION ALL
    SELECT (SELECT symbol FROM candles WHERE tf = '1m' AND symbol > raw.key ORDER BY symbol LIMIT 1)
    FROM raw WHERE raw.key IS NOT NULL
)
SELECT key FROM raw WHERE key IS NOT NULL
UNION SELECT symbol FROM instruments
UNION SELECT symbol FROM candles_1w
ORDER BY 1

-- name: users
SELECT user_id::text AS key FROM user_baseline_raw
UNION SELECT user_id::text FROM user_baseline_daily
ORDER BY 1

-- name: weeks
-- The weeks in which some keys have raw rows or buckets: what lies between them need not be looked at.
SELECT DISTINCT date_bin('7 days', moment, timestamptz '2000-01-03 00:00+00') AS week
FROM (
    SELECT ts FROM {raw} WHERE {key} = ANY(%(keys)s::{key_type}[]) AND {of_timeframe}
    UNION ALL
    SELECT {bucket} FROM {relation} WHERE {key} = ANY(%(keys)s::{key_type}[])
) AS moments (moment)
WHERE moment >= (SELECT greatest(%(since)s::timestamptz, raw_kept_since(%(raw)s, %(timeframe)s)))
    AND moment < coalesce(%(until)s::timestamptz, 'infinity')
ORDER BY 1

-- name: compare
-- The buckets that are not what the raw rows give, seen at one moment; `stale` if a refresh has yet to come. What
-- retention has dropped by that moment is left out: it may have moved since the weeks were listed.
SELECT {identity}, {values}, EXISTS (
    SELECT FROM dirty_days AS d
    WHERE d.relation = %(raw)s AND d.key = {key}::text
        AND d.day >= ({bucket} AT TIME ZONE 'UTC')::date
        AND d.day <= (({bucket} + %(width)s - interval '1 microsecond') AT TIME ZONE 'UTC')::date
) AS stale
FROM (
    SELECT * FROM {relation}
    WHERE {key} = ANY(%(keys)s::{key_type}[])
        AND {bucket} >= (SELECT greatest(%(since)s::timestamptz, raw_kept_since(%(raw)s, %(timeframe)s)))
        AND {bucket} < %(until)s::timestamptz
) AS kept
FULL JOIN (
    SELECT found.*
    FROM unnest(%(keys)s::{key_type}[]) AS wanted (key)
    CROSS JOIN LATERAL {recomputed}(
        wanted.key, greatest(%(since)s::timestamptz, raw_kept_since(%(raw)s, %(timeframe)s)), %(until)s::timestamptz
    ) AS found
) AS now USING ({identity})
WHERE ROW({values_kept}) IS DISTINCT FROM ROW({values_now})
ORDER BY {identity}
