"""Technical indicators on daily bars."""

from datetime import timedelta

from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import (
    atr,
    bollinger,
    bollinger_percent_b,
    bollinger_width,
    distance_to_high,
    ema,
    log_return,
    macd,
    realized_volatility,
    rsi,
    volume_z_score,
)
from hyperfeast.types import Timeframe

market_technical = FeatureSet(
    name="market_technical",
    version=1,
    description="Trend, momentum, volatility and volume of daily bars, known at the session's close.",
    keys=(Key("symbol", "symbol", "An instrument."),),
    source=Bars(Timeframe.D1),
    freshness=timedelta(days=7),
    features=(
        Feature("ema_12", "Exponential moving average, 12 sessions; price.", ema(12)),
        Feature("ema_26", "Exponential moving average, 26 sessions; price.", ema(26)),
        Feature("ema_50", "Exponential moving average, 50 sessions; price.", ema(50)),
        Feature("rsi_14", "Relative strength index, 14 sessions; 0 to 100.", rsi(14)),
        Feature("macd", "EMA 12 less EMA 26; price.", macd(12, 26, 9, "macd")),
        Feature("macd_signal", "EMA 9 of the MACD line; price.", macd(12, 26, 9, "macdsignal")),
        Feature("macd_histogram", "MACD less its signal; price.", macd(12, 26, 9, "macdhist")),
        Feature("bollinger_upper", "20-session mean + 2 deviations; price.", bollinger(20, 2, "upperband")),
        Feature("bollinger_middle", "20-session mean; price.", bollinger(20, 2, "middleband")),
        Feature("bollinger_lower", "20-session mean - 2 deviations; price.", bollinger(20, 2, "lowerband")),
        Feature("bollinger_percent_b", "Close between the bands; 0 lower, 1 upper.", bollinger_percent_b(20, 2)),
        Feature("bollinger_width", "Distance of the bands over the mean; ratio.", bollinger_width(20, 2)),
        Feature("atr_14", "Average true range, 14 sessions; price.", atr(14)),
        Feature("log_return_1", "Log return over 1 session.", log_return(1)),
        Feature("log_return_5", "Log return over 5 sessions.", log_return(5)),
        Feature("log_return_20", "Log return over 20 sessions.", log_return(20)),
        Feature("realized_volatility_20", "Deviation of 20 daily log returns; a year.", realized_volatility(20)),
        Feature("volume_z_score_20", "Volume against its last 20 sessions; deviations.", volume_z_score(20)),
        Feature("distance_to_52w_high", "Close over the 252-session high, less 1.", distance_to_high(252)),
    ),
)  # fmt: skip
