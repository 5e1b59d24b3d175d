"""A user's readings as frames: where they come from, and what has to hold before anything is computed.

A frame of readings has the columns metric, source (the device), ts (UTC), value and, where it came
from the database, recorded_at and replaced_at: the span in which the reading was what the database
served.
"""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import polars as pl

from hyperfeast.db import Database
from hyperfeast.errors import DataError, NoData, UsageError
from hyperfeast.sqlfiles import query

_DAY = timedelta(days=1)
_MOMENT = pl.Datetime("us", "UTC")
_REQUIRED = ("metric", "source", "ts", "value")
_TIMES = ("ts", "recorded_at", "replaced_at")


def midnight(day: date) -> datetime:
    """Where a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name.

    Raises:
        UsageError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UsageError(f"no time zone {name!r}: expected a name such as Europe/Berlin") from None


def read(
    database: Database, user_id: UUID, first: date, last: date, metric: str | None = None
) -> pl.DataFrame:
    """A user's readings of the UTC days `first` to `last`, both included, with replaced revisions."""
    frame = database.frame(
        query("baselines", "readings"),
        (str(user_id), midnight(first), midnight(last) + _DAY, metric),
    )
    return checked(frame)


def last_day(database: Database, user_id: UUID) -> date:
    """The newest UTC day with a reading of a user.

    Raises:
        NoData: there is no reading.
    """
    (row,) = database.fetch(query("baselines", "last_reading"), {"user_id": user_id})
    if row["ts"] is None:
        raise NoData(
            f"user {user_id} has no reading: take some in with `hyperfeast ingest metrics`"
        )
    newest: datetime = row["ts"]
    return newest.astimezone(UTC).date()


def checked(readings: pl.DataFrame) -> pl.DataFrame:
    """Readings with all columns, in microseconds UTC.

    Raises:
        DataError: a column is missing, times have no zone, or a value is not finite.
    """
    missing = [name for name in _REQUIRED if name not in readings.columns]
    if missing:
        raise DataError(
            f"readings need the columns {', '.join(_REQUIRED)}; missing: {', '.join(missing)}"
        )
    rows = readings.select(
        pl.col("metric", "source").cast(pl.String),
        pl.col("value").cast(pl.Float64),
        *(_moments(readings, name) for name in _TIMES),
    )
    bad = rows.filter(pl.col("value").is_null() | ~pl.col("value").is_finite()).height
    if bad or rows.select("metric", "source", "ts").null_count().sum_horizontal().item():
        raise DataError(
            f"{bad} of {rows.height} readings have no finite value, or some lack a metric, device or time: "
            "leave out what was not measured"
        )
    return rows


def _moments(readings: pl.DataFrame, name: str) -> pl.Expr:
    kind = readings.schema.get(name, pl.Null())
    if kind == pl.Null:
        return pl.lit(None, _MOMENT).alias(name)
    if not (isinstance(kind, pl.Datetime) and kind.time_zone):
        raise DataError(
            f"expected times with a zone in the column {name}, found {kind}: attach one, such as UTC"
        )
    return pl.col(name).dt.convert_time_zone("UTC").cast(_MOMENT)


def known(readings: pl.DataFrame, at: datetime | None) -> pl.DataFrame:
    """One reading a metric, device and time: the newest, or the one that was served at a moment.

    Args:
        readings: as `checked` gives them.
        at: zoned; None for what is served now.
    """
    if at is None:
        served = pl.col("replaced_at").is_null()
    else:
        served = (pl.col("recorded_at").is_null() | (pl.col("recorded_at") <= at)) & (
            pl.col("replaced_at").is_null() | (pl.col("replaced_at") > at)
        )
    return (
        readings.filter(served)
        .sort("recorded_at", nulls_last=False, maintain_order=True)
        .unique(("metric", "source", "ts"), keep="last", maintain_order=True)
        .sort("metric", "source", "ts")
        .drop("replaced_at")
    )
