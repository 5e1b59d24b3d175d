DROP VIEW user_baseline_daily;
