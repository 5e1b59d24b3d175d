"""A batch: its row in `ingest_batches`, the rows it refused, and what came of it."""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import polars as pl
from psycopg import Connection
from psycopg.types.json import Jsonb

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import HyperfeastError, ServerUnreachable, UsageError
from hyperfeast.ingest.gate import Judgment
from hyperfeast.ingest.idempotency import Request
from hyperfeast.sqlfiles import query

# What a source, or a device, may be called.
SOURCE_PATTERN = r"[^\x00-\x1f\x7f]{1,200}"

_SLICE_ROWS = 50_000


@dataclass(frozen=True)
class IngestSummary:
    """What came of a batch: rows_in = inserted + corrected + unchanged + quarantined.

    Attributes:
        batch_id: its row in `ingest_batches`.
        rows_in: rows read, identical duplicates included.
        inserted: rows whose key was new.
        corrected: rows that replaced other values.
        unchanged: rows that were there already, came twice in the batch, or were published before what is
            served.
        quarantined: rows refused.
        refused: rule -> rows refused by it, the most frequent first.
        seconds: from begin to commit.
        replayed: whether this is what came of the same request before, and nothing was done now.
    """

    batch_id: UUID
    rows_in: int
    inserted: int
    corrected: int
    unchanged: int
    quarantined: int
    refused: dict[str, int]
    seconds: float
    replayed: bool = False


@dataclass(frozen=True)
class Ingested:
    """What came of a stream of batches, each of them whole or absent: the sums of their summaries.

    Attributes:
        batches: their rows in `ingest_batches`, in the stream's order.
        rows_in: rows read.
        inserted: rows whose key was new.
        corrected: rows that replaced other values, those of an earlier batch of the stream included.
        unchanged: rows that wrote nothing.
        quarantined: rows refused.
        refused: rule -> rows refused by it, the most frequent first.
        seconds: from the first row read to the last commit.
    """

    batches: list[UUID]
    rows_in: int
    inserted: int
    corrected: int
    unchanged: int
    quarantined: int
    refused: dict[str, int]
    seconds: float

    @classmethod
    def sum(cls, summaries: Sequence[IngestSummary], *, seconds: float) -> "Ingested":
        """The totals of batches that took so long together."""
        refused: Counter[str] = Counter()
        for summary in summaries:
            refused.update(summary.refused)
        return cls(
            batches=[summary.batch_id for summary in summaries],
            rows_in=sum(summary.rows_in for summary in summaries),
            inserted=sum(summary.inserted for summary in summaries),
            corrected=sum(summary.corrected for summary in summaries),
            unchanged=sum(summary.unchanged for summary in summaries),
            quarantined=sum(summary.quarantined for summary in summaries),
            refused=dict(refused.most_common()),
            seconds=seconds,
        )


@dataclass(frozen=True)
class Batch:
    """A batch that runs.

    Attributes:
        batch_id: its row in `ingest_batches`.
        table: where its rows go.
        scope: what its rows are, for the record of quality: candles/1d.
        frame: its rows as they came.
        first_row: how many rows of the same stream came before them.
        started_at: by the database's clock: what is later lies in the future.
        begun: by this process's clock.
    """

    batch_id: UUID
    table: str
    scope: str
    frame: pl.DataFrame
    first_row: int
    started_at: datetime
    begun: float = field(default_factory=time.perf_counter)

    def complete(
        self,
        connection: Connection[Any],
        judgment: Judgment,
        *,
        inserted: int,
        corrected: int,
        expectation: Mapping[str, Any] | None = None,
    ) -> IngestSummary:
        """Write the refused rows and the batch's end, in the transaction that wrote the accepted ones.

        Args:
            connection: that transaction's.
            judgment: the gate's.
            inserted: rows whose key was new.
            corrected: rows that replaced other values.
            expectation: the suite that the gate judged by, as data.

        Raises:
            ServerUnreachable: another sender of the same request has begun it again meanwhile.
        """
        self._quarantine(connection, judgment.refused)
        summary = IngestSummary(
            batch_id=self.batch_id,
            rows_in=self.frame.height,
            inserted=inserted,
            corrected=corrected,
            unchanged=judgment.accepted.height + judgment.merged - inserted - corrected,
            quarantined=judgment.refused.height,
            refused=judgment.counts,
            seconds=time.perf_counter() - self.begun,
        )
        self._end(connection, summary, judgment)
        connection.execute(
            query("ingestion", "judged"),
            {
                "scope": self.scope,
                "passed": not summary.quarantined,
                "observed": Jsonb({"rows": summary.rows_in, "refused": summary.refused}),
                "expectation": Jsonb(dict(expectation or {})),
                "batch_id": self.batch_id,
            },
        )
        return summary

    def _end(self, connection: Connection[Any], summary: IngestSummary, judgment: Judgment) -> None:
        done = connection.execute(
            query("ingestion", "complete_batch"),
            {
                "batch_id": self.batch_id,
                "started_at": self.started_at,
                "inserted": summary.inserted,
                "corrected": summary.corrected,
                "unchanged": summary.unchanged,
                "quarantined": summary.quarantined,
                "refused": Jsonb(summary.refused),
                **_span(judgment.accepted),
            },
        )
        if not done.rowcount:
            raise _overtaken()

    def fail(self, database: Database, error: BaseException) -> None:
        """Write down what went wrong, if the server can still be asked to."""
        with suppress(HyperfeastError):
            database.execute(
                query("ingestion", "fail_batch"),
                {
                    "batch_id": self.batch_id,
                    "started_at": self.started_at,
                    "error": f"{type(error).__name__}: {error}",
                },
            )

    def _quarantine(self, connection: Connection[Any], refused: pl.DataFrame) -> None:
        if refused.is_empty():
            return
        connection.execute(query("ingestion", "stage_refused"))
        for part in refused.iter_slices(_SLICE_ROWS):
            rows = [
                json.dumps(_json_safe(row)) for row in self.frame[part["row"]].iter_rows(named=True)
            ]
            copy_frame(
                connection,
                "refused_rows",
                part.select("rule", row=pl.Series(rows, dtype=pl.String)),
            )
        connection.execute(
            query("ingestion", "quarantine"), {"batch_id": self.batch_id, "target": self.table}
        )


def check_source(source: str) -> None:
    """Refuse what could not be a name of where rows come from.

    Raises:
        UsageError: it is empty, over 200 characters long, or has characters that do not print.
    """
    if not re.fullmatch(SOURCE_PATTERN, source):
        raise UsageError(
            f"{source[:40]!r} is no name of a source: expected 1 to 200 printable characters"
        )


def quarantined(
    database: Database, *, batch_id: UUID | None = None, limit: int = 20
) -> list[dict[str, Any]]:
    """Refused rows, the newest first: recorded_at (UTC), batch_id, target, rule and the row as it came.

    Args:
        database: where they are.
        batch_id: of one batch only; None for all.
        limit: how many at most.
    """
    return database.fetch(query("ingestion", "quarantined"), {"batch_id": batch_id, "limit": limit})


@contextmanager
def running(
    database: Database,
    frame: pl.DataFrame,
    *,
    table: str,
    source: str,
    symbol: str | None = None,
    timeframe: str | None = None,
    user: UUID | str | None = None,
    first_row: int = 0,
    request: Request | None = None,
) -> Iterator[Batch]:
    """A batch that is recorded as RUNNING while the block runs, and as FAILED if it raises.

    `Batch.complete` records its success. A process that is killed leaves RUNNING, and no row; the next
    batch, whichever it is, marks that as FAILED.
    """
    parameters = {
        "source": source, "symbol": symbol, "tf": timeframe, "user_id": user, "rows_in": frame.height,
        "key": request and request.key, "body_sha256": request and request.body_sha256,
    }  # fmt: skip
    scope = table if timeframe is None else f"{table}/{timeframe}"
    begun = time.perf_counter()
    # Autocommit: the session stays open for its lock, and its transaction does not.
    with database.connect(autocommit=True) as alive:
        alive.execute(query("ingestion", "fail_abandoned"))
        begin = alive.execute(query("ingestion", "begin_batch"), parameters).fetchone()
        if begin is None:
            raise _overtaken()
        batch = Batch(begin["batch_id"], table, scope, frame, first_row, begin["started_at"], begun)
        try:
            yield batch
        except BaseException as error:
            batch.fail(database, error)
            raise


def sent_before(database: Database, request: Request) -> IngestSummary | None:
    """What came of the same request before; None if nothing did.

    Raises:
        IdempotencyConflict: the key was used for another body.
    """
    rows = database.fetch(query("ingestion", "sent_before"), {"key": request.key})
    if not rows:
        return None
    request.check(rows[0].pop("body_sha256"))
    refused = sorted(rows[0].pop("refused").items(), key=lambda one: (-one[1], one[0]))
    return IngestSummary(**rows[0], refused=dict(refused), replayed=True)


def moment(connection: Connection[Any]) -> datetime:
    """The database's clock, to be read once its writers are locked: no earlier revision is newer."""
    row = connection.execute(query("ingestion", "moment")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return row["moment"]  # type: ignore[no-any-return]


def _overtaken() -> ServerUnreachable:
    return ServerUnreachable(
        "the connection that held this batch was lost, and another sender of the same key went on: "
        "nothing was taken in by this one; send it again for what came of it"
    )


def _span(accepted: pl.DataFrame) -> dict[str, datetime | None]:
    if "ts" not in accepted.columns or accepted.is_empty():
        return {"first": None, "last": None}
    return {"first": accepted["ts"].min(), "last": accepted["ts"].max()}  # type: ignore[dict-item]


def _json_safe(value: Any) -> Any:
    """A cell as jsonb takes it: it has no NaN, no infinity and no zero byte."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return value.replace("\0", "\\u0000")
        case dict():
            return {_json_safe(str(name)): _json_safe(cell) for name, cell in value.items()}
        case list():
            return [_json_safe(cell) for cell in value]
        case _:
            return value.hex() if isinstance(value, bytes) else str(value)
