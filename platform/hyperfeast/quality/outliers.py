"""Marks bars that look wrong, beside the data: nothing is changed or deleted.

Two methods, both over the log returns r of split-adjusted closes and a trailing window:

- `robust_z`: (r(t) - m(t)) / s(t), where m is the median of the returns before t and s is 1.4826 times the
  median of |r(u) - m(u)| over the same u. Only this bar and earlier ones count: a flag knows no future, and
  later rows never change it. After a wrong close the return back is flagged too.
- `neighbor_jump`: a close that is off both of its neighbors on the same side, by min(|r(t)|, |r(t+1)|) / s(t).
  It tells the wrong bar from the one after it, and for that it needs the later neighbor.

The median and the median absolute deviation, with 1.4826 for the scale of a normal distribution, are
those of Hampel (1974) and of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from hyperfeast import calendars
from hyperfeast.adjustment import split_factor
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import UsageError
from hyperfeast.quality.known import check_instrument
from hyperfeast.quality.sessions import sync_calendars
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

ROBUST_Z, NEIGHBOR_JUMP = "robust_z", "neighbor_jump"

_RELATION = "candles"
_MAD_TO_DEVIATION = 1.4826
_DAILY_SYMBOLS_A_QUERY, _INTRADAY_SYMBOLS_A_QUERY = 40, 1
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OutlierRules:
    """What makes a bar look wrong.

    Attributes:
        window: how many earlier returns the median and the scale are taken from.
        least: how many of them there have to be.
        threshold: flagged beyond so many robust deviations. Returns have heavy tails: at 3.5, which is
            usual elsewhere, every news day is flagged.
        least_scale: the smallest scale of a log return; what moved nothing for a window is not flagged
            for its first tick.

    Raises:
        UsageError: a number that makes no sense.
    """

    window: int = 60
    least: int = 20
    threshold: float = 8.0
    least_scale: float = 0.001

    def __post_init__(self) -> None:
        if not 1 < self.least <= self.window:
            raise UsageError(
                f"expected a window of at least `least` ({self.least}) returns, and that to be 2 or more; "
                f"found a window of {self.window}"
            )
        if not (self.threshold > 0 and self.least_scale > 0):
            raise UsageError(
                "expected a threshold and a least scale above 0; "
                f"found {self.threshold:g} and {self.least_scale:g}"
            )

    @property
    def lookback(self) -> int:
        """How many earlier bars a score may depend on."""
        return 2 * self.window + 1


@dataclass(frozen=True)
class Flagging:
    """What one run did.

    Attributes:
        timeframe: of the bars.
        bars: how many were judged.
        flagged: flags that stand now, of those.
        added: flags that are new, or whose score changed.
        cleared: flags that were taken away: the row was corrected, or its neighbors were.
    """

    timeframe: str
    bars: int
    flagged: int
    added: int
    cleared: int


def score(bars: pl.DataFrame, rules: OutlierRules) -> pl.DataFrame:
    """Every bar that a method flags.

    Args:
        bars: columns symbol, ts (Datetime, UTC), close and factor (see `adjustment.split_factor`), each
            symbol's in time order.
        rules: what makes a bar look wrong.

    Returns:
        Columns symbol, ts, method, score (deviations, signed), close, log_return and rests_on (the ts of
        the newest bar that the score needs).
    """
    median = pl.col("r").rolling_median(rules.window, min_samples=rules.least).shift(1)
    spread = (pl.col("r") - pl.col("m").fill_null(0.0)).abs().rolling_median(
        rules.window, min_samples=rules.least
    ).shift(1) * _MAD_TO_DEVIATION
    later = pl.col("r").shift(-1)
    scored = (
        bars.lazy()
        .with_columns((pl.col("close") * pl.col("factor")).log().diff().over("symbol").alias("r"))
        .with_columns(median.over("symbol").alias("m"))
        .with_columns(spread.over("symbol").clip(lower_bound=rules.least_scale).alias("s"))
        .with_columns(
            robust_z=(pl.col("r") - pl.col("m")) / pl.col("s"),
            neighbor_jump=pl.when(pl.col("r").sign() * later.over("symbol").sign() < 0).then(
                pl.col("r").sign()
                * pl.min_horizontal(pl.col("r").abs(), later.over("symbol").abs())
                / pl.col("s")
            ),
            next_ts=pl.col("ts").shift(-1).over("symbol"),
        )
    )
    flags = [
        scored.filter(pl.col(method).abs() > rules.threshold).select(
            "symbol",
            "ts",
            pl.lit(method).alias("method"),
            pl.col(method).alias("score"),
            "close",
            pl.col("r").alias("log_return"),
            pl.col(rests_on).alias("rests_on"),
        )
        for method, rests_on in ((ROBUST_Z, "ts"), (NEIGHBOR_JUMP, "next_ts"))
    ]
    return pl.concat(flags).collect().sort("symbol", "ts", "method")


def flag_outliers(
    database: Database,
    *,
    timeframe: Timeframe = Timeframe.D1,
    symbol: str | None = None,
    since: datetime | None = None,
    rules: OutlierRules | None = None,
    progress: Progress | None = None,
) -> Flagging:
    """Judge bars and bring their flags up to date: what is an outlier no longer loses its flag.

    Prices are adjusted for the splits known now, so that a split is no outlier.

    Args:
        database: where the candles are.
        timeframe: which bars.
        symbol: one instrument; all if left out.
        since: zoned; judge bars from there on, and leave earlier flags alone. All if left out.
        rules: what makes a bar look wrong.
        progress: told (instruments done, instruments in all).

    Raises:
        UsageError: no such instrument, or an instrument's calendar does not exist.
    """
    rules, since = rules or OutlierRules(), since or _BEGINNING
    symbols = _symbols(database, symbol, timeframe)
    sync_calendars(database)
    splits = database.frame(query("quality", "splits"))
    size = (
        _INTRADAY_SYMBOLS_A_QUERY
        if timeframe.width < Timeframe.D1.width
        else _DAILY_SYMBOLS_A_QUERY
    )
    judged = flagged = added = cleared = 0
    for start in range(0, len(symbols), size):
        part = symbols[start : start + size]
        bars = _bars(database, part, timeframe, since, rules)
        factors = split_factor(_by_session(database, bars, timeframe), splits).alias("factor")
        flags = score(bars.with_columns(factors), rules).filter(pl.col("ts") >= since)
        changed = _write(database, flags, part, timeframe, since)
        judged += bars.filter(pl.col("ts") >= since).height
        flagged += flags.height
        added += changed[0]
        cleared += changed[1]
        if progress:
            progress(start + len(part), len(symbols))
    return Flagging(timeframe.value, judged, flagged, added, cleared)


def _symbols(database: Database, symbol: str | None, timeframe: Timeframe) -> list[str]:
    check_instrument(database, symbol)
    # Without bars too: the flags of bars that are gone have to go.
    rows = database.fetch(
        query("quality", "series"),
        {"symbol": symbol, "timeframes": [timeframe], "also_empty": True},
    )
    return [row["symbol"] for row in rows]


def _bars(
    database: Database,
    symbols: list[str],
    timeframe: Timeframe,
    since: datetime,
    rules: OutlierRules,
) -> pl.DataFrame:
    return database.frame(
        query("quality", "bars_to_judge"), (symbols, timeframe.value, since, rules.lookback)
    )


def _by_session(database: Database, bars: pl.DataFrame, timeframe: Timeframe) -> pl.DataFrame:
    """Symbol and ts, with ts of an intraday bar replaced by the day of its session.

    A session may begin on the UTC day before its own, and a split takes effect with the session.
    """
    traded = bars.filter(pl.col("calendar") != calendars.ALWAYS_OPEN)["calendar"].unique().to_list()
    if timeframe.width >= Timeframe.D1.width or not traded:
        return bars.select("symbol", "ts")
    sessions = database.frame(query("quality", "sessions"), (traded,)).sort("opens")
    day = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    dated = (
        bars.select("symbol", "calendar", "ts")
        .with_row_index("row")
        .sort("ts")
        .join_asof(
            sessions,
            left_on="ts",
            right_on="opens",
            by="calendar",
            strategy="backward",
            check_sortedness=False,
        )
        .sort("row")
    )
    # A bar that opens after the close belongs to no session; its own UTC day has to do.
    inside = pl.col("ts") < pl.col("closes")
    return dated.select("symbol", pl.when(inside).then(day).otherwise("ts").alias("ts"))


def _write(
    database: Database,
    flags: pl.DataFrame,
    symbols: list[str],
    timeframe: Timeframe,
    since: datetime,
) -> tuple[int, int]:
    """(flags added or changed, flags cleared)."""
    scope = {"relation": _RELATION, "tf": timeframe.value, "symbols": symbols, "since": since}
    with database.connect() as connection:
        connection.execute(query("quality", "lock_flags"))
        connection.execute(query("quality", "stage_flags"))
        copy_frame(connection, "staged_flags", flags)
        cleared = connection.execute(query("quality", "clear_flags"), scope).rowcount
        added = connection.execute(query("quality", "raise_flags"), scope).rowcount
    return added, cleared
