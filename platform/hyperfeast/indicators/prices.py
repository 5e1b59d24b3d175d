"""What TA-Lib lacks of prices: returns, realized volatility, and how far they are from their extremes."""

import math
from typing import Literal

import numpy as np

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.catalog import ta
from hyperfeast.indicators.rolling import lag, mean, sample_deviation
from hyperfeast.indicators.rule import FloatArray, Rule, as_rule, column, derived

SESSIONS_A_YEAR = 252

Estimator = Literal["close", "parkinson", "garman_klass"]


def log_return(bars: int, *, of: Rule | str = "close") -> Rule:
    """Natural logarithm of the close over the close `bars` bars ago.

    Raises:
        FeatureError: fewer than one bar.
    """
    value = as_rule(of)
    return (value / lag(value, bars)).log()


def realized_volatility(
    bars: int, *, estimator: Estimator = "close", bars_a_year: float = SESSIONS_A_YEAR
) -> Rule:
    """Volatility of the last `bars` bars, a year.

    Args:
        bars: in the window.
        estimator: `close`: sample deviation of log returns from close to close. `parkinson`
            (Parkinson 1980): root of the mean of ln(high/low)^2 / (4 ln 2). `garman_klass` (Garman
            and Klass 1980): root of the mean of ln(high/low)^2 / 2 - (2 ln 2 - 1) ln(close/open)^2.
            The last two use what happens within a bar and nothing between bars.
        bars_a_year: how many bars a year has; 252 sessions by default.

    Raises:
        FeatureError: fewer than two bars, or no such estimator.
    """
    match estimator:
        case "close":
            deviation = sample_deviation(log_return(1), bars)
        case "parkinson":
            deviation = _root(mean(_squared_log("high", "low") / (4 * np.log(2)), bars))
        case "garman_klass":
            within = _squared_log("high", "low") * 0.5
            drift = _squared_log("close", "open") * (2 * np.log(2) - 1)
            deviation = _root(mean(within - drift, bars))
        case _:
            raise FeatureError(
                f"realized_volatility has no estimator {estimator!r}: take close, parkinson or "
                "garman_klass"
            )
    return deviation * math.sqrt(bars_a_year)


def drawdown(bars: int) -> Rule:
    """Close over the highest close of the last `bars`, less 1: 0 at the top, else negative."""
    return column("close") / ta("MAX", timeperiod=bars, on="close") - 1


def distance_to_high(bars: int) -> Rule:
    """Close over the highest high of the last `bars`, less 1: 0 at a new high, else negative."""
    return column("close") / ta("MAX", timeperiod=bars, on="high") - 1


def distance_to_low(bars: int) -> Rule:
    """Close over the lowest low of the last `bars`, less 1: 0 at a new low, else positive."""
    return column("close") / ta("MIN", timeperiod=bars, on="low") - 1


def _squared_log(over: str, under: str) -> Rule:
    logarithm = (column(over) / column(under)).log()
    return logarithm * logarithm


def _root(rule: Rule) -> Rule:
    """The square root; of what rounding has put a little below 0, 0."""

    def root(values: FloatArray) -> FloatArray:
        return np.sqrt(np.maximum(values, 0.0))

    return derived(f"sqrt({rule.text})", (rule,), root)
