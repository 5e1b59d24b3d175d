"""Baselines in files: what may lie in the folder, and what is left alone."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from baseline_samples import baseline, number_of
from hyperfeast import clock
from hyperfeast.baselines import FileBaselineRepository
from hyperfeast.errors import DataError, HyperfeastError, SchemaError, UsageError

USER = UUID("0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47")


@pytest.fixture
def files(tmp_path: Path) -> FileBaselineRepository:
    return FileBaselineRepository(tmp_path / "baselines")


def test_the_file_is_where_the_user_is_named(files: FileBaselineRepository) -> None:
    files.save(USER, baseline())
    place = files.folder / str(USER) / "baseline_history.json"
    document = json.loads(place.read_text())
    assert (document["schema"], document["user_id"]) == (1, str(USER))
    assert document["baselines"][0]["baseline"]["schema"] == 1
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def _newer(document: dict[str, Any]) -> None:
    document["schema"] = 2
    document["what_it_then_has"] = True


def _newer_inside(document: dict[str, Any]) -> None:
    document["baselines"][0]["baseline"]["schema"] = 2


def _not_finite(document: dict[str, Any]) -> None:
    document["baselines"][0]["baseline"]["metrics"]["glucose"]["mean"] = float("nan")


def _negative(document: dict[str, Any]) -> None:
    document["baselines"][0]["baseline"]["metrics"]["glucose"]["std"] = -987.0


def _naive(document: dict[str, Any]) -> None:
    document["baselines"][0]["created_at"] = "2024-01-01T00:00:00"


def _of_another(document: dict[str, Any]) -> None:
    document["user_id"] = str(UUID(int=1))


def _backwards(document: dict[str, Any]) -> None:
    document["baselines"].reverse()


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (_newer, SchemaError, "schema 2, and this version of hyperfeast reads up to 1"),
        (_newer_inside, SchemaError, "schema 2"),
        (_not_finite, DataError, "NaN|ValueError"),
        (_negative, DataError, r"metrics\.glucose\.std"),
        (_naive, DataError, "created_at"),
        (_of_another, DataError, f"is not the history of {USER}"),
        (_backwards, DataError, "each baseline saved after the one before"),
        (None, DataError, "not whole JSON"),
    ],
)
def test_what_cannot_be_read_is_named_and_left_alone(
    files: FileBaselineRepository,
    change: Callable[[dict[str, Any]], None] | None,
    error: type[HyperfeastError],
    says: str,
) -> None:
    for number in range(2):
        files.save(USER, baseline(number))
    place = files.place(USER)
    if change is None:
        place.write_bytes(place.read_bytes()[:-100])
    else:
        document = json.loads(place.read_text())
        change(document)
        place.write_text(json.dumps(document))
    before = place.read_bytes()
    calls: list[Callable[[], object]] = [
        lambda: files.latest(USER),
        lambda: files.save(USER, baseline()),
        lambda: files.keep(USER, []),
    ]
    for call in calls:
        with pytest.raises(error, match=says) as caught:
            call()
        assert str(place) in str(caught.value)
        assert "987" not in str(caught.value), "a value of the user's"
    assert place.read_bytes() == before
    (unreadable,) = files.unreadable()
    assert unreadable.path == place
    files.save(UUID(int=7), baseline())
    assert files.delete(USER) == 1, "but it can be forgotten"
    assert list(files.users()) == [UUID(int=7)]


def test_what_else_lies_in_the_folder_is_named(files: FileBaselineRepository) -> None:
    files.save(USER, baseline())
    (files.folder / "notes.txt").write_text("mine")
    (files.folder / "17").mkdir()
    (files.folder / str(UUID(int=0xABC)).upper()).mkdir()
    assert len(files.unreadable()) == 3
    assert list(files.users()) == [USER]


def test_a_user_id_is_no_way_out_of_the_folder(files: FileBaselineRepository) -> None:
    for bad in ("../../etc", "..", "", "x" * 500, "%2e%2e"):
        with pytest.raises(UsageError, match="is no user: expected a UUID"):
            files.save(bad, baseline())  # type: ignore[arg-type]
    assert not files.folder.exists()


def test_a_draft_of_one_that_was_killed_goes_with_the_next_save(
    files: FileBaselineRepository,
) -> None:
    files.save(USER, baseline(1))
    draft = files.place(USER).with_name(".baseline_history.json.deadbeef")
    draft.write_text('{"schema": 1, "user')
    assert [number_of(one.baseline) for one in files.history(USER)] == [1]
    files.save(USER, baseline(2))
    assert not draft.exists()
    assert files.delete(USER) == 2
    assert not files.place(USER).parent.exists()


def test_a_clock_that_stands_still_or_goes_back_keeps_the_order(
    files: FileBaselineRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    for number in range(3):
        files.save(USER, baseline(number))
    monkeypatch.setattr(clock, "now", lambda: now - timedelta(minutes=2))
    files.save(USER, baseline(3))
    history = files.history(USER)
    assert [number_of(one.baseline) for one in history] == [3, 2, 1, 0]
    assert history[0].created_at == now + timedelta(microseconds=3)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        FileBaselineRepository(tmp_path / "file").save(USER, baseline())
