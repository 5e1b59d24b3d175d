-- name: bars
-- Daily (or other) bars as they were known at $2, with their instrument's calendar.
SELECT b.symbol, i.calendar, b.ts, b.o AS open, b.h AS high, b.l AS low, b.c AS close, b.v AS volume
FROM candles_as_known_at($2) AS b
JOIN instruments AS i USING (symbol)
WHERE b.tf = $1
ORDER BY b.symbol, b.ts

-- name: splits
-- The newest revision known at $1 of every split.
SELECT symbol, ex_date, ratio
FROM corporate_actions_as_known_at($1)
WHERE kind = 'split'
ORDER BY symbol, ex_date

-- name: personal_baseline
-- Each day's mean against the 30 days before it, the day itself left out. Known at the day's end.
-- A device (source) is a segment of its own; of a day with two, the one with more readings speaks.
SELECT DISTINCT ON (user_id, metric, day)
    user_id::text AS user_id, metric, day + interval '24 hours' AS event_timestamp,
    day_mean, mean_30d, std_30d, n_30d, days_present_30d,
    CASE WHEN std_30d > 0 THEN (day_mean - mean_30d) / std_30d END AS z_score
FROM (
    SELECT
        user_id, metric, source, day, n, day_mean, n_30d, days_present_30d,
        total / n_30d AS mean_30d,
        CASE WHEN n_30d > 1
            THEN sqrt(greatest(squares - total * total / n_30d, 0) / (n_30d - 1))
        END AS std_30d
    FROM (
        SELECT
            user_id, metric, source, day, n, sum / n AS day_mean,
            (sum(n) OVER before)::bigint AS n_30d,
            sum(sum) OVER before AS total,
            sum(sum_of_squares) OVER before AS squares,
            count(*) OVER before AS days_present_30d
        FROM user_baseline_daily
        WHERE day < date_trunc('day', now(), 'UTC')
        WINDOW before AS (
            PARTITION BY user_id, metric, source ORDER BY day
            RANGE BETWEEN interval '720 hours' PRECEDING AND interval '24 hours' PRECEDING
        )
    ) AS windows
) AS days
ORDER BY user_id, metric, day, n DESC, source

-- name: newest_revisions
-- The row of every entity and event timestamp that is served now.
SELECT DISTINCT ON ({keys}, event_timestamp) {keys}, event_timestamp, {features}
FROM {table}
ORDER BY {keys}, event_timestamp, recorded_at DESC

-- name: stage
CREATE TEMPORARY TABLE staged_features ON COMMIT DROP AS
SELECT {keys}, event_timestamp, {features} FROM {table} WITH NO DATA

-- name: lock
-- One writer of a set at a time, from its reading to its writing. The session holds it, not a transaction.
SELECT pg_advisory_lock(hashtextextended(%(table)s, 0))

-- name: insert_revisions
-- Only what is new or differs from the revision that is served: writing the same rows again adds nothing.
INSERT INTO {table} ({keys}, event_timestamp, {features})
SELECT {staged_keys}, staged.event_timestamp, {staged_features}
FROM staged_features AS staged
LEFT JOIN LATERAL (
    SELECT * FROM {table} AS t
    WHERE {same_key} AND t.event_timestamp = staged.event_timestamp
    ORDER BY t.recorded_at DESC LIMIT 1
) AS served ON true
WHERE served.event_timestamp IS NULL OR ({served_features}) IS DISTINCT FROM ({staged_features})

-- name: columns
-- The columns of a table and their types, in order.
SELECT attname AS name, format_type(atttypid, NULL) AS type
FROM pg_attribute
WHERE attrelid = to_regclass(quote_ident(%(table)s)) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
