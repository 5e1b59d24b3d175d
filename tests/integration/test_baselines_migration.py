"""Baselines from files into the database: whole, once, and with what cannot be read left alone."""

import threading
import uuid
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
    migrate_baselines,
    verify_baselines,
)
from hyperfeast.db import Database
from hyperfeast.errors import UsageError

USERS = [UUID(int=number) for number in range(1, 9)]


@pytest.fixture
def files(tmp_path: Path) -> FileBaselineRepository:
    """Eight users; the first has one baseline, the second two and so on."""
    made = FileBaselineRepository(tmp_path / "baselines")
    for count, user in enumerate(USERS, 1):
        for number in range(count):
            made.save(user, baseline(number))
    return made


@pytest.fixture
def table(database: Database) -> TimescaleBaselineRepository:
    return TimescaleBaselineRepository(database)


def test_both_answer_alike_afterwards_and_again_adds_nothing(
    files: FileBaselineRepository, table: TimescaleBaselineRepository
) -> None:
    before = {path: path.read_bytes() for path in files.folder.rglob("*.json")}
    planned = migrate_baselines(files, table, dry_run=True)
    assert (planned.users, planned.baselines, planned.added, planned.unreadable) == (8, 36, 36, [])
    assert list(table.users()) == []

    seen: list[tuple[int, int]] = []
    done = migrate_baselines(files, table, progress=lambda one, of: seen.append((one, of)))
    assert done == planned
    assert seen[-1] == (8, 8)
    assert verify_baselines(files, table) == []
    assert list(table.users()) == USERS
    for user in USERS:
        assert table.history(user) == files.history(user)
    assert migrate_baselines(files, table).added == 0
    assert migrate_baselines(files, table, dry_run=True).added == 0
    assert {path: path.read_bytes() for path in files.folder.rglob("*.json")} == before


def test_one_that_was_stopped_goes_on(
    files: FileBaselineRepository, table: TimescaleBaselineRepository
) -> None:
    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        migrate_baselines(files, table, progress=stop)
    assert list(table.users()) == USERS[:3]
    assert migrate_baselines(files, table).added == 36 - 6
    assert verify_baselines(files, table) == []


def test_what_cannot_be_read_is_named_and_left_alone(
    files: FileBaselineRepository, table: TimescaleBaselineRepository
) -> None:
    torn = files.place(USERS[3])
    torn.write_bytes(torn.read_bytes()[:300])
    newer = files.place(USERS[4])
    newer.write_text(newer.read_text().replace('{"schema":1', '{"schema":7', 1))
    (files.folder / "someone").mkdir()
    left = {path: path.read_bytes() for path in (torn, newer)}

    done = migrate_baselines(files, table)
    reasons = {one.path: one.reason for one in done.unreadable}
    assert reasons.keys() == {torn, newer, files.folder / "someone"}
    assert "not whole JSON" in reasons[torn]
    assert "schema 7" in reasons[newer]
    assert (done.users, done.added) == (6, 36 - 4 - 5)
    assert list(table.users()) == [user for user in USERS if user not in (USERS[3], USERS[4])]
    assert {path: path.read_bytes() for path in left} == left


def test_a_difference_is_found(
    files: FileBaselineRepository, table: TimescaleBaselineRepository, database: Database
) -> None:
    migrate_baselines(files, table)
    files.save(USERS[0], baseline(50))
    database.execute(
        "UPDATE baseline_history SET baseline = jsonb_set(baseline, '{metrics,glucose,mean}', '1') "
        "WHERE (user_id, created_at) IN (SELECT user_id, min(created_at) FROM baseline_history "
        "WHERE user_id = %s GROUP BY user_id)",
        [USERS[2]],
    )
    table.delete(USERS[5])
    found = verify_baselines(files, table)
    assert {one.user_id for one in found} == {USERS[0], USERS[2], USERS[5]}
    assert {one.question for one in found if one.user_id == USERS[0]} >= {"history", "latest"}
    assert not any(one.question == "latest" for one in found if one.user_id == USERS[2])


def test_what_is_saved_meanwhile_to_both_is_in_both(
    files: FileBaselineRepository, table: TimescaleBaselineRepository
) -> None:
    both: BaselineRepository = DualBaselineRepository(files, table)
    saved: list[SavedBaseline] = []

    def write() -> None:
        saved.extend(both.save(user, baseline(70)) for user in [*USERS, uuid.uuid4()])

    writer = threading.Thread(target=write)
    writer.start()
    migrate_baselines(files, table)
    writer.join()
    assert len(saved) == 9
    assert verify_baselines(files, table) == []
    for user in USERS:
        newest = table.latest(user)
        assert newest is not None
        assert number_of(newest.baseline) == 70


def test_a_folder_that_is_not_there_is_named(
    tmp_path: Path, table: TimescaleBaselineRepository
) -> None:
    with pytest.raises(UsageError, match=f"found none at {tmp_path}/nowhere"):
        migrate_baselines(FileBaselineRepository(tmp_path / "nowhere"), table)
