"""Bars of prices into `candles`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import polars as pl
from psycopg import Connection, sql

from hyperfeast import calendars
from hyperfeast.cells import (
    EARLIEST,
    LATEST,
    legible,
    read_numbers,
    read_text,
    read_times,
    session_dates,
    time_zone,
)
from hyperfeast.db import Database, copy_frame
from hyperfeast.db.connection import Query, edition_of
from hyperfeast.errors import DataError
from hyperfeast.ingest import gate, instruments, retention
from hyperfeast.ingest.batches import Batch, IngestSummary, check_source, moment
from hyperfeast.ingest.columns import SYMBOL, TIME, Column, locate
from hyperfeast.ingest.gate import Judgment, Progress, Rule
from hyperfeast.ingest.idempotency import request
from hyperfeast.ingest.mirror import Mirror
from hyperfeast.ingest.pipeline import ingest_frame
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

_COLUMNS = (
    SYMBOL,
    TIME,
    Column("open", ("open", "o")),
    Column("high", ("high", "h")),
    Column("low", ("low", "l")),
    Column("close", ("close", "c")),
    Column("volume", ("volume", "v", "vol")),
    Column("vwap", ("vwap",), required=False),
    Column("taker_buy_vol", ("taker_buy_vol",), required=False),
    Column("published_at", ("published_at",), required=False),
)
_STORED_AS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_OPTIONAL = ("vwap", "taker_buy_vol")
_PRICES = ("o", "h", "l", "c")
_PUBLISHED = "published_at"
_KEY = ("symbol", "ts")

_DATED = (Timeframe.D1, Timeframe.W1)
_INTRADAY = sorted(
    (tf for tf in Timeframe if tf not in _DATED), key=lambda tf: tf.width, reverse=True
)
_MONDAY = 1
_TRADED = "traded"

# A source's clock may run ahead of the database's by this much.
_AHEAD = timedelta(minutes=5)

# Within these a notional is neither infinite nor nothing, and a sum of as many as a table can hold is finite:
# the database refuses to compute any other, and one such bar would block its aggregates.
_LEAST, _MOST_PRICE, _MOST_VOLUME = 1e-100, 1e12, 1e18


@dataclass(frozen=True, kw_only=True)
class Candles:
    """What the bars of a frame are: the arguments of `ingest_candles`, for `ingest_stream`.

    Raises:
        UsageError: a symbol, calendar or zone that makes no sense.
    """

    timeframe: Timeframe
    source: str
    symbol: str | None = None
    columns: Mapping[str, str] | None = None
    calendar: str | None = None
    tz: str | None = None

    table: ClassVar[str] = "candles"
    user: ClassVar[None] = None

    def __post_init__(self) -> None:
        time_zone(self.tz)
        check_source(self.source)
        instruments.check_symbol(self.symbol)
        if self.calendar is not None:
            calendars.timezone(self.calendar)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a frame that lacks columns."""
        self._places(columns)

    def judge(
        self, database: Database, batch: Batch, progress: Progress | None = None
    ) -> "JudgedCandles":
        """Read the batch's cells, stamp its bars by their calendars, and try them at the gate."""
        places = self._places(batch.frame.columns)
        bars = _bars(batch.frame, places, self.symbol, time_zone(self.tz))
        trading = _calendars(database, bars["symbol"], self.calendar)
        rows = _timed(bars, self.timeframe, trading, batch.first_row)
        values = [name for name in bars.columns if name in (*_STORED_AS.values(), *_OPTIONAL)]
        stamped = _PUBLISHED in places
        kept_from = retention.horizon(database, self.table, self.timeframe)
        rules = _rules(values, batch.started_at, kept_from, stamped=stamped)
        judgment = gate.judge(
            rows,
            rules,
            key=_KEY,
            values=values,
            newest_by=_PUBLISHED if stamped else None,
            progress=progress,
        )
        # In the order of the index: to fill it from left to right takes two thirds of the time.
        accepted = judgment.accepted.select(
            *_KEY, *values, *([_PUBLISHED] if stamped else [])
        ).sort(_KEY, descending=[False, True])
        return JudgedCandles(judgment, rules, accepted, values, trading)

    def store(
        self, connection: Connection[Any], batch: Batch, judged: "JudgedCandles"
    ) -> IngestSummary:
        """Insert what is new, correct what differs, leave equal bars alone, and complete the batch."""
        inserted, corrected = 0, 0
        if not judged.accepted.is_empty():
            retention.hold(
                connection, self.table, self.timeframe, retention.oldest(judged.accepted)
            )
            inserted, corrected = self._write(connection, judged)
        return batch.complete(
            connection,
            judged.judgment,
            inserted=inserted,
            corrected=corrected,
            expectation=gate.suite(judged.rules),
        )

    def _places(self, columns: Sequence[str]) -> dict[str, str]:
        given = () if self.symbol is None else ("symbol",)
        return locate(columns, _COLUMNS, self.columns, given)

    def _write(self, connection: Connection[Any], judged: "JudgedCandles") -> tuple[int, int]:
        """How many were inserted and corrected."""
        spans = _spans(judged.accepted)
        symbols = spans["symbols"]
        instruments.register(connection, {name: judged.trading[name] for name in symbols})
        parameters = {
            **spans,
            "tf": self.timeframe.value,
            "source": self.source,
            "moment": moment(connection),
        }
        if (
            self._can_copy(connection)
            and not _fetch(connection, query("candles", "overlap"), parameters)["overlap"]
        ):
            fixed = {
                "tf": pl.lit(self.timeframe.value),
                "source": pl.lit(self.source),
                "recorded_at": pl.lit(parameters["moment"]),
            }
            return copy_frame(connection, self.table, judged.accepted.with_columns(**fixed)), 0
        statements = _statements(judged.values)
        connection.execute(statements["stage"])
        copy_frame(connection, "staged_candles", judged.accepted)
        connection.execute(statements["stage_comparison"])
        connection.execute(statements["compare"], parameters, prepare=False)
        todo = _fetch(connection, statements["compared"], {})
        if todo["outdated"]:
            connection.execute(statements["keep_outdated"], parameters)
        if todo["corrected"]:
            span = {name: todo[name] for name in ("symbols", "first", "last")}
            connection.execute(statements["correct"], parameters | span, prepare=False)
        if todo["inserted"]:
            connection.execute(statements["insert"], parameters)
        return todo["inserted"], todo["corrected"]

    def _can_copy(self, connection: Connection[Any]) -> bool:
        """Continuous aggregates do not always notice rows that come by COPY, and would recompute whole days."""
        return (
            self.timeframe is not Timeframe.M1 or not edition_of(connection).continuous_aggregates
        )


@dataclass(frozen=True)
class JudgedCandles:
    """Bars that are judged, by what, those that may go in, their columns, and their symbols' calendars."""

    judgment: Judgment
    rules: list[Rule]
    accepted: pl.DataFrame
    values: list[str]
    trading: dict[str, str]


def ingest_candles(
    database: Database,
    frame: pl.DataFrame,
    *,
    timeframe: Timeframe,
    source: str,
    symbol: str | None = None,
    columns: Mapping[str, str] | None = None,
    calendar: str | None = None,
    tz: str | None = None,
    idempotency_key: str | None = None,
    body_sha256: str | None = None,
    mirror: Mirror | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Insert bars, or correct those that are there with other values, in one transaction.

    A row that breaks a rule goes to `quarantine` as it came, with the first rule it broke; the others go
    in. What a correction replaces goes to `candle_revisions`. A bar with equal values is not written at
    all. Columns that the batch does not have keep what is there. The order in which batches arrive makes no
    difference to bars of different keys, and none to revisions of one bar that say when they were
    published: the one published last is served, and an older one that comes later goes to
    `candle_revisions` at once. Where that is not said, the revision that arrives last is served.

    Rules, in order: symbol_format, time_ambiguous, time_missing, time_range (1970 to 2100, and closed by the
    database's clock), retention (not older than what was dropped), published_at (a time, and not in the
    future), number_missing, finite, price_positive, high_is_highest, low_is_lowest, volume_not_negative,
    magnitude (prices up to 1e12, volumes up to 1e18, neither below 1e-100 but for a volume of 0: their
    products and sums stay finite), session (daily bars: a session of the instrument's calendar),
    timeframe_multiple (weekly bars: Mondays), duplicate_key.

    Args:
        database: where to.
        frame: one row a bar. Columns are recognized by name: symbol or ticker; ts, date, timestamp, time,
            datetime or open_time; open, high, low, close, volume or their short forms; vwap; taker_buy_vol;
            published_at: when the source published this revision, empty if it is not known.
        timeframe: of every bar. Daily and weekly bars carry dates; other times are the bar's open.
        source: where the rows come from: kept with every bar.
        symbol: of every row, for a frame without such a column.
        columns: symbol, ts, open, high, low, close, volume, vwap, taker_buy_vol or published_at -> the
            frame's column.
        calendar: of every instrument; unknown instruments are created with it. Without it known instruments
            keep theirs and unknown ones get "24/7", which is always safe: a day is known when it has passed.
        tz: the zone of times written without one; UTC if not given.
        idempotency_key: 1 to 255 printable characters of the sender's choice. Sent again under the same
            key, also by many at once, a batch has no second effect, and what came of the first is returned.
        body_sha256: of what was sent under the key, in hexadecimal; taken from the other arguments if not
            given.
        mirror: where to write what is taken in a second time.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        UsageError: a symbol, calendar, zone, key or mapping that makes no sense, or a calendar that an
            instrument does not have.
        DataError: columns are missing, or the times are not those of such bars: nothing went in.
        IdempotencyConflict: the key was used for other content.
        ServerUnreachable: the connection broke: the batch is whole or absent. Send it again.
    """
    options = {
        "timeframe": timeframe, "source": source, "symbol": symbol,
        "columns": None if columns is None else dict(columns), "calendar": calendar, "tz": tz,
    }  # fmt: skip
    return ingest_frame(
        database,
        frame,
        Candles(**options),  # type: ignore[arg-type]
        request=request(idempotency_key, body_sha256, frame, {"table": "candles"} | options),
        mirror=mirror,
        progress=progress,
    )


def _bars(
    frame: pl.DataFrame, places: Mapping[str, str], symbol: str | None, zone: ZoneInfo
) -> pl.DataFrame:
    """The frame with our names and types, and for each optional number whether its cell can be read."""
    symbols = (
        pl.repeat(symbol, frame.height, dtype=pl.String, eager=True)
        if symbol is not None
        else read_text(frame[places["symbol"]])
    )
    numbers = {
        _STORED_AS.get(name, name): frame[place]
        for name, place in places.items()
        if name in _STORED_AS or name in _OPTIONAL
    }
    stamps = _stamps(frame[places[_PUBLISHED]], zone) if _PUBLISHED in places else {}
    return (
        read_times(frame[places["ts"]], zone)
        .with_row_index("row")
        .with_columns(
            symbols.alias("symbol"),
            **stamps,
        )
        .with_columns(
            *(read_numbers(column).alias(name) for name, column in numbers.items()),
            *(
                legible(column).alias(_legible(name))
                for name, column in numbers.items()
                if name in _OPTIONAL
            ),
        )
        .with_columns(pl.when(pl.col("v") != 0).then("v").alias(_TRADED))
    )


def _legible(name: str) -> str:
    return f"{name}_legible"


def _stamps(column: pl.Series, zone: ZoneInfo) -> dict[str, pl.Series]:
    """When each revision was published, and whether its cell holds a time or nothing."""
    times = read_times(column, zone)["ts"]
    absent = (
        legible(column) & read_numbers(column).is_null()
        if column.dtype == pl.String
        else column.is_null()
    )
    return {_PUBLISHED: times, _legible(_PUBLISHED): times.is_not_null() | absent}


def _calendars(database: Database, symbols: pl.Series, calendar: str | None) -> dict[str, str]:
    """Symbol -> calendar: the instrument's own, else the one given, else the one that is always safe."""
    proper = instruments.proper(symbols)
    registered = instruments.calendars_of(database, proper)
    instruments.check_calendar(registered, calendar)
    return dict.fromkeys(proper, calendar or calendars.ALWAYS_OPEN) | registered


def _timed(
    bars: pl.DataFrame, timeframe: Timeframe, trading: Mapping[str, str], first_row: int
) -> pl.DataFrame:
    """With ts as it is stored, closes_at, is_session and on_grid."""
    if timeframe not in _DATED:
        _check_within(bars, timeframe)
        width_us = timeframe.width // timedelta(microseconds=1)
        return bars.with_columns(
            closes_at=pl.col("ts") + timeframe.width,
            is_session=True,
            on_grid=pl.col("ts").dt.epoch("us") % width_us == 0,
        )
    parts = [
        _dated(part, str(calendar), timeframe)
        for (calendar,), part in bars.with_columns(
            pl.col("symbol")
            .replace_strict(trading, default=calendars.ALWAYS_OPEN, return_dtype=pl.String)
            .alias("calendar")
        ).group_by("calendar")
    ]
    rows = pl.concat(parts).sort("row") if parts else _dated(bars, calendars.ALWAYS_OPEN, timeframe)
    _check_dates(rows, timeframe, first_row)
    return rows


def _dated(bars: pl.DataFrame, calendar: str, timeframe: Timeframe) -> pl.DataFrame:
    dates = session_dates(bars, calendars.timezone(calendar))
    midnight = dates.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    daily = timeframe is Timeframe.D1
    close = calendars.session_close(calendar, dates) if daily else midnight + timeframe.width
    return bars.with_columns(
        pl.Series("date", dates),
        ts=pl.coalesce(midnight, "ts"),
        once=pl.col("once") | dates.is_not_null(),
        closes_at=pl.coalesce(close, midnight + timeframe.width),
        is_session=close.is_not_null() if daily else True,
        on_grid=True if daily else dates.dt.weekday() == _MONDAY,
    )


def _check_within(bars: pl.DataFrame, timeframe: Timeframe) -> None:
    """Bars of several days, each at a midnight, are not what a market does within its days."""
    universal = pl.col("ts").dt.replace_time_zone(None)
    midnight = (universal.dt.truncate("1d") == universal) | (
        pl.col("wall").dt.truncate("1d") == pl.col("wall")
    )
    timed = bars.lazy().filter(pl.col("ts").is_not_null())
    dates = timed.group_by("symbol").agg(dates=pl.col("ts").dt.date().n_unique())
    found = timed.select(daily=midnight.all()).join(dates.select(pl.max("dates")), how="cross")
    daily, most = found.collect().row(0)
    if daily and most is not None and most > 1:
        raise DataError(
            f"every bar is at midnight, on up to {most} days an instrument, and --tf {timeframe} says that "
            "they are shorter than a day: nothing was taken in; --tf 1d fits these times"
        )


def _check_dates(rows: pl.DataFrame, timeframe: Timeframe, first_row: int) -> None:
    within = rows.filter(
        pl.col("wall").is_not_null() & pl.col("date").is_null(),
        pl.col("wall").dt.year().is_between(EARLIEST.year, LATEST.year),
    )
    if within.is_empty():
        return
    first = within.row(0, named=True)
    raise DataError(
        f"row {first_row + first['row'] + 1} has the time {first['wall']}, and bars of {timeframe} carry dates: "
        f"nothing was taken in; {_what_fits(within)}"
    )


def _what_fits(within: pl.DataFrame) -> str:
    """One row a day is a day's bar at some market's midnight; many are bars of a shorter width."""
    once_a_day = within.select("symbol", pl.col("wall").dt.date()).is_unique().all()
    if once_a_day and within["zoned"].all():
        return "if these are daily bars, name their market's calendar (--calendar XNYS)"
    for timeframe in _INTRADAY:
        if within.select(
            (pl.col("wall").dt.truncate(timeframe.value) == pl.col("wall")).all()
        ).item():
            return f"--tf {timeframe} fits these times"
    return "no --tf fits these times: they are not whole minutes"


def _rules(
    values: list[str], now: datetime, kept_from: datetime | None, *, stamped: bool
) -> list[Rule]:
    prices = [name for name in values if name in (*_PRICES, "vwap")]
    volumes = [name for name in values if name not in prices]
    optional = [name for name in values if name in _OPTIONAL]
    return [
        *instruments.symbol_rules(),
        gate.among("time_ambiguous", "once", [True]),
        *gate.present("time_missing", "ts"),
        *gate.within("time_range", "ts", min_value=EARLIEST, max_value=LATEST),
        *gate.within("time_range", "closes_at", max_value=now),
        *retention.rules(kept_from),
        *(_publication(now) if stamped else ()),
        *gate.present("number_missing", *_STORED_AS.values()),
        *(gate.among("number_missing", _legible(name), [True]) for name in optional),
        *gate.within("finite", *values, **gate.FINITE),
        *gate.within("price_positive", *prices, min_value=0, strict_min=True),
        *gate.at_least("high_is_highest", "h", "o", "l", "c"),
        *gate.at_least("low_is_lowest", "o", "l"),
        *gate.at_least("low_is_lowest", "c", "l"),
        *gate.within("volume_not_negative", *volumes, min_value=0),
        *gate.within("magnitude", *prices, min_value=_LEAST, max_value=_MOST_PRICE),
        *gate.within("magnitude", *volumes, max_value=_MOST_VOLUME),
        *gate.within("magnitude", _TRADED, min_value=_LEAST),
        gate.among("session", "is_session", [True]),
        gate.among("timeframe_multiple", "on_grid", [True]),
    ]


def _publication(now: datetime) -> list[Rule]:
    return [
        gate.among("published_at", _legible(_PUBLISHED), [True]),
        *gate.within("published_at", _PUBLISHED, min_value=EARLIEST, max_value=now + _AHEAD),
    ]


def _spans(accepted: pl.DataFrame) -> dict[str, Any]:
    """The symbols in order, the first and last bar of each, and those of all."""
    spans = (
        accepted.group_by("symbol")
        .agg(first=pl.col("ts").min(), last=pl.col("ts").max())
        .sort("symbol")
    )
    return {
        "symbols": spans["symbol"].to_list(),
        "firsts": spans["first"].to_list(),
        "lasts": spans["last"].to_list(),
        "first": spans["first"].min(),
        "last": spans["last"].max(),
    }


def _statements(values: list[str]) -> dict[str, sql.Composed]:
    return {
        name: sql.SQL(query("candles", name)).format(
            values=sql.SQL(", ").join(map(sql.Identifier, values)),
            bar_values=sql.SQL(", ").join(sql.Identifier("bar", name) for name in values),
            staged_values=sql.SQL(", ").join(sql.Identifier("s", name) for name in values),
        )
        for name in (
            "stage",
            "stage_comparison",
            "compare",
            "compared",
            "correct",
            "keep_outdated",
            "insert",
        )
    }


def _fetch(
    connection: Connection[Any], statement: Query, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """The one row of a query, planned for its values: they say which chunks cannot matter."""
    row = connection.execute(statement, parameters, prepare=False).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return row  # type: ignore[no-any-return]
