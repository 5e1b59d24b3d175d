"""One contract for every repository of baselines: files, the database, and both at once."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest

from baseline_samples import baseline, number_of
from hyperfeast.baselines import (
    BaselineRepository,
    DualBaselineRepository,
    FileBaselineRepository,
    SavedBaseline,
    TimescaleBaselineRepository,
)
from hyperfeast.db import Database
from hyperfeast.errors import DataError, SchemaError, UsageError

USER, OTHER = UUID("0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47"), UUID(int=2)
WRITERS, EACH = 20, 3

_MAKE: dict[str, Callable[[Path, Database], BaselineRepository]] = {
    "files": lambda folder, _: FileBaselineRepository(folder),
    "timescale": lambda _, database: TimescaleBaselineRepository(database),
    "files and timescale": lambda folder, database: DualBaselineRepository(
        FileBaselineRepository(folder), TimescaleBaselineRepository(database)
    ),
    "timescale and files": lambda folder, database: DualBaselineRepository(
        TimescaleBaselineRepository(database), FileBaselineRepository(folder)
    ),
}


@pytest.fixture(params=_MAKE)
def repository(
    request: pytest.FixtureRequest, tmp_path: Path, database: Database
) -> BaselineRepository:
    return _MAKE[request.param](tmp_path / "baselines", database)


def numbers(saved: list[SavedBaseline]) -> list[int]:
    return [number_of(one.baseline) for one in saved]


def test_nothing_is_there_at_first(repository: BaselineRepository) -> None:
    assert repository.latest(USER) is None
    assert repository.history(USER) == []
    assert repository.as_known(USER, datetime.now(UTC)) is None
    assert repository.delete(USER) == 0
    assert list(repository.users()) == []


def test_what_is_saved_is_what_is_read(repository: BaselineRepository) -> None:
    saved = repository.save(USER, baseline(5))
    assert saved.baseline == baseline(5)
    assert repository.latest(USER) == saved
    assert repository.history(USER) == [saved]
    assert repository.history(OTHER) == []
    assert list(repository.users()) == [USER]


def test_the_last_ten_are_kept_in_order(repository: BaselineRepository) -> None:
    saved = [repository.save(USER, baseline(number)) for number in range(13)]
    history = repository.history(USER)
    assert history == saved[:2:-1]
    assert numbers(history) == list(range(12, 2, -1))
    assert all(one.created_at > two.created_at for one, two in pairwise(history))
    assert repository.history(USER, 3) == history[:3]
    assert repository.history(USER, 1000) == history


def test_as_known_is_what_was_the_newest_then(repository: BaselineRepository) -> None:
    saved = [repository.save(USER, baseline(number)) for number in range(12)]
    instant = timedelta(microseconds=1)
    for earlier, later in pairwise(saved[2:]):
        assert repository.as_known(USER, earlier.created_at) == earlier
        assert repository.as_known(USER, later.created_at - instant) == earlier
    assert repository.as_known(USER, datetime.max.replace(tzinfo=UTC)) == saved[-1]
    assert repository.as_known(USER, saved[2].created_at - instant) is None, "kept no more"


def test_a_user_is_forgotten_and_the_others_stay(repository: BaselineRepository) -> None:
    repository.save(USER, baseline())
    other = repository.save(OTHER, baseline())
    assert repository.delete(USER) == 1
    assert repository.latest(USER) is None
    assert list(repository.users()) == [OTHER]
    assert repository.latest(OTHER) == other
    assert number_of(repository.save(USER, baseline(9)).baseline) == 9


def test_baselines_are_taken_over_as_they_are_and_once(repository: BaselineRepository) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    given = [
        SavedBaseline(created_at=start + timedelta(days=number), baseline=baseline(number))
        for number in range(12)
    ]
    own = repository.save(USER, baseline(99))
    assert repository.keep(USER, given[::-1]) == 9
    assert repository.history(USER) == [own, *given[:2:-1]]
    assert repository.keep(USER, given) == 0
    assert repository.keep(USER, []) == 0
    assert repository.history(USER) == [own, *given[:2:-1]]


def test_one_that_is_there_is_not_overwritten(repository: BaselineRepository) -> None:
    saved = repository.save(USER, baseline(1))
    assert (
        repository.keep(USER, [SavedBaseline(created_at=saved.created_at, baseline=baseline(2))])
        == 0
    )
    assert repository.history(USER) == [saved]


def test_nothing_of_twenty_writers_is_lost(repository: BaselineRepository) -> None:
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> list[SavedBaseline]:
        start.wait()
        return [repository.save(USER, baseline(writer * EACH + one)) for one in range(EACH)]

    with ThreadPoolExecutor(WRITERS) as pool:
        saved = [one for some in pool.map(write, range(WRITERS)) for one in some]

    assert len({one.created_at for one in saved}) == WRITERS * EACH
    in_order = sorted(saved, key=lambda one: one.created_at, reverse=True)
    assert repository.history(USER) == in_order[:10]


@pytest.mark.parametrize("bad", ["me", "", "../x", "0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e4", None, 7])
def test_a_user_that_is_no_uuid_is_refused(repository: BaselineRepository, bad: object) -> None:
    user: UUID = bad  # type: ignore[assignment]
    calls: list[Callable[[], object]] = [
        lambda: repository.save(user, baseline()),
        lambda: repository.latest(user),
        lambda: repository.history(user),
        lambda: repository.as_known(user, datetime.now(UTC)),
        lambda: repository.delete(user),
        lambda: repository.keep(user, []),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="is no user: expected a UUID such as"):
            call()


def test_a_naive_moment_and_a_limit_of_nothing_are_refused(repository: BaselineRepository) -> None:
    with pytest.raises(UsageError, match="expected a moment with a zone"):
        repository.as_known(USER, datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(UsageError, match="a limit of at least 1"):
        repository.history(USER, 0)


def test_a_baseline_of_the_future_is_refused(repository: BaselineRepository) -> None:
    future = baseline().model_copy(update={"as_of": datetime(2999, 1, 1, tzinfo=UTC)})
    with pytest.raises(DataError, match=r"the baseline is of 2999-01-01 .* has not reached"):
        repository.save(USER, future)
    assert repository.history(USER) == []


def test_a_clock_that_was_ahead_is_noticed_and_nothing_lost(repository: BaselineRepository) -> None:
    ahead = SavedBaseline(created_at=datetime(2999, 1, 1, tzinfo=UTC), baseline=baseline(1))
    repository.keep(USER, [ahead])
    with pytest.raises(DataError, match=r"the newest baseline of .* is of 2999-01-01"):
        repository.save(USER, baseline(2))
    assert repository.history(USER) == [ahead]


def test_many_users(repository: BaselineRepository) -> None:
    fill(repository, users=12, each=11)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["files", "timescale"])
def test_many_more_users_of_ten(kind: str, tmp_path: Path, database: Database) -> None:
    """HYPERFEAST_BASELINE_USERS of them: files are synced to the disk one by one, which takes its time."""
    users = int(os.environ.get("HYPERFEAST_BASELINE_USERS", "500"))
    pooled = Database(database.dsn, pool_size=4)
    try:
        fill(_MAKE[kind](tmp_path / "baselines", pooled), users=users, each=10)
    finally:
        pooled.close()


def fill(repository: BaselineRepository, *, users: int, each: int) -> None:
    """Many users at once, and each has its own last ten."""
    ids = [UUID(int=number << 64 | number) for number in range(users)]

    def write(user: UUID) -> None:
        for number in range(each):
            repository.save(user, baseline(user.int % 1000 + number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, ids))
    assert list(repository.users()) == ids
    for user in ids:
        first = user.int % 1000
        assert numbers(repository.history(user)) == [first + one for one in range(each)][:-11:-1]


def test_a_newer_document_is_left_alone(database: Database) -> None:
    repository = TimescaleBaselineRepository(database)
    repository.save(USER, baseline())
    database.execute("UPDATE baseline_history SET baseline = jsonb_set(baseline, '{schema}', '2')")
    with pytest.raises(SchemaError, match=f"the baseline of {USER} .* has schema 2"):
        repository.latest(USER)


def test_the_log_says_who_saved_and_deleted_and_no_value(database: Database) -> None:
    repository = TimescaleBaselineRepository(database)
    saved = repository.save(USER, baseline())
    repository.keep(USER, [saved])
    repository.delete(USER)
    repository.delete(USER)
    log = database.fetch("SELECT action, object, actor, before, after FROM audit_log ORDER BY id")
    assert [one["action"] for one in log] == ["save baseline", "delete baselines"]
    assert {one["object"] for one in log} == {f"user/{USER}/baseline"}
    assert log[0]["after"]["metrics"] == ["glucose", "heart_rate"]
    assert set(log[0]["after"]) == {"created_at", "as_of", "metrics"}
    assert log[1]["before"] == {"deleted": 1}


def test_a_copy_that_failed_catches_up_with_the_next_save(
    tmp_path: Path, database: Database
) -> None:
    files, table = FileBaselineRepository(tmp_path), TimescaleBaselineRepository(database)
    for number in range(3):
        files.save(USER, baseline(number))
    both = DualBaselineRepository(files, table)
    database.execute("ALTER TABLE baseline_history RENAME TO away")
    with pytest.raises(SchemaError):
        both.save(USER, baseline(3))
    assert numbers(both.history(USER)) == [3, 2, 1, 0], "what answers has it"
    database.execute("ALTER TABLE away RENAME TO baseline_history")
    both.save(USER, baseline(4))
    assert table.history(USER) == files.history(USER)
    assert numbers(table.history(USER)) == [4, 3, 2, 1, 0]


def test_on_timescaledb(migrated_community: Database) -> None:
    repository = TimescaleBaselineRepository(migrated_community)
    test_the_last_ten_are_kept_in_order(repository)
    assert repository.delete(USER) == 10
    test_a_user_is_forgotten_and_the_others_stay(repository)
