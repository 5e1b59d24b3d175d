"""The instruments that rows belong to: their symbols, their calendars, and who may write their rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
from psycopg import Connection

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.ingest.gate import Rule, matching, present
from hyperfeast.sqlfiles import query
from hyperfeast.types import SYMBOL_PATTERN


def symbol_rules() -> list[Rule]:
    """`symbol_format`: a symbol is there and looks like one."""
    return [
        *present("symbol_format", "symbol"),
        matching("symbol_format", "symbol", SYMBOL_PATTERN),
    ]


def proper(symbols: pl.Series) -> list[str]:
    """The distinct symbols that look like one, sorted: only these come near the database."""
    distinct = symbols.unique()
    return distinct.filter(distinct.str.contains(rf"^(?:{SYMBOL_PATTERN})$")).sort().to_list()


def check_symbol(symbol: str | None) -> None:
    """Refuse a symbol, given for all rows, that could be none.

    Raises:
        UsageError: the symbol is not one.
    """
    if symbol is not None and not proper(pl.Series([symbol])):
        raise UsageError(
            f"{symbol!r} is no symbol: expected up to 32 letters, digits and . _ : / ^ = - "
            "that begin with a letter or a digit"
        )


def calendars_of(database: Database, symbols: list[str]) -> dict[str, str]:
    """Symbol -> calendar, of those that are registered."""
    rows = database.fetch(query("ingestion", "calendars"), {"symbols": symbols})
    return {row["symbol"]: row["calendar"] for row in rows}


def check_calendar(registered: Mapping[str, str], calendar: str | None) -> None:
    """Refuse a calendar, given for all rows, that an instrument does not have.

    Raises:
        UsageError: an instrument is registered with another one.
    """
    others = [symbol for symbol, known in registered.items() if known != calendar]
    if calendar is not None and others:
        raise UsageError(
            f"{others[0]} is registered with calendar {registered[others[0]]}, and {calendar} is given: "
            "leave the calendar out. Features are stamped by it, so it stays as it is"
        )


def register(connection: Connection[Any], wanted: Mapping[str, str]) -> None:
    """Add the instruments that are missing, and lock all of them until the transaction ends.

    Args:
        connection: in a transaction.
        wanted: symbol -> the calendar by which its rows were judged.

    Raises:
        UsageError: another batch has registered one of them with another calendar meanwhile.
    """
    symbols = sorted(wanted)
    calendars = [wanted[symbol] for symbol in symbols]
    connection.execute(
        query("ingestion", "add_instruments"), {"symbols": symbols, "calendars": calendars}
    )
    for symbol, calendar in lock(connection, symbols).items():
        if calendar != wanted[symbol]:
            raise UsageError(
                f"{symbol} has got calendar {calendar} from another batch, and its rows were judged by "
                f"{wanted[symbol]}: nothing was taken in; run it again"
            )


def lock(connection: Connection[Any], symbols: Iterable[str]) -> dict[str, str]:
    """Lock the registered ones of the instruments until the transaction ends: symbol -> calendar."""
    rows = connection.execute(query("ingestion", "lock_instruments"), {"symbols": list(symbols)})
    return {row["symbol"]: row["calendar"] for row in rows}
