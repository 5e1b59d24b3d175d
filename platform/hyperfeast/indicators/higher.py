"""Values of a higher timeframe, joined as of the moment when its bar was finished.

The bars of the higher timeframe are made of the rule's own bars, in buckets of UTC as the aggregates
cut them, so that they are adjusted, corrected and known as those are. A bucket counts from the first
bar on that closes when it is over; the bucket that a window begins in was not seen whole, and never
counts.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.rule import CLOSED, COLUMNS, OPENED, FloatArray, Rule, Window, as_rule
from hyperfeast.types import Timeframe

# Weeks begin on Monday; 1970-01-01 was a Thursday.
_FIRST_MONDAY = 4 * 86_400


def higher(timeframe: Timeframe, of: Rule | str, *, base: Timeframe) -> Rule:
    """A rule over the bars of a higher timeframe: the value of the last one that is finished.

    Args:
        timeframe: of the bars that the rule sees.
        of: the rule; it reads open, high, low, close and volume.
        base: the timeframe of the set's own bars, of which the higher ones are made.

    Raises:
        FeatureError: `timeframe` is not higher than `base`, or the rule reads something else.
    """
    rule = as_rule(of)
    if timeframe.width <= base.width:
        raise FeatureError(
            f"higher({timeframe.value}, {rule.text}): {timeframe.value} is not higher than the bars' own "
            f"{base.value}"
        )
    if other := rule.columns - set(COLUMNS):
        raise FeatureError(
            f"higher({timeframe.value}, {rule.text}): bars of {timeframe.value} have no "
            f"{', '.join(sorted(other))}"
        )
    bars_each = timeframe.width // base.width
    width = int(timeframe.width.total_seconds())

    def evaluate(bars: Window) -> FloatArray:
        buckets = (bars[OPENED].astype(np.int64) - _FIRST_MONDAY) // width
        firsts = np.flatnonzero(np.diff(buckets, prepend=buckets[0]))
        if not len(firsts):
            return np.full(len(buckets), np.nan)
        values = rule(Window(_aggregated(bars, firsts, rule.columns)))
        ends = (buckets[firsts] + 1) * width + _FIRST_MONDAY
        return _as_of(values, ends, bars[CLOSED])

    return Rule(
        f"higher({timeframe.value} of {base.value}, {rule.text})",
        lookback=rule.lookback + 1,
        # The bucket that a window begins in, and the one that is not finished yet.
        warm_up=(rule.warm_up + 2) * bars_each,
        function=evaluate,
        columns=rule.columns | {OPENED, CLOSED},
    )


def _aggregated(
    bars: Window, firsts: NDArray[np.int64], names: frozenset[str]
) -> dict[str, FloatArray]:
    """Open, high, low, close and volume of each bucket."""
    lasts = np.append(firsts[1:], len(bars[OPENED])) - 1
    kinds: dict[str, Callable[[FloatArray], FloatArray]] = {
        "open": lambda values: values[firsts],
        "high": lambda values: np.maximum.reduceat(values, firsts),
        "low": lambda values: np.minimum.reduceat(values, firsts),
        "close": lambda values: values[lasts],
        "volume": lambda values: np.add.reduceat(values, firsts),
    }
    return {name: np.ascontiguousarray(kinds[name](bars[name])) for name in names}


def _as_of(values: FloatArray, ends: NDArray[np.int64], closed: FloatArray) -> FloatArray:
    """Of each bar, the value of the last bucket that was over when the bar was known."""
    places = np.searchsorted(ends, closed, side="right") - 1
    return np.where(places >= 0, values[places], np.nan)
