DROP MATERIALIZED VIEW user_baseline_daily;
