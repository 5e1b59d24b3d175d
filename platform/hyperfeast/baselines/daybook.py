"""One metric of one user by device and UTC day: what any trailing window is put together from.

A reading touches the entry of its own day and no other; a window merges at most 30 days a device.
Both are exact (`moments`), so a book that was kept up to date equals one that was written anew.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Self

import numpy as np
import polars as pl

from hyperfeast.baselines.baseline import LEAST_DAYS, LEAST_READINGS, ROBUST, WINDOW_DAYS
from hyperfeast.baselines.moments import Moments, pooled_std


@dataclass(frozen=True)
class Window:
    """The 30 days before a day, which is not one of them.

    Attributes:
        moments: by device, of those with readings.
        days_present: days with readings.
        values: all readings, in no order.
    """

    moments: Mapping[str, Moments]
    days_present: int
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]"

    @property
    def whole(self) -> Moments:
        """All devices together."""
        return sum(self.moments.values(), Moments())

    @property
    def sufficient(self) -> bool:
        """Whether a value may be held against it."""
        return len(self.values) >= LEAST_READINGS and self.days_present >= LEAST_DAYS

    @property
    def harmonized_std(self) -> float | None:
        """The deviation of readings from their own device's mean."""
        return pooled_std(self.moments.values())


class DayBook:
    """The readings of one metric, by device and day."""

    def __init__(self) -> None:
        self._moments: dict[date, dict[str, Moments]] = defaultdict(dict)
        self._values: dict[date, list[float]] = defaultdict(list)

    @classmethod
    def of(cls, readings: pl.DataFrame) -> Self:
        """Of some readings of one metric: source, ts, value."""
        book = cls()
        rows = readings.select("source", pl.col("ts").dt.date().alias("day"), "value")
        for (source, day), part in rows.group_by("source", "day", maintain_order=True):
            assert isinstance(day, date)  # noqa: S101 - that is what dt.date() gives
            book._put(str(source), day, part["value"].to_list())
        return book

    def add(self, source: str, day: date, value: float) -> None:
        """Take in one more reading. The cost does not depend on how many there are."""
        self._put(source, day, [value])

    def _put(self, source: str, day: date, values: Sequence[float]) -> None:
        entry = self._moments[day]
        entry[source] = entry.get(source, Moments()) + Moments.of(values)
        self._values[day] += values

    @property
    def days(self) -> list[date]:
        """The days with readings, in their order."""
        return sorted(self._moments)

    def on(self, day: date) -> Mapping[str, Moments]:
        """A day's readings by device; nothing on a day without."""
        return self._moments.get(day, {})

    def window(self, day: date) -> Window:
        """The 30 days before a day."""
        present = [
            before
            for back in range(WINDOW_DAYS, 0, -1)
            if (before := day - timedelta(days=back)) in self._moments
        ]
        merged: dict[str, Moments] = {}
        for before in present:
            for source, moments in self._moments[before].items():
                merged[source] = merged.get(source, Moments()) + moments
        values = np.array([value for before in present for value in self._values[before]])
        return Window(merged, len(present), values)


def median_and_mad(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]",
) -> tuple[float, float]:
    """The median, and the median absolute distance from it, of at least one value."""
    median = float(np.median(values))
    return median, float(np.median(np.abs(values - median)))


def robust_std(mad: float) -> float:
    """The standard deviation of a normal distribution with this median absolute deviation."""
    return ROBUST * mad
