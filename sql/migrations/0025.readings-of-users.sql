-- depends: 0022.baseline-windows

-- What follows one reading at once: the features of its user, metric and days; and what belongs to a user.

ALTER TABLE features_personal_baseline_v1
    ADD COLUMN harmonized_z_score double precision,
    ADD COLUMN deviation_1d double precision,
    ADD COLUMN deviation_7d double precision,
    ADD COLUMN deviation_30d double precision,
    ADD COLUMN stability_30d double precision,
    ADD COLUMN day_std_30d double precision,
    ADD COLUMN day_z_score double precision,
    ADD COLUMN n_day bigint,
    ADD COLUMN day_hours double precision;
COMMENT ON COLUMN features_personal_baseline_v1.event_timestamp IS
    'Available time: the end of the UTC day; of a day that is not over, a microsecond after its newest reading.';
COMMENT ON COLUMN features_personal_baseline_v1.day_mean IS 'Mean of the day''s readings so far; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.harmonized_z_score IS
    'The same around each device''s own mean, in the deviation around these means. Null for a new device.';
COMMENT ON COLUMN features_personal_baseline_v1.deviation_1d IS
    'Day''s mean less that of the day before; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.deviation_7d IS
    'Day''s mean less that of the 7 days before; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.deviation_30d IS
    'Day''s mean less that of the 30 days before; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.stability_30d IS
    'How alike the days before were: 1 / (1 + deviation of their means / size of mean_30d). Null of fewer than 3.';
COMMENT ON COLUMN features_personal_baseline_v1.day_std_30d IS
    'Sample deviation of the means of the days before; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.day_z_score IS
    'Day''s mean less mean_30d, in day_std_30d: as days go. Null without a baseline.';
COMMENT ON COLUMN features_personal_baseline_v1.n_day IS 'Number of the day''s readings so far.';
COMMENT ON COLUMN features_personal_baseline_v1.day_hours IS
    'Hours of the day until its newest reading; 24 once it is over.';

-- Which days of which series changed and were not computed yet. Beside dirty_days, which a refresh of the
-- aggregates empties: each has marks of its own.
CREATE TABLE reading_changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL,
    metric text NOT NULL,
    first date NOT NULL,
    last date NOT NULL CHECK (last >= first),
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX reading_changes_user ON reading_changes (user_id);
COMMENT ON TABLE reading_changes IS
    'Days whose readings changed, one row a statement, user and metric, until they are handed to the feature sets.';
COMMENT ON COLUMN reading_changes.id IS 'The mark.';
COMMENT ON COLUMN reading_changes.user_id IS 'Whose readings.';
COMMENT ON COLUMN reading_changes.metric IS 'Which of them.';
COMMENT ON COLUMN reading_changes.first IS 'The first UTC day.';
COMMENT ON COLUMN reading_changes.last IS 'The last UTC day.';
COMMENT ON COLUMN reading_changes.marked_at IS 'When the writer marked it.';

CREATE TABLE reading_sets (
    name text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    relation oid NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE reading_sets IS 'The feature sets that follow readings: each gets every mark.';
COMMENT ON COLUMN reading_sets.name IS 'The set''s name.';
COMMENT ON COLUMN reading_sets.version IS 'Its version.';
COMMENT ON COLUMN reading_sets.relation IS 'The table of its rows: one that was made anew is computed from the beginning.';
COMMENT ON COLUMN reading_sets.registered_at IS 'From when on; all that was there before was marked then.';

CREATE TABLE reading_marks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    version integer NOT NULL,
    user_id uuid NOT NULL,
    metric text NOT NULL,
    first date NOT NULL,
    last date NOT NULL CHECK (last >= first),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    FOREIGN KEY (name, version) REFERENCES reading_sets ON DELETE CASCADE
);
CREATE INDEX reading_marks_due ON reading_marks (name, version, user_id, due_at);
CREATE INDEX reading_marks_user ON reading_marks (user_id);
COMMENT ON TABLE reading_marks IS
    'What a feature set has not computed yet: deleted in the transaction that writes its rows.';
COMMENT ON COLUMN reading_marks.id IS 'The mark.';
COMMENT ON COLUMN reading_marks.name IS 'The feature set.';
COMMENT ON COLUMN reading_marks.version IS 'Its version.';
COMMENT ON COLUMN reading_marks.user_id IS 'Whose readings changed.';
COMMENT ON COLUMN reading_marks.metric IS 'Which of them.';
COMMENT ON COLUMN reading_marks.first IS 'The first UTC day that changed.';
COMMENT ON COLUMN reading_marks.last IS 'The last UTC day that changed.';
COMMENT ON COLUMN reading_marks.due_at IS 'From when it is to be done: a day that is not over is done again at its end.';

CREATE OR REPLACE FUNCTION mark_user_baseline_raw() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('hyperfeast.retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    CASE TG_OP
        WHEN 'INSERT' THEN
            INSERT INTO dirty_days (relation, key, day, copied)
            SELECT DISTINCT
                'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date,
                current_query() ~* '^\s*copy\M'
            FROM new_rows;
            INSERT INTO reading_changes (user_id, metric, first, last)
            SELECT user_id, metric, (min(ts) AT TIME ZONE 'UTC')::date, (max(ts) AT TIME ZONE 'UTC')::date
            FROM new_rows GROUP BY user_id, metric;
        WHEN 'UPDATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM new_rows
            UNION
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM old_rows;
            INSERT INTO reading_changes (user_id, metric, first, last)
            SELECT user_id, metric, (min(ts) AT TIME ZONE 'UTC')::date, (max(ts) AT TIME ZONE 'UTC')::date
            FROM (
                SELECT user_id, metric, ts FROM new_rows UNION ALL SELECT user_id, metric, ts FROM old_rows
            ) AS touched
            GROUP BY user_id, metric;
        WHEN 'DELETE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM old_rows;
            INSERT INTO reading_changes (user_id, metric, first, last)
            SELECT user_id, metric, (min(ts) AT TIME ZONE 'UTC')::date, (max(ts) AT TIME ZONE 'UTC')::date
            FROM old_rows GROUP BY user_id, metric;
        WHEN 'TRUNCATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM user_baseline_raw;
            INSERT INTO reading_changes (user_id, metric, first, last)
            SELECT user_id, metric, (min(ts) AT TIME ZONE 'UTC')::date, (max(ts) AT TIME ZONE 'UTC')::date
            FROM user_baseline_raw GROUP BY user_id, metric;
    END CASE;
    RETURN NULL;
END
$$;

-- Where rows of a hypertable are deleted one by one, they are marked one by one, and a day but once.
DO $migration$
BEGIN
    IF to_regproc('mark_deleted_reading') IS NULL THEN
        RETURN;
    END IF;
    CREATE OR REPLACE FUNCTION mark_deleted_reading() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        deleted date := (OLD.ts AT TIME ZONE 'UTC')::date;
        marked text := concat_ws('/', OLD.user_id, OLD.metric, deleted);
    BEGIN
        IF current_setting('hyperfeast.retention', true) = 'on'
            OR current_setting('hyperfeast.marked_reading', true) = marked THEN
            RETURN NULL;
        END IF;
        INSERT INTO dirty_days (relation, key, day) VALUES ('user_baseline_raw', OLD.user_id::text, deleted);
        INSERT INTO reading_changes (user_id, metric, first, last)
        VALUES (OLD.user_id, OLD.metric, deleted, deleted);
        PERFORM set_config('hyperfeast.marked_reading', marked, true);
        RETURN NULL;
    END
    $$;
END
$migration$;

-- A refused row may not say whose it is, where the sender named the user of all rows: then the batch does.
ALTER TABLE ingest_batches ADD COLUMN user_id uuid;
CREATE INDEX ingest_batches_user ON ingest_batches (user_id) WHERE user_id IS NOT NULL;
COMMENT ON COLUMN ingest_batches.user_id IS 'Whose readings all of its rows are, if the sender said so.';
