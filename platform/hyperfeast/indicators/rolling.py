"""What looks back a number of bars, over any rule: lags, changes, sequences, means, z-scores."""

import math
from dataclasses import replace

import numpy as np

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.catalog import ta
from hyperfeast.indicators.rule import FloatArray, Rule, as_rule, derived


def lag(of: Rule | str, bars: int) -> Rule:
    """A value as it was `bars` bars ago.

    Raises:
        FeatureError: fewer than one bar: a value of later bars is not known yet.
    """
    rule = as_rule(of)
    _at_least(1, bars, f"lag({rule.text})")

    def shifted(values: FloatArray) -> FloatArray:
        return _after(bars, values[: max(len(values) - bars, 0)], len(values))

    return derived(f"lag({rule.text}, {bars})", (rule,), shifted, lookback=bars)


def change(of: Rule | str, bars: int) -> Rule:
    """A value less what it was `bars` bars ago.

    Of a sum that has no beginning of its own (`ta("OBV")`) only changes mean something.

    Raises:
        FeatureError: fewer than one bar.
    """
    rule = as_rule(of)
    return rule - lag(rule, bars)


def sequence(of: Rule | str, bars: int) -> Rule:
    """The last `bars` values, oldest first, as one list; null unless all of them are there.

    Raises:
        FeatureError: fewer than two bars, or a sequence of a sequence.
    """
    rule = as_rule(of)
    _at_least(2, bars, f"sequence({rule.text})")

    def rows(values: FloatArray) -> FloatArray:
        if len(values) < bars:
            return np.full((len(values), bars), np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(values, bars)
        return np.concatenate([np.full((bars - 1, bars), np.nan), windows])

    whole = derived(f"sequence({rule.text}, {bars})", (rule,), rows, lookback=bars - 1)
    return replace(whole, width=bars)


def mean(of: Rule | str, bars: int) -> Rule:
    """Mean of the last `bars` values; TA-Lib's SMA, which begins with windows of two.

    Raises:
        FeatureError: fewer than two bars.
    """
    _at_least(2, bars, "mean")
    return ta("SMA", timeperiod=bars, on=of)


def sample_deviation(of: Rule | str, bars: int) -> Rule:
    """Sample deviation (n - 1) of the last `bars` values.

    Raises:
        FeatureError: fewer than two bars.
    """
    _at_least(2, bars, "a sample deviation")
    return ta("STDDEV", timeperiod=bars, on=of) * math.sqrt(bars / (bars - 1))


def z_score(of: Rule | str, bars: int) -> Rule:
    """A value less the mean of the last `bars`, itself included, in their sample deviations.

    Null where they are all the same.

    Raises:
        FeatureError: fewer than two bars.
    """
    rule = as_rule(of)
    _at_least(2, bars, f"z_score({rule.text})")
    average, deviation = mean(rule, bars), sample_deviation(rule, bars)

    def score(values: FloatArray, means: FloatArray, deviations: FloatArray) -> FloatArray:
        return np.where(deviations > 0, (values - means) / deviations, np.nan)

    return derived(f"z_score({rule.text}, {bars})", (rule, average, deviation), score)


def _after(missing: int, values: FloatArray, length: int) -> FloatArray:
    whole = np.full(length, np.nan)
    whole[missing:] = values
    return whole


def _at_least(least: int, bars: int, what: str) -> None:
    if isinstance(bars, bool) or not isinstance(bars, int) or bars < least:
        raise FeatureError(f"{what} over {bars!r} bars: expected a whole number from {least}")
