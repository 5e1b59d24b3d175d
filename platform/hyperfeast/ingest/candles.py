"""Bars of prices into `candles`."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
from psycopg import Connection, sql

from hyperfeast import calendars
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import DataError
from hyperfeast.ingest import gate, instruments
from hyperfeast.ingest.batches import Batch, IngestSummary, moment, running
from hyperfeast.ingest.columns import SYMBOL, TIME, Column, locate
from hyperfeast.ingest.gate import Judgment, Progress, Rule
from hyperfeast.ingest.values import (
    EARLIEST,
    LATEST,
    legible,
    read_numbers,
    read_text,
    read_times,
    session_dates,
    time_zone,
)
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
)
_STORED_AS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_OPTIONAL = ("vwap", "taker_buy_vol")
_PRICES = ("o", "h", "l", "c")
_KEY = ("symbol", "ts")

_DATED = (Timeframe.D1, Timeframe.W1)
_INTRADAY = sorted(
    (tf for tf in Timeframe if tf not in _DATED), key=lambda tf: tf.width, reverse=True
)
_MONDAY = 1


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
    progress: Progress | None = None,
) -> IngestSummary:
    """Insert bars, or correct those that are there with other values, in one transaction.

    A row that breaks a rule goes to `quarantine` as it came, with the first rule it broke; the others go
    in. What a correction replaces goes to `candle_revisions`. A bar with equal values is not written at
    all. Columns that the batch does not have keep what is there. The order in which batches arrive makes no
    difference to bars of different keys.

    Rules, in order: symbol_format, time_ambiguous, time_missing, time_range (1970 to 2100, and closed by the
    database's clock), number_missing, finite, price_positive, high_is_highest, low_is_lowest,
    volume_not_negative, session (daily bars: a session of the instrument's calendar), timeframe_multiple
    (weekly bars: Mondays), duplicate_key.

    Args:
        database: where to.
        frame: one row a bar. Columns are recognized by name: symbol or ticker; ts, date, timestamp, time,
            datetime or open_time; open, high, low, close, volume or their short forms; vwap; taker_buy_vol.
        timeframe: of every bar. Daily and weekly bars carry dates; other times are the bar's open.
        source: where the rows come from: kept with every bar.
        symbol: of every row, for a frame without such a column.
        columns: symbol, ts, open, high, low, close, volume, vwap or taker_buy_vol -> the frame's column.
        calendar: of every instrument; unknown instruments are created with it. Without it known instruments
            keep theirs and unknown ones get "24/7", which is always safe: a day is known when it has passed.
        tz: the zone of times written without one; UTC if not given.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        UsageError: a symbol, calendar, zone or mapping that makes no sense, or a calendar that an
            instrument does not have.
        DataError: columns are missing, or daily or weekly bars with times within a day: nothing went in.
    """
    zone = time_zone(tz)
    instruments.check_symbol(symbol)
    if calendar is not None:
        calendars.timezone(calendar)
    places = locate(frame.columns, _COLUMNS, columns, () if symbol is None else ("symbol",))
    with running(
        database, frame, target="candles", source=source, symbol=symbol, timeframe=timeframe
    ) as batch:
        bars = _bars(frame, places, symbol, zone)
        trading = _calendars(database, bars["symbol"], calendar)
        rows = _timed(bars, timeframe, trading)
        values = [name for name in bars.columns if name in (*_STORED_AS.values(), *_OPTIONAL)]
        judgment = gate.judge(
            rows, _rules(values, batch.started_at), key=_KEY, values=values, progress=progress
        )
        staged = judgment.accepted.select(
            "symbol",
            pl.lit(timeframe.value).alias("tf"),
            "ts",
            *values,
            pl.lit(source).alias("source"),
        )
        with database.connect() as connection:
            summary = _store(connection, batch, judgment, staged, values, trading)
    if progress:
        progress(frame.height, frame.height)
    return summary


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
    return (
        read_times(frame[places["ts"]], zone)
        .with_row_index("row")
        .with_columns(
            symbols.alias("symbol"),
            *(read_numbers(column).alias(name) for name, column in numbers.items()),
            *(
                legible(column).alias(_legible(name))
                for name, column in numbers.items()
                if name in _OPTIONAL
            ),
        )
    )


def _legible(name: str) -> str:
    return f"{name}_legible"


def _calendars(database: Database, symbols: pl.Series, calendar: str | None) -> dict[str, str]:
    """Symbol -> calendar: the instrument's own, else the one given, else the one that is always safe."""
    proper = instruments.proper(symbols)
    registered = instruments.calendars_of(database, proper)
    instruments.check_calendar(registered, calendar)
    return dict.fromkeys(proper, calendar or calendars.ALWAYS_OPEN) | registered


def _timed(bars: pl.DataFrame, timeframe: Timeframe, trading: Mapping[str, str]) -> pl.DataFrame:
    """With ts as it is stored, closes_at, is_session and on_grid."""
    if timeframe not in _DATED:
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
    _check_dates(rows, timeframe)
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


def _check_dates(rows: pl.DataFrame, timeframe: Timeframe) -> None:
    within = rows.filter(
        pl.col("wall").is_not_null() & pl.col("date").is_null(),
        pl.col("wall").dt.year().is_between(EARLIEST.year, LATEST.year),
    )
    if within.is_empty():
        return
    first = within.row(0, named=True)
    raise DataError(
        f"row {first['row'] + 1} has the time {first['wall']}, and bars of {timeframe} carry dates: "
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


def _rules(values: list[str], now: datetime) -> list[Rule]:
    prices = [name for name in values if name in (*_PRICES, "vwap")]
    volumes = [name for name in values if name not in prices]
    optional = [name for name in values if name in _OPTIONAL]
    return [
        *instruments.symbol_rules(),
        gate.among("time_ambiguous", "once", [True]),
        *gate.present("time_missing", "ts"),
        *gate.within("time_range", "ts", min_value=EARLIEST, max_value=LATEST),
        *gate.within("time_range", "closes_at", max_value=now),
        *gate.present("number_missing", *_STORED_AS.values()),
        *(gate.among("number_missing", _legible(name), [True]) for name in optional),
        *gate.within("finite", *values, **gate.FINITE),
        *gate.within("price_positive", *prices, min_value=0, strict_min=True),
        *gate.at_least("high_is_highest", "h", "o", "l", "c"),
        *gate.at_least("low_is_lowest", "o", "l"),
        *gate.at_least("low_is_lowest", "c", "l"),
        *gate.within("volume_not_negative", *volumes, min_value=0),
        gate.among("session", "is_session", [True]),
        gate.among("timeframe_multiple", "on_grid", [True]),
    ]


def _store(
    connection: Connection[Any],
    batch: Batch,
    judgment: Judgment,
    staged: pl.DataFrame,
    values: list[str],
    trading: Mapping[str, str],
) -> IngestSummary:
    statements = {
        name: sql.SQL(query("candles", name)).format(
            values=sql.SQL(", ").join(map(sql.Identifier, values)),
            candle_values=sql.SQL(", ").join(sql.Identifier("c", name) for name in values),
            staged_values=sql.SQL(", ").join(sql.Identifier("s", name) for name in values),
        )
        for name in ("stage", "correct", "insert")
    }
    connection.execute(statements["stage"])
    copy_frame(connection, "staged_candles", staged)
    connection.execute(
        sql.SQL(query("ingestion", "analyze")).format(table=sql.Identifier("staged_candles"))
    )
    instruments.register(connection, {name: trading[name] for name in staged["symbol"].unique()})
    now = {"moment": moment(connection)}
    corrected = connection.execute(statements["correct"], now).rowcount
    inserted = connection.execute(statements["insert"], now).rowcount
    return batch.complete(connection, judgment, inserted=inserted, corrected=corrected)
