-- depends: 0018.lifecycle

-- TimescaleDB, either edition; as in 0008.
SELECT create_hypertable(
    'user_baseline_revisions', 'replaced_at', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
