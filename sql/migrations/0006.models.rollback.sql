DROP TABLE model_registry;
DROP TABLE training_runs;
