-- depends: 0015.aggregates

-- When markets were open, which bars that makes expected, and which bars look wrong.
CREATE TABLE market_sessions (
    calendar text NOT NULL,
    session date NOT NULL,
    opens timestamptz NOT NULL,
    closes timestamptz NOT NULL,
    break_starts timestamptz,
    break_ends timestamptz,
    source text NOT NULL,
    PRIMARY KEY (calendar, session),
    CONSTRAINT market_sessions_order CHECK (opens < closes),
    CONSTRAINT market_sessions_break CHECK (
        (break_starts IS NULL AND break_ends IS NULL)
        OR (opens < break_starts AND break_starts < break_ends AND break_ends < closes)
    )
);
COMMENT ON TABLE market_sessions IS
    'The sessions of every calendar that an instrument trades by, up to a year ahead. 24/7 needs none.';
COMMENT ON COLUMN market_sessions.calendar IS 'An exchange_calendars code.';
COMMENT ON COLUMN market_sessions.session IS 'The date by which the exchange names the session.';
COMMENT ON COLUMN market_sessions.opens IS
    'When trading begins, UTC; for a market that opens in the evening, on the UTC day before the session.';
COMMENT ON COLUMN market_sessions.closes IS 'When trading ends, UTC; half days and daylight saving counted.';
COMMENT ON COLUMN market_sessions.break_starts IS 'When the lunch break begins, UTC; null without one.';
COMMENT ON COLUMN market_sessions.break_ends IS 'When trading goes on after the break, UTC; null without one.';
COMMENT ON COLUMN market_sessions.source IS 'The library and version that the row was taken from.';

CREATE TABLE outlier_flags (
    relation text NOT NULL,
    key text NOT NULL,
    tf text NOT NULL DEFAULT '',
    ts timestamptz NOT NULL,
    method text NOT NULL CHECK (method IN ('robust_z', 'neighbor_jump')),
    score double precision NOT NULL CHECK (score > '-Infinity' AND score < 'Infinity'),
    observed jsonb NOT NULL,
    rests_on timestamptz NOT NULL CHECK (rests_on >= ts),
    flagged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outlier_flags_key UNIQUE (relation, key, tf, ts, method)
);
COMMENT ON TABLE outlier_flags IS
    'Rows that look wrong. A mark beside the data: the row itself is neither changed nor deleted.';
COMMENT ON COLUMN outlier_flags.relation IS 'The table that holds the row.';
COMMENT ON COLUMN outlier_flags.key IS 'Whose row it is: the symbol.';
COMMENT ON COLUMN outlier_flags.tf IS 'The timeframe; empty where there is none.';
COMMENT ON COLUMN outlier_flags.ts IS 'The row''s event time.';
COMMENT ON COLUMN outlier_flags.method IS
    'robust_z: from this row and earlier ones only. neighbor_jump: from the row after it too.';
COMMENT ON COLUMN outlier_flags.score IS 'How many robust deviations the row is off; its sign says which way.';
COMMENT ON COLUMN outlier_flags.observed IS 'What was measured: the close and the log return.';
COMMENT ON COLUMN outlier_flags.rests_on IS
    'Event time of the newest row that the score needs: ts itself, or the next row''s for neighbor_jump.';
COMMENT ON COLUMN outlier_flags.flagged_at IS 'When it was first marked so.';

CREATE FUNCTION timeframe_width(tf text) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- Hours, not days: a day follows the daylight saving of the session's zone.
RETURN CASE tf
    WHEN '1m' THEN interval '1 minute' WHEN '5m' THEN interval '5 minutes'
    WHEN '15m' THEN interval '15 minutes' WHEN '1h' THEN interval '1 hour'
    WHEN '4h' THEN interval '4 hours' WHEN '1d' THEN interval '24 hours'
    WHEN '1w' THEN interval '168 hours'
END;
COMMENT ON FUNCTION timeframe_width IS 'From a bar''s open to its close in a market that never shuts.';

CREATE FUNCTION session_bars(
    calendar text, tf text, since timestamptz, until timestamptz,
    listed date, delisted date, in_utc boolean
) RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE AS $$
DECLARE
    width CONSTANT interval := timeframe_width(tf);
    -- A Monday, 00:00 UTC: every timeframe's UTC grid passes through it.
    monday CONSTANT timestamptz := '1970-01-05 00:00+00';
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    first_day CONSTANT date := greatest(listed, (since AT TIME ZONE 'UTC')::date - 8);
    last_day CONSTANT date := least(delisted, (until AT TIME ZONE 'UTC')::date + 8, today + 8);
BEGIN
    IF session_bars.calendar = '24/7' THEN
        RETURN QUERY SELECT bar FROM generate_series(
            greatest(
                date_bin(width, since + width - interval '1 microsecond', monday),
                date_bin(width, listed::timestamp AT TIME ZONE 'UTC', monday)
            ),
            least(
                until - interval '1 microsecond',
                now() - width,
                (delisted + 1)::timestamp AT TIME ZONE 'UTC' - interval '1 microsecond'
            ),
            width
        ) AS bar;
    ELSIF tf = '1d' THEN
        -- The first midnight at or after `since`, the last one before `until`.
        RETURN QUERY SELECT s.session::timestamp AT TIME ZONE 'UTC'
        FROM market_sessions AS s
        WHERE s.calendar = session_bars.calendar
            AND s.session BETWEEN
                greatest(listed, ((since - interval '1 microsecond') AT TIME ZONE 'UTC')::date + 1)
                AND least(delisted, ((until - interval '1 microsecond') AT TIME ZONE 'UTC')::date)
            AND s.closes <= now();
    ELSIF tf = '1w' THEN
        -- A week is over when its last session is, though its instrument may have left before.
        RETURN QUERY SELECT week
        FROM market_sessions AS s,
            LATERAL (SELECT date_trunc('week', s.session::timestamp) AT TIME ZONE 'UTC' AS week) AS w
        WHERE s.calendar = session_bars.calendar
            AND s.session >= date_trunc('week', first_day::timestamp)::date AND s.session <= last_day + 7
            AND week >= since AND week < until
        GROUP BY week
        HAVING max(s.closes) <= now()
            AND bool_or(s.session BETWEEN coalesce(listed, '-infinity') AND coalesce(delisted, 'infinity'));
    ELSE
        RETURN QUERY SELECT DISTINCT bar
        FROM (
            SELECT s.opens AS starts, coalesce(s.break_starts, s.closes) AS ends
            FROM market_sessions AS s
            WHERE s.calendar = session_bars.calendar AND s.session BETWEEN first_day AND last_day
                AND s.closes > since AND s.opens < until
            UNION ALL
            SELECT s.break_ends, s.closes
            FROM market_sessions AS s
            WHERE s.calendar = session_bars.calendar AND s.session BETWEEN first_day AND last_day
                AND s.closes > since AND s.opens < until AND s.break_ends IS NOT NULL
        ) AS part,
        LATERAL generate_series(
            CASE WHEN in_utc THEN date_bin(width, starts, monday) ELSE starts END,
            ends - interval '1 microsecond', width
        ) AS bar
        WHERE bar >= since AND bar < until AND least(bar + width, ends) <= now();
    END IF;
END $$;
COMMENT ON FUNCTION session_bars IS
    'The opens of the bars of a calendar in [since, until) that have closed. in_utc puts intraday bars on the UTC grid instead of the session''s.';

CREATE FUNCTION expected_candles(
    symbol text, tf text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (ts timestamptz, present boolean)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    width CONSTANT interval := timeframe_width(tf);
    monday CONSTANT timestamptz := '1970-01-05 00:00+00';
    instrument instruments%ROWTYPE;
    first_bar timestamptz;
    last_bar timestamptz;
    known_until timestamptz;
    lower_bound timestamptz;
    upper_bound timestamptz;
    on_session bigint;
    on_utc bigint;
    in_utc boolean := false;
BEGIN
    IF width IS NULL THEN
        RAISE EXCEPTION 'no timeframe %: expected one of 1m 5m 15m 1h 4h 1d 1w', coalesce(quote_literal(tf), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT i.* INTO instrument FROM instruments AS i WHERE i.symbol = expected_candles.symbol;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no instrument %: it has to be in the table instruments', coalesce(quote_literal(symbol), 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT c.ts INTO first_bar FROM candles AS c
    WHERE c.symbol = expected_candles.symbol AND c.tf = expected_candles.tf ORDER BY c.ts LIMIT 1;
    SELECT c.ts INTO last_bar FROM candles AS c
    WHERE c.symbol = expected_candles.symbol AND c.tf = expected_candles.tf ORDER BY c.ts DESC LIMIT 1;
    -- Without any bar, what is asked for is expected: until now, and since the listing.
    lower_bound := coalesce(since, first_bar, instrument.listed_at::timestamp AT TIME ZONE 'UTC');
    upper_bound := least(
        coalesce(until, last_bar + interval '1 microsecond', CASE WHEN since IS NOT NULL THEN now() END),
        now()
    );
    IF lower_bound IS NULL OR upper_bound IS NULL OR lower_bound >= upper_bound THEN
        RETURN;
    END IF;
    IF instrument.calendar <> '24/7' THEN
        -- Nothing would be expected where no session is known: that is no completeness.
        SELECT s.closes INTO known_until FROM market_sessions AS s
        WHERE s.calendar = instrument.calendar ORDER BY s.session DESC LIMIT 1;
        IF upper_bound > coalesce(known_until, '-infinity') THEN
            RAISE EXCEPTION 'market_sessions does not reach to % for calendar %: `hyperfeast completeness` brings it up to date',
                upper_bound, instrument.calendar
                USING ERRCODE = 'data_exception';
        END IF;
        -- Bars of an hour are cut from the session's open by one source, from the full hour by another:
        -- the grid on which more of the bars lie is the one that they were cut by.
        IF tf NOT IN ('1m', '1d', '1w') AND EXISTS (
            SELECT FROM market_sessions AS s
            WHERE s.calendar = instrument.calendar AND s.closes > lower_bound AND s.opens < upper_bound
                AND (s.opens <> date_bin(width, s.opens, monday)
                    OR s.break_ends <> date_bin(width, s.break_ends, monday))
        ) THEN
            SELECT count(*) INTO on_session
            FROM session_bars(
                instrument.calendar, tf, lower_bound, upper_bound, instrument.listed_at, instrument.delisted_at, false
            ) AS bar
            JOIN candles AS c ON c.symbol = expected_candles.symbol AND c.tf = expected_candles.tf AND c.ts = bar;
            SELECT count(*) INTO on_utc
            FROM session_bars(
                instrument.calendar, tf, lower_bound, upper_bound, instrument.listed_at, instrument.delisted_at, true
            ) AS bar
            JOIN candles AS c ON c.symbol = expected_candles.symbol AND c.tf = expected_candles.tf AND c.ts = bar;
            in_utc := on_utc > on_session;
        END IF;
    END IF;
    RETURN QUERY SELECT bar, c.ts IS NOT NULL
    FROM session_bars(
        instrument.calendar, tf, lower_bound, upper_bound, instrument.listed_at, instrument.delisted_at, in_utc
    ) AS bar
    LEFT JOIN candles AS c
        ON c.symbol = expected_candles.symbol AND c.tf = expected_candles.tf AND c.ts = bar
        AND c.ts >= lower_bound AND c.ts < upper_bound;
END $$;
COMMENT ON FUNCTION expected_candles IS
    'Every bar that a symbol should have by its own trading calendar, and whether it is there. From the first to the last known bar unless since and until say otherwise.';

CREATE FUNCTION data_completeness(
    symbol text, tf text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL
) RETURNS TABLE (expected bigint, present bigint, missing tstzmultirange)
LANGUAGE sql STABLE AS $$
    WITH placed AS (
        SELECT e.ts, e.present, row_number() OVER in_time AS place, lead(e.ts) OVER in_time AS next
        FROM expected_candles(
            data_completeness.symbol, data_completeness.tf, data_completeness.since, data_completeness.until
        ) AS e
        WINDOW in_time AS (ORDER BY e.ts)
    ),
    absent AS (
        SELECT p.ts, p.next, p.place - row_number() OVER (ORDER BY p.ts) AS run
        FROM placed AS p
        WHERE NOT p.present
    ),
    runs AS (
        SELECT tstzrange(
            min(a.ts), least(max(a.ts) + timeframe_width(data_completeness.tf), max(a.next))
        ) AS run
        FROM absent AS a
        GROUP BY a.run
    )
    SELECT count(*), count(*) FILTER (WHERE p.present),
        coalesce((SELECT range_agg(r.run) FROM runs AS r), '{}'::tstzmultirange)
    FROM placed AS p
$$;
COMMENT ON FUNCTION data_completeness IS
    'How many bars a symbol should have by its own trading calendar, how many are there, and the ranges that are missing: each from the open of the first absent bar to the end of the last in a row. Weekends and holidays are no gaps.';
