"""The gate, with rules of its own: no table, no database."""

import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfeast.ingest import gate
from hyperfeast.ingest.gate import expectations, judgment, screen
from hyperfeast.ingest.gate.rules import unique

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


def test_suspects_of_later_slices_keep_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgment, "_SLICE_ROWS", 2)
    told: list[tuple[int, int]] = []
    rows = _rows(("a", 1, 2), ("b", -1, 2), ("a", 1, 3), ("D", 1, 2), ("e", -1, 2))
    judged = gate.judge(
        rows, _RULES, key=("key", "kind"), values=("value", "high"),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert judged.refused.rows() == [
        (0, "duplicate_key"), (1, "positive"), (2, "duplicate_key"), (3, "name"), (4, "positive"),
    ]  # fmt: skip
    assert told == [(0, 5), (2, 5), (4, 5)]


def test_it_writes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _judge(_rows(("a", 1, 2), ("a", 1, 3)))
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_cannot_be_judged_lets_nothing_through() -> None:
    rows = _rows(("a", 1, 2))
    for rules, message in (
        (gate.present("absent", "nowhere"), "rule absent .* no column 'nowhere'"),
        ([gate.Rule("odd", "expect_column_values_to_be_unique", {"column": "key"})], "row by row"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gate.judge(rows, rules, key=("key", "kind"), values=("value",))
    with pytest.raises(RuntimeError, match="expect_column_values_to_not_be_null"):
        expectations.first_broken(rows, gate.present("absent", "nowhere"))


_A_PROCESS_OF_ITS_OWN = """
import sys
import polars as pl
from hyperfeast.ingest import gate

rules = gate.within("positive", "value", min_value=0)
gate.suite(rules)
for rows in [[("b", 1.0), ("a", 1.0), ("b", 1.0)], [("b", 1.0), ("a", -1.0)]]:
    frame = pl.DataFrame(rows, schema=["key", "value"], orient="row").with_row_index("row")
    frame = frame.with_columns(kind=pl.lit("k"))
    gate.judge(frame, rules, key=("key", "kind"), values=("value",))
    print("great_expectations" in sys.modules)
"""


def test_a_clean_batch_never_loads_great_expectations() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _A_PROCESS_OF_ITS_OWN], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]


_NOW = datetime(2024, 6, 1, 12, 30, 0, 1, tzinfo=UTC)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_EVERY_KIND = [
    *gate.present("text_missing", "text"),
    gate.matching("text_format", "text", r"[^\x00-\x1f\x7f]{1,4}"),
    gate.matching("symbol", "symbol", "[A-Za-z0-9^][A-Za-z0-9._:/^=-]{0,31}"),
    gate.among("once", "once", [True]),
    *gate.present("time_missing", "ts"),
    *gate.within("time_range", "ts", min_value=_EARLIEST, max_value=_NOW),
    *gate.within(
        "date_range", "day", min_value=datetime(1970, 1, 1), max_value=datetime(2100, 12, 31, 23)  # noqa: DTZ001
    ),
    gate.among("kind", "symbol", ["A", "B", "a-b", "^X", "\u00e9"]),
    *gate.present("number_missing", "x"),
    *gate.within("finite", "x", "y", **gate.FINITE),
    *gate.within("magnitude", "x", max_value=1e12),
    *gate.within("positive", "x", min_value=0, strict_min=True),
    *gate.within("below", "y", max_value=10, strict_max=True),
    *gate.at_least("highest", "x", "y"),
]  # fmt: skip
_SCHEMA = {
    "text": pl.String, "symbol": pl.String, "once": pl.Boolean, "ts": pl.Int64, "day": pl.Int32,
    "x": pl.Float64, "y": pl.Float64,
}  # fmt: skip

_NUMBERS = [
    None, 0.0, -0.0, 1.0, -1.0, 5e-324, 1e12, 1e12 + 1, 10.0, 1.7976931348623157e308,
    float("nan"), float("inf"), float("-inf"),
]  # fmt: skip
_TEXTS = [
    None, "", "A", "a\n", "\0", "\x7f", "\u00e9", "\U0001f600" * 4, "\u2028", "\x85", "aaaaa", "None", "nan",
]  # fmt: skip
_SYMBOLS = [None, "A", "B", "a-b", "^X", "\u00e9", "A\n", "-", "A" * 32, "A" * 33, "\u0663", ""]
_MICROS = [
    None, 0, -1, 2**63 - 1, -(2**63), -(2**63) + 1, 200_000 * 31_557_600_000_000,
    int((_NOW - _EARLIEST) / timedelta(microseconds=1)), int((_NOW - _EARLIEST) / timedelta(microseconds=1)) + 1,
]  # fmt: skip
_DAYS = [None, 0, -1, 47_846, 47_847, 10**7, 2**31 - 1, -(2**31)]


def test_times_in_any_zone_and_unit_are_compared_as_moments() -> None:
    moments = pl.Series([_NOW, _NOW + timedelta(microseconds=1), None])
    naive = moments.dt.replace_time_zone(None)
    rows = pl.DataFrame(
        {
            "there": moments.dt.convert_time_zone("America/New_York"),
            "millis": moments.cast(pl.Datetime("ms", "UTC")),
            "naive": naive,
        }
    ).with_row_index("row")
    local = _NOW.astimezone(ZoneInfo("Asia/Tokyo"))
    assert _agreed(rows, gate.within("late", "there", max_value=local)) == [1]
    assert _agreed(rows, gate.within("late", "millis", min_value=local)) == [0, 1]
    assert _agreed(rows, gate.within("late", "naive", max_value=_NOW.replace(tzinfo=None))) == [1]


def _cells(cells: list[tuple[Any, ...]]) -> pl.DataFrame:
    return (
        pl.DataFrame(cells, schema=_SCHEMA, orient="row")
        .with_columns(
            pl.col("ts").cast(pl.Datetime("us", "UTC")), pl.col("day").cast(pl.Date)
        )
        .with_row_index("row")
    )  # fmt: skip


def _agreed(rows: pl.DataFrame, rules: list[gate.Rule]) -> list[int]:
    """The suspects, which are exactly what the library refuses."""
    comparable = screen.comparable(rows, rules)
    suspects = screen.suspects(comparable, rules)["row"].to_list()
    assert suspects == expectations.first_broken(comparable, rules)["row"].to_list()
    return suspects


@pytest.mark.parametrize("rule", _EVERY_KIND, ids=lambda rule: f"{rule.name}-{rule.columns}")
def test_the_screen_and_great_expectations_agree_on_every_edge_of_a_rule(rule: gate.Rule) -> None:
    edges = {
        "text": _TEXTS, "symbol": _SYMBOLS, "once": [True, False, None], "ts": _MICROS, "day": _DAYS,
        "x": _NUMBERS, "y": _NUMBERS,
    }  # fmt: skip
    fixed = dict.fromkeys(edges)
    rows = _cells(
        [
            tuple((fixed | dict(zip(rule.columns, cells, strict=True))).values())
            for cells in product(*(edges[column] for column in rule.columns))
        ]
    )
    assert 0 < len(_agreed(rows, [rule])) < rows.height


_anything = st.tuples(
    st.sampled_from(_TEXTS) | st.text(max_size=5),
    st.sampled_from(_SYMBOLS) | st.text(max_size=3),
    st.sampled_from([True, True, True, False, None]),
    st.sampled_from(_MICROS) | st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(_DAYS) | st.integers(-(2**31), 2**31 - 1),
    st.sampled_from(_NUMBERS) | st.floats(),
    st.sampled_from(_NUMBERS) | st.floats(),
)
# Rows that break nothing, so that the screen has something to let through.
_clean = st.tuples(
    st.just("ok"), st.sampled_from(["A", "B"]), st.just(value=True), st.integers(0, 2),
    st.just(0), st.sampled_from([3.0, 4.0]), st.sampled_from([1.0, -0.0, 0.0]),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.lists(_anything | _clean, max_size=60))
def test_suspects_are_exactly_the_rows_that_great_expectations_refuses(
    cells: list[tuple[Any, ...]],
) -> None:
    _agreed(_cells(cells), _EVERY_KIND)


_KEY, _VALUES = ("symbol", "ts"), ("x", "y")
_FEW = [rule for rule in _EVERY_KIND if rule.name in {"symbol", "time_range", "finite", "highest"}]


def _by_great_expectations(rows: pl.DataFrame) -> tuple[list[int], int, list[tuple[int, str]]]:
    """Accepted rows, merged ones, and refused ones: all rows and all keys through the library."""
    refused = expectations.first_broken(screen.comparable(rows, _FEW), _FEW)
    passed = rows.join(refused, on="row", how="anti", maintain_order="left")
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in passed.iter_rows(named=True):
        distinct.setdefault(tuple(row[name] for name in (*_KEY, *_VALUES)), row)
    kept = pl.DataFrame(list(distinct.values()), schema=rows.schema)
    rule = unique("duplicate_key", _KEY)
    twice = expectations.first_broken(screen.comparable(kept, [rule]), [rule])
    keys = set(kept.join(twice, on="row", how="semi").select(_KEY).iter_rows())
    contradictory = [
        (row["row"], rule.name)
        for row in passed.iter_rows(named=True)
        if (row["symbol"], row["ts"]) in keys
    ]
    accepted = [row for row in kept["row"] if row not in dict(contradictory)]
    all_refused = sorted([*refused.iter_rows(), *contradictory])
    return accepted, rows.height - len(accepted) - len(all_refused), all_refused


@settings(max_examples=20, deadline=None)
@given(st.lists(_clean | _anything, max_size=15))
def test_the_judgment_is_that_of_great_expectations_alone(cells: list[tuple[Any, ...]]) -> None:
    rows = _cells(cells).drop("day")  # no rule here keeps it to what Python can hold
    judged = gate.judge(rows, _FEW, key=_KEY, values=_VALUES)
    accepted, merged, refused = _by_great_expectations(rows)
    assert judged.accepted["row"].to_list() == accepted
    assert judged.accepted.columns == rows.columns
    assert judged.merged == merged
    assert judged.refused.rows() == refused


@given(st.lists(st.tuples(st.sampled_from("ab") | st.none(), st.integers(0, 3) | st.none())))
def test_keys_that_come_again(cells: list[tuple[str | None, int | None]]) -> None:
    for ordered in (cells, sorted(cells, key=str), sorted(set(cells), key=str)):
        rows = pl.DataFrame(ordered, schema={"k": pl.String, "n": pl.Int64}, orient="row")
        again = screen.repeated(rows, ["k", "n"]).rows()
        assert again == [cell for cell in ordered if ordered.count(cell) > 1]


def _revisions(*rows: tuple[str, float, int | None]) -> gate.Judgment:
    frame = pl.DataFrame(
        rows, schema={"key": pl.String, "value": pl.Float64, "hour": pl.Int64}, orient="row"
    ).with_row_index("row")
    published = pl.lit(_EARLIEST) + pl.duration(hours=pl.col("hour"))
    return gate.judge(
        frame.with_columns(kind=pl.lit("k"), published=published),
        gate.present("given", "value"), key=("key", "kind"), values=("value", "published"),
        newest_by="published",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "accepted", "merged", "refused"),
    [
        ([("a", 1, 1), ("a", 2, 3), ("a", 3, 2)], [1], 2, []),
        ([("a", 1, 1), ("a", 1, 3)], [1], 1, []),
        ([("a", 1, None), ("a", 1, 3)], [1], 1, []),
        ([("a", 1, 1), ("a", 2, 1)], [], 0, [0, 1]),
        ([("a", 1, None), ("a", 2, 1)], [], 0, [0, 1]),
        ([("a", 1, 1), ("a", 2, 2), ("a", 2, None)], [1], 2, []),
        ([("a", 1, 1), ("a", 2, 2), ("a", 3, None), ("b", 1, 1)], [3], 0, [0, 1, 2]),
    ],
)
def test_the_newest_known_revision_of_a_key_wins(
    rows: list[tuple[str, float, int | None]],
    accepted: list[int],
    merged: int,
    refused: list[int],
) -> None:
    judged = _revisions(*rows)
    assert judged.accepted["row"].to_list() == accepted
    assert judged.merged == merged
    assert judged.refused.rows() == [(row, "duplicate_key") for row in refused]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([1.0, 2.0]), st.sampled_from([1, 2, 3, None])),
        max_size=5,
    ).flatmap(lambda rows: st.tuples(st.just(rows), st.permutations(rows)))
)  # fmt: skip
def test_the_order_of_revisions_makes_no_difference(
    both: tuple[list[tuple[str, float, int | None]], list[tuple[str, float, int | None]]],
) -> None:
    one, other = (_revisions(*rows) for rows in both)
    columns = ["key", "value", "hour"]
    assert sorted(map(str, one.accepted.select(columns).rows())) == sorted(
        map(str, other.accepted.select(columns).rows())
    )
    assert (one.merged, one.refused.height) == (other.merged, other.refused.height)


def test_the_suite_is_the_librarys_own_document() -> None:
    rules = [*_EVERY_KIND, unique("duplicate_key", _KEY)]
    document = gate.suite(rules, "candles")
    loaded = expectations._great_expectations().ExpectationSuite(**document).to_json_dict()
    assert loaded["name"] == "candles"
    assert [
        {name: expectation[name] for name in ("type", "kwargs", "meta")}
        for expectation in loaded["expectations"]
    ] == document["expectations"]
    assert document["expectations"][5] == {
        "type": "expect_column_values_to_be_between",
        "kwargs": {
            "column": "ts",
            "min_value": "1970-01-01T00:00:00+00:00",
            "max_value": "2024-06-01T12:30:00.000001+00:00",
        },
        "meta": {"rule": "time_range"},
    }
