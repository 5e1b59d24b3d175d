"""Twenty workers in four processes, ten thousand jobs: each effect once, also where a process is killed."""

import random
import sys
from collections import Counter
from typing import Any

import pytest

from hyperfeast.db import Database
from queue_worker import create_effects, effects, queue, until, workers

# By whether a process is killed: the control is smaller.
JOBS = {False: 1_000, True: 10_000}
PROCESSES, OF_EACH = 4, 5


def left(database: Database) -> int:
    rows = database.fetch(
        "SELECT count(*) AS number FROM procrastinate_jobs "
        "WHERE task_name = 'leave' AND status IN ('todo', 'doing')"
    )
    return int(rows[0]["number"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("killed", [False, True])
def test_each_effect_is_there_once(database: Database, killed: bool, record_property: Any) -> None:
    """An effect and its job's end are two transactions.

    Who is killed in between has left an effect that the next attempt leaves again: such jobs are known by
    name, five at most.
    """
    seed = random.randrange(2**32)
    record_property("seed", seed)
    sys.stdout.write(f"seed {seed}\n")
    create_effects(database)
    names = {str(number) for number in range(JOBS[killed])}
    asked = queue(database).submit("leave", [{"job": name} for name in sorted(names)])
    assert all(one.is_new for one in asked)
    with workers(database) as started:
        for _ in range(PROCESSES):
            started.start(concurrency=OF_EACH)
        if killed:
            at = random.Random(seed).randrange(len(names) // 2, len(names))
            until(lambda: left(database) <= at, 300)
            started.processes[0].kill()
            started.start(concurrency=OF_EACH)
        until(lambda: not left(database), 500)
    ended = database.fetch(
        "SELECT DISTINCT status::text FROM procrastinate_jobs WHERE task_name = 'leave'"
    )
    assert [row["status"] for row in ended] == ["succeeded"]
    times = Counter(name for name, _ in effects(database))
    assert set(times) == names
    interrupted = {
        row["name"]
        for row in database.fetch(
            "SELECT args ->> 'job' AS name FROM procrastinate_jobs JOIN job_attempts ON job_id = id "
            "WHERE outcome = 'lost'"
        )
    }
    assert len(interrupted) <= OF_EACH * killed
    assert {name for name, number in times.items() if number > 1} <= interrupted
    processes = database.fetch("SELECT count(DISTINCT worker) AS number FROM effects")
    assert processes[0]["number"] == PROCESSES + killed
