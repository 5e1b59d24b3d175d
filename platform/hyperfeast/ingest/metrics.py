"""Readings of personal metrics into `user_baseline_raw`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID
from zoneinfo import ZoneInfo

import polars as pl
from psycopg import Connection

from hyperfeast.cells import (
    EARLIEST,
    LATEST,
    read_numbers,
    read_text,
    read_times,
    time_zone,
)
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import UsageError
from hyperfeast.ingest import gate, retention
from hyperfeast.ingest.batches import SOURCE_PATTERN, Batch, IngestSummary, check_source, moment
from hyperfeast.ingest.columns import TIME, Column, locate
from hyperfeast.ingest.gate import Judgment, Progress, Rule
from hyperfeast.ingest.idempotency import request
from hyperfeast.ingest.mirror import Mirror
from hyperfeast.ingest.pipeline import ingest_frame
from hyperfeast.sqlfiles import query

_KEY = ("user_id", "metric", "source", "ts")
_USER_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_METRIC_PATTERN = r"[a-z][a-z0-9_]{0,62}"
_UNKNOWN_DEVICE = "unknown"

# Within these a square is neither infinite nor nothing, and a sum of as many as a day can hold is finite: the
# database refuses to compute any other, and one such reading would block its aggregates.
_LEAST, _MOST = 1e-150, 1e150


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What the readings of a frame are: the arguments of `ingest_metrics`, for `ingest_stream`.

    Raises:
        UsageError: a user, metric, device or zone that makes no sense.
    """

    source: str
    user: str | UUID | None = None
    metric: str | None = None
    device: str | None = None
    columns: Mapping[str, str] | None = None
    tz: str | None = None

    table: ClassVar[str] = "user_baseline_raw"
    symbol: ClassVar[str | None] = None
    timeframe: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        time_zone(self.tz)
        check_source(self.source)
        _given(self.user, self.metric, self.device)

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a frame that lacks columns."""
        self._places(columns)

    def judge(
        self, database: Database, batch: Batch, progress: Progress | None = None
    ) -> "JudgedMetrics":
        """Read the batch's cells, and try its readings at the gate."""
        fixed = {"source": _UNKNOWN_DEVICE} | _given(self.user, self.metric, self.device)
        places = self._places(batch.frame.columns)
        rows = _readings(batch.frame, places, fixed, time_zone(self.tz))
        kept_from = retention.horizon(database, self.table)
        rules = _rules(batch.started_at, kept_from)
        judgment = gate.judge(rows, rules, key=_KEY, values=("value",), progress=progress)
        accepted = judgment.accepted.select(*_KEY, "value").sort(_KEY)
        return JudgedMetrics(judgment, rules, accepted)

    def store(
        self, connection: Connection[Any], batch: Batch, judged: "JudgedMetrics"
    ) -> IngestSummary:
        """Insert what is new, correct what differs, leave equal readings alone, and complete the batch."""
        inserted, corrected = 0, 0
        if not judged.accepted.is_empty():
            retention.hold(connection, self.table, "", retention.oldest(judged.accepted))
            inserted, corrected = _write(connection, judged.accepted)
        return batch.complete(
            connection,
            judged.judgment,
            inserted=inserted,
            corrected=corrected,
            expectation=gate.suite(judged.rules),
        )

    def _places(self, columns: Sequence[str]) -> dict[str, str]:
        given = _given(self.user, self.metric, self.device)
        return locate(columns, _columns(self.metric), self.columns, given)


@dataclass(frozen=True)
class JudgedMetrics:
    """Readings that are judged, by what, and those that may go in."""

    judgment: Judgment
    rules: list[Rule]
    accepted: pl.DataFrame


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
    idempotency_key: str | None = None,
    body_sha256: str | None = None,
    mirror: Mirror | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Insert readings, or correct those that are there with another value, in one transaction.

    A reading is told from others by user, metric, device and time. A row that breaks a rule goes to
    `quarantine` as it came, with the first rule it broke; the others go in. A reading with an equal value
    is not written at all. What a correction replaces goes to `user_baseline_revisions`.

    Rules, in order: user_id_format, metric_format, source_format, time_ambiguous, time_missing, time_range
    (1970 to 2100, and not later than the database's clock), retention (not older than what was dropped),
    number_missing, finite, magnitude (0, or 1e-150 to 1e150 in size: sums of
    squares stay finite), duplicate_key.

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
        idempotency_key: 1 to 255 printable characters of the sender's choice. Sent again under the same
            key, also by many at once, a batch has no second effect, and what came of the first is returned.
        body_sha256: of what was sent under the key, in hexadecimal; taken from the other arguments if not
            given.
        mirror: where to write what is taken in a second time.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        UsageError: a user, metric, device, zone, key or mapping that makes no sense.
        DataError: columns are missing: nothing went in.
        IdempotencyConflict: the key was used for other content.
        ServerUnreachable: the connection broke: the batch is whole or absent. Send it again.
    """
    options = {
        "source": source, "user": None if user is None else str(user), "metric": metric, "device": device,
        "columns": None if columns is None else dict(columns), "tz": tz,
    }  # fmt: skip
    return ingest_frame(
        database,
        frame,
        Metrics(**options),  # type: ignore[arg-type]
        request=request(idempotency_key, body_sha256, frame, {"table": Metrics.table} | options),
        mirror=mirror,
        progress=progress,
    )


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
    _check("source", given, SOURCE_PATTERN, "a device's name of up to 200 printable characters")
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
        .with_columns(size=pl.when(pl.col("value") != 0).then(pl.col("value").abs()))
    )


def _rules(now: datetime, kept_from: datetime | None) -> list[Rule]:
    return [
        *gate.present("user_id_format", "user_id"),
        gate.matching("user_id_format", "user_id", _USER_PATTERN),
        *gate.present("metric_format", "metric"),
        gate.matching("metric_format", "metric", _METRIC_PATTERN),
        *gate.present("source_format", "source"),
        gate.matching("source_format", "source", SOURCE_PATTERN),
        gate.among("time_ambiguous", "once", [True]),
        *gate.present("time_missing", "ts"),
        *gate.within("time_range", "ts", min_value=EARLIEST, max_value=min(LATEST, now)),
        *retention.rules(kept_from),
        *gate.present("number_missing", "value"),
        *gate.within("finite", "value", **gate.FINITE),
        *gate.within("magnitude", "size", min_value=_LEAST, max_value=_MOST),
    ]


def _write(connection: Connection[Any], readings: pl.DataFrame) -> tuple[int, int]:
    """How many were inserted and corrected."""
    connection.execute(query("metrics", "stage"))
    copy_frame(connection, "staged_metrics", readings)
    connection.execute(query("metrics", "lock"))
    parameters = {
        "first": readings["ts"].min(),
        "last": readings["ts"].max(),
        "moment": moment(connection),
    }
    connection.execute(query("metrics", "stage_comparison"))
    connection.execute(query("metrics", "compare"), parameters, prepare=False)
    todo = connection.execute(query("metrics", "compared")).fetchone()
    assert todo is not None  # noqa: S101 - an aggregate has one row
    if todo["corrected"]:
        span = {name: todo[name] for name in ("users", "first", "last")}
        connection.execute(query("metrics", "correct"), parameters | span, prepare=False)
    if todo["inserted"]:
        connection.execute(query("metrics", "insert"), parameters)
    return todo["inserted"], todo["corrected"]
