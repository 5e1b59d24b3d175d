"""Each day against the baseline that it had: the 30 days before it, the day itself left out."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

import polars as pl

from hyperfeast import clock
from hyperfeast.baselines import readings as raw
from hyperfeast.baselines.baseline import LEAST_READINGS, WINDOW_DAYS
from hyperfeast.baselines.daybook import DayBook, Window, median_and_mad, robust_std
from hyperfeast.baselines.moments import Moments
from hyperfeast.baselines.repository import checked_user
from hyperfeast.baselines.units import in_one_unit, unit_of
from hyperfeast.db import Database
from hyperfeast.errors import NoData, UsageError

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """A day with readings, and how far it lies from its baseline. Scores are None without one.

    Attributes:
        day: UTC.
        n: readings of the day.
        value: their mean.
        baseline_n: readings of the 30 days before.
        days_present: days with readings among them.
        mean: of those readings, whichever device took them.
        std: their sample deviation.
        z_score: from mean, in std: the devices' own differences included.
        harmonized_z_score: from the devices' own means, in the deviation around these.
        robust_z_score: from the median, in robust deviations.
    """

    day: date
    n: int
    value: float
    baseline_n: int
    days_present: int
    mean: float | None
    std: float | None
    z_score: float | None
    harmonized_z_score: float | None
    robust_z_score: float | None


@dataclass(frozen=True, kw_only=True)
class MetricDeviations:
    """The days of one metric, in their order, and the unit of their values."""

    metric: str
    unit: str | None
    days: list[Deviation]


def compare(
    database: Database,
    user_id: UUID,
    *,
    first: date,
    last: date,
    metric: str | None = None,
    as_known: bool = False,
    units: Mapping[str, str] | None = None,
) -> list[MetricDeviations]:
    """Hold each day of a user against the baseline that it had.

    Args:
        database: where the readings are.
        user_id: whose.
        first: UTC day.
        last: UTC day, included.
        metric: one of them; all if not given.
        as_known: count for each day only what the database knew when it ended: a row that arrived later, or
            corrected one of these, changes nothing.
        units: metric, or metric/device -> the unit that its readings are in.

    Raises:
        UsageError: no day lies between them, or the last is yet to come.
        NoData: there is no reading on these days.
        DataError: readings look as if units were mixed up.
    """
    user_id, today = checked_user(user_id), clock.now().date()
    if not first <= last <= today:
        raise UsageError(
            f"expected days that have begun, the first not after the last; found {first} to {last}"
        )
    found = raw.read(database, user_id, first - timedelta(days=WINDOW_DAYS), last, metric)
    found = in_one_unit(found, units)
    compared = [
        MetricDeviations(
            metric=str(name),
            unit=unit_of(str(name)),
            days=deviations(part, first, last, as_known=as_known),
        )
        for (name,), part in found.sort("metric").group_by("metric", maintain_order=True)
    ]
    compared = [one for one in compared if one.days]
    if not compared:
        what = f"reading{f' of {metric}' if metric else ''} from {first} to {last}"
        raise NoData(
            f"no {what} of user {user_id} was known when its day ended: all of it came later"
            if as_known and not found.is_empty()
            else f"user {user_id} has no {what}: take some in with `hyperfeast ingest metrics`, or name other days"
        )
    return compared


def deviations(
    readings: pl.DataFrame, first: date, last: date, *, as_known: bool = False
) -> list[Deviation]:
    """The same for the readings of one metric, as `readings.read` gives them: days with readings only."""
    book = DayBook.of(raw.known(readings, None))
    days = [first + timedelta(days=one) for one in range((last - first).days + 1)]
    if not as_known:
        return [_deviation(book, day) for day in days if book.on(day)]
    books = ((day, _book_as_known(readings, day)) for day in days)
    return [_deviation(then, day) for day, then in books if then.on(day)]


def _book_as_known(readings: pl.DataFrame, day: date) -> DayBook:
    """The window and the day, as the database knew them when the day ended."""
    end = raw.midnight(day) + _DAY
    near = readings.filter(
        pl.col("ts").is_between(end - (WINDOW_DAYS + 1) * _DAY, end, closed="left")
    )
    return DayBook.of(raw.known(near, end))


def _deviation(book: DayBook, day: date) -> Deviation:
    own, window = book.on(day), book.window(day)
    today, before = sum(own.values(), Moments()), window.whole
    assert today.mean is not None  # noqa: S101 - only days with readings are asked for
    usable = window.sufficient and before.mean is not None
    median, mad = median_and_mad(window.values) if usable else (0.0, 0.0)
    return Deviation(
        day=day,
        n=today.n,
        value=today.mean,
        baseline_n=before.n,
        days_present=window.days_present,
        mean=before.mean,
        std=before.std,
        z_score=_score(today.mean - (before.mean or 0.0), before.std) if usable else None,
        harmonized_z_score=_harmonized(own, window) if usable else None,
        robust_z_score=_score(today.mean - median, robust_std(mad)) if usable else None,
    )


def _harmonized(own: Mapping[str, Moments], window: Window) -> float | None:
    """The readings' mean distance from their own devices' means; None if one is new."""
    distance, n = 0.0, 0
    for source, moments in own.items():
        before = window.moments.get(source, Moments())
        if before.n < LEAST_READINGS or before.mean is None or moments.mean is None:
            return None
        distance += moments.n * (moments.mean - before.mean)
        n += moments.n
    return _score(distance / n, window.harmonized_std)


def _score(distance: float, width: float | None) -> float | None:
    return distance / width if width else None
