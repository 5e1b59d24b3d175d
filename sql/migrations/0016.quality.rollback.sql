DROP FUNCTION data_completeness;
DROP FUNCTION expected_candles;
DROP FUNCTION session_bars;
DROP FUNCTION timeframe_width;
DROP TABLE outlier_flags;
DROP TABLE market_sessions;
