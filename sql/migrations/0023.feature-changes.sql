-- depends: 0022.baseline-windows

-- Which bars changed since feature sets were computed from them. Marked by the database itself, in the
-- transaction of the change, so that it does not matter who writes and nothing is lost; deleted in the
-- transaction that writes the rows that follow from it.

CREATE TABLE changed_bars (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol text NOT NULL,
    tf text CHECK (tf IN ('1m', '5m', '15m', '1h', '4h', '1d', '1w')),
    first timestamptz NOT NULL,
    last timestamptz NOT NULL CHECK (last >= first),
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE changed_bars IS
    'Bars that changed, before the feature sets that read them were told: one row a statement, symbol and timeframe.';
COMMENT ON COLUMN changed_bars.id IS 'The order of the marks.';
COMMENT ON COLUMN changed_bars.symbol IS 'Whose bars.';
COMMENT ON COLUMN changed_bars.tf IS 'Their timeframe; null for all, as a split or another calendar touches them.';
COMMENT ON COLUMN changed_bars.first IS 'The open of the earliest bar that changed, or a moment before it.';
COMMENT ON COLUMN changed_bars.last IS 'The open of the latest, or a moment behind it; 9999 for all that follow.';
COMMENT ON COLUMN changed_bars.marked_at IS 'When the writer marked them.';

CREATE TABLE tracked_feature_sets (
    feature_set text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    tf text NOT NULL CHECK (tf IN ('1m', '5m', '15m', '1h', '4h', '1d', '1w')),
    relation oid NOT NULL,
    tracked_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (feature_set, version)
);
COMMENT ON TABLE tracked_feature_sets IS 'The feature sets over bars that are told of every change, from their first computation on.';
COMMENT ON COLUMN tracked_feature_sets.feature_set IS 'The set.';
COMMENT ON COLUMN tracked_feature_sets.version IS 'Its version: each has changes of its own.';
COMMENT ON COLUMN tracked_feature_sets.tf IS 'The timeframe of the bars that it reads.';
COMMENT ON COLUMN tracked_feature_sets.relation IS 'The table of its rows: one that was made anew is computed from the beginning.';
COMMENT ON COLUMN tracked_feature_sets.tracked_since IS 'Since when; everything before was to be computed then.';

CREATE TABLE feature_backlog (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feature_set text NOT NULL,
    version integer NOT NULL,
    symbol text NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    FOREIGN KEY (feature_set, version) REFERENCES tracked_feature_sets ON DELETE CASCADE
);
CREATE INDEX feature_backlog_key ON feature_backlog (feature_set, version, symbol);
COMMENT ON TABLE feature_backlog IS
    'What each feature set has to compute: whoever writes the rows that follow from a change deletes it with them.';
COMMENT ON COLUMN feature_backlog.id IS 'What a computation answers for, and deletes.';
COMMENT ON COLUMN feature_backlog.feature_set IS 'The set.';
COMMENT ON COLUMN feature_backlog.version IS 'Its version.';
COMMENT ON COLUMN feature_backlog.symbol IS 'Whose bars changed.';
COMMENT ON COLUMN feature_backlog.first IS 'As in changed_bars; the year 1000 for all bars.';
COMMENT ON COLUMN feature_backlog.last IS 'As in changed_bars.';

CREATE TABLE feature_corrections (
    correction_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feature_set text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    entity text[] NOT NULL,
    first_event timestamptz NOT NULL,
    last_event timestamptz NOT NULL CHECK (last_event >= first_event),
    revised bigint NOT NULL CHECK (revised > 0),
    features text[] NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX feature_corrections_newest ON feature_corrections (recorded_at);
CREATE INDEX feature_corrections_entity ON feature_corrections (entity, recorded_at);
COMMENT ON TABLE feature_corrections IS
    'Every time that values which had been served were revised: what `hyperfeast impact` starts from.';
COMMENT ON COLUMN feature_corrections.correction_id IS 'The order of the corrections.';
COMMENT ON COLUMN feature_corrections.feature_set IS 'The set.';
COMMENT ON COLUMN feature_corrections.version IS 'Its version.';
COMMENT ON COLUMN feature_corrections.entity IS 'The values of the set''s keys, in their order: the symbol.';
COMMENT ON COLUMN feature_corrections.first_event IS 'The event timestamp of the first row that was revised.';
COMMENT ON COLUMN feature_corrections.last_event IS 'The event timestamp of the last one.';
COMMENT ON COLUMN feature_corrections.revised IS 'How many rows were revised; those that were new do not count.';
COMMENT ON COLUMN feature_corrections.features IS 'The features whose values changed.';
COMMENT ON COLUMN feature_corrections.recorded_at IS 'The recorded_at of the new revisions, the earliest of them.';

-- What retention deletes is no change: under SET LOCAL hyperfeast.retention = 'on' nothing is marked.
CREATE FUNCTION mark_changed_bars() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO changed_bars (symbol, tf, first, last)
            SELECT symbol, tf, min(ts), max(ts) FROM new_rows GROUP BY symbol, tf;
        WHEN 'UPDATE' THEN
            INSERT INTO changed_bars (symbol, tf, first, last)
            SELECT symbol, tf, min(ts), max(ts)
            FROM (SELECT symbol, tf, ts FROM new_rows UNION ALL SELECT symbol, tf, ts FROM old_rows) AS rows
            GROUP BY symbol, tf;
        WHEN 'TRUNCATE' THEN
            INSERT INTO changed_bars (symbol, tf, first, last)
            SELECT symbol, tf, min(ts), max(ts) FROM candles GROUP BY symbol, tf;
    END CASE;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_changed_bars() IS 'Marks the bars that a statement touched, in its transaction.';

-- By row: a trigger with a transition table for deleted rows makes compression impossible. Rows mostly go in the
-- order of their days: only where the day changes is it marked again.
CREATE FUNCTION mark_deleted_bar() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    day timestamptz := date_trunc('day', OLD.ts, 'UTC');
    marked text := concat_ws('/', OLD.symbol, OLD.tf, day);
BEGIN
    IF current_setting('hyperfeast.marked_bar', true) = marked THEN
        RETURN NULL;
    END IF;
    INSERT INTO changed_bars (symbol, tf, first, last)
    VALUES (OLD.symbol, OLD.tf, day, day + interval '24 hours');
    PERFORM set_config('hyperfeast.marked_bar', marked, true);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_deleted_bar() IS 'Marks the day of a deleted bar, in its transaction.';

CREATE TRIGGER candles_changed_insert AFTER INSERT ON candles
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_bars();
CREATE TRIGGER candles_changed_update AFTER UPDATE ON candles
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_bars();
CREATE TRIGGER candles_changed_truncate BEFORE TRUNCATE ON candles
    FOR EACH STATEMENT EXECUTE FUNCTION mark_changed_bars();
CREATE TRIGGER candles_changed_delete AFTER DELETE ON candles
    FOR EACH ROW WHEN (current_setting('hyperfeast.retention', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION mark_deleted_bar();

-- A split touches every bar from its ex-date on, of every timeframe.
CREATE FUNCTION mark_changed_splits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' AND NEW.kind = 'split' THEN
        INSERT INTO changed_bars (symbol, first, last)
        VALUES (NEW.symbol, NEW.ex_date::timestamp AT TIME ZONE 'UTC', '9999-01-01 00:00+00');
    END IF;
    IF TG_OP <> 'INSERT' AND OLD.kind = 'split' THEN
        INSERT INTO changed_bars (symbol, first, last)
        VALUES (OLD.symbol, OLD.ex_date::timestamp AT TIME ZONE 'UTC', '9999-01-01 00:00+00');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_changed_splits() IS 'Marks the bars from the ex-date of a split on, in the writer''s transaction.';
CREATE TRIGGER corporate_actions_changed AFTER INSERT OR UPDATE OR DELETE ON corporate_actions
    FOR EACH ROW EXECUTE FUNCTION mark_changed_splits();

-- By its calendar it is known when a daily bar was known, and to which session any bar belongs. Bars of a symbol
-- that is no instrument count for nothing until it becomes one.
CREATE FUNCTION mark_changed_instrument() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO changed_bars (symbol, first, last)
        VALUES (NEW.symbol, '1000-01-01 00:00+00', '9999-01-01 00:00+00');
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO changed_bars (symbol, first, last)
        VALUES (OLD.symbol, '1000-01-01 00:00+00', '9999-01-01 00:00+00');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mark_changed_instrument() IS 'Marks all bars of an instrument that comes, goes, or trades by another calendar.';
CREATE TRIGGER instruments_changed AFTER INSERT OR DELETE ON instruments
    FOR EACH ROW EXECUTE FUNCTION mark_changed_instrument();
CREATE TRIGGER instruments_changed_calendar AFTER UPDATE ON instruments
    FOR EACH ROW WHEN (OLD.symbol <> NEW.symbol OR OLD.calendar <> NEW.calendar)
    EXECUTE FUNCTION mark_changed_instrument();
