"""Which rows should be there, which are, and which ranges are missing.

Bars are held against the instrument's own trading calendar by the SQL function `data_completeness`;
readings of a personal metric against the device's own sampling interval.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.quality.known import check_instrument
from hyperfeast.quality.sessions import sync_calendars
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

CANDLES, METRICS = "candles", "user_baseline_raw"

_SERIES_A_QUERY = 40
# Fewer distances between readings than this have no usual one.
_LEAST_GAPS = 3


@dataclass(frozen=True)
class MissingRange:
    """A stretch without rows, from the first that is absent to the end of the last in a row.

    Attributes:
        relation: the table: `candles`, `user_baseline_raw`.
        key: the symbol; for readings user/metric/device.
        tf: the timeframe; None for readings.
        since: UTC, inclusive.
        until: UTC, exclusive.
    """

    relation: str
    key: str
    tf: str | None
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Completeness:
    """What should be there of one series, and what is.

    Attributes:
        relation: the table.
        key: the symbol; for readings user/metric/device.
        tf: the timeframe; None for readings.
        expected: rows that should be there.
        present: how many of those are.
        missing: the ranges of the others, in time order.
    """

    relation: str
    key: str
    tf: str | None
    expected: int
    present: int
    missing: tuple[MissingRange, ...]

    @property
    def absent(self) -> int:
        """Rows that should be there and are not."""
        return self.expected - self.present

    @property
    def share(self) -> float:
        """The part that is there, 0 to 1; 1 where nothing is expected."""
        return self.present / self.expected if self.expected else 1.0


@dataclass(frozen=True)
class MonthlyCompleteness:
    """What should be there, and is, of one series in one month (UTC, by its first day)."""

    key: str
    tf: str
    month: date
    expected: int
    present: int


def completeness(
    database: Database,
    *,
    symbol: str | None = None,
    timeframe: Timeframe | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    progress: Progress | None = None,
) -> list[Completeness]:
    """Hold the bars against the instruments' trading calendars.

    Weekends, holidays, lunch breaks, the rest of a half day, and whatever lies before the listing or
    after the delisting are no gaps. What has not closed yet is not missing.

    Args:
        database: where the candles are.
        symbol: one instrument; all if left out.
        timeframe: one timeframe, also of instruments that have no bar of it; else those there are.
        since: zoned, inclusive; from the first known bar if left out.
        until: zoned, exclusive; to the last known bar if left out (without any bar: to now, if `since`).
        progress: told (series done, series in all).

    Returns:
        One entry an instrument and timeframe, by symbol; without those of which nothing is expected,
        unless both `symbol` and `timeframe` are given.

    Raises:
        UsageError: no such instrument, no such calendar, or an empty range.
    """
    check_range(since, until)
    sync_calendars(database)
    series = _series(database, symbol, timeframe)
    found: list[Completeness] = []
    for start in range(0, len(series), _SERIES_A_QUERY):
        part = series[start : start + _SERIES_A_QUERY]
        rows = database.fetch(
            query("quality", "completeness"), {**_columns(part), "since": since, "until": until}
        )
        found += [_of_candles(row) for row in rows]
        if progress:
            progress(start + len(part), len(series))
    wanted_alone = symbol is not None and timeframe is not None
    return [one for one in found if one.expected or wanted_alone]


def monthly_completeness(
    database: Database,
    series: Sequence[tuple[str, str]],
    *,
    since: datetime | None = None,
    progress: Progress | None = None,
) -> list[MonthlyCompleteness]:
    """The same month by month, for (symbol, timeframe) pairs; call `completeness` before it.

    Args:
        database: where the candles are.
        series: which ones.
        since: zoned; from the first known bar if left out.
        progress: told (series done, series in all).
    """
    found: list[MonthlyCompleteness] = []
    for start in range(0, len(series), _SERIES_A_QUERY):
        part = series[start : start + _SERIES_A_QUERY]
        rows = database.fetch(
            query("quality", "monthly_completeness"), {**_columns(part), "since": since}
        )
        found += [
            MonthlyCompleteness(
                row["symbol"], row["tf"], row["month"], row["expected"], row["present"]
            )
            for row in rows
        ]
        if progress:
            progress(start + len(part), len(series))
    return found


def metric_completeness(
    database: Database,
    *,
    user: UUID | None = None,
    metric: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    intervals: Mapping[str, timedelta] | None = None,
    tolerance: float = 3.0,
) -> list[Completeness]:
    """Hold readings against their device's own sampling interval.

    The interval is the median distance between a device's readings of a metric, unless declared. A
    distance of more than `tolerance` intervals is a gap, in which one reading an interval is missing.
    A device with fewer than four readings and no declared interval has none that is known: nothing is
    missing.

    Args:
        database: where the readings are.
        user: one user; all if left out.
        metric: one metric; all if left out.
        since: zoned, inclusive.
        until: zoned, exclusive.
        intervals: device -> its declared sampling interval, for those where it is known.
        tolerance: how many intervals a distance may have; more than 1.

    Returns:
        One entry a user, metric and device.

    Raises:
        UsageError: an empty range, a tolerance of 1 or less, or an interval that is not positive.
    """
    check_range(since, until)
    if not tolerance > 1:
        raise UsageError(f"expected a tolerance above 1 interval; found {tolerance:g}")
    declared = {source: interval.total_seconds() for source, interval in (intervals or {}).items()}
    for source, seconds in declared.items():
        if seconds <= 0:
            raise UsageError(
                f"expected a positive interval for device {source!r}; found {seconds:g} s"
            )
    rows = database.fetch(
        query("quality", "metric_gaps"),
        {
            "user_id": user,
            "metric": metric,
            "since": since,
            "until": until,
            "declared": json.dumps(declared),
            "tolerance": tolerance,
            "least_gaps": _LEAST_GAPS,
        },
    )
    return [_of_metric(row) for row in rows]


def heal(
    found: Sequence[Completeness], enqueue: Callable[[list[MissingRange]], object]
) -> list[MissingRange]:
    """Hand every missing range to whoever can fetch it; the ranges handed over.

    Args:
        found: what `completeness` said.
        enqueue: takes the ranges, and is not called if there are none.
    """
    ranges = [missing for one in found for missing in one.missing]
    if ranges:
        enqueue(ranges)
    return ranges


def check_range(since: datetime | None, until: datetime | None) -> None:
    """Refuse a range that holds nothing.

    Raises:
        UsageError: it does not begin before it ends.
    """
    if since is not None and until is not None and since >= until:
        raise UsageError(
            f"nothing lies between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M}: "
            "the first has to be before the second"
        )


def _series(
    database: Database, symbol: str | None, timeframe: Timeframe | None
) -> list[tuple[str, str]]:
    check_instrument(database, symbol)
    rows = database.fetch(
        query("quality", "series"),
        {
            "symbol": symbol,
            "timeframes": [timeframe] if timeframe else [*Timeframe],
            "also_empty": timeframe is not None,
        },
    )
    return [(row["symbol"], row["tf"]) for row in rows]


def _columns(series: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"symbols": [symbol for symbol, _ in series], "timeframes": [tf for _, tf in series]}


def _of_candles(row: Mapping[str, Any]) -> Completeness:
    return _from_row(row, CANDLES, row["symbol"], row["tf"])


def _of_metric(row: Mapping[str, Any]) -> Completeness:
    key = f"{row['user_id']}/{row['metric']}/{row['source']}"
    return _from_row(row, METRICS, key, None)


def _from_row(row: Mapping[str, Any], relation: str, key: str, tf: str | None) -> Completeness:
    missing = tuple(MissingRange(relation, key, tf, one.lower, one.upper) for one in row["missing"])
    return Completeness(relation, key, tf, row["expected"], row["present"], missing)
