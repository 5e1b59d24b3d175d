"""Workers that are killed and frozen, and jobs that take their workers with them.

Real processes, real signals. A worker counts as dead after 4 seconds here, instead of 30.
"""

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hyperfeast.db import Database
from hyperfeast.jobs.listing import attempts, job
from queue_worker import (
    ATTEMPTS,
    DEAD_AFTER,
    PATIENCE_S,
    Workers,
    create_effects,
    effects,
    queue,
    statuses,
    until,
    workers,
)

# A third more until somebody looks, and some time to do it in: a minute for workers that count as dead after 30 s.
RECLAIMED_WITHIN_S = DEAD_AFTER * 4 / 3 + 20


@pytest.fixture
def started(database: Database) -> Iterator[Workers]:
    create_effects(database)
    with workers(database) as started:
        yield started


def submit(database: Database, task: str, *calls: dict[str, Any]) -> list[int]:
    return [one.job_id for one in queue(database).submit(task, calls)]


def sessions_of(database: Database, pid: int) -> list[str]:
    rows = database.fetch(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'hyperfeast worker %%' AND application_name LIKE %s",
        [f"%:{pid}.%"],
    )
    return [row["state"] for row in rows]


def begun(database: Database) -> int:
    return len(database.fetch("SELECT FROM begun"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_dies_or_freezes_with_its_transaction_open(
    database: Database, started: Workers, fault: signal.Signals | None
) -> None:
    """Its job goes to another one, which gets the locks; what it had written is not there."""
    (asked,) = submit(database, "hold", {"job": "a", "seconds": 3 if fault is None else PATIENCE_S})
    first = started.start()
    until(lambda: begun(database) == 1)
    started.start()
    if fault is None:
        until(lambda: job(database, asked).is_over)
        assert [one.outcome for one in attempts(database, asked)] == ["succeeded"]
        assert effects(database) == [("a", 0)]
        return
    assert "idle in transaction" in sessions_of(database, first.pid)
    first.send_signal(fault)
    took = until(lambda: job(database, asked).is_over)
    assert took < RECLAIMED_WITHIN_S, f"reclaimed after {took:.1f} s"
    assert job(database, asked).status == "succeeded"
    lost, done = attempts(database, asked)
    assert (lost.outcome, done.outcome) == ("lost", "succeeded")
    assert f":{first.pid}." in lost.worker
    assert lost.error is not None
    assert lost.error.startswith("the worker died or froze")
    assert effects(database) == [("a", 0)]
    if fault is signal.SIGSTOP:
        assert sessions_of(database, first.pid) == []


@pytest.mark.slow
def test_a_worker_that_wakes_up_neither_writes_nor_completes(
    database: Database, started: Workers
) -> None:
    """It is frozen before it writes, while no transaction is open."""
    (asked,) = submit(database, "wait_then_leave", {"job": "a", "seconds": 3})
    zombie = started.start()
    until(lambda: begun(database) == 1)
    zombie.send_signal(signal.SIGSTOP)
    # The heir is in the middle of the job when the zombie wakes: it would be complete without its effect.
    database.execute("DELETE FROM begun")
    started.start()
    until(lambda: begun(database) == 1)
    zombie.send_signal(signal.SIGCONT)
    # It finishes what it has begun, and tries to write that, before it ends.
    zombie.terminate()
    _, said = zombie.communicate(timeout=PATIENCE_S)
    assert f"job {asked} is no longer this worker's" in said
    assert job(database, asked).status == "doing"
    until(lambda: job(database, asked).is_over)
    assert [one.outcome for one in attempts(database, asked)] == ["lost", "succeeded"]
    rows = database.fetch("SELECT worker FROM effects")
    assert [row["worker"] for row in rows] == [str(started.processes[1].pid)]


@pytest.mark.slow
def test_a_worker_that_works_for_long_is_not_taken_for_dead(
    database: Database, started: Workers
) -> None:
    (asked,) = submit(database, "wait_then_leave", {"job": "a", "seconds": 2.5 * DEAD_AFTER})
    started.start()
    until(lambda: begun(database) == 1)
    started.start()
    until(lambda: job(database, asked).is_over)
    assert [one.outcome for one in attempts(database, asked)] == ["succeeded"]


@pytest.mark.slow
def test_a_poison_job_is_dead_lettered_and_the_others_drain(
    database: Database, started: Workers
) -> None:
    """One raises, one takes its worker with it: every time, until it has failed for good."""
    (raising,) = submit(database, "poison", {"job": "raises"})
    (killing,) = submit(database, "die", {"job": "kills"})
    others = [{"job": str(number)} for number in range(200)]
    submit(database, "leave", *others)
    for _ in range(ATTEMPTS + 1):
        started.start()
    until(lambda: job(database, raising).is_over and job(database, killing).is_over)
    until(lambda: len(effects(database)) == len(others))
    assert sorted(statuses(database)) == ["failed"] * 2 + ["succeeded"] * len(others)
    for asked, outcome in ((raising, "failed"), (killing, "lost")):
        assert [one.outcome for one in attempts(database, asked)] == [outcome] * ATTEMPTS
    assert job(database, killing).attempts == ATTEMPTS
    assert "died or froze" in (job(database, killing).error or "")
    died = [one for one in started.processes if one.poll() == -signal.SIGKILL]
    assert len(died) == ATTEMPTS
    assert len({name for name, _ in effects(database)}) == len(others)


@pytest.mark.slow
def test_a_job_whose_end_cannot_be_written_does_not_run_for_ever(
    database: Database, started: Workers
) -> None:
    """The database is away when it ends, for less than a heartbeat takes: the worker lives on."""
    (asked,) = submit(database, "wait_then_leave", {"job": "a", "seconds": 1})
    started.start(dead_after=60)
    until(lambda: effects(database))
    (other,) = submit(database, "wait_then_leave", {"job": "b", "seconds": 2})
    until(lambda: job(database, asked).is_over and job(database, other).status == "doing")
    with database.connect() as connection:
        connection.execute("LOCK TABLE job_attempts IN ACCESS EXCLUSIVE MODE")
        until(lambda: ("b", 0) in effects(database))
        time.sleep(0.5)
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) AS ended FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
        assert ended is not None
        assert ended["ended"] > 0
    until(lambda: job(database, other).is_over)
    assert [one.outcome for one in attempts(database, other)] == ["succeeded"]
