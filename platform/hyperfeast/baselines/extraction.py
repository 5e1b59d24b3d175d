"""A user's baseline out of raw readings.

The baseline that a day is held against is made of the 30 UTC days before it: nothing of the day itself
and nothing after it can change it. Days without readings are missing, not zero. Hours and weekdays are
those of the user's own clock, which daylight saving moves against UTC.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from uuid import UUID

import numpy as np
import polars as pl

from hyperfeast import clock
from hyperfeast.baselines import readings as raw
from hyperfeast.baselines.baseline import (
    WINDOW_DAYS,
    Baseline,
    DayMean,
    MetricBaseline,
    Segment,
    Spread,
)
from hyperfeast.baselines.daybook import DayBook, median_and_mad
from hyperfeast.baselines.moments import Moments
from hyperfeast.baselines.repository import checked_moment, checked_user
from hyperfeast.baselines.units import in_one_unit, unit_of
from hyperfeast.db import Database
from hyperfeast.errors import NoData, UsageError

_HOURS, _WEEKDAYS = 24, 7


class BaselineExtractor:
    """Extracts baselines from the readings of one database.

    Args:
        database: where the readings are.
        time_zone: the users' clock, for hours and weekdays.
        units: metric, or metric/device -> the unit that its readings are in, where it is not the usual one.

    Raises:
        UsageError: there is no such zone.
    """

    def __init__(
        self,
        database: Database,
        *,
        time_zone: str = "UTC",
        units: Mapping[str, str] | None = None,
    ) -> None:
        raw.zone_of(time_zone)
        self._database = database
        self._time_zone = time_zone
        self._units = units

    def extract(
        self, user_id: UUID, day: date | None = None, *, known_at: datetime | None = None
    ) -> Baseline:
        """The baseline that a user's readings of a day are held against.

        Args:
            user_id: whose.
            day: UTC; today if not given.
            known_at: count what the database knew at this moment (zoned); now if not given.

        Raises:
            UsageError: the day or the moment is yet to come, or the moment has no zone.
            NoData: the 30 days before it have no reading.
            DataError: readings look as if units were mixed up.
        """
        user_id = checked_user(user_id)
        now = clock.now()
        day = day or now.date()
        at = None if known_at is None else checked_moment(known_at)
        if day > now.date() or (at is not None and at > now):
            raise UsageError(
                f"{at or day} is yet to come: it is {now:%Y-%m-%d %H:%M} UTC. Name a day or a moment that has been"
            )
        found = raw.read(
            self._database, user_id, day - timedelta(days=WINDOW_DAYS), day - timedelta(days=1)
        )
        served = in_one_unit(raw.known(found, at), self._units)
        if served.is_empty():
            raise NoData(
                f"user {user_id} has no reading in the {WINDOW_DAYS} days before {day}: take some in with "
                "`hyperfeast ingest metrics`, or name another day"
            )
        return extract(served, day, known_at=at or now, time_zone=self._time_zone)


def extract(
    readings: pl.DataFrame, day: date, *, known_at: datetime, time_zone: str = "UTC"
) -> Baseline:
    """The baseline that a day is held against, from the readings of the 30 UTC days before it.

    Args:
        readings: metric, source, ts (zoned), value in the metric's unit; and recorded_at, if a key comes
            twice: the one recorded last counts. Readings outside of the 30 days are left out.
        day: UTC.
        known_at: what is written into the baseline as the moment of what was known, zoned.
        time_zone: of hours and weekdays.

    Raises:
        DataError: columns are missing, times have no zone, or a value is not finite.
        UsageError: there is no such zone.
    """
    raw.zone_of(time_zone)
    as_of = raw.midnight(day)
    window = raw.known(raw.checked(readings), None).filter(
        pl.col("ts").is_between(as_of - timedelta(days=WINDOW_DAYS), as_of, closed="left")
    )
    metrics = {
        str(metric): _metric(str(metric), part, day, time_zone)
        for (metric,), part in window.group_by("metric", maintain_order=True)
    }
    return Baseline(
        as_of=as_of, known_at=checked_moment(known_at), time_zone=time_zone, metrics=metrics
    )


def _metric(metric: str, readings: pl.DataFrame, day: date, time_zone: str) -> MetricBaseline:
    book = DayBook.of(readings)
    window = book.window(day)
    whole = window.whole
    assert whole.mean is not None  # noqa: S101 - a group has rows
    median, mad = median_and_mad(window.values)
    days = [_day_mean(one, book) for one in book.days]
    trend, robust_trend = _trends(days)
    local = readings.with_columns(pl.col("ts").dt.convert_time_zone(time_zone))
    return MetricBaseline(
        unit=unit_of(metric),
        n=whole.n,
        days_present=window.days_present,
        confidence=window.days_present / WINDOW_DAYS,
        sufficient=window.sufficient,
        mean=whole.mean,
        std=whole.std,
        median=median,
        mad=mad,
        harmonized_std=window.harmonized_std,
        trend=trend,
        robust_trend=robust_trend,
        hours=_hours(local),
        weekdays=_weekdays(local),
        segments=tuple(
            _segment(str(source), part)
            for (source,), part in readings.group_by("source", maintain_order=True)
        ),
        days=tuple(days),
    )


def _day_mean(day: date, book: DayBook) -> DayMean:
    moments = sum(book.on(day).values(), Moments())
    assert moments.mean is not None  # noqa: S101 - the book has only days with readings
    return DayMean(day=day, n=moments.n, mean=moments.mean)


def _segment(source: str, readings: pl.DataFrame) -> Segment:
    moments = Moments.of(readings["value"].to_list())
    assert moments.mean is not None  # noqa: S101 - a group has rows
    median, mad = median_and_mad(readings["value"].to_numpy())
    return Segment(
        source=source,
        n=moments.n,
        days_present=readings["ts"].dt.date().n_unique(),
        mean=moments.mean,
        std=moments.std,
        median=median,
        mad=mad,
    )


def _hours(local: pl.DataFrame) -> tuple[Spread | None, ...]:
    by_hour = {
        hour: Moments.of(part["value"].to_list())
        for (hour,), part in local.group_by(pl.col("ts").dt.hour().alias("hour"))
    }
    return tuple(_spread(by_hour.get(hour)) for hour in range(_HOURS))


def _spread(moments: Moments | None) -> Spread | None:
    if moments is None or moments.mean is None:
        return None
    return Spread(n=moments.n, mean=moments.mean, std=moments.std)


def _weekdays(local: pl.DataFrame) -> tuple[float | None, ...]:
    """Each weekday's mean of day means, less the mean of all day means. Days are the local clock's."""
    days = [
        (day.weekday(), Moments.of(part["value"].to_list()).mean)
        for (day,), part in local.group_by(pl.col("ts").dt.date().alias("day"))
        if isinstance(day, date)
    ]
    overall = Moments.of(mean for _, mean in days if mean is not None).mean
    effects = []
    for weekday in range(_WEEKDAYS):
        own = Moments.of(mean for one, mean in days if one == weekday and mean is not None).mean
        effects.append(None if own is None or overall is None else own - overall)
    return tuple(effects)


def _trends(days: list[DayMean]) -> tuple[float | None, float | None]:
    """The slopes through the days' means, a day: least squares, and Theil-Sen."""
    if len(days) < 2:  # noqa: PLR2004 - a slope needs two points
        return None, None
    x = np.array([one.day.toordinal() - days[0].day.toordinal() for one in days], dtype=np.float64)
    y = np.array([one.mean for one in days])
    centered = x - x.mean()
    least_squares = float(centered @ (y - y.mean()) / (centered @ centered))
    first, second = np.triu_indices(len(days), 1)
    slopes = (y[second] - y[first]) / (x[second] - x[first])
    return least_squares, float(np.median(slopes))
