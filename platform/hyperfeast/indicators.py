"""Rules that turn a window of bars into one number a bar, by Polars and TA-Lib.

Every rule reads the columns open, high, low, close and volume of one symbol's forward-adjusted
bars (`adjustment`) in time order, looks only backward, and is null until it is warm.
"""

from dataclasses import dataclass

import polars as pl
import polars_talib as talib

SESSIONS_A_YEAR = 252

_HIGH_LOW_CLOSE = (pl.col("high"), pl.col("low"), pl.col("close"))


@dataclass(frozen=True)
class Rule:
    """How a feature is computed.

    Attributes:
        text: the rule in words that identify it: another text is another rule.
        expression: evaluated over one symbol's bars in time order.
        lookback: how many earlier bars the first value needs.
        in_price_units: whether the value scales with the price, and so has to be brought back from
            forward-adjusted prices to the share that is traded at that moment.
    """

    text: str
    expression: pl.Expr
    lookback: int
    in_price_units: bool = False


def ema(period: int) -> Rule:
    """Exponential moving average of the close, seeded by the mean of the first `period` (TA-Lib EMA)."""
    return Rule(
        f"ema(close, {period})",
        talib.ema(pl.col("close"), timeperiod=period),
        lookback=period - 1,
        in_price_units=True,
    )


def rsi(period: int) -> Rule:
    """Wilder's relative strength index of the close, 0 to 100 (TA-Lib RSI)."""
    return Rule(
        f"rsi(close, {period})", talib.rsi(pl.col("close"), timeperiod=period), lookback=period
    )


def macd(fast: int, slow: int, signal: int, output: str) -> Rule:
    """Moving average convergence/divergence of the close (TA-Lib MACD).

    Args:
        fast: period of the fast average.
        slow: period of the slow average.
        signal: period of the signal line, an average of the difference.
        output: `macd`, `macdsignal` or `macdhist`.
    """
    lines = talib.macd(pl.col("close"), fastperiod=fast, slowperiod=slow, signalperiod=signal)
    return Rule(
        f"macd(close, {fast}, {slow}, {signal}).{output}",
        lines.struct.field(output),
        lookback=slow + signal - 2,
        in_price_units=True,
    )


def bollinger(period: int, deviations: float, output: str) -> Rule:
    """A Bollinger band of the close: mean ± deviations of the population (TA-Lib BBANDS).

    Args:
        period: bars in the window.
        deviations: width of the band in standard deviations.
        output: `upperband`, `middleband` or `lowerband`.
    """
    return Rule(
        f"bollinger(close, {period}, {deviations:g}).{output}",
        _bands(period, deviations).struct.field(output),
        lookback=period - 1,
        in_price_units=True,
    )


def bollinger_percent_b(period: int, deviations: float) -> Rule:
    """Where the close lies between the bands: 0 at the lower, 1 at the upper. Null if they touch."""
    bands = _bands(period, deviations)
    upper, lower = bands.struct.field("upperband"), bands.struct.field("lowerband")
    return Rule(
        f"bollinger_percent_b(close, {period}, {deviations:g})",
        (pl.col("close") - lower) / (upper - lower),
        lookback=period - 1,
    )


def bollinger_width(period: int, deviations: float) -> Rule:
    """The distance of the bands as a share of the middle one."""
    bands = _bands(period, deviations)
    upper, middle, lower = (
        bands.struct.field(name) for name in ("upperband", "middleband", "lowerband")
    )
    return Rule(
        f"bollinger_width(close, {period}, {deviations:g})",
        (upper - lower) / middle,
        lookback=period - 1,
    )


def atr(period: int) -> Rule:
    """Wilder's average true range (TA-Lib ATR)."""
    return Rule(
        f"atr(high, low, close, {period})",
        talib.atr(*_HIGH_LOW_CLOSE, timeperiod=period),
        lookback=period,
        in_price_units=True,
    )


def log_return(bars: int) -> Rule:
    """Natural logarithm of close over the close `bars` bars ago."""
    return Rule(f"log_return(close, {bars})", _log_return(bars), lookback=bars)


def realized_volatility(bars: int) -> Rule:
    """Sample standard deviation of the last `bars` daily log returns, a year: times sqrt(252)."""
    return Rule(
        f"realized_volatility(close, {bars})",
        _log_return(1).rolling_std(bars) * SESSIONS_A_YEAR**0.5,
        lookback=bars,
    )


def volume_z_score(bars: int) -> Rule:
    """Volume less its mean over the last `bars`, in sample deviations. Null where it never moved."""
    volume = pl.col("volume")
    return Rule(
        f"volume_z_score(volume, {bars})",
        (volume - volume.rolling_mean(bars)) / volume.rolling_std(bars),
        lookback=bars - 1,
    )


def distance_to_high(bars: int) -> Rule:
    """Close over the highest high of the last `bars`, less 1: 0 at a new high, else negative."""
    return Rule(
        f"distance_to_high(close, high, {bars})",
        pl.col("close") / pl.col("high").rolling_max(bars) - 1,
        lookback=bars - 1,
    )


def _bands(period: int, deviations: float) -> pl.Expr:
    bands: pl.Expr = talib.bbands(
        pl.col("close"), timeperiod=period, nbdevup=deviations, nbdevdn=deviations
    )
    return bands


def _log_return(bars: int) -> pl.Expr:
    close = pl.col("close")
    return (close / close.shift(bars)).log()
