"""Reading a feature repository."""

from pathlib import Path

import pytest

from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features.repo import FeatureRepo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    return tmp_path


def test_a_folder_without_a_store_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no feature_store\.yaml"):
        FeatureRepo(tmp_path)


def test_a_module_that_does_not_import_is_named(folder: Path) -> None:
    (folder / "broken_set.py").write_text("1 / 0\n")
    with pytest.raises(FeatureError, match=r"broken_set\.py does not import: ZeroDivisionError"):
        _ = FeatureRepo(folder).feature_sets


def test_a_module_named_like_another_is_not_passed_over(folder: Path) -> None:
    (folder / "calendar.py").write_text("")
    with pytest.raises(FeatureError, match=r"calendar\.py: the name is taken by .* rename it"):
        _ = FeatureRepo(folder).feature_sets


def test_what_feast_reads_is_left_to_feast(folder: Path) -> None:
    (folder / "definitions.py").write_text("1 / 0\n")
    assert FeatureRepo(folder).feature_sets == {}


def test_an_unknown_set_is_answered_with_those_there_are(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no feature set 'x' .* declares none"):
        FeatureRepo(folder).feature_set("x")
