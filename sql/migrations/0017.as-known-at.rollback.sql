DROP FUNCTION features_personal_baseline_v1_as_known_at(timestamptz);
DROP FUNCTION features_market_technical_v1_as_known_at(timestamptz);
DROP FUNCTION user_baseline_daily_as_known_at(timestamptz);
DROP FUNCTION user_baseline_raw_as_known_at(timestamptz);
DROP FUNCTION corporate_actions_as_known_at(timestamptz);
DROP FUNCTION candles_rolled_up_as_known_at(interval, timestamptz);
DROP FUNCTION market_data_as_known_at(timestamptz);
DROP FUNCTION candles_as_known_at(timestamptz);
