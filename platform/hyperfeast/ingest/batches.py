"""A batch: its row in `ingest_batches`, the rows it refused, and what came of it."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import polars as pl
from psycopg import Connection

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import HyperfeastError
from hyperfeast.ingest.gate import Judgment
from hyperfeast.sqlfiles import query

_SLICE_ROWS = 50_000


@dataclass(frozen=True)
class IngestSummary:
    """What came of a batch: rows_in = inserted + corrected + unchanged + quarantined.

    Attributes:
        batch_id: its row in `ingest_batches`.
        rows_in: rows read, identical duplicates included.
        inserted: rows whose key was new.
        corrected: rows that replaced other values.
        unchanged: rows that were there already, or twice in the batch.
        quarantined: rows refused.
        refused: rule -> rows refused by it, the most frequent first.
        seconds: from begin to commit.
    """

    batch_id: UUID
    rows_in: int
    inserted: int
    corrected: int
    unchanged: int
    quarantined: int
    refused: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Batch:
    """A batch that runs. `started_at` is by the database's clock: what is later lies in the future."""

    batch_id: UUID
    target: str
    frame: pl.DataFrame
    started_at: datetime
    begun: float = field(default_factory=time.perf_counter)

    def complete(
        self, connection: Connection[Any], judgment: Judgment, *, inserted: int, corrected: int
    ) -> IngestSummary:
        """Write the refused rows and the batch's end, in the transaction that wrote the accepted ones."""
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
        connection.execute(
            query("ingestion", "complete_batch"),
            {
                "batch_id": self.batch_id,
                "inserted": summary.inserted,
                "corrected": summary.corrected,
                "unchanged": summary.unchanged,
                "quarantined": summary.quarantined,
                **_span(judgment.accepted),
            },
        )
        return summary

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
            query("ingestion", "quarantine"), {"batch_id": self.batch_id, "target": self.target}
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
    target: str,
    source: str,
    symbol: str | None = None,
    timeframe: str | None = None,
) -> Iterator[Batch]:
    """A batch that is recorded as RUNNING while the block runs, and as FAILED if it raises.

    `Batch.complete` records its success. A process that is killed leaves RUNNING, and no row; the next
    batch, whichever it is, marks that as FAILED.
    """
    parameters = {
        "source": source, "symbol": symbol, "tf": timeframe, "rows_in": frame.height,
    }  # fmt: skip
    begun = time.perf_counter()
    # Autocommit: the session stays open for its lock, and its transaction does not.
    with database.connect(autocommit=True) as alive:
        alive.execute(query("ingestion", "fail_abandoned"))
        begin = alive.execute(query("ingestion", "begin_batch"), parameters).fetchall()[0]
        try:
            yield Batch(begin["batch_id"], target, frame, begin["started_at"], begun)
        except BaseException as error:
            # What went wrong is worth more than a failure to write it down.
            with suppress(HyperfeastError):
                database.execute(
                    query("ingestion", "fail_batch"),
                    {"batch_id": begin["batch_id"], "error": f"{type(error).__name__}: {error}"},
                )
            raise


def moment(connection: Connection[Any]) -> datetime:
    """The database's clock, to be read once its writers are locked: no earlier revision is newer."""
    row = connection.execute(query("ingestion", "moment")).fetchone()
    assert row is not None  # noqa: S101 - a SELECT without FROM has one row
    return row["moment"]  # type: ignore[no-any-return]


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
