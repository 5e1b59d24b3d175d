"""`hyperfeast jobs submit | list | show | retry | cancel | watch`."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperfeast.cli import console
from hyperfeast.errors import FeatureError, UsageError

if TYPE_CHECKING:
    from hyperfeast.db import Database
    from hyperfeast.features.computation import Computation
    from hyperfeast.jobs.asking import Asked
    from hyperfeast.jobs.engines import Engine
    from hyperfeast.jobs.listing import Attempt, Job, JobStatus
    from hyperfeast.jobs.partition import Partition

_LOWEST, _HIGHEST = 0, 100
_ENGINES = "local, processes or ray"
_STATUSES = "todo, doing, succeeded, failed, cancelled, aborted"
_LONGEST_QUEUE = 128
_SHOWN_ERROR = 160
_POLL_S = 0.5

_JobId = Annotated[int, typer.Argument(help="The job's id, as `hyperfeast jobs list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    jobs = typer.Typer(
        help="Work for the workers: ask for it, see what became of it.", no_args_is_help=True
    )
    jobs.command()(submit)
    jobs.command("list")(list_jobs)
    jobs.command()(show)
    jobs.command()(retry)
    jobs.command()(cancel)
    jobs.command()(watch)
    app.add_typer(jobs, name="jobs")


def submit(
    feature_set: Annotated[
        str, typer.Argument(metavar="SET", help="A feature set, or one version of it: NAME_v2.")
    ],
    symbols: Annotated[
        Path | None, typer.Option(help="A file of symbols, one a line. Default all that changed.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="An instrument. Repeatable; beside --symbols.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="A user's UUID, of a set over readings. Repeatable.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Compute all rows, not only those whose source changed.")
    ] = False,
    priority: Annotated[
        int | None, typer.Option(help="0 to 100; higher runs first. Default 0.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Where the jobs wait. Default compute.")] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Compute now, in this process: --engine local.")
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help=f"Compute now, without the queue: {_ENGINES}.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="How many at a time, with --engine. Default one a core.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Compute a feature set in partitions: by the workers, or at once with --local or --engine."""
    from hyperfeast.app import App

    where = _engine(engine, local=local)
    _check(where, priority=priority, queue=queue, workers=workers)
    keys = _keys(symbols, symbol, user)
    app = App()
    if where is None:
        with console.spinner("looking for what changed"):
            asked = app.submit_features(
                feature_set, keys, full=full, queue=queue, priority=priority or 0
            )
        _report_asked(asked, as_json=as_json)
        return
    with console.progress_bar("computing") as progress:
        done = app.compute_partitions(
            feature_set,
            keys,
            full=full,
            engine=where,
            workers=workers or _cores(),
            progress=progress,
        )
    _report_done(done, as_json=as_json)


def list_jobs(
    status: Annotated[str | None, typer.Option(help=f"Only these: {_STATUSES}.")] = None,
    feature_set: Annotated[
        str | None, typer.Option("--set", help="Only those of this set, or of this task.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: console.AsJson = False,
) -> None:
    """List jobs: what runs, what waits in its order, then what ended, the newest first."""
    from hyperfeast.app import App
    from hyperfeast.jobs.listing import jobs

    found = jobs(App().database, status=_status(status), feature_set=feature_set, most=limit)
    if as_json:
        console.print_json([asdict(one) for one in found])
    elif found:
        _print_jobs(found)
    else:
        console.say("no jobs")


def show(job_id: _JobId, as_json: console.AsJson = False) -> None:
    """Show a job: every attempt, how far it is, and what went wrong."""
    from hyperfeast.app import App
    from hyperfeast.jobs.listing import attempts, job

    database = App().database
    found, tried = job(database, job_id), attempts(database, job_id)
    if as_json:
        console.print_json({**asdict(found), "tries": [asdict(one) for one in tried]})
        return
    _print_job(found)
    _print_attempts(tried)


def retry(job_id: _JobId, as_json: console.AsJson = False) -> None:
    """Put a job that failed, or was canceled, back into the queue."""
    from hyperfeast.app import App
    from hyperfeast.jobs.changing import retry

    _report(retry(App().database, job_id), "waits again", as_json=as_json)


def cancel(job_id: _JobId, as_json: console.AsJson = False) -> None:
    """Cancel a job that waits; ask one that runs to stop at the end of its chunk."""
    from hyperfeast.app import App

    canceled = App().cancel_job(job_id)
    became = "stops at the end of its chunk" if canceled.stop_requested else "is canceled"
    _report(canceled, became, as_json=as_json)


def watch(
    job_ids: Annotated[
        list[int] | None, typer.Argument(help="Jobs. Default all that have not ended.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Wait until jobs have ended, and show how far they are; exit code 1 if one failed."""
    from hyperfeast.app import App
    from hyperfeast.jobs.listing import job, progress

    database = App().database
    for one in job_ids or ():
        job(database, one)
    ids = job_ids or [one.job_id for one in progress(database)]
    last: list[Job] = []
    with _shown(as_json=as_json) as tell:
        for last in _followed(database, ids):
            tell(last)
    if as_json:
        console.print_json([asdict(one) for one in last])
    else:
        counts = Counter(one.status for one in last)
        said = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        console.say(said or "nothing waits or runs")
    _raise_failures(last)


def _engine(name: str | None, *, local: bool) -> "Engine | None":
    from hyperfeast.jobs.engines import Engine

    if name is None:
        return Engine.LOCAL if local else None
    if name not in set(Engine):
        raise UsageError(
            f"no engine {name!r}: --engine takes {_ENGINES}; without it the workers compute"
        )
    if local and name != Engine.LOCAL:
        raise UsageError(f"--local and --engine {name} contradict each other: leave one out")
    return Engine(name)


def _check(
    engine: "Engine | None", *, priority: int | None, queue: str | None, workers: int | None
) -> None:
    """Refuse what would be passed over."""
    if engine is not None and (priority is not None or queue is not None):
        raise UsageError(
            "--priority and --queue are for jobs that wait: leave them out, or leave out --local and --engine"
        )
    if workers is not None and (engine is None or engine == "local"):
        raise UsageError(
            "--workers needs --engine processes or --engine ray; how many jobs workers do at a time is said "
            "when they are started: `hyperfeast worker --processes N`"
        )
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected 1 or more")
    if priority is not None and not _LOWEST <= priority <= _HIGHEST:
        raise UsageError(
            f"--priority {priority}: expected {_LOWEST} (the default) to {_HIGHEST}; higher runs first"
        )
    if queue is not None and not (queue and len(queue) <= _LONGEST_QUEUE and queue.isprintable()):
        raise UsageError(f"--queue {queue!r}: expected a name of 1 to {_LONGEST_QUEUE} characters")


def _keys(
    file: Path | None, symbols: list[str] | None, users: list[str] | None
) -> list[str] | None:
    """Those that are named; None for all."""
    if users and (file or symbols):
        raise UsageError(
            "--user is for sets over readings, --symbol for sets over bars: give one kind"
        )
    if file is None:
        return symbols or users or None
    try:
        lines = file.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not listed:
        raise UsageError(f"{file} names no symbol: expected one a line")
    return [*(symbols or ()), *listed]


def _status(name: str | None) -> "JobStatus | None":
    from hyperfeast.jobs.listing import JobStatus

    if name is None or name in set(JobStatus):
        return None if name is None else JobStatus(name)
    raise UsageError(f"no status {name!r}: --status takes one of {_STATUSES}")


def _cores() -> int:
    return os.cpu_count() or 1


def _report_asked(asked: "Sequence[tuple[Partition, Asked]]", *, as_json: bool) -> None:
    if as_json:
        rows = [{"job_id": job.job_id, "is_new": job.is_new, **asdict(part)} for part, job in asked]
        console.print_json(rows)
        return
    if not asked:
        console.say("nothing has changed since it was last computed: --full computes all of it")
        return
    new = [job for _, job in asked if job.is_new]
    ids = [job.job_id for _, job in asked]
    span = f"job {ids[0]}" if len(ids) == 1 else f"jobs {min(ids)} to {max(ids)}"
    said = f"{span}: {len(new):,} new"
    if len(new) < len(asked):
        said += f", {len(asked) - len(new):,} waited already"
    console.say(said)
    console.say("`hyperfeast jobs watch` shows how far they are; `hyperfeast worker` does them")


def _report_done(done: "Sequence[Computation]", *, as_json: bool) -> None:
    totals: dict[str, list[int]] = {}
    for one in done:
        counts = totals.setdefault(one.feature_set, [0, 0])
        counts[0] += one.rows
        counts[1] += one.written
    if as_json:
        console.print_json(
            [
                {"feature_set": name, "rows": rows, "written": written}
                for name, (rows, written) in totals.items()
            ]
        )
    elif totals:
        console.print_table(
            ["feature set", "rows", "written"],
            [[name, *counts] for name, counts in totals.items()],
        )
    else:
        console.say("nothing has changed since it was last computed: --full computes all of it")


def _report(job: "Job", became: str, *, as_json: bool) -> None:
    if as_json:
        console.print_json(asdict(job))
    else:
        console.say(f"job {job.job_id} ({job.feature_set}) {became}")


def _print_jobs(jobs: "Sequence[Job]") -> None:
    console.print_table(
        ["job", "set or task", "status", "progress", "tries", "asked", "error"],
        [
            [
                str(one.job_id),
                _named(one),
                _state(one),
                _progress(one),
                one.attempts,
                one.enqueued,
                _short(one.error),
            ]
            for one in jobs
        ],
    )


def _print_job(job: "Job") -> None:
    keys = job.scope.get("keys")
    facts: dict[str, Any] = {
        "job": str(job.job_id),
        "set or task": _named(job),
        "status": _state(job),
        "progress": _progress(job),
        "priority": job.priority,
        "queue": job.queue,
        "asked": job.enqueued,
        "tried again at": job.not_before,
        "keys": ", ".join(keys) if keys else None,
        "error": job.error,
    }
    console.print_table(
        ["", ""],
        [[name, console.text(value)] for name, value in facts.items() if value is not None],
    )


def _print_attempts(attempts: "Sequence[Attempt]") -> None:
    if attempts:
        console.print_table(
            ["try", "worker", "began", "ended", "outcome", "progress", "error"],
            [
                [
                    one.attempt,
                    one.worker.removeprefix("hyperfeast worker "),
                    one.started_at,
                    one.finished_at,
                    one.outcome or "runs",
                    None if one.total is None else f"{one.done:,}/{one.total:,}",
                    one.error,
                ]
                for one in attempts
            ],
            title="tries",
        )
    for one in attempts[-1:]:
        if one.traceback:
            console.say(one.traceback.rstrip())


def _named(job: "Job") -> str:
    version = job.scope.get("version")
    name = job.feature_set.removeprefix("hyperfeast.")
    return f"{name} v{version}" if version is not None else name


def _state(job: "Job") -> str:
    if job.stop_requested:
        return "doing, stops soon"
    if job.not_before is not None:
        return f"todo, at {job.not_before:%H:%M:%S} UTC"
    return job.status


def _progress(job: "Job") -> str | None:
    return None if job.total is None or job.done is None else f"{job.done:,}/{job.total:,}"


def _short(error: str | None) -> str | None:
    if error is None or len(error) <= _SHOWN_ERROR:
        return error
    return f"{error[:_SHOWN_ERROR]} ..."


def _followed(database: "Database", job_ids: Sequence[int]) -> "Iterator[list[Job]]":
    """The jobs as they are, again and again until all have ended."""
    from hyperfeast.jobs.listing import progress

    while True:
        found = progress(database, job_ids)
        yield found
        if all(one.is_over for one in found):
            return
        time.sleep(_POLL_S)


@contextmanager
def _shown(*, as_json: bool) -> "Iterator[Callable[[Sequence[Job]], None]]":
    """A bar for people; a line for each change where nobody sees a bar."""
    said = ""

    def tell(jobs: "Sequence[Job]") -> None:
        nonlocal said
        done = sum((one.total or 1) if one.is_over else (one.done or 0) for one in jobs)
        total = sum(one.total or len(one.scope.get("keys") or " ") for one in jobs)
        bar(min(done, total), total)
        line = f"{done:,} of {total:,} done, {sum(one.is_over for one in jobs):,} of {len(jobs):,} jobs ended"
        if jobs and line != said and not as_json and not sys.stderr.isatty():
            console.say(line)
        said = line

    with console.progress_bar("jobs") as bar:
        yield tell


def _raise_failures(jobs: "Sequence[Job]") -> None:
    """Fail where one of the jobs has.

    Raises:
        FeatureError: some failed.
    """
    failed = [one for one in jobs if one.status == "failed"]
    if failed:
        first = failed[0]
        raise FeatureError(
            f"{len(failed):,} of {len(jobs):,} jobs failed; job {first.job_id}: {_short(first.error)}. "
            f"`hyperfeast jobs show {first.job_id}` says more, `hyperfeast jobs retry {first.job_id}` tries again"
        )
