"""Whether values keep the bounds that their feature declares."""

import polars as pl

from hyperfeast.features.declaration import Feature

# A bound that a rounded sum just misses is kept.
_ROUNDING = 1e-9


def rounding(bound: float) -> float:
    """How far beyond a bound a value may lie and still keep it."""
    return _ROUNDING * max(1.0, abs(bound))


def outside(values: pl.Series, feature: Feature) -> pl.Series:
    """Of each row, whether a number is beyond the feature's bounds by more than rounding; False for NULL.

    Args:
        values: of the feature; of a list each number counts.
        feature: with the bounds.
    """
    low, high = feature.bounds
    is_list = isinstance(values.dtype, pl.List)
    least, greatest = (values.list.min(), values.list.max()) if is_list else (values, values)
    beyond = pl.repeat(value=False, n=len(values), eager=True)
    if low is not None:
        beyond |= (least < low - rounding(low)).fill_null(value=False)
    if high is not None:
        beyond |= (greatest > high + rounding(high)).fill_null(value=False)
    return beyond


def bounds_text(feature: Feature) -> str:
    """The bounds as a person reads them: `0 to 100`, `0 or more`; empty for none."""
    match feature.bounds:
        case (None, None):
            return ""
        case (low, None):
            return f"{low:g} or more"
        case (None, high):
            return f"{high:g} or less"
        case (low, high):
            return f"{low:g} to {high:g}"
