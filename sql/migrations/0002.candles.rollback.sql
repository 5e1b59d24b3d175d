DROP TABLE candle_revisions;
DROP TABLE candles;
