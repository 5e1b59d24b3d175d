"""Readings of personal metrics into `user_baseline_raw`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import polars as pl
from psycopg import Connection, sql

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import UsageError
from hyperfeast.ingest import gate
from hyperfeast.ingest.batches import Batch, IngestSummary, moment, running
from hyperfeast.ingest.columns import TIME, Column, locate
from hyperfeast.ingest.gate import Judgment, Progress, Rule
from hyperfeast.ingest.values import (
    EARLIEST,
    LATEST,
    read_numbers,
    read_text,
    read_times,
    time_zone,
)
from hyperfeast.sqlfiles import query

_KEY = ("user_id", "metric", "source", "ts")
_USER_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_METRIC_PATTERN = r"[a-z][a-z0-9_]{0,62}"
_SOURCE_PATTERN = r"[^\x00-\x1f\x7f]{1,200}"
_UNKNOWN_DEVICE = "unknown"


def ingest_metrics(
    database: Database,
    frame: pl.DataFrame,
    *,
    source: str,
    user: str | UUID | None = None,
    metric: str | None = None,
    device: str | None = None,
    columns: Mapping[str, str] | None = None,
    tz: str | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Insert readings, or correct those that are there with another value, in one transaction.

    A reading is told from others by user, metric, device and time. A row that breaks a rule goes to
    `quarantine` as it came, with the first rule it broke; the others go in. A reading with an equal value
    is not written at all. A correction overwrites the old value and `recorded_at`: unlike candles, readings
    keep no revisions, so what was known before a correction cannot be read any more.

    Rules, in order: user_id_format, metric_format, source_format, time_ambiguous, time_missing, time_range
    (1970 to 2100, and not later than the database's clock), number_missing, finite, duplicate_key.

    Args:
        database: where to.
        frame: one row a reading. Columns are recognized by name: user_id or user; metric; value, or the
            name given as `metric`; ts, date, timestamp, time, datetime or open_time; source or device.
        source: where the rows come from (a file's name): kept with the batch.
        user: whose readings they are, for a frame without such a column.
        metric: which metric it is (lower case, digits, underscores), for a frame without such a column.
        device: what took the readings, for a frame without such a column; "unknown" if not given.
        columns: user_id, metric, value, ts or source -> the frame's column.
        tz: the zone of times written without one; UTC if not given.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        UsageError: a user, metric, device, zone or mapping that makes no sense.
        DataError: columns are missing: nothing went in.
    """
    zone = time_zone(tz)
    given = _given(user, metric, device)
    places = locate(frame.columns, _columns(metric), columns, given)
    with running(database, frame, target="user_baseline_raw", source=source) as batch:
        rows = _readings(frame, places, {"source": _UNKNOWN_DEVICE} | given, zone)
        judgment = gate.judge(
            rows, _rules(batch.started_at), key=_KEY, values=("value",), progress=progress
        )
        with database.connect() as connection:
            summary = _store(connection, batch, judgment)
    if progress:
        progress(frame.height, frame.height)
    return summary


def _columns(metric: str | None) -> tuple[Column, ...]:
    """A file with one metric often names the column of values by it."""
    return (
        Column("user_id", ("user_id", "user")),
        Column("metric", ("metric",)),
        TIME,
        Column("value", ("value",) if metric is None else ("value", metric)),
        Column("source", ("source", "device"), required=False),
    )


def _given(user: str | UUID | None, metric: str | None, device: str | None) -> dict[str, str]:
    values = {
        "user_id": None if user is None else str(user).lower(),
        "metric": metric,
        "source": device,
    }
    given = {name: value for name, value in values.items() if value is not None}
    _check("user_id", given, _USER_PATTERN, "a UUID such as 123e4567-e89b-12d3-a456-426614174000")
    _check("metric", given, _METRIC_PATTERN, "a lower-case name such as resting_heart_rate")
    _check("source", given, _SOURCE_PATTERN, "a device's name of up to 200 printable characters")
    return given


def _check(name: str, given: Mapping[str, str], pattern: str, expected: str) -> None:
    if name in given and not pl.Series([given[name]]).str.contains(f"^(?:{pattern})$").item():
        raise UsageError(f"{given[name]!r} is no {name}: expected {expected}")


def _readings(
    frame: pl.DataFrame, places: Mapping[str, str], fixed: Mapping[str, str], zone: ZoneInfo
) -> pl.DataFrame:
    def text(name: str) -> pl.Series:
        if name in places:
            return read_text(frame[places[name]])
        return pl.repeat(fixed[name], frame.height, dtype=pl.String, eager=True)

    return (
        read_times(frame[places["ts"]], zone)
        .with_row_index("row")
        .with_columns(
            user_id=text("user_id").str.to_lowercase(),
            metric=text("metric"),
            source=text("source"),
            value=read_numbers(frame[places["value"]]),
        )
    )


def _rules(now: datetime) -> list[Rule]:
    return [
        *gate.present("user_id_format", "user_id"),
        gate.matching("user_id_format", "user_id", _USER_PATTERN),
        *gate.present("metric_format", "metric"),
        gate.matching("metric_format", "metric", _METRIC_PATTERN),
        *gate.present("source_format", "source"),
        gate.matching("source_format", "source", _SOURCE_PATTERN),
        gate.among("time_ambiguous", "once", [True]),
        *gate.present("time_missing", "ts"),
        *gate.within("time_range", "ts", min_value=EARLIEST, max_value=min(LATEST, now)),
        *gate.present("number_missing", "value"),
        *gate.within("finite", "value", **gate.FINITE),
    ]


def _store(connection: Connection[Any], batch: Batch, judgment: Judgment) -> IngestSummary:
    connection.execute(query("metrics", "stage"))
    copy_frame(connection, "staged_metrics", judgment.accepted.select(*_KEY, "value"))
    connection.execute(
        sql.SQL(query("ingestion", "analyze")).format(table=sql.Identifier("staged_metrics"))
    )
    connection.execute(query("metrics", "lock"))
    now = {"moment": moment(connection)}
    corrected = connection.execute(query("metrics", "correct"), now).rowcount
    inserted = connection.execute(query("metrics", "insert"), now).rowcount
    return batch.complete(connection, judgment, inserted=inserted, corrected=corrected)
