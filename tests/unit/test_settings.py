"""Defaults that depend on where one stands."""

from pathlib import Path

import pytest

from hyperfeast.settings import Settings


def _repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feature_store.yaml").touch()
    return folder


def test_the_repository_is_the_one_that_one_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYPERFEAST_FEATURE_REPO", raising=False)
    own = _repository(tmp_path / "health")
    (own / "notes").mkdir()
    below = _repository(tmp_path / "project" / "feature_repo")
    for here, found in {
        own: own,
        own / "notes": own,
        below: below,
        below.parent: below,
    }.items():
        monkeypatch.chdir(here)
        assert Settings().feature_repo == found
    # Its own file goes before the folder below.
    _repository(below.parent)
    monkeypatch.chdir(below.parent)
    assert Settings().feature_repo == below.parent


def test_the_checkouts_own_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HYPERFEAST_FEATURE_REPO", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Settings().feature_repo == Path(__file__).parents[2] / "feature_repo"
