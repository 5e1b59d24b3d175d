"""Bars as features and labels read them: split-adjusted, and stamped with when they were known."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

import polars as pl

from hyperfeast import calendars
from hyperfeast.adjustment import forward_adjust
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.indicators import SESSION_FEATURES
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

# Later than anything recorded: "as known now", whatever the two machines' clocks say.
_NOW = datetime(9999, 1, 1, tzinfo=UTC)

_BAR = (
    *("symbol", "ts", "event_timestamp", "open", "high", "low", "close", "volume"),
    *("split_factor", "calendar"),
)

_MICROSECONDS_AN_HOUR = 3_600_000_000

# So far before the first bar a calendar is looked at, for its month's sessions to be counted from the first.
_MONTH_BEFORE = timedelta(days=45)


@dataclass(frozen=True)
class Stretch:
    """Which bars of a symbol to read.

    Attributes:
        symbol: whose.
        since: the first one opens at or after it (UTC).
        until: the last one opens before it; one more is read behind it.
    """

    symbol: str
    since: datetime
    until: datetime


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
        open, high, low, close, volume (forward-adjusted, see `adjustment`), split_factor and calendar.

    Raises:
        FeatureError: a daily bar of a date that is no session of its instrument's calendar.
    """
    moment = as_known_at or _NOW
    bars = database.frame(query("features", "bars"), (timeframe.value, moment))
    splits = database.frame(query("features", "splits"), (moment,))
    return _known(bars, splits, timeframe)


def read_stretches(
    database: Database, timeframe: Timeframe, stretches: Sequence[Stretch], *, before: int
) -> pl.DataFrame:
    """Parts of some symbols' bars, as `read_bars` gives them: adjusted by all splits, also earlier ones.

    Args:
        database: where the candles are.
        timeframe: the width of the bars.
        stretches: which bars, one stretch a symbol.
        before: how many bars more to read before each stretch, where there are so many.

    Returns:
        As `read_bars`.

    Raises:
        FeatureError: as `read_bars`, of the bars that are read.
    """
    asked = json.dumps(
        [
            {
                "symbol": one.symbol,
                "since": one.since.isoformat(),
                "until": one.until.isoformat(),
            }
            for one in stretches
        ]
    )
    bars = database.frame(query("features", "bars_of"), (timeframe.value, asked, before))
    splits = database.frame(query("features", "splits_of"), (asked,))
    return _known(bars, splits, timeframe)


def _known(bars: pl.DataFrame, splits: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    return (
        forward_adjust(bars, splits)
        .with_columns(_available_at(bars, timeframe).alias("event_timestamp"))
        .select(_BAR)
    )


def with_sessions(bars: pl.DataFrame, timeframe: Timeframe, wanted: frozenset[str]) -> pl.DataFrame:
    """Add what rules read of the trading calendar (`indicators.sessions`), if they read any of it.

    Args:
        bars: as `read_bars` gives them.
        timeframe: of the bars.
        wanted: the columns that rules read.

    Returns:
        The same rows and order, with those of the columns session_... that are wanted. Null for a bar
        of no session.
    """
    names = sorted(wanted & {f"session_{name}" for name in SESSION_FEATURES})
    if not names:
        return bars
    if not bars.height:
        return bars.with_columns(pl.lit(None, pl.Float64).alias(name) for name in names)
    parts = [
        _sessions(part, str(calendar), timeframe)
        for (calendar,), part in bars.with_row_index("row").group_by("calendar")
    ]
    return pl.concat(parts).sort("row").select(*bars.columns, *names)


def _sessions(bars: pl.DataFrame, calendar: str, timeframe: Timeframe) -> pl.DataFrame:
    """Bars of one calendar with all session columns."""
    dates = pl.concat([bars["ts"], bars["event_timestamp"]]).dt.date()
    sessions = _around(calendar, cast("date", dates.min()), cast("date", dates.max()))
    if timeframe is Timeframe.D1:
        dated = bars.with_columns(pl.col("ts").dt.date().alias("session"))
        joined = dated.join(sessions, on="session", how="left")
    else:
        # A bar belongs to the first session that closes when it is known, or after.
        joined = bars.sort("event_timestamp").join_asof(
            sessions, left_on="event_timestamp", right_on="closes", strategy="forward"
        )
    known = pl.col("event_timestamp")
    local = known.dt.convert_time_zone(str(calendars.timezone(calendar)))
    return joined.with_columns(
        _hours(local - local.dt.truncate("1d")).alias("session_time_of_day"),
        _hours(known - pl.col("opens")).alias("session_hours_of_session"),
    ).drop("session", "opens", "closes")


def _hours(duration: pl.Expr) -> pl.Expr:
    return duration.dt.total_microseconds() / _MICROSECONDS_AN_HOUR


def _around(calendar: str, first: date, last: date) -> pl.DataFrame:
    """The sessions of these dates: open, close, and what follows from those before them."""
    begin, end = first - _MONTH_BEFORE, last + timedelta(days=10)
    session = pl.col("session")
    return (
        (_days(begin, end) if calendar == calendars.ALWAYS_OPEN else calendars.sessions(calendar))
        .filter(session.is_between(begin, end))
        .select(
            "session",
            "opens",
            "closes",
            session.dt.weekday().alias("session_weekday"),
            session.dt.day().alias("session_day_of_month"),
            session.dt.month().alias("session_month"),
            session.cum_count().over(session.dt.truncate("1mo")).alias("session_session_of_month"),
            session.cum_count().over(session.dt.truncate("1w")).alias("session_session_of_week"),
            session.diff().dt.total_days().alias("session_days_since_session"),
        )
        .sort("closes")
    )


def _days(begin: date, end: date) -> pl.DataFrame:
    """The sessions of the market that never shuts: the days of UTC."""
    opens = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    days = pl.date_range(begin, end, interval="1d", eager=True).alias("session")
    return days.to_frame().with_columns(
        opens.alias("opens"), opens.dt.offset_by("24h").alias("closes")
    )


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
