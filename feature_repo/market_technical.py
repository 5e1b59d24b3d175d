"""Technical indicators on daily bars."""

from datetime import timedelta

from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import (
    column,
    distance_to_high,
    log_return,
    realized_volatility,
    ta,
    volume_z_score,
)
from hyperfeast.types import Timeframe

macd, macd_signal, macd_histogram = (
    ta("MACD", fastperiod=12, slowperiod=26, signalperiod=9, output=line)
    for line in ("macd", "macdsignal", "macdhist")
)
upper, middle, lower = (
    ta("BBANDS", timeperiod=20, nbdevup=2, nbdevdn=2, output=band)
    for band in ("upperband", "middleband", "lowerband")
)
percent_b = (column("close") - lower) / (upper - lower)

market_technical = FeatureSet(
    name="market_technical",
    version=1,
    description="Trend, momentum, volatility and volume of daily bars, known at the session's close.",
    keys=(Key("symbol", "symbol", "An instrument."),),
    source=Bars(Timeframe.D1),
    freshness=timedelta(days=7),
    features=(
        Feature("ema_12", "Exponential moving average, 12 sessions; price.", ta("EMA", timeperiod=12),
                bounds=(0, None)),
        Feature("ema_26", "Exponential moving average, 26 sessions; price.", ta("EMA", timeperiod=26),
                bounds=(0, None)),
        Feature("ema_50", "Exponential moving average, 50 sessions; price.", ta("EMA", timeperiod=50),
                bounds=(0, None)),
        Feature("rsi_14", "Relative strength index, 14 sessions; 0 to 100.", ta("RSI", timeperiod=14),
                bounds=(0, 100)),
        Feature("macd", "EMA 12 less EMA 26; price.", macd),
        Feature("macd_signal", "EMA 9 of the MACD line; price.", macd_signal),
        Feature("macd_histogram", "MACD less its signal; price.", macd_histogram),
        Feature("bollinger_upper", "20-session mean + 2 deviations; price.", upper),
        Feature("bollinger_middle", "20-session mean; price.", middle),
        Feature("bollinger_lower", "20-session mean - 2 deviations; price.", lower),
        Feature("bollinger_percent_b", "Close between the bands; 0 lower, 1 upper.", percent_b),
        Feature("bollinger_width", "Distance of the bands over the mean; ratio.", (upper - lower) / middle,
                bounds=(0, None)),
        Feature("atr_14", "Average true range, 14 sessions; price.", ta("ATR", timeperiod=14), bounds=(0, None)),
        Feature("log_return_1", "Log return over 1 session.", log_return(1)),
        Feature("log_return_5", "Log return over 5 sessions.", log_return(5)),
        Feature("log_return_20", "Log return over 20 sessions.", log_return(20)),
        Feature("realized_volatility_20", "Deviation of 20 daily log returns; a year.", realized_volatility(20),
                bounds=(0, None)),
        Feature("volume_z_score_20", "Volume against its last 20 sessions; deviations.", volume_z_score(20)),
        Feature("distance_to_52w_high", "Close over the 252-session high, less 1.", distance_to_high(252),
                bounds=(None, 0)),
    ),
)  # fmt: skip
