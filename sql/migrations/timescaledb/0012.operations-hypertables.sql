-- depends: 0011.operations

-- TimescaleDB, either edition. As in 0008 the tables may be hypertables already, and may hold rows.
SELECT create_hypertable(
    'data_quality_results', 'ts', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'feature_importance', 'ts', chunk_time_interval => interval '90 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'model_performance', 'evaluation_date', chunk_time_interval => interval '90 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'generated_signals', 'ts', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'prediction_metrics', 'ts', chunk_time_interval => interval '30 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
SELECT create_hypertable(
    'drift_results', 'ts', chunk_time_interval => interval '90 days',
    create_default_indexes => false, if_not_exists => true, migrate_data => true
);
