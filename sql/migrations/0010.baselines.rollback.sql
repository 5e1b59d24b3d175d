DROP VIEW user_baseline_30d;
