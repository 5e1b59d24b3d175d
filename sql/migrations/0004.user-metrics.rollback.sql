DROP TABLE user_baseline_raw;
