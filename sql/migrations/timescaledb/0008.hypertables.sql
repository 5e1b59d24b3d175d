-- depends: 0007.signals

-- TimescaleDB, either edition: time-partitioned tables. Rolling back leaves the tables partitioned, so
-- they may be hypertables already; and they may hold rows by now.
SELECT create_hypertable(
    'candles', 'ts', chunk_time_interval => interval '7 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'candle_revisions', 'recorded_at', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'quarantine', 'recorded_at', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'user_baseline_raw', 'ts', chunk_time_interval => interval '7 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'features_market_technical_v1', 'event_timestamp', chunk_time_interval => interval '90 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'features_personal_baseline_v1', 'event_timestamp', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'signals', 'ts', chunk_time_interval => interval '1 day',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
