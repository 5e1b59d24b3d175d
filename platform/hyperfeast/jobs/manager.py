"""Jobs as the database keeps them. Each attempt is on record, and only who holds a job may end it."""

import logging
import traceback
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, LiteralString

import stamina
from procrastinate.connector import BaseConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager

from hyperfeast import clock
from hyperfeast.errors import HyperfeastError
from hyperfeast.jobs.retry import HandedBack
from hyperfeast.sqlfiles import query

_log = logging.getLogger(__name__)

_LONGEST_ERROR = 2_000
# A job whose end is not written would run for ever in the eyes of the others: longer than a restart of PostgreSQL.
_PATIENCE_S = 120


class FencedManager(JobManager):
    """Procrastinate's manager of jobs, for a worker that may be taken for dead and wake up.

    Procrastinate ends a job by its id alone, whoever asks: an attempt that was given up would complete the
    one that took its place.

    Args:
        connector: to the database.
        worker: the name of this process.
        is_kept: whether jobs of a task stay on the list once they have succeeded.
    """

    def __init__(
        self, connector: BaseConnector, worker: str, is_kept: Callable[[str], bool]
    ) -> None:
        super().__init__(connector)
        self._worker = worker
        self._is_kept = is_kept
        self._errors: dict[int, BaseException] = {}

    def note(self, job: int, error: BaseException) -> None:
        """Remember what an attempt ended with, for when its end is written."""
        self._errors[job] = error

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        """The next job, which is this worker's from now on; None if none waits."""
        row = await self.connector.execute_query_one_async(
            query=query("jobs", "fetch"),
            queues=None if queues is None else list(queues),
            worker_id=worker_id,
            worker=self._worker,
        )
        return None if row["id"] is None else Job.from_row(row)

    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:  # noqa: FBT001
        """End a job, if it still is this attempt's."""
        error = self._errors.pop(_id(job), None)
        succeeded = status is Status.SUCCEEDED
        ended = await self._write(
            query("jobs", "finish"),
            job,
            status=status.value,
            delete=delete_job or (succeeded and not self._is_kept(job.task_name)),
            outcome=status.value,
            **_told(None if succeeded else error or _unknown(job, status)),
        )
        if not ended:
            _warn(job)

    async def retry_job(
        self,
        job: Job,
        retry_at: datetime | None = None,
        priority: int | None = None,  # noqa: ARG002 - both stay as they are
        queue: str | None = None,  # noqa: ARG002
        lock: str | None = None,  # noqa: ARG002
    ) -> None:
        """Let a job wait for its next attempt, if it still is this one's."""
        error = self._errors.pop(_id(job), None)
        if isinstance(error, HandedBack):
            ended = await self._superseded_or(query("jobs", "hand_back"), job)
        else:
            wait = max(timedelta(0), (retry_at or clock.now()) - clock.now())
            told = {"outcome": "failed", "wait": wait.total_seconds(), **_told(error)}
            ended = await self._superseded_or(query("jobs", "retry_later"), job, **told)
        if not ended:
            _warn(job)

    async def give_up(self, job: Job, why: str, *, wait: timedelta | None) -> bool:
        """End the attempt of a dead worker; whether it was not ended otherwise meanwhile.

        Args:
            job: as it is now.
            why: what to put on record.
            wait: how long until it is tried again; None for a job that has failed, or was canceled.
        """
        told = {"outcome": "lost", "error": why, "traceback": None}
        if wait is not None:
            return await self._superseded_or(
                query("jobs", "retry_later"), job, wait=wait.total_seconds(), **told
            )
        status = Status.ABORTED if job.abort_requested else Status.FAILED
        return await self._write(
            query("jobs", "finish"), job, status=status.value, delete=False, **told
        )

    async def progress(self, job: Job, done: int, total: int) -> None:
        """Write how far an attempt is."""
        await self.connector.execute_query_async(
            query=query("jobs", "progress"),
            job_id=job.id,
            attempts=job.attempts,
            done=done,
            total=total,
        )

    async def _superseded_or(self, statement: LiteralString, job: Job, **values: Any) -> bool:
        """Let the job wait; if an equal one waits already, leave it to that one."""
        try:
            return await self._write(statement, job, **values)
        except UniqueViolation:
            why = "not tried again: an equal job waits"
            if values.get("error"):
                why = f"{values['error']} ({why})"
            told = {"outcome": "aborted", "error": why, "traceback": values.get("traceback")}
            return await self._write(
                query("jobs", "finish"), job, status=Status.ABORTED.value, delete=False, **told
            )

    async def _write(self, statement: LiteralString, job: Job, **values: Any) -> bool:
        """Whether the job was this attempt's."""
        rows: list[dict[str, Any]] = []
        async for attempt in stamina.retry_context(
            on=_may_pass, attempts=None, timeout=_PATIENCE_S, wait_max=5.0
        ):
            with attempt:
                rows = await self.connector.execute_query_all_async(
                    query=statement, job_id=job.id, attempts=job.attempts, **values
                )
        return bool(rows)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, ConnectorException) and not isinstance(error, UniqueViolation)


def _id(job: Job) -> int:
    if job.id is None:
        raise TypeError("a job without an id was never in the queue")
    return job.id


def _unknown(job: Job, status: Status) -> str | None:
    """An attempt that ended without an error of its own never began."""
    if status is Status.ABORTED:
        return None
    return (
        f"this worker knows no task {job.task_name!r}: it runs another version of hyperfeast or of the "
        "feature repository"
    )


def _told(error: BaseException | str | None) -> dict[str, str | None]:
    """What is put on record: one line, and where it came from if that is not known."""
    if error is None or isinstance(error, str):
        return {"error": error, "traceback": None}
    line = " ".join(f"{type(error).__name__}: {error}".split()).replace("\0", "")[:_LONGEST_ERROR]
    if isinstance(error, HyperfeastError):
        return {"error": line, "traceback": None}
    return {
        "error": line,
        "traceback": "".join(traceback.format_exception(error)).replace("\0", ""),
    }


def _warn(job: Job) -> None:
    _log.warning(
        "job %s is no longer this worker's: it counted as dead, and what became of the job stands",
        job.id,
    )
