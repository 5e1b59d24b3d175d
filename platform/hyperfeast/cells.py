"""Cells as typed values: what cannot be read becomes null, for the gate to refuse row by row."""

from datetime import UTC, datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

import polars as pl

from hyperfeast.errors import DataError, UsageError

# What files call the column of times, and that of symbols, in lower case.
TIME_NAMES = ("ts", "date", "timestamp", "time", "datetime", "open_time")
SYMBOL_NAMES = ("symbol", "ticker")

_WRITTEN_TIME = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?<second>:\d{2})?(?<fraction>\.[0-9]{1,9})?)?"
    r" ?(?<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?$"
)
_WRITTEN_NUMBER = r"^[+-]?\d+(?:\.\d*)?$"
_COMPACT_DATE = r"^(?:19|20|21)\d{6}$"

# Outside these a time is a mistake of its unit or of its century.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)

_NO_NUMBER = ("", "nil", "null", "none", "nan", "na", "n/a", "-")

# An epoch's unit by its magnitude: at 1e11 seconds the year is 5138, at 1e11 milliseconds 1973.
_SECONDS_BELOW, _MILLIS_BELOW, _MICROS_BELOW = 1e11, 1e14, 1e17
_YEAR_9999_US = 253_402_300_799_000_000


def time_zone(name: str | None) -> ZoneInfo:
    """The zone of times that are written without one; UTC unless named.

    Raises:
        UsageError: there is no such zone.
    """
    if name is None:
        return ZoneInfo("UTC")
    zones = available_timezones()
    if name not in zones:
        close = get_close_matches(name, zones, n=1)
        hint = f"did you mean {close[0]}?" if close else "use a name such as Europe/Paris"
        raise UsageError(f"there is no time zone {name!r}: {hint}")
    return ZoneInfo(name)


def read_numbers(column: pl.Series) -> pl.Series:
    """Float64; null where there is no number (empty, nil, NaN, any other word). 1e999 is infinite.

    Raises:
        DataError: the column's type is neither numeric nor text.
    """
    if column.dtype == pl.String:
        numbers = column.str.strip_chars().cast(pl.Float64, strict=False)
    elif column.dtype.is_numeric() or column.dtype == pl.Null:
        numbers = column.cast(pl.Float64)
    else:
        raise DataError(f"column {column.name!r} holds {column.dtype}: expected numbers")
    return numbers.fill_nan(None)


def legible(column: pl.Series) -> pl.Series:
    """Boolean: whether each cell holds a number, or one of the words by which files say that there is none."""
    if column.dtype != pl.String:
        return pl.repeat(value=True, n=len(column), dtype=pl.Boolean, eager=True)
    words = column.str.strip_chars().str.to_lowercase().is_in(_NO_NUMBER).fill_null(value=True)
    return words | read_numbers(column).is_not_null()


def read_text(column: pl.Series) -> pl.Series:
    """String, as it is written.

    Raises:
        DataError: the column holds lists, structures or objects.
    """
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        raise DataError(f"column {column.name!r} holds {column.dtype}: expected text")
    return column.cast(pl.String)


def read_times(column: pl.Series, zone: ZoneInfo) -> pl.DataFrame:
    """Times from ISO 8601 text, from dates and datetimes, and from epochs in s, ms, us or ns.

    Args:
        column: text, Date, Datetime or numbers. Eight digits that begin 19, 20 or 21 are a date (20240131).
        zone: that of times written without one.

    Returns:
        - ts: Datetime(us, UTC), null where there is none or it cannot be read;
        - wall: Datetime(us), the clock and calendar as they are written;
        - zoned: Boolean, whether the moment is written (an offset, an epoch) and not taken from `zone`;
        - once: Boolean, false where the clocks of `zone` showed that time twice, or never.

    Raises:
        DataError: the column's type cannot hold times.
    """
    walls = _walls(column)
    local = pl.col("wall").dt.replace_time_zone(
        zone.key, ambiguous="null", non_existent="null"
    )  # fmt: skip
    written = (pl.col("wall") - pl.col("offset")).dt.replace_time_zone("UTC")
    return walls.with_columns(
        zoned=pl.col("offset").is_not_null(), local=local.dt.convert_time_zone("UTC")
    ).select(
        pl.when("zoned").then(written).otherwise("local").alias("ts"),
        "wall",
        "zoned",
        once=pl.col("zoned") | pl.col("wall").is_null() | pl.col("local").is_not_null(),
    )


def session_dates(times: pl.DataFrame, zone: ZoneInfo) -> pl.Series:
    """The date that each time names: midnight as it is written, in the market's `zone`, or in UTC.

    Args:
        times: what `read_times` returns.
        zone: the market's.

    Returns:
        Date; null where the time is missing or is within a day.
    """
    market = pl.col("ts").dt.convert_time_zone(zone.key).dt.replace_time_zone(None)
    universal = pl.col("ts").dt.replace_time_zone(None)
    return times.select(
        pl.when(_midnight(pl.col("wall")))
        .then(pl.col("wall").dt.date())
        .when(pl.col("zoned") & _midnight(market))
        .then(market.dt.date())
        .when(pl.col("zoned") & _midnight(universal))
        .then(universal.dt.date())
        .alias("date")
    )["date"]


def _midnight(wall: pl.Expr) -> pl.Expr:
    return wall.dt.truncate("1d") == wall


def _walls(column: pl.Series) -> pl.DataFrame:
    """wall: the naive time as written; offset: its distance from UTC, null where none is written."""
    if column.dtype == pl.String:
        return _text_walls(column.str.strip_chars())
    if column.dtype in (pl.Null, pl.Date):
        return _naive_walls(column.cast(pl.Datetime("us")))
    if isinstance(column.dtype, pl.Datetime):
        times = column.cast(pl.Datetime("us", column.dtype.time_zone))
        return _naive_walls(times) if column.dtype.time_zone is None else _zoned_walls(times)
    if column.dtype.is_integer():
        return _text_walls(column.cast(pl.String))
    if column.dtype.is_numeric():
        return _epoch_walls(column.cast(pl.Float64))
    raise DataError(f"column {column.name!r} holds {column.dtype}: expected times")


def _naive_walls(walls: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"wall": walls}).with_columns(offset=pl.lit(None, pl.Duration("us")))


def _zoned_walls(times: pl.Series) -> pl.DataFrame:
    wall = times.dt.replace_time_zone(None)
    return pl.DataFrame(
        {
            "wall": wall,
            "offset": wall - times.dt.convert_time_zone("UTC").dt.replace_time_zone(None),
        }
    )


def _epoch_walls(numbers: pl.Series) -> pl.DataFrame:
    """Epochs, at any unit, in UTC. What no calendar can hold becomes the year 9999."""
    magnitude = pl.col("epoch").abs()
    micros = (
        pl.when(magnitude < _SECONDS_BELOW).then(pl.col("epoch") * 1e6)
        .when(magnitude < _MILLIS_BELOW).then(pl.col("epoch") * 1e3)
        .when(magnitude < _MICROS_BELOW).then(pl.col("epoch"))
        .otherwise(pl.col("epoch") / 1e3)
    )  # fmt: skip
    return (
        pl.DataFrame({"epoch": numbers.fill_nan(None)})
        .select(wall=micros.round().clip(-_YEAR_9999_US, _YEAR_9999_US).cast(pl.Datetime("us")))
        .with_columns(
            offset=pl.when(pl.col("wall").is_not_null()).then(pl.duration(microseconds=0))
        )
    )


def _text_walls(text: pl.Series) -> pl.DataFrame:
    """Each spelling is read once: instruments share their days, and to read costs more than to join."""
    spellings = text.unique()
    if 2 * len(spellings) > len(text):
        return _spelled_walls(text)
    read = _spelled_walls(spellings).with_columns(spelling=spellings)
    return (
        pl.DataFrame({"spelling": text})
        .join(read, on="spelling", how="left", maintain_order="left")
        .select("wall", "offset")
    )


def _spelled_walls(text: pl.Series) -> pl.DataFrame:
    """Eight digits of a date that is none (20241331) are no epoch either."""
    compact = text.str.contains(_COMPACT_DATE).fill_null(value=False)
    number = text.str.contains(_WRITTEN_NUMBER).fill_null(value=False) & ~compact
    epochs = _epoch_walls(text.set(~number, None).cast(pl.Float64, strict=False))
    parts = text.str.extract_groups(_WRITTEN_TIME).struct.unnest()
    return pl.concat(
        [
            parts,
            text.set(~compact, None).alias("compact").to_frame(),
            epochs.rename({"wall": "epoch", "offset": "epoch_offset"}),
        ],
        how="horizontal",
    ).select(
        wall=pl.coalesce(_iso_wall(), _compact_wall(), "epoch"),
        offset=pl.coalesce(_iso_offset(), "epoch_offset"),
    )


def _iso_wall() -> pl.Expr:
    # The fraction is added: to parse it too would take five times as long.
    iso = pl.concat_str(
        "date",
        pl.lit("T"),
        pl.col("minute").fill_null("00:00"),
        pl.col("second").fill_null(":00"),
    )
    micros = pl.col("fraction").str.slice(1, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    seconds = iso.str.to_datetime("%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False)
    return seconds + pl.duration(microseconds=micros.fill_null(0))


def _iso_offset() -> pl.Expr:
    zone = pl.col("zone")
    digits = zone.str.replace_all(":", "", literal=True)
    minutes = 60 * digits.str.slice(1, 2).cast(pl.Int64, strict=False)
    minutes += digits.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    return (
        pl.when(zone.is_in(["Z", "UTC"]))
        .then(pl.duration(microseconds=0))
        .when(zone.is_not_null())
        .then(pl.duration(minutes=sign * minutes))
    )


def _compact_wall() -> pl.Expr:
    return pl.col("compact").str.to_datetime("%Y%m%d", time_unit="us", strict=False)
