"""Jobs: what waits once, what is tried again, canceled, handed back, and what is on record of it."""

import asyncio
import signal
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import procrastinate
import pytest
from procrastinate.jobs import Status

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import Contended, FeatureError, SchemaError, UsageError
from hyperfeast.jobs import LeasedDatabase, announce
from hyperfeast.jobs.asking import Call, put
from hyperfeast.jobs.changing import cancel, forget, retry
from hyperfeast.jobs.lease import Lease, leased
from hyperfeast.jobs.listing import JobStatus, attempts, job, jobs, progress
from hyperfeast.jobs.manager import FencedManager
from hyperfeast.jobs.retry import Backoff
from queue_worker import (
    ATTEMPTS,
    PATIENCE_S,
    Workers,
    create_effects,
    effects,
    queue,
    statuses,
    until,
    workers,
)


@pytest.fixture
def started(database: Database) -> Iterator[Workers]:
    create_effects(database)
    with workers(database) as started:
        yield started


def submit(database: Database, task: str, *calls: dict[str, Any], priority: int = 0) -> list[int]:
    return [one.job_id for one in queue(database).submit(task, calls, priority=priority)]


def over(database: Database, *ids: int) -> bool:
    return all(job(database, one).is_over for one in ids)


def test_equal_jobs_wait_once(database: Database) -> None:
    asked = queue(database).submit("leave", [{"job": "a"}, {"job": "b"}, {"job": "a"}])
    assert [one.is_new for one in asked] == [True, True]
    again = queue(database).submit("leave", [{"job": "b"}, {"job": "c"}], priority=7)
    assert [one.is_new for one in again] == [False, True]
    assert again[0].job_id == asked[1].job_id
    # One that waits is raised to the higher priority, and never lowered.
    assert job(database, asked[1].job_id).priority == 7
    queue(database).submit("leave", [{"job": "b"}], priority=3)
    assert job(database, asked[1].job_id).priority == 7


def test_arguments_may_be_long(database: Database) -> None:
    names = [f"symbol-{number}" for number in range(5_000)]
    (asked,) = queue(database).submit("leave", [{"job": names}])
    assert job(database, asked.job_id).scope == {"job": names}


def test_higher_priorities_run_first(database: Database, started: Workers) -> None:
    low = submit(database, "steps", {"job": "low", "total": 1, "seconds": 0})
    high = submit(database, "steps", {"job": "high", "total": 1, "seconds": 0}, priority=50)
    started.start()
    until(lambda: over(database, *low, *high))
    assert [row["job"] for row in database.fetch("SELECT job FROM begun")] == ["high", "low"]


def test_what_was_asked_for_before_the_first_worker_is_done(
    database: Database, started: Workers
) -> None:
    """Who asks sets the queue up; who only announces does not."""
    assert announce(database) is False
    (asked,) = submit(database, "leave", {"job": "a"})
    assert announce(database) is True
    assert announce(database) is True
    assert [one.task for one in jobs(database)] == ["hyperfeast.arrivals", "leave"]
    started.start()
    until(lambda: over(database, asked))
    assert effects(database) == [("a", 0)]


def test_a_database_without_this_schema_is_told_to_migrate(empty_database: Database) -> None:
    with pytest.raises(SchemaError, match="hyperfeast migrate"):
        queue(empty_database).submit("leave", [{"job": "a"}])


def test_what_fails_is_tried_again_and_then_stays_failed(
    database: Database, started: Workers
) -> None:
    poison, final, flaky = (
        submit(database, one, {"job": one})[0] for one in ("poison", "final", "flaky")
    )
    started.start()
    until(lambda: over(database, poison, final, flaky))
    found = job(database, poison)
    assert (found.status, found.attempts) == ("failed", ATTEMPTS)
    assert found.error == "ValueError: a bad number"
    tries = attempts(database, poison)
    assert [one.attempt for one in tries] == [1, 2, 3]
    assert {one.outcome for one in tries} == {"failed"}
    assert all("in fail\n    raise error" in (one.traceback or "") for one in tries)
    # 0.2 s, then 0.4 s.
    began = [one.started_at for one in tries]
    assert began[1] - began[0] >= timedelta(seconds=0.2)
    assert began[2] - began[1] >= timedelta(seconds=0.4)

    # What cannot go away by itself is not tried again; what can, is.
    found = job(database, final)
    assert (found.status, found.attempts, found.error) == ("failed", 1, "TrainingError: no labels")
    assert attempts(database, final)[0].traceback is None
    assert (job(database, flaky).status, job(database, flaky).attempts) == ("failed", ATTEMPTS)


def test_one_that_is_put_back_is_tried_as_often_as_a_new_one(
    database: Database, started: Workers
) -> None:
    (poison,) = submit(database, "poison", {"job": "x"})
    worker = started.start()
    until(lambda: over(database, poison))
    assert not retry(database, poison).is_over
    until(lambda: over(database, poison))
    assert job(database, poison).attempts == 2 * ATTEMPTS
    worker.terminate()
    assert worker.wait(PATIENCE_S) == 0


def test_one_that_waits_is_canceled_and_may_be_put_back(
    database: Database, started: Workers
) -> None:
    (asked,) = submit(database, "leave", {"job": "a"})
    assert cancel(database, asked, stoppable=False).status == "cancelled"
    other = submit(database, "leave", {"job": "b"})
    started.start()
    until(lambda: over(database, *other))
    assert effects(database) == [("b", 0)]
    retry(database, asked)
    until(lambda: over(database, asked))
    assert effects(database) == [("a", 0), ("b", 0)]


def test_one_that_runs_stops_between_two_parts(database: Database, started: Workers) -> None:
    (asked,) = submit(database, "steps", {"job": "a", "total": 100, "seconds": 0.2})
    started.start()
    until(lambda: effects(database))
    found = job(database, asked)
    assert (found.status, found.total) == ("doing", 100)
    with pytest.raises(UsageError, match=f"job {asked} .steps. runs, and cannot be stopped"):
        cancel(database, asked, stoppable=False)
    assert cancel(database, asked, stoppable=True).stop_requested
    assert until(lambda: over(database, asked)) < 10
    found = job(database, asked)
    assert (found.status, found.error) == ("aborted", None)
    assert found.done is not None
    assert len(effects(database)) == found.done < 100
    assert [one.outcome for one in attempts(database, asked)] == ["aborted"]
    with pytest.raises(
        UsageError, match=f"job {asked} has been stopped on .*: only what waits or runs"
    ):
        cancel(database, asked, stoppable=True)


def test_a_worker_that_is_stopped_hands_its_job_back(database: Database, started: Workers) -> None:
    (asked,) = submit(database, "steps", {"job": "a", "total": 60, "seconds": 0.1})
    first = started.start()
    until(lambda: effects(database))
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE_S) == 0
    found = job(database, asked)
    assert (found.status, found.attempts) == ("todo", 0)
    assert len(effects(database)) < 60
    started.start()
    until(lambda: over(database, asked))
    assert (job(database, asked).status, job(database, asked).attempts) == ("succeeded", 1)
    assert len({step for _, step in effects(database)}) == 60


def test_one_that_cannot_be_stopped_is_finished_first(database: Database, started: Workers) -> None:
    (asked,) = submit(database, "wait_then_leave", {"job": "a", "seconds": 2})
    worker = started.start()
    until(lambda: job(database, asked).status == "doing")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE_S) == 0
    assert job(database, asked).status == "succeeded"
    assert effects(database) == [("a", 0)]


def test_progress_is_on_record(database: Database, started: Workers) -> None:
    (asked,) = submit(database, "steps", {"job": "a", "total": 4, "seconds": 0.3})
    started.start()
    seen = set()

    def look() -> bool:
        (found,) = progress(database, [asked])
        seen.add(found.done)
        return found.is_over

    until(look)
    assert {1, 2, 3, 4} <= seen
    assert progress(database) == [one for one in jobs(database) if not one.is_over]


def test_what_need_not_be_remembered_is_gone_once_done(
    database: Database, started: Workers
) -> None:
    fleeting = submit(database, "fleeting", {"job": "a"})
    kept = submit(database, "leave", {"job": "b"})
    started.start()
    until(lambda: over(database, *kept))
    with pytest.raises(UsageError, match=f"no job {fleeting[0]}"):
        job(database, fleeting[0])
    assert effects(database) == [("a", 0), ("b", 0)]


def test_lists_what_runs_then_what_waits_then_what_ended(database: Database) -> None:
    ids = submit(database, "leave", *({"job": name} for name in "abcde"))
    raised = submit(database, "steps", {"job": "f", "total": 1, "seconds": 0}, priority=9)
    cancel(database, ids[1], stoppable=False)
    cancel(database, ids[3], stoppable=False)
    wanted = [*raised, ids[0], ids[2], ids[4], ids[3], ids[1]]
    assert [one.job_id for one in jobs(database)] == wanted
    assert [one.job_id for one in jobs(database, most=2)] == wanted[:2]
    assert [one.job_id for one in jobs(database, status=JobStatus.CANCELLED)] == wanted[-2:]
    assert [one.job_id for one in jobs(database, feature_set="steps")] == raised


@pytest.mark.parametrize("change", [retry, lambda *one: cancel(*one, stoppable=True)])
def test_there_is_no_such_job(database: Database, change: Any) -> None:
    with pytest.raises(UsageError, match="no job 99: `hyperfeast jobs list` shows"):
        change(database, 99)


def test_what_cannot_be_put_back(database: Database, started: Workers) -> None:
    (done,) = submit(database, "leave", {"job": "a"})
    started.start()
    until(lambda: over(database, done))
    with pytest.raises(
        UsageError, match=f"job {done} has succeeded on .*: `hyperfeast jobs submit`"
    ):
        retry(database, done)
    started.stop()
    (waiting,) = submit(database, "leave", {"job": "b"})
    with pytest.raises(UsageError, match=f"job {waiting} waits: only one that has failed"):
        retry(database, waiting)
    cancel(database, waiting, stoppable=False)
    (equal,) = submit(database, "leave", {"job": "b"})
    with pytest.raises(
        UsageError, match=f"job {equal} waits and is to do the same as job {waiting}"
    ):
        retry(database, waiting)


def test_forgets_what_ended_long_ago(database: Database) -> None:
    succeeded, failed, waiting = submit(database, "leave", *({"job": name} for name in "abc"))
    database.execute(
        "UPDATE procrastinate_jobs SET status = (CASE id WHEN %s THEN 'succeeded' ELSE 'failed' END)"
        "::procrastinate_job_status WHERE id <> %s",
        [succeeded, waiting],
    )
    database.execute(
        "INSERT INTO job_attempts (job_id, attempt, worker, started_at) "
        "SELECT id, 1, 'w', now() - interval '8 days' FROM unnest(ARRAY[%s, %s, 4711]) AS id",
        [succeeded, failed],
    )
    assert forget(database) == 0
    database.execute("UPDATE procrastinate_events SET at = at - interval '8 days'")
    assert forget(database) == 1
    assert sorted(one.job_id for one in jobs(database)) == [failed, waiting]
    left = database.fetch("SELECT job_id FROM job_attempts")
    assert [row["job_id"] for row in left] == [failed]
    database.execute("UPDATE procrastinate_events SET at = at - interval '30 days'")
    assert forget(database) == 1
    assert [one.job_id for one in jobs(database)] == [waiting]


# What follows is the fence itself: two attempts at one job, the first of which was given up.


def two_managers(database: Database) -> Any:
    connector = procrastinate.PsycopgConnector(conninfo=database.dsn, min_size=1)
    app = procrastinate.App(connector=connector)
    managers = [FencedManager(app.connector, name, lambda _: True) for name in ("zombie", "heir")]
    return app, managers


@pytest.mark.parametrize("end", ["succeeds", "fails", "retries", "hands back"])
def test_an_attempt_that_was_given_up_ends_nothing(database: Database, end: str) -> None:
    (asked,) = submit(database, "leave", {"job": "a"})

    async def race() -> None:
        app, (zombie, heir) = two_managers(database)
        async with app.open_async():
            first = await zombie.fetch_job(None, await zombie.register_worker())
            assert await heir.give_up(first, "it froze", wait=timedelta(0))
            second = await heir.fetch_job(None, await heir.register_worker())
            assert (first.id, second.id) == (asked, asked)
            match end:
                case "succeeds":
                    await zombie.finish_job(first, Status.SUCCEEDED, delete_job=True)
                case "fails":
                    zombie.note(asked, ValueError("late"))
                    await zombie.finish_job(first, Status.FAILED, delete_job=False)
                case _:
                    await zombie.retry_job(first, clock.now())
            found = job(database, asked)
            assert (found.status, found.attempts, found.error) == ("doing", 1, "it froze")
            await heir.finish_job(second, Status.SUCCEEDED, delete_job=False)

    asyncio.run(race())
    assert job(database, asked).status == "succeeded"
    assert [(one.attempt, one.worker, one.outcome) for one in attempts(database, asked)] == [
        (1, "zombie", "lost"),
        (2, "heir", "succeeded"),
    ]


def test_a_job_is_given_up_once(database: Database) -> None:
    (asked,) = submit(database, "leave", {"job": "a"})

    async def race() -> list[bool]:
        app, (one, other) = two_managers(database)
        async with app.open_async():
            fetched = await one.fetch_job(None, await one.register_worker())
            return list(
                await asyncio.gather(
                    *(each.give_up(fetched, "gone", wait=timedelta(0)) for each in (one, other))
                )
            )

    assert sorted(asyncio.run(race())) == [False, True]
    assert job(database, asked).attempts == 1


def test_a_job_is_left_to_the_equal_one_that_waits(database: Database) -> None:
    """Else it would run for ever in the eyes of the others: two equal jobs cannot wait."""
    (asked,) = submit(database, "leave", {"job": "a"})

    async def fail() -> None:
        app, (manager, _) = two_managers(database)
        async with app.open_async():
            fetched = await manager.fetch_job(None, await manager.register_worker())
            put(database, [Call("leave", {"job": "a"}, "upkeep")])
            manager.note(asked, ValueError("once"))
            await manager.retry_job(fetched, clock.now())

    asyncio.run(fail())
    found = job(database, asked)
    assert (found.status, found.error) == (
        "aborted",
        "ValueError: once (not tried again: an equal job waits)",
    )
    assert sorted(statuses(database)) == ["aborted", "todo"]


def test_a_transaction_of_a_job_that_was_taken_does_not_begin(database: Database) -> None:
    create_effects(database)
    (asked,) = submit(database, "leave", {"job": "a"})
    database.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    mine = LeasedDatabase(database.dsn, name="a worker")
    insert = "INSERT INTO effects VALUES ('a', 0, 'w')"
    with leased(Lease(asked, 0)):
        mine.execute(insert)
        database.execute("UPDATE procrastinate_jobs SET status = 'todo', attempts = 1")
        with pytest.raises(Contended, match=f"job {asked} was taken from this worker"):
            mine.execute(insert)
        database.execute("UPDATE procrastinate_jobs SET status = 'doing'")
        with pytest.raises(Contended):
            mine.execute(insert)
    with leased(Lease(asked, 1)):
        mine.execute(insert)
    mine.execute(insert)
    assert len(effects(database)) == 3


def test_who_takes_a_job_waits_for_its_transaction_and_who_cancels_does_not(
    database: Database,
) -> None:
    (asked,) = submit(database, "steps", {"job": "a", "total": 1, "seconds": 0})
    database.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    mine = LeasedDatabase(database.dsn, name="a worker")
    with leased(Lease(asked, 0)), mine.connect() as connection:
        named = connection.execute("SELECT current_setting('application_name') AS name").fetchone()
        assert named == {"name": "a worker"}
        assert cancel(database, asked, stoppable=True).stop_requested
        with database.connect() as other:
            taking = "SELECT FROM procrastinate_jobs WHERE id = %s FOR UPDATE SKIP LOCKED"
            assert other.execute(taking, [asked]).fetchall() == []
    assert (
        len(database.fetch("SELECT FROM procrastinate_jobs WHERE id = %s FOR UPDATE", [asked])) == 1
    )


def test_waits_twice_as_long_each_time() -> None:
    backoff = Backoff(attempts=5, wait=4.0)
    of = [_tried(number) for number in range(10)]
    waits = [4, 8, 16, 32, 64] * 2
    assert [backoff.wait(one) for one in of] == [timedelta(seconds=one) for one in waits]
    assert [backoff.is_left(one) for one in of] == ([True] * 4 + [False]) * 2
    assert Backoff(attempts=50, wait=4.0).wait(_tried(20)) == timedelta(minutes=5)
    assert backoff.get_retry_decision(exception=FeatureError("wrong"), job=of[0]) is None
    assert backoff.get_retry_decision(exception=ValueError("wrong"), job=of[4]) is None
    decision = backoff.get_retry_decision(exception=Contended("locked"), job=of[0])
    assert decision is not None
    assert decision.retry_at is not None
    assert decision.retry_at > clock.now() + timedelta(seconds=3)


def _tried(number: int) -> Any:
    return procrastinate.jobs.Job(
        id=1, queue="q", lock=None, queueing_lock=None, task_name="t", attempts=number
    )
