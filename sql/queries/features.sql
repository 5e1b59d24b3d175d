-- name: bars
-- Daily (or other) bars as they were known at $2, with their instrument's calendar.
SELECT b.symbol, i.calendar, b.ts, b.o AS open, b.h AS high, b.l AS low, b.c AS close, b.v AS volume
FROM candles_as_known_at($2) AS b
JOIN instruments AS i USING (symbol)
WHERE b.tf = $1
ORDER BY b.symbol, b.ts

-- name: bars_of
-- Of each symbol in a JSON array ($2) the bars from a moment on, as many before it as $3 says, and behind `until`
-- one: read by the index, whatever the statistics say.
SELECT w.symbol, i.calendar, b.ts, b.o AS open, b.h AS high, b.l AS low, b.c AS close, b.v AS volume
FROM json_to_recordset($2::text::json) AS w (symbol text, since timestamptz, until timestamptz)
JOIN instruments AS i ON i.symbol = w.symbol
CROSS JOIN LATERAL (
    (
        SELECT c.ts, c.o, c.h, c.l, c.c, c.v FROM candles AS c
        WHERE c.symbol = w.symbol AND c.tf = $1 AND c.ts >= w.since AND c.ts < w.until
    )
    UNION ALL
    (
        SELECT c.ts, c.o, c.h, c.l, c.c, c.v FROM candles AS c
        WHERE c.symbol = w.symbol AND c.tf = $1 AND c.ts < w.since
        ORDER BY c.ts DESC LIMIT $3
    )
    UNION ALL
    (
        SELECT c.ts, c.o, c.h, c.l, c.c, c.v FROM candles AS c
        WHERE c.symbol = w.symbol AND c.tf = $1 AND c.ts >= w.until
        ORDER BY c.ts LIMIT 1
    )
) AS b
ORDER BY w.symbol, b.ts

-- name: reach
-- Of each symbol the open of the bar that is `warm_up` bars behind the first one after a moment: no window of a block
-- that begins later reaches back to that moment.
SELECT w.symbol, b.ts
FROM unnest(%(symbols)s::text[], %(moments)s::timestamptz[]) AS w (symbol, moment)
CROSS JOIN LATERAL (
    SELECT c.ts FROM candles AS c
    WHERE c.symbol = w.symbol AND c.tf = %(tf)s AND c.ts > w.moment
    ORDER BY c.ts OFFSET %(warm_up)s LIMIT 1
) AS b

-- name: extent
-- The opens of the first bar of any instrument at or after a moment, and of the last one; null where there is none.
SELECT min(f.ts) AS first, max(l.ts) AS last
FROM instruments AS i
LEFT JOIN LATERAL (
    SELECT c.ts FROM candles AS c
    WHERE c.symbol = i.symbol AND c.tf = %(tf)s AND c.ts >= %(since)s
    ORDER BY c.ts LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    SELECT c.ts FROM candles AS c WHERE c.symbol = i.symbol AND c.tf = %(tf)s ORDER BY c.ts DESC LIMIT 1
) AS l ON true

-- name: instruments
SELECT symbol FROM instruments ORDER BY symbol

-- name: splits
-- The newest revision known at $1 of every split.
SELECT symbol, ex_date, ratio
FROM corporate_actions_as_known_at($1)
WHERE kind = 'split'
ORDER BY symbol, ex_date

-- name: splits_of
-- The newest revision of every split of the symbols in a JSON array ($1).
SELECT DISTINCT ON (a.symbol, a.ex_date) a.symbol, a.ex_date, a.ratio
FROM json_to_recordset($1::text::json) AS w (symbol text)
JOIN corporate_actions AS a ON a.symbol = w.symbol AND a.kind = 'split'
ORDER BY a.symbol, a.ex_date, a.recorded_at DESC

-- name: personal_baseline
-- Each day's mean against the 30 days before it, the day itself left out. Known at the day's end; of the day that
-- is not over, a microsecond after its newest reading, so that one at midnight is not the end of the day before.
-- Daily sums that are stale are made anew from the readings, whatever keeps them. Sums go by day and device: to the
-- last bit the same, whoever asks for how many users. Squared distances are taken within each day and between the
-- days' means. No score of fewer than 10 readings on 3 days, nor of a device with fewer than 10 (see baselines).
-- The notes mark where features/relation.py asks for some users and days only.
WITH daily AS MATERIALIZED (
    SELECT user_id, metric, source, day, n, sum, sum_of_squares
    FROM user_baseline_daily AS kept
    WHERE true /*of users*/ AND day >= '-infinity' /*since*/ AND day < 'infinity' /*until*/ AND NOT EXISTS (
        SELECT FROM stale_days AS stale
        WHERE stale.relation = 'user_baseline_raw' AND stale.key = kept.user_id::text AND stale.since = kept.day
    )
    UNION ALL
    SELECT
        r.user_id, r.metric, r.source, stale.since AS day, count(*) AS n, sum(r.value ORDER BY r.ts) AS sum,
        sum(r.value * r.value ORDER BY r.ts) AS sum_of_squares
    FROM stale_days AS stale
    JOIN user_baseline_raw AS r ON r.user_id = stale.key::uuid AND r.ts >= stale.since AND r.ts < stale.until
    WHERE stale.relation = 'user_baseline_raw' AND true /*of stale users*/
        AND stale.since >= '-infinity' /*since*/ AND stale.since < 'infinity' /*until*/
    GROUP BY r.user_id, r.metric, r.source, stale.since
), series AS (
    SELECT
        user_id, metric, source, day, n, sum,
        row_number() OVER of_day AS device,
        array_agg(source) OVER of_day AS own_sources, array_agg(n) OVER of_day AS own_counts,
        array_agg(sum) OVER of_day AS own_sums,
        array_agg(source) OVER before AS sources, array_agg(day) OVER before AS days,
        array_agg(n) OVER before AS counts, array_agg(sum) OVER before AS sums,
        array_agg(greatest(sum_of_squares - sum * (sum / n), 0)) OVER before AS squares
    FROM daily
    WINDOW of_day AS (
        PARTITION BY user_id, metric, day ORDER BY source
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
    ), before AS (
        PARTITION BY user_id, metric ORDER BY day
        RANGE BETWEEN interval '720 hours' PRECEDING AND interval '24 hours' PRECEDING
    )
), scored AS (
    SELECT
        s.user_id, s.metric, s.day, own.n AS n_day, own.sum / own.n AS day_mean,
        whole.mean AS mean_30d, whole.n AS n_30d, whole.days AS days_present_30d,
        CASE WHEN whole.n > 1 THEN sqrt(spread.squares / (whole.n - 1)) END AS std_30d,
        whole.n >= 10 AND whole.days >= 3 AS sufficient,
        whole.mean_1d, whole.mean_7d,
        CASE WHEN whole.days >= 3 AND whole.mean <> 0
            THEN 1 / (1 + steady.std / abs(whole.mean))
        END AS stability_30d, steady.std AS day_std_30d,
        CASE WHEN harmonized.freedom > 0 THEN sqrt(harmonized.squares / harmonized.freedom) END AS harmonized_std,
        distance.sum / own.n AS harmonized_distance
    FROM series AS s
    CROSS JOIN LATERAL (
        SELECT sum(u.n)::bigint AS n, sum(u.sum ORDER BY u.source) AS sum
        FROM unnest(s.own_sources, s.own_counts, s.own_sums) AS u (source, n, sum)
    ) AS own
    CROSS JOIN LATERAL (
        SELECT
            sum(u.n)::bigint AS n, count(DISTINCT u.day) AS days,
            sum(u.sum ORDER BY u.day, u.source) / sum(u.n)::double precision AS mean,
            sum(u.sum ORDER BY u.day, u.source) FILTER (WHERE u.day >= s.day - interval '24 hours')
                / sum(u.n) FILTER (WHERE u.day >= s.day - interval '24 hours')::double precision AS mean_1d,
            sum(u.sum ORDER BY u.day, u.source) FILTER (WHERE u.day >= s.day - interval '168 hours')
                / sum(u.n) FILTER (WHERE u.day >= s.day - interval '168 hours')::double precision AS mean_7d
        FROM unnest(s.sources, s.days, s.counts, s.sums) AS u (source, day, n, sum)
    ) AS whole
    CROSS JOIN LATERAL (
        SELECT
            sum(u.squares + u.n * (u.sum / u.n - whole.mean) * (u.sum / u.n - whole.mean) ORDER BY u.day, u.source)
                AS squares
        FROM unnest(s.sources, s.days, s.counts, s.sums, s.squares) AS u (source, day, n, sum, squares)
    ) AS spread
    CROSS JOIN LATERAL (
        SELECT stddev_samp(of_day.mean ORDER BY of_day.day) AS std
        FROM (
            SELECT u.day, sum(u.sum ORDER BY u.source) / sum(u.n)::double precision AS mean
            FROM unnest(s.sources, s.days, s.counts, s.sums) AS u (source, day, n, sum)
            GROUP BY u.day
        ) AS of_day
    ) AS steady
    CROSS JOIN LATERAL (
        SELECT sum(d.squares ORDER BY d.source) AS squares, sum(d.n) - count(*) AS freedom
        FROM (
            SELECT
                u.source, sum(u.n) AS n,
                sum(u.squares + u.n * (u.sum / u.n - m.mean) * (u.sum / u.n - m.mean) ORDER BY u.day) AS squares
            FROM unnest(s.sources, s.days, s.counts, s.sums, s.squares) AS u (source, day, n, sum, squares)
            JOIN (
                SELECT v.source, sum(v.sum ORDER BY v.day) / sum(v.n)::double precision AS mean
                FROM unnest(s.sources, s.days, s.counts, s.sums) AS v (source, day, n, sum)
                GROUP BY v.source
            ) AS m USING (source)
            GROUP BY u.source
        ) AS d
    ) AS harmonized
    CROSS JOIN LATERAL (
        SELECT
            CASE WHEN bool_and(coalesce(m.n >= 10, false))
                THEN sum(u.n * (u.sum / u.n - m.mean) ORDER BY u.source)
            END AS sum
        FROM unnest(s.own_sources, s.own_counts, s.own_sums) AS u (source, n, sum)
        LEFT JOIN (
            SELECT v.source, sum(v.n) AS n, sum(v.sum ORDER BY v.day) / sum(v.n)::double precision AS mean
            FROM unnest(s.sources, s.days, s.counts, s.sums) AS v (source, day, n, sum)
            GROUP BY v.source
        ) AS m USING (source)
    ) AS distance
    WHERE s.device = 1 AND s.day <= now() AND true /*touched*/
)
SELECT
    user_id::text AS user_id, metric,
    CASE
        WHEN day + interval '24 hours' <= now() THEN day + interval '24 hours'
        ELSE newest.ts + interval '1 microsecond'
    END AS event_timestamp,
    day_mean, mean_30d, std_30d, n_30d, days_present_30d,
    CASE WHEN sufficient AND std_30d > 0 THEN (day_mean - mean_30d) / std_30d END AS z_score,
    CASE WHEN sufficient AND harmonized_std > 0 THEN harmonized_distance / harmonized_std END AS harmonized_z_score,
    day_mean - mean_1d AS deviation_1d, day_mean - mean_7d AS deviation_7d,
    day_mean - mean_30d AS deviation_30d, stability_30d, day_std_30d,
    CASE WHEN sufficient AND day_std_30d > 0 THEN (day_mean - mean_30d) / day_std_30d END AS day_z_score, n_day,
    CASE
        WHEN day + interval '24 hours' <= now() THEN 24::double precision
        ELSE extract(epoch FROM newest.ts - day)::double precision / 3600
    END AS day_hours
FROM scored
LEFT JOIN LATERAL (
    SELECT max(r.ts) AS ts
    FROM user_baseline_raw AS r
    WHERE r.user_id = scored.user_id AND r.metric = scored.metric AND r.ts >= scored.day
        AND r.ts < scored.day + interval '24 hours' AND scored.day + interval '24 hours' > now()
) AS newest ON true

-- name: newest_revisions
-- The row of every entity and event timestamp that is served now.
SELECT DISTINCT ON ({keys}, event_timestamp) {keys}, event_timestamp, {features}
FROM {table}
ORDER BY {keys}, event_timestamp, recorded_at DESC

-- name: served_of
-- The newest revision of each row of the entities in a JSON array ($1), between two event timestamps of each, both
-- left out: entity by entity by the index, however large the table is.
SELECT newest.*
FROM json_to_recordset($1::text::json) AS w ({typed_keys}, after timestamptz, before timestamptz)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (t.event_timestamp) {table_keys}, t.event_timestamp, t.recorded_at, {table_features}
    FROM {table} AS t
    WHERE {same_entity} AND t.event_timestamp > w.after AND t.event_timestamp < w.before
    ORDER BY t.event_timestamp, t.recorded_at DESC
) AS newest

-- name: moment
SELECT clock_timestamp() AS moment

-- name: kept_since
-- Before this bars were dropped by retention: what follows from them stays.
SELECT greatest(raw_kept_since('candles', %(tf)s), '1000-01-01 00:00+00') AS kept_since

-- name: lock
-- One writer of a set at a time, from its reading to its writing. The session holds it, not a transaction.
SELECT pg_advisory_lock(hashtextextended(%(table)s, 0))

-- name: columns
-- The columns of a table and their types, in order.
SELECT attname AS name, format_type(atttypid, NULL) AS type
FROM pg_attribute
WHERE attrelid = to_regclass(quote_ident(%(table)s)) AND attnum > 0 AND NOT attisdropped
ORDER BY attnum
