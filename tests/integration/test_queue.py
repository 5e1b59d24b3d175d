"""The queue with real worker processes: what runs, what fails, what a killed worker leaves behind."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, ServerError, TrainingError
from hyperfeast.jobs import Queue, Task

# Long enough for three heartbeats on a busy machine, short enough to wait for.
DEAD_AFTER = 4.0
PATIENCE_S = 60

# A worker process whose refresh writes a row, sleeps, and marks the row.
WORKER = """
import sys, time
from hyperfeast.db import Database
from hyperfeast.jobs import Queue

dsn, name, seconds, dead_after, once = sys.argv[1:]
database = Database(dsn)

def refresh():
    database.execute("INSERT INTO refreshes (worker) VALUES (%s)", [name])
    time.sleep(float(seconds))
    database.execute("UPDATE refreshes SET done = true WHERE worker = %s", [name])

Queue(database, refresh, dead_after=float(dead_after)).work(once=once == "once")
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    """Starts a worker process: `start("name", seconds=…, once=…)`."""
    database.execute(
        "CREATE TABLE refreshes (id serial, worker text NOT NULL, done boolean NOT NULL DEFAULT false)"
    )
    started: list[subprocess.Popen[str]] = []

    def worker(name: str, *, seconds: float, once: bool) -> subprocess.Popen[str]:
        arguments = [database.dsn, name, str(seconds), str(DEAD_AFTER), "once" if once else "ever"]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield worker
    for process in started:
        process.kill()
        process.communicate()


def refreshes(database: Database) -> list[tuple[str, bool]]:
    rows = database.fetch("SELECT worker, done FROM refreshes ORDER BY id")
    return [(row["worker"], row["done"]) for row in rows]


def statuses(database: Database) -> list[str]:
    rows = database.fetch("SELECT status::text FROM procrastinate_jobs ORDER BY id")
    return [row["status"] for row in rows]


def queue_another(database: Database) -> None:
    """What a tick does."""
    database.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock) "
        "SELECT queue_name, task_name, lock, queueing_lock FROM procrastinate_jobs LIMIT 1 "
        "ON CONFLICT DO NOTHING"
    )


def until(reached: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def here(database: Database) -> Queue:
    """A queue of this process, whose refresh writes a row."""

    def refresh() -> None:
        database.execute("INSERT INTO refreshes (worker, done) VALUES ('here', true)")

    return Queue(database, refresh, dead_after=DEAD_AFTER)


@pytest.mark.usefixtures("start")
def test_once_refreshes_once_every_time(database: Database) -> None:
    queue = here(database)
    queue.work(once=True)
    assert refreshes(database) == [("here", True)]
    queue.work(once=True)
    assert refreshes(database) == [("here", True)] * 2
    assert statuses(database) == ["succeeded"] * 2


def test_a_failed_refresh_is_a_failure_and_the_next_one_runs(database: Database) -> None:
    outcomes: list[Exception | None] = [
        KeyError("a bad feature"),
        TrainingError("a message of ours"),
        None,
    ]

    def refresh() -> None:
        if outcome := outcomes.pop(0):
            raise outcome

    queue = Queue(database, refresh, dead_after=DEAD_AFTER)
    with pytest.raises(
        FeatureError, match=r"failed with KeyError: 'a bad feature'; the log"
    ) as raised:
        queue.work(once=True)
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(TrainingError, match=r"^a message of ours$"):
        queue.work(once=True)
    queue.work(once=True)
    assert statuses(database) == ["failed", "failed", "succeeded"]


def test_a_refresh_that_fails_while_the_next_one_waits(database: Database) -> None:
    """What a tick during a long refresh does: the queueing lock is taken when the refresh fails."""
    outcomes: list[Exception | None] = [KeyError("the first"), None]

    def refresh() -> None:
        if outcome := outcomes.pop(0):
            queue_another(database)
            raise outcome

    queue = Queue(database, refresh, dead_after=DEAD_AFTER)
    with pytest.raises(FeatureError):
        queue.work(once=True)
    assert statuses(database) == ["failed", "succeeded"]
    assert not outcomes


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_holds_nothing_up(database: Database, start: Start) -> None:
    killed = start("killed", seconds=PATIENCE_S, once=False)
    until(lambda: refreshes(database))
    killed.kill()
    killed.wait()
    assert statuses(database)[0] == "doing"
    began = time.monotonic()
    here(database).work(once=True)
    assert time.monotonic() - began < DEAD_AFTER + 10
    assert refreshes(database) == [("killed", False), ("here", True)]
    assert statuses(database) == ["failed", "succeeded"]


@pytest.mark.slow
def test_a_long_lived_worker_goes_on_after_one_that_was_killed(
    database: Database, start: Start
) -> None:
    killed = start("killed", seconds=PATIENCE_S, once=True)
    until(lambda: refreshes(database))
    successor = start("successor", seconds=0, once=False)
    until(lambda: len(statuses(database)) == 2)
    killed.kill()
    until(lambda: refreshes(database)[:2] == [("killed", False), ("successor", True)])
    until(lambda: statuses(database)[:2] == ["failed", "succeeded"])
    successor.terminate()
    assert successor.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_a_frozen_worker_that_wakes_changes_no_outcome(database: Database, start: Start) -> None:
    """Nor does it stay behind, unable to take jobs: at the next one it ends, to be started again."""
    frozen = start("frozen", seconds=1, once=False)
    until(lambda: refreshes(database))
    frozen.send_signal(signal.SIGSTOP)
    here(database).work(once=True)
    assert statuses(database)[:2] == ["failed", "succeeded"]
    frozen.send_signal(signal.SIGCONT)
    queue_another(database)
    _, said = frozen.communicate(timeout=PATIENCE_S)
    assert frozen.returncode == 1
    assert "ServerError: the job queue in" in said
    assert statuses(database)[:2] == ["failed", "succeeded"]


@pytest.mark.slow
def test_a_living_worker_keeps_its_job(database: Database, start: Start) -> None:
    """Its refresh takes longer than a dead worker's job lasts. Either may run the one that waits."""
    living = start("living", seconds=1.5 * DEAD_AFTER, once=True)
    until(lambda: refreshes(database))
    here(database).work(once=True)
    assert [done for _, done in refreshes(database)] == [True, True]
    assert statuses(database) == ["succeeded"] * 2
    assert living.wait(PATIENCE_S) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_long_lived_worker_after_its_refresh(
    database: Database, start: Start, number: signal.Signals
) -> None:
    worker = start("worker", seconds=3, once=False)
    until(lambda: refreshes(database))
    worker.send_signal(number)
    assert worker.wait(PATIENCE_S) == 0
    # One of the ticks of every five minutes may have come in between.
    assert all(done for _, done in refreshes(database))
    assert statuses(database)[0] == "succeeded"


@pytest.mark.slow
def test_a_signal_while_waiting_for_another_worker_is_no_success(
    database: Database, start: Start
) -> None:
    start("first", seconds=PATIENCE_S, once=True)
    until(lambda: refreshes(database))
    waiting = start("waiting", seconds=0, once=True)
    until(lambda: statuses(database) == ["doing", "todo"])
    time.sleep(1)
    waiting.terminate()
    _, said = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 1
    assert "another worker is refreshing" in said
    assert "stopped before the refresh was done" in said
    assert refreshes(database) == [("first", False)]


def test_a_queue_that_breaks_is_reported_as_ours(database: Database) -> None:
    queue = Queue(database, lambda: None, dead_after=DEAD_AFTER)
    queue.work(once=True)
    database.execute("ALTER TABLE procrastinate_workers RENAME TO gone")
    with pytest.raises(ServerError, match=r"the job queue in .* failed: .*procrastinate_workers"):
        queue.work(once=True)


UPKEEP = """
import sys
from hyperfeast.db import Database
from hyperfeast.errors import SourceError
from hyperfeast.jobs import Queue, Task

database = Database(sys.argv[1])

def heal(**arguments):
    if arguments["symbol"] == "POISON":
        raise ValueError("no such thing")
    if arguments["symbol"] == "NOPE":
        raise SourceError("the vendor\\nknows no NOPE")
    database.execute("INSERT INTO refreshes (worker, done) VALUES (%s, true)", [arguments["symbol"]])

Queue(database, lambda: None, [Task("heal", heal)], dead_after=4.0).work()
"""


def test_what_is_asked_for_runs_once_in_a_long_lived_worker(database: Database) -> None:
    """A call that waits already is not asked for twice; one that fails holds no other up."""
    database.execute("CREATE TABLE refreshes (worker text NOT NULL, done boolean NOT NULL)")
    queue = Queue(database, lambda: None, [Task("heal", lambda **_: None)])
    calls: list[dict[str, Any]] = [{"symbol": name} for name in ("A", "POISON", "B", "A")]
    assert queue.ask("heal", calls) == 3
    assert queue.ask("heal", calls) == 0

    queue.work(once=True)
    assert refreshed(database) == []  # asked to refresh once, it does nothing else
    process = subprocess.Popen(
        [sys.executable, "-c", UPKEEP, database.dsn], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: sorted(refreshed(database)) == ["A", "B"])
        until(lambda: "doing" not in statuses(database))
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert statuses(database).count("failed") == 1
    assert queue.ask("heal", calls[:1]) == 1


def test_a_failure_of_ours_is_one_line_of_the_log(database: Database) -> None:
    """Anything else is a fault, whose traceback is wanted."""
    database.execute("CREATE TABLE refreshes (worker text NOT NULL, done boolean NOT NULL)")
    Queue(database, lambda: None, [Task("heal", lambda **_: None)]).ask(
        "heal", [{"symbol": "NOPE"}, {"symbol": "POISON"}]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", UPKEEP, database.dsn], stderr=subprocess.PIPE, text=True
    )
    until(lambda: statuses(database).count("failed") == 2)
    process.terminate()
    _, said = process.communicate(timeout=PATIENCE_S)
    about = [line for line in said.splitlines() if "NOPE" in line]
    assert len(about) == 1, said
    assert "symbol='NOPE'" in about[0]
    assert about[0].endswith("SourceError: the vendor knows no NOPE")
    assert said.count("Traceback") == 1
    assert "ValueError: no such thing" in said


def refreshed(database: Database) -> list[str]:
    return [row["worker"] for row in database.fetch("SELECT worker FROM refreshes")]
