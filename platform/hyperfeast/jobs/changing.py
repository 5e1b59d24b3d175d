"""Jobs canceled, put back, and forgotten."""

from datetime import timedelta

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.jobs.listing import Job, JobStatus, job
from hyperfeast.sqlfiles import query

_SUCCEEDED_FOR, _OTHERS_FOR = timedelta(days=7), timedelta(days=30)


def cancel(database: Database, job_id: int, *, stoppable: bool) -> Job:
    """Cancel a job that waits, or ask one that runs to stop.

    Args:
        database: where the queue is.
        job_id: the job.
        stoppable: whether a running job of its task can be stopped.

    Returns:
        The job as it is then: one that runs is `doing` until it stops between two steps.

    Raises:
        UsageError: there is none of that id, it has ended, or it cannot be stopped.
    """
    found = job(database, job_id)
    if found.status == JobStatus.DOING and not stoppable:
        raise UsageError(
            f"job {job_id} ({found.task}) runs, and cannot be stopped in its middle: stop its worker, which "
            "finishes it first, or wait"
        )
    if not found.is_over:
        database.execute(query("jobs", "cancel"), {"job_id": job_id})
        found = job(database, job_id)
    if found.status == JobStatus.CANCELLED or found.stop_requested:
        return found
    raise UsageError(f"job {job_id} has {_ended(found)}: only what waits or runs can be canceled")


def retry(database: Database, job_id: int) -> Job:
    """Let a job that has ended without success wait again, with as many attempts as a new one.

    Raises:
        UsageError: there is none of that id, it waits, runs or has succeeded, or an equal one waits.
    """
    found = job(database, job_id)
    if database.fetch(query("jobs", "retry"), {"job_id": job_id}):
        return job(database, job_id)
    if not found.is_over:
        state = "runs" if found.status == JobStatus.DOING else "waits"
        raise UsageError(
            f"job {job_id} {state}: only one that has failed or was canceled can be put back"
        )
    if equal := database.fetch(query("jobs", "waiting_equal"), {"job_id": job_id}):
        raise UsageError(
            f"job {equal[0]['id']} waits and is to do the same as job {job_id}: there is nothing to put back"
        )
    raise UsageError(f"job {job_id} has {_ended(found)}: `hyperfeast jobs submit` asks for it anew")


def forget(database: Database) -> int:
    """Delete jobs that succeeded a week ago or ended otherwise a month ago; how many they were."""
    kept = {"succeeded": _SUCCEEDED_FOR, "others": _OTHERS_FOR}
    return int(database.fetch(query("jobs", "forget"), kept)[0]["jobs"])


def _ended(found: Job) -> str:
    """`succeeded on 2024-01-02 03:04 UTC`."""
    when = f" on {found.finished:%Y-%m-%d %H:%M} UTC" if found.finished else ""
    verb = {"cancelled": "been canceled", "aborted": "been stopped"}.get(found.status, found.status)
    return f"{verb}{when}"
