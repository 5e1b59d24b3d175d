"""Bars as features and labels read them: split-adjusted, and stamped with when they were known."""

from datetime import UTC, datetime

import polars as pl

from hyperfeast import calendars
from hyperfeast.adjustment import forward_adjust
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

# Later than anything recorded: "as known now", whatever the two machines' clocks say.
_NOW = datetime(9999, 1, 1, tzinfo=UTC)


def read_bars(
    database: Database, timeframe: Timeframe, *, as_known_at: datetime | None = None
) -> pl.DataFrame:
    """Every instrument's bars of one timeframe, in the order of symbol and time.

    Args:
        database: where the candles are.
        timeframe: the width of the bars.
        as_known_at: leave out corrections and splits that were recorded later; None for all.

    Returns:
        Columns symbol, ts (the bar's open), event_timestamp (its close: from when it was known, UTC),
        open, high, low, close, volume (forward-adjusted, see `adjustment`) and split_factor.

    Raises:
        FeatureError: a daily bar of a date that is no session of its instrument's calendar.
    """
    moment = as_known_at or _NOW
    bars = database.frame(query("features", "bars"), (timeframe.value, moment))
    splits = database.frame(query("features", "splits"), (moment,))
    return (
        forward_adjust(bars, splits)
        .with_columns(_available_at(bars, timeframe).alias("event_timestamp"))
        .select("symbol", "ts", "event_timestamp", "open", "high", "low", "close", "volume", "split_factor")
    )  # fmt: skip


def _available_at(bars: pl.DataFrame, timeframe: Timeframe) -> pl.Series:
    """A daily bar is known when its session closes; any other when its width has passed."""
    if timeframe is not Timeframe.D1:
        return bars["ts"] + timeframe.width
    closes = [
        part.with_columns(calendars.session_close(calendar, part["ts"].dt.date()).alias("close"))
        for (calendar,), part in bars.with_row_index("row").group_by("calendar")
    ]
    if not closes:
        return bars["ts"]
    known = pl.concat(closes).sort("row")
    for bar in known.filter(pl.col("close").is_null()).head(1).iter_rows(named=True):
        raise FeatureError(
            f"{bar['symbol']} has a daily bar of {bar['ts']:%Y-%m-%d}, which is no session of its calendar "
            f"{bar['calendar']}: delete the bar, or give the instrument the calendar that it trades by"
        )
    return known["close"]
