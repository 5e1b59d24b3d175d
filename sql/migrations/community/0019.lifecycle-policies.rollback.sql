-- The rows as the earlier migrations know them: in the open, and dropped by nobody. A refresh that
-- begins at the horizon goes on doing so: what is older could not be computed again.
SELECT remove_compression_policy(format('%I.%I', hypertable_schema, hypertable_name)::regclass)
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_compression' AND hypertable_schema = current_schema();

SELECT remove_retention_policy(format('%I.%I', hypertable_schema, hypertable_name)::regclass)
FROM timescaledb_information.jobs
WHERE proc_name = 'policy_retention' AND hypertable_schema = current_schema();

SELECT decompress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass, if_compressed => true)
FROM timescaledb_information.chunks
WHERE is_compressed AND hypertable_schema = current_schema();

DO $$
DECLARE
    compressed regclass;
BEGIN
    FOR compressed IN
        SELECT format('%I.%I', hypertable_schema, hypertable_name)::regclass
        FROM timescaledb_information.hypertables
        WHERE compression_enabled AND hypertable_schema = current_schema()
    LOOP
        EXECUTE format('ALTER TABLE %s SET (timescaledb.compress = false)', compressed);
    END LOOP;
END
$$;
