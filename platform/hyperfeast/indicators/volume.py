"""Volume and volume-weighted prices, beyond TA-Lib's own."""

import numpy as np

from hyperfeast.indicators.catalog import ta
from hyperfeast.indicators.prices import log_return
from hyperfeast.indicators.rolling import mean, z_score
from hyperfeast.indicators.rule import FloatArray, Rule, column, derived


def volume_z_score(bars: int) -> Rule:
    """Volume less its mean over the last `bars`, in sample deviations. Null where it never moved."""
    return z_score("volume", bars)


def relative_volume(bars: int) -> Rule:
    """Volume over its mean of the last `bars`, itself included: 1 is as ever. Null without trade."""
    return column("volume") / mean("volume", bars)


def traded_value(bars: int) -> Rule:
    """Mean of close times volume over the last `bars`; money a bar."""
    return mean(column("close") * column("volume"), bars)


def illiquidity(bars: int) -> Rule:
    """Mean of |log return| over money traded, of the last `bars` (Amihud 2002). Null without trade."""
    value = column("close") * column("volume")
    moved = ta("SQRT", on=log_return(1) * log_return(1))
    return mean(moved / value, bars)


def vwap(bars: int) -> Rule:
    """Volume-weighted mean of the typical price (high + low + close) / 3 over the last `bars`.

    Null where nothing was traded.
    """
    return ta("VWMA", timeperiod=bars, on=ta("TYPPRICE"))


def distance_to_vwap(bars: int) -> Rule:
    """Close over `vwap(bars)`, less 1."""
    return column("close") / vwap(bars) - 1


def signed_volume(bars: int) -> Rule:
    """Volume of rising bars less that of falling ones, as a share of all, over the last `bars`."""
    direction = derived("direction(close, open)", (column("close"), column("open")), _direction)
    signed = ta("SUM", timeperiod=bars, on=direction * column("volume"))
    return signed / ta("SUM", timeperiod=bars, on="volume")


def _direction(close: FloatArray, start: FloatArray) -> FloatArray:
    return np.sign(close - start)
