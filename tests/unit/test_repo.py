"""Reading a feature repository."""

from pathlib import Path

import pytest

from hyperfeast import sqlfiles
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


SET = """
from datetime import timedelta
from hyperfeast.features import Bars, Feature, FeatureSet, Key, Relation
from hyperfeast.indicators import log_return, ta
from hyperfeast.types import Timeframe

def declared(name, version, source=None, feature=None):
    feature = feature or Feature("rsi", "Strength.", ta("RSI"))
    return FeatureSet(
        name, version, (Key("symbol", "symbol"),), source or Bars(Timeframe.D1), (feature,), timedelta(1)
    )
"""


def test_versions_stand_side_by_side(folder: Path) -> None:
    text = (
        "\nold, new = declared('beside', 1), declared('beside', 2)\nother = declared('other', 1)\n"
    )
    (folder / "versions_a.py").write_text(SET + text)
    repo = FeatureRepo(folder)
    assert list(repo.feature_sets) == ["beside_v1", "beside_v2", "other_v1"]
    assert repo.feature_set("beside").version == 2
    assert repo.feature_set("beside_v1").version == 1
    assert [one.version for one in repo.chosen("beside")] == [1, 2]
    assert len(repo.chosen()) == 3


def test_one_version_declared_twice_is_refused(folder: Path) -> None:
    (folder / "versions_b.py").write_text(
        SET + "a, b = declared('twice', 1), declared('twice', 1)\n"
    )
    with pytest.raises(FeatureError, match=r"feature set twice v1 is declared twice: rename one"):
        _ = FeatureRepo(folder).feature_sets


def test_what_is_wrong_within_a_feature_is_named_with_its_set(folder: Path) -> None:
    (folder / "versions_c.py").write_text(
        SET + "one = FeatureSet(\n    name='spoilt',\n    version=1,\n    features=(\n"
        "        Feature('fast', 'Strength.', ta('RSI', timeperiod=1)),\n    ),\n)\n"
    )
    expected = r"versions_c\.py, line 16, feature set spoilt, feature fast: RSI: timeperiod=1 is out of range"
    with pytest.raises(FeatureError, match=expected):
        _ = FeatureRepo(folder).feature_sets


def test_what_a_set_says_itself_is_not_said_twice(folder: Path) -> None:
    (folder / "versions_d.py").write_text(SET + "one = declared('momentum', 0)\n")
    with pytest.raises(FeatureError, match=r"versions_d\.py, line \d+: feature set momentum v0: v"):
        _ = FeatureRepo(folder).feature_sets


def test_a_syntax_error_is_named(folder: Path) -> None:
    (folder / "versions_e.py").write_text("a = (\n")
    with pytest.raises(FeatureError, match=r"does not import: SyntaxError: '\(' was never closed"):
        _ = FeatureRepo(folder).feature_sets


RELATIONS = (
    SET
    + """
def over(name, query):
    return declared(name, 1, Relation(query), Feature("value", "One."))
"""
)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Queries beside those that there are."""
    own: dict[str, str] = {}
    monkeypatch.setattr(
        "hyperfeast.features.declaration.query",
        lambda file, name: own.get(name) or sqlfiles.query(file, name),
    )
    return own


def test_sets_that_read_each_other_are_refused(folder: Path, queries: dict[str, str]) -> None:
    queries["of_b"] = "SELECT * FROM features_circle_b_v1 -- not features_other_v1"
    queries["of_a"] = "SELECT * FROM features_circle_a_v1"
    (folder / "versions_f.py").write_text(
        RELATIONS + "a, b = over('circle_a', 'of_b'), over('circle_b', 'of_a')\n"
    )
    expected = (
        "feature set circle_. v1 reads feature set circle_. v1 reads feature set circle_. v1: a set "
        "cannot follow from itself: let one of their queries"
    )
    with pytest.raises(FeatureError, match=expected):
        _ = FeatureRepo(folder).feature_sets


def test_a_set_that_reads_itself_is_refused(folder: Path, queries: dict[str, str]) -> None:
    queries["of_itself"] = "SELECT * FROM features_snake_v1"
    (folder / "versions_g.py").write_text(RELATIONS + "a = over('snake', 'of_itself')\n")
    with pytest.raises(FeatureError, match="snake v1 reads feature set snake v1: a set cannot"):
        _ = FeatureRepo(folder).feature_sets


def test_a_set_comes_after_those_that_it_reads(folder: Path, queries: dict[str, str]) -> None:
    queries["of_last"] = "SELECT * FROM features_last_v1 JOIN features_nobodys_v1 USING (symbol)"
    (folder / "versions_h.py").write_text(
        RELATIONS + "first, last = over('first', 'of_last'), declared('last', 1)\n"
    )
    assert list(FeatureRepo(folder).feature_sets) == ["last_v1", "first_v1"]


def test_a_query_that_there_is_not_is_named(folder: Path) -> None:
    (folder / "versions_i.py").write_text(RELATIONS + "a = over('lost', 'no_such_query')\n")
    expected = (
        r"lost v1: there is no query 'no_such_query' in sql/queries/features\.sql: add it there"
    )
    with pytest.raises(FeatureError, match=expected):
        _ = FeatureRepo(folder).feature_sets
