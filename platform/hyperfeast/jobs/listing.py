"""What is in the queue, and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.sqlfiles import query

_UNFINISHED = frozenset({"todo", "doing"})


class JobStatus(StrEnum):
    """The status of a job, by the name that the table has for it."""

    TODO = "todo"
    DOING = "doing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ABORTED = "aborted"


@dataclass(frozen=True)
class Job:
    """A job: a row of the view `computation_jobs`. Times are UTC.

    Attributes:
        job_id: its id.
        feature_set: what it computes, or its task.
        scope: its arguments.
        status: one of `JobStatus`.
        priority: higher runs first.
        attempts: how often it was tried; one that runs is not counted yet.
        enqueued: when it was asked for.
        started: when the last attempt began.
        finished: when it ended; None until then.
        error: what last went wrong; None if nothing did, or once it has succeeded.
        task: what the worker calls.
        queue: where it waits.
        not_before: when it is tried again.
        stop_requested: whether it was canceled while it runs.
        worker: who ran it last, or runs it.
        done: symbols that are done; None of a job that counts none.
        total: symbols in all.
    """

    job_id: int
    feature_set: str
    scope: dict[str, Any]
    status: str
    priority: int
    attempts: int
    enqueued: datetime | None
    started: datetime | None
    finished: datetime | None
    error: str | None
    task: str
    queue: str
    not_before: datetime | None
    stop_requested: bool
    worker: str | None
    done: int | None
    total: int | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status not in _UNFINISHED


@dataclass(frozen=True)
class Attempt:
    """An attempt at a job. Times are UTC.

    Attributes:
        attempt: the first is 1.
        worker: host, process id and a random part.
        started_at: when it began.
        finished_at: when it ended; None while it runs.
        outcome: succeeded, failed, aborted, handed back or lost.
        done: symbols that are done.
        total: symbols in all.
        error: what went wrong, in one line.
        traceback: where, of an error that hyperfeast does not know.
    """

    attempt: int
    worker: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    done: int | None
    total: int | None
    error: str | None
    traceback: str | None


def jobs(
    database: Database,
    *,
    status: JobStatus | None = None,
    feature_set: str | None = None,
    most: int = 50,
) -> list[Job]:
    """What runs, then what waits in its order, then what has ended, the newest first.

    Args:
        database: where the queue is.
        status: only these.
        feature_set: only those of this set, or of this task.
        most: how many.
    """
    wanted = {"status": status, "feature_set": feature_set, "most": most}
    return [Job(**row) for row in database.fetch(query("jobs", "newest"), wanted)]


def job(database: Database, job_id: int) -> Job:
    """One job.

    Raises:
        UsageError: there is none of that id.
    """
    rows = database.fetch(query("jobs", "of_id"), {"job_id": job_id})
    if not rows:
        raise UsageError(
            f"no job {job_id}: `hyperfeast jobs list` shows those there are. A job that has succeeded is "
            "kept for a week, any other for a month"
        )
    return Job(**rows[0])


def attempts(database: Database, job_id: int) -> list[Attempt]:
    """Every attempt at a job, the first one first."""
    return [
        Attempt(**row) for row in database.fetch(query("jobs", "attempts_of"), {"job_id": job_id})
    ]


def progress(database: Database, job_ids: Sequence[int] | None = None) -> list[Job]:
    """How far jobs are: those given, or all that have not ended."""
    ids = None if job_ids is None else list(job_ids)
    return [Job(**row) for row in database.fetch(query("jobs", "progress_of"), {"job_ids": ids})]
