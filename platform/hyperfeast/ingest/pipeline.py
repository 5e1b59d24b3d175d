"""Frames through the gate into a table: one by itself, or a stream of them, the next judged ahead."""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import polars as pl
import stamina
from psycopg import Connection

from hyperfeast.db import Database
from hyperfeast.errors import Contended
from hyperfeast.ingest.batches import Batch, Ingested, IngestSummary, running, sent_before
from hyperfeast.ingest.gate import Progress
from hyperfeast.ingest.idempotency import Request, held
from hyperfeast.ingest.mirror import Mirror
from hyperfeast.ingest.retention import HorizonMoved
from hyperfeast.sqlfiles import query


class Judgeable(Protocol):
    """Rows that are judged."""

    @property
    def accepted(self) -> pl.DataFrame:
        """Those that may go in, as their table holds them."""


Judged = TypeVar("Judged", bound=Judgeable)

_ATTEMPTS = 5


class Intake(Protocol[Judged]):
    """What a table takes in: which frames, how their rows are judged, and how the good ones are stored."""

    @property
    def table(self) -> str:
        """Where the rows go."""

    @property
    def source(self) -> str:
        """Where they come from."""

    @property
    def symbol(self) -> str | None:
        """The instrument of all of them, if the caller names one."""

    @property
    def timeframe(self) -> str | None:
        """Of the bars; None for other rows."""

    @property
    def user(self) -> str | UUID | None:
        """Whose readings all of them are, if the caller says so."""

    def check(self, columns: Sequence[str]) -> None:
        """Refuse a frame that lacks columns, before anything is written.

        Raises:
            UsageError: a mapping that makes no sense.
            DataError: columns are missing.
        """

    def judge(self, database: Database, batch: Batch, progress: Progress | None) -> Judged:
        """Read the batch's cells and try its rows."""

    def store(self, connection: Connection[Any], batch: Batch, judged: Judged) -> IngestSummary:
        """Insert or correct, and complete the batch, in the connection's transaction."""


def ingest_frame(
    database: Database,
    frame: pl.DataFrame,
    intake: Intake[Judged],
    *,
    request: Request | None = None,
    mirror: Mirror | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Take in a frame as one batch: whole or absent.

    Args:
        database: where to.
        frame: the rows.
        intake: what they are.
        request: the key under which they are sent: the same request again has no second effect, and
            returns what came of the first.
        mirror: where to write the rows a second time.
        progress: told (rows judged, rows in all); they are equal only once all is committed.

    Raises:
        IdempotencyConflict: the key stands for another body.
        DataError: what `intake` refuses as a whole.
        ServerUnreachable: the connection broke; nothing went in unless it broke after the commit.
    """
    intake.check(frame.columns)
    if request is None:
        summary = _one(database, frame, intake, None, mirror, progress)
    else:
        with held(database, request.key):
            summary = sent_before(database, request) or _one(
                database, frame, intake, request, mirror, progress
            )
    if progress:
        progress(frame.height, frame.height)
    return summary


def _one(
    database: Database,
    frame: pl.DataFrame,
    intake: Intake[Judged],
    request: Request | None,
    mirror: Mirror | None,
    progress: Progress | None,
) -> IngestSummary:
    with _batch(database, frame, intake, request=request) as batch:
        return _stored(database, batch, intake, intake.judge(database, batch, progress), mirror)


def ingest_stream(
    database: Database,
    frames: Iterable[pl.DataFrame],
    intake: Intake[Any],
    *,
    rows: int = 0,
    mirror: Mirror | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Take in a stream of frames, each as one batch that is whole or absent, in their order.

    While the server stores one frame, a thread reads and judges the next: no more than these two are in
    memory. A row that contradicts one of an earlier frame corrects it; within a frame both are refused. An
    error ends the stream: the frames before it are in, that one and those after it are not, and the same
    stream once more finds the former unchanged.

    Args:
        database: where to.
        frames: of rows; drawn in another thread.
        intake: what they are.
        rows: how many rows are expected, if anybody knows.
        mirror: where to write the rows a second time.
        progress: told (rows stored, rows expected); they are equal only once all is committed.

    Raises:
        DataError: a frame cannot be read, or `intake` refuses it as a whole.
        ServerUnreachable: the connection broke.
    """
    begun = time.perf_counter()
    summaries: list[IngestSummary] = []
    done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="judge") as thread:
        ahead = _Ahead(database, iter(frames), intake)
        coming = thread.submit(ahead.next)
        try:
            while (ready := coming.result()) is not None:
                coming = thread.submit(ahead.next)
                summaries.append(ready.store(database, intake, mirror))
                done += summaries[-1].rows_in
                if progress:
                    progress(done, max(rows, done + 1))
        except BaseException as error:
            _abandon(coming, error)
            raise
    if progress:
        progress(done, done)
    return Ingested.sum(summaries, seconds=time.perf_counter() - begun)


@dataclass(frozen=True)
class _Ready(Generic[Judged]):
    """A batch that is judged, and what has to be closed once it is stored."""

    batch: Batch
    judged: Judged
    running: ExitStack

    def store(
        self, database: Database, intake: Intake[Judged], mirror: Mirror | None
    ) -> IngestSummary:
        with self.running:
            return _stored(database, self.batch, intake, self.judged, mirror)


class _Ahead(Generic[Judged]):
    """The frames of a stream, each judged when it is asked for."""

    def __init__(
        self, database: Database, frames: Iterator[pl.DataFrame], intake: Intake[Judged]
    ) -> None:
        self._database = database
        self._frames = frames
        self._intake = intake
        self._rows = 0

    def next(self) -> _Ready[Judged] | None:
        """The next batch; None after the last one."""
        frame = next(self._frames, None)
        if frame is None:
            return None
        self._intake.check(frame.columns)
        with ExitStack() as stack:
            batch = stack.enter_context(
                _batch(self._database, frame, self._intake, first_row=self._rows)
            )
            judged = self._intake.judge(self._database, batch, None)
            closing = stack.pop_all()
        self._rows += frame.height
        return _Ready(batch, judged, closing)


def _abandon(coming: "Future[_Ready[Any] | None]", error: BaseException) -> None:
    """Fail the batch that was judged ahead, for the reason that ended the stream."""
    coming.cancel()
    if coming.cancelled() or coming.exception() is not None:
        return
    ready = coming.result()
    if ready is not None:
        ready.running.__exit__(type(error), error, error.__traceback__)


def _batch(
    database: Database,
    frame: pl.DataFrame,
    intake: Intake[Any],
    *,
    first_row: int = 0,
    request: Request | None = None,
) -> AbstractContextManager[Batch]:
    return running(
        database,
        frame,
        table=intake.table,
        source=intake.source,
        symbol=intake.symbol,
        timeframe=intake.timeframe,
        user=intake.user,
        first_row=first_row,
        request=request,
    )


def _stored(
    database: Database,
    batch: Batch,
    intake: Intake[Judged],
    judged: Judged,
    mirror: Mirror | None,
) -> IngestSummary:
    """Store the batch; one whose rows retention has overtaken is judged by the new horizon first.

    The horizon moves on by weeks and never back, so that this comes to an end.
    """
    while True:
        try:
            return _committed(database, batch, intake, judged, mirror)
        except HorizonMoved:
            judged = intake.judge(database, batch, None)


def _committed(
    database: Database,
    batch: Batch,
    intake: Intake[Judged],
    judged: Judged,
    mirror: Mirror | None,
) -> IngestSummary:
    """In one transaction; again from its beginning where that lost against another one."""
    for attempt in stamina.retry_context(
        on=Contended, attempts=_ATTEMPTS, timeout=None, wait_initial=0.05, wait_max=2.0
    ):
        with attempt, ExitStack() as stack:
            if mirror is not None and not judged.accepted.is_empty():
                stack.enter_context(mirror.copying(batch.batch_id, batch.scope, judged.accepted))
            connection = stack.enter_context(database.connect())
            connection.execute(query("ingestion", "memory"))
            return intake.store(connection, batch, judged)
    raise AssertionError("the last attempt returns or raises")
