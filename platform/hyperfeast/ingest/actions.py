"""Splits, dividends, renames and delistings into `corporate_actions`."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from psycopg import Connection, sql

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
from hyperfeast.ingest import gate, instruments
from hyperfeast.ingest.batches import Batch, IngestSummary, check_source, moment, running
from hyperfeast.ingest.columns import SYMBOL, Column, locate
from hyperfeast.ingest.gate import Judgment, Progress, Rule
from hyperfeast.sqlfiles import query

_COLUMNS = (
    SYMBOL,
    Column("ex_date", ("ex_date", "ex-date", "date")),
    Column("kind", ("kind", "type", "action")),
    Column("ratio", ("ratio",), required=False),
    Column("amount", ("amount",), required=False),
)
_KINDS = ("split", "dividend", "rename", "delisting")
_KEY = ("symbol", "ex_date", "kind")
_VALUES = ("ratio", "amount")


def ingest_actions(
    database: Database,
    frame: pl.DataFrame,
    *,
    source: str,
    columns: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Add corporate actions, or a new revision of those that are there with other values.

    The newest revision counts, and the earlier ones stay. Instruments must be registered, which their
    candles do: an action for an unknown symbol is refused. An ex-date may lie in the future: splits are
    announced.

    Rules, in order: symbol_format, symbol_known, time_missing (no date), time_range (1970 to 2100),
    kind_known, number_missing (a split needs a ratio, a dividend an amount), finite, ratio_positive,
    amount_not_negative, duplicate_key.

    Args:
        database: where to.
        frame: one row an action. Columns: symbol; ex_date (or date); kind (split, dividend, rename or
            delisting); ratio: new shares for one old share; amount: currency a share.
        source: where the rows come from: kept with every action.
        columns: symbol, ex_date, kind, ratio or amount -> the frame's column.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        UsageError: a source or a mapping that makes no sense.
        DataError: columns are missing: nothing went in.
    """
    check_source(source)
    places = locate(frame.columns, _COLUMNS, columns)
    with running(database, frame, table="corporate_actions", source=source) as batch:
        known = instruments.calendars_of(
            database, instruments.proper(read_text(frame[places["symbol"]]))
        )
        rows = _actions(frame, places, list(known))
        rules = _rules()
        judgment = gate.judge(rows, rules, key=_KEY, values=_VALUES, progress=progress)
        staged = judgment.accepted.select(*_KEY, *_VALUES, pl.lit(source).alias("source"))
        with database.connect() as connection:
            summary = _store(connection, batch, judgment, rules, staged)
    if progress:
        progress(frame.height, frame.height)
    return summary


def _actions(frame: pl.DataFrame, places: Mapping[str, str], known: list[str]) -> pl.DataFrame:
    zone = time_zone(None)
    symbols = read_text(frame[places["symbol"]])
    cells = {
        name: frame[places[name]] if name in places else pl.repeat(None, frame.height, eager=True)
        for name in _VALUES
    }
    return (
        pl.DataFrame({"ex_date": session_dates(read_times(frame[places["ex_date"]], zone), zone)})
        .with_row_index("row")
        .with_columns(
            symbols.alias("symbol"),
            symbol_known=symbols.is_in(known),
            kind=read_text(frame[places["kind"]]).str.strip_chars().str.to_lowercase(),
            legible=legible(cells["ratio"]) & legible(cells["amount"]),
            **{name: read_numbers(column) for name, column in cells.items()},
        )
        .with_columns(
            given=pl.when(kind="split").then(pl.col("ratio").is_not_null())
            .when(kind="dividend").then(pl.col("amount").is_not_null())
            .otherwise(statement=True)
        )
    )  # fmt: skip


def _rules() -> list[Rule]:
    return [
        *instruments.symbol_rules(),
        gate.among("symbol_known", "symbol_known", [True]),
        *gate.present("time_missing", "ex_date"),
        *gate.within(
            "time_range",
            "ex_date",
            min_value=EARLIEST.replace(tzinfo=None),
            max_value=LATEST.replace(tzinfo=None),
        ),
        *gate.present("kind_known", "kind"),
        gate.among("kind_known", "kind", _KINDS),
        gate.among("number_missing", "given", [True]),
        gate.among("number_missing", "legible", [True]),
        *gate.within("finite", *_VALUES, **gate.FINITE),
        *gate.within("ratio_positive", "ratio", min_value=0, strict_min=True),
        *gate.within("amount_not_negative", "amount", min_value=0),
    ]


def _store(
    connection: Connection[Any],
    batch: Batch,
    judgment: Judgment,
    rules: list[Rule],
    staged: pl.DataFrame,
) -> IngestSummary:
    connection.execute(query("actions", "stage"))
    copy_frame(connection, "staged_actions", staged)
    connection.execute(
        sql.SQL(query("ingestion", "analyze")).format(table=sql.Identifier("staged_actions"))
    )
    instruments.lock(connection, staged["symbol"].unique())
    now = {"moment": moment(connection)}
    corrected = connection.execute(query("actions", "correct"), now).rowcount
    inserted = connection.execute(query("actions", "insert"), now).rowcount
    return batch.complete(
        connection,
        judgment,
        inserted=inserted,
        corrected=corrected,
        expectation=gate.suite(rules),
    )
