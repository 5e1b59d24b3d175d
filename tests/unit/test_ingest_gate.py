"""The gate, with rules of its own: no table, no database."""

import tempfile
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.ingest import gate

_RULES = [
    *gate.present("given", "value"),
    *gate.within("positive", "value", min_value=0, strict_min=True),
    *gate.at_least("highest", "high", "value"),
    gate.matching("name", "key", "[a-z]+"),
]


def _rows(*rows: tuple[str, float | None, float]) -> pl.DataFrame:
    return (
        pl.DataFrame(
            rows, schema={"key": pl.String, "value": pl.Float64, "high": pl.Float64}, orient="row"
        )
        .with_row_index("row")
        .with_columns(kind=pl.lit("k"))
    )


def _judge(rows: pl.DataFrame) -> gate.Judgment:
    return gate.judge(rows, _RULES, key=("key", "kind"), values=("value", "high"))


def test_each_row_is_refused_by_the_first_rule_it_breaks() -> None:
    judged = _judge(
        _rows(
            ("a", 1, 2), ("b", None, 2), ("c", -1, -2), ("d", 3, 2), ("E", 1, 2), ("f\n", 1, 2), ("g", 1, 1),
            ("-h", 1, 1),
        )
    )  # fmt: skip
    assert judged.refused.rows() == [
        (1, "given"),
        (2, "positive"),
        (3, "highest"),
        (4, "name"),
        (5, "name"),
        (7, "name"),
    ]
    assert judged.accepted["key"].to_list() == ["a", "g"]
    assert judged.counts == {"name": 3, "given": 1, "highest": 1, "positive": 1}


def test_identical_rows_are_merged_and_contradictory_ones_all_refused() -> None:
    judged = _judge(
        _rows(
            ("a", 1, 2),
            ("a", 1, 2),
            ("b", 1, 2),
            ("b", 1, 3),
            ("b", 1, 2),
            ("c", 1, 2),
            ("c", -1, 2),
        )
    )
    assert judged.accepted["key"].to_list() == ["a", "c"]
    assert judged.merged == 1
    assert judged.refused.rows() == [
        (2, "duplicate_key"), (3, "duplicate_key"), (4, "duplicate_key"), (6, "positive"),
    ]  # fmt: skip


def test_no_rows() -> None:
    judged = _judge(_rows())
    assert judged.accepted.height == judged.merged == judged.refused.height == 0
    assert judged.counts == {}


def test_rows_of_later_slices_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_SLICE_ROWS", 2)
    told: list[tuple[int, int]] = []
    rows = _rows(("a", 1, 2), ("b", 1, 2), ("a", 1, 3), ("d", 1, 2), ("e", -1, 2))
    judged = gate.judge(
        rows, _RULES, key=("key", "kind"), values=("value", "high"),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert judged.refused.rows() == [(0, "duplicate_key"), (2, "duplicate_key"), (4, "positive")]
    assert told == [(0, 5), (2, 5), (4, 5)]


def test_it_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _judge(_rows(("a", 1, 2), ("a", 1, 3)))
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_cannot_be_judged_lets_nothing_through() -> None:
    with pytest.raises(RuntimeError, match="expect_column_values_to_not_be_null"):
        gate.judge(
            _rows(("a", 1, 2)),
            gate.present("absent", "nowhere"),
            key=("key", "kind"),
            values=("value",),
        )
