COMMENT ON COLUMN baseline_history.created_at IS 'When it was taken.';
COMMENT ON COLUMN baseline_history.baseline IS 'Metric -> mean, deviation, count, days present.';
DROP TABLE user_baseline_windows;
