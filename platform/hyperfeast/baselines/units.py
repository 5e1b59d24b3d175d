"""Units of metrics: readings in a unit that was declared are converted, those that were mixed up refused.

A reading carries no unit. Where a metric is usual in two of them, a device that reports in the other
one gives numbers that nobody could have: they would not be noticed in a mean.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from hyperfeast.errors import DataError, UsageError

# Single errors of a sensor are the robust statistics' business.
_MIXED_UP = 0.1


@dataclass(frozen=True)
class Unit:
    """The unit of a metric's baselines.

    Attributes:
        name: as doctors write it.
        least: below it lies nothing that is measured in it.
        most: above it neither.
        others: other units -> what one of them is in this one.
    """

    name: str
    least: float
    most: float
    others: Mapping[str, float]


UNITS = {
    # 180.16 g of glucose are a mole.
    "glucose": Unit("mg/dL", least=18.0, most=1000.0, others={"mmol/L": 18.016}),
}


def unit_of(metric: str) -> str | None:
    """The unit of a metric's baselines; None of a metric that is not known here."""
    unit = UNITS.get(metric)
    return unit.name if unit else None


def in_one_unit(readings: pl.DataFrame, declared: Mapping[str, str] | None = None) -> pl.DataFrame:
    """The same readings, each in its metric's unit.

    Args:
        readings: metric, source, value and more columns.
        declared: metric, or metric/device -> the unit that its readings are in.

    Raises:
        UsageError: a declaration of a metric or a unit that is not known.
        DataError: readings of a device look as if they were in another unit than the declared one.
    """
    units = {key: _factor(key, unit) for key, unit in (declared or {}).items()}
    parts = []
    for (metric, source), part in readings.group_by("metric", "source", maintain_order=True):
        factor = units.get(f"{metric}/{source}", units.get(str(metric), 1.0))
        converted = part.with_columns(pl.col("value") * factor) if factor != 1.0 else part
        _check(str(metric), str(source), converted["value"], factor)
        parts.append(converted)
    return pl.concat(parts) if parts else readings


def _factor(key: str, unit: str) -> float:
    metric = key.split("/", 1)[0]
    known = UNITS.get(metric)
    if known is None:
        raise UsageError(
            f"the units of {metric!r} are not known, so none can be declared: known are those of "
            f"{', '.join(sorted(UNITS))}"
        )
    factors = {known.name: 1.0, **known.others}
    if unit not in factors:
        raise UsageError(f"no unit {unit!r} of {metric}: known are {', '.join(factors)}")
    return factors[unit]


def _check(metric: str, source: str, values: pl.Series, factor: float) -> None:
    """Refuse a device whose readings are too often impossible in one unit and usual in another."""
    unit = UNITS.get(metric)
    if unit is None or values.is_empty():
        return
    used = next((name for name, one in unit.others.items() if one == factor), unit.name)
    odd = values.filter(~values.is_between(unit.least, unit.most))
    for name, other in {unit.name: 1.0, **unit.others}.items():
        looks_like = (odd / factor * other).is_between(unit.least, unit.most).sum()
        if name != used and looks_like > _MIXED_UP * len(values):
            raise DataError(
                f"{looks_like:,} of {len(values):,} readings of {metric} by {source} cannot be {used} and look "
                f"like {name}: declare the unit that they are in, as in {metric}/{source}={name}, or correct them"
            )
