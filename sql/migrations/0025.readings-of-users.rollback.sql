ALTER TABLE ingest_batches DROP COLUMN user_id;
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
        WHEN 'UPDATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM new_rows
            UNION
            SELECT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date FROM old_rows;
        WHEN 'DELETE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM old_rows;
        WHEN 'TRUNCATE' THEN
            INSERT INTO dirty_days (relation, key, day)
            SELECT DISTINCT 'user_baseline_raw', user_id::text, (ts AT TIME ZONE 'UTC')::date
            FROM user_baseline_raw;
    END CASE;
    RETURN NULL;
END
$$;
DO $migration$
BEGIN
    IF to_regproc('mark_deleted_reading') IS NULL THEN
        RETURN;
    END IF;
    CREATE OR REPLACE FUNCTION mark_deleted_reading() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        marked text := concat_ws('/', OLD.user_id, (OLD.ts AT TIME ZONE 'UTC')::date);
    BEGIN
        IF current_setting('hyperfeast.retention', true) = 'on'
            OR current_setting('hyperfeast.marked_reading', true) = marked THEN
            RETURN NULL;
        END IF;
        INSERT INTO dirty_days (relation, key, day)
        VALUES ('user_baseline_raw', OLD.user_id::text, (OLD.ts AT TIME ZONE 'UTC')::date);
        PERFORM set_config('hyperfeast.marked_reading', marked, true);
        RETURN NULL;
    END
    $$;
END
$migration$;
DROP TABLE reading_marks;
DROP TABLE reading_sets;
DROP TABLE reading_changes;
COMMENT ON COLUMN features_personal_baseline_v1.event_timestamp IS
    'Available time: the end of the UTC day described.';
COMMENT ON COLUMN features_personal_baseline_v1.day_mean IS 'Mean of the day''s readings; the metric''s unit.';
ALTER TABLE features_personal_baseline_v1
    DROP COLUMN harmonized_z_score,
    DROP COLUMN deviation_1d,
    DROP COLUMN deviation_7d,
    DROP COLUMN deviation_30d,
    DROP COLUMN stability_30d,
    DROP COLUMN day_std_30d,
    DROP COLUMN day_z_score,
    DROP COLUMN n_day,
    DROP COLUMN day_hours;
