"""A worker process whose jobs leave effects in a table; run as a script, it works until it is stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from hyperfeast.db import Database
from hyperfeast.errors import SourceUnavailable, TrainingError
from hyperfeast.jobs import LeasedDatabase, Progress, Queue, Task, worker_name

# Long enough for three heartbeats on a busy machine, short enough to wait for.
DEAD_AFTER = 4.0
PATIENCE_S = 60
ATTEMPTS = 3


def create_effects(database: Database) -> None:
    """The table, and one more in which a job says that it has begun."""
    database.execute(
        "CREATE TABLE effects (job text NOT NULL, step integer NOT NULL, worker text NOT NULL)"
    )
    database.execute("CREATE TABLE begun (job text NOT NULL, worker text NOT NULL)")


def effects(database: Database) -> list[tuple[str, int]]:
    rows = database.fetch("SELECT job, step FROM effects ORDER BY job, step")
    return [(row["job"], row["step"]) for row in rows]


def statuses(database: Database) -> list[str]:
    """Of all jobs but the ticks, which come when it is time."""
    rows = database.fetch(
        "SELECT status::text FROM procrastinate_jobs WHERE task_name <> 'hyperfeast.refresh' ORDER BY id"
    )
    return [row["status"] for row in rows]


def until(reached: Callable[[], object], seconds: float = PATIENCE_S) -> float:
    """Wait for it; how many seconds it took."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, "it did not come to pass"
        time.sleep(0.05)
    return time.monotonic() - began


def queue(database: Database, *, dead_after: float = DEAD_AFTER) -> Queue:
    """The same tasks for who asks and for who works."""

    def begin(job: str) -> None:
        with Database(database.dsn).connect() as connection:
            connection.execute("INSERT INTO begun VALUES (%s, %s)", [job, str(os.getpid())])

    def leave(job: str, step: int = 0) -> None:
        database.execute("INSERT INTO effects VALUES (%s, %s, %s)", [job, step, str(os.getpid())])

    def steps(progress: Progress, job: str, total: int, seconds: float) -> None:
        begin(job)
        for step in range(total):
            progress(step, total)
            time.sleep(seconds)
            leave(job, step)
        progress(total, total)

    def hold(job: str, seconds: float) -> None:
        """The first attempt sleeps with its transaction open, an effect and a lock in it."""
        with database.connect() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(4711)")
            connection.execute("INSERT INTO effects VALUES (%s, 0, %s)", [job, str(os.getpid())])
            first = not Database(database.dsn).fetch("SELECT FROM begun WHERE job = %s", [job])
            begin(job)
            time.sleep(seconds if first else 0)

    def wait_then_leave(job: str, seconds: float) -> None:
        """The first attempt sleeps before it writes."""
        first = not Database(database.dsn).fetch("SELECT FROM begun WHERE job = %s", [job])
        begin(job)
        time.sleep(seconds if first else 0)
        leave(job)

    def fail(error: Exception, job: str) -> None:
        begin(job)
        raise error

    def die(job: str) -> None:
        begin(job)
        os.kill(os.getpid(), signal.SIGKILL)

    again = {"attempts": ATTEMPTS, "backoff": 0.2, "priority": 0}
    return Queue(
        database,
        lambda: None,
        [
            Task("leave", leave, **again),  # type: ignore[arg-type]
            Task("steps", steps, stoppable=True, **again),  # type: ignore[arg-type]
            Task("hold", hold, **again),  # type: ignore[arg-type]
            Task("wait_then_leave", wait_then_leave, **again),  # type: ignore[arg-type]
            Task("poison", partial(fail, ValueError("a bad\nnumber")), **again),  # type: ignore[arg-type]
            Task("final", partial(fail, TrainingError("no labels")), **again),  # type: ignore[arg-type]
            Task("flaky", partial(fail, SourceUnavailable("no answer")), **again),  # type: ignore[arg-type]
            Task("die", die, **again),  # type: ignore[arg-type]
            Task("fleeting", leave, kept=False),
        ],
        dead_after=dead_after,
    )


class Workers:
    """Processes that are started by a test, and ended with it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.processes: list[subprocess.Popen[str]] = []

    def start(
        self, *, concurrency: int = 1, dead_after: float = DEAD_AFTER
    ) -> subprocess.Popen[str]:
        arguments = [self._database.dsn, str(concurrency), str(dead_after)]
        self.processes.append(
            subprocess.Popen(
                [sys.executable, str(Path(__file__)), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.processes[-1]

    def stop(self) -> None:
        """Stop all that live; each ends by itself."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            assert process.wait(PATIENCE_S) in (0, -signal.SIGKILL)


@contextmanager
def workers(database: Database) -> Iterator[Workers]:
    """Processes for a test."""
    started = Workers(database)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    dsn, at_once, dead_after = sys.argv[1:]
    queue(
        LeasedDatabase(dsn, name=worker_name(), pool_size=int(at_once)),
        dead_after=float(dead_after),
    ).work(concurrency=int(at_once))
