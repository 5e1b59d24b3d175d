"""Which rows of a file or a frame were asked for: by symbol, and by the open of the bar.

Rows are only left out, never changed. A row whose time cannot be read stays: ingestion refuses it, and says so.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import polars as pl

from hyperfeast.cells import SYMBOL_NAMES, TIME_NAMES, read_times, time_zone
from hyperfeast.sources.interface import DATED, FRAME_ROWS
from hyperfeast.types import Timeframe


def symbol_column(names: Sequence[str]) -> str | None:
    """The name of the column of symbols, if there is exactly one."""
    return _named(names, SYMBOL_NAMES)


def time_column(names: Sequence[str]) -> str | None:
    """The name of the column of times, if there is exactly one."""
    return _named(names, TIME_NAMES)


def asked_for(
    frame: pl.DataFrame,
    *,
    symbol: str,
    timeframe: Timeframe,
    start: datetime,
    end: datetime,
    tz: str = "UTC",
) -> Iterator[pl.DataFrame]:
    """The rows of one symbol with a bar's open in [start, end), in frames of at most 250,000 rows.

    Args:
        frame: as it was read. Without a column of symbols all its rows are the symbol's, and get it.
        symbol: as the frame writes it.
        timeframe: daily and weekly bars are chosen by the date that is written, others by the moment.
        start: zoned.
        end: zoned; exclusive.
        tz: the zone of times that are written without one.
    """
    column = symbol_column(frame.columns)
    if column is None:
        frame = frame.with_columns(pl.lit(symbol).alias("symbol"))
    else:
        frame = frame.filter(pl.col(column).cast(pl.String) == symbol)
    times = time_column(frame.columns)
    if times is not None:
        opens = _opens(frame[times], timeframe, tz)
        lower, upper = start.astimezone(UTC), end.astimezone(UTC)
        frame = frame.filter(((opens >= lower) & (opens < upper)).fill_null(value=True))
    if not frame.is_empty():
        yield from frame.iter_slices(FRAME_ROWS)


def _named(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    found = [name for name in names if name.strip().lower() in wanted]
    return found[0] if len(found) == 1 else None


def _opens(column: pl.Series, timeframe: Timeframe, tz: str) -> pl.Series:
    """Datetime(us, UTC): the bar's open; null where it cannot be read or the clock showed it twice."""
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary, pl.Boolean):
        return pl.repeat(None, len(column), dtype=pl.Datetime("us", "UTC"), eager=True)
    times = read_times(column, time_zone(tz))
    if timeframe in DATED:
        return times.select(_date().dt.replace_time_zone("UTC"))["wall"]
    return times["ts"]


def _date() -> pl.Expr:
    """The date that is written; of a moment within a UTC day, the midnight of some market, the nearest date."""
    wall = pl.col("wall")
    shifted = pl.col("zoned") & (wall.dt.truncate("1d") != wall)
    return pl.when(shifted).then(wall.dt.offset_by("12h")).otherwise(wall).dt.truncate("1d")
