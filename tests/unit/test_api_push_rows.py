"""A JSON body of rows: types as they are written, and nothing that two readers would read differently."""

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.api import rows
from hyperfeast.api.bodies import BodyLimit, BodyTooLarge
from hyperfeast.errors import DataError

_LIMIT = BodyLimit(1 << 20, "split it")


def _read(body: bytes | str, max_rows: int = 1_000) -> tuple[dict[str, Any], pl.DataFrame]:
    return rows.read(body.encode() if isinstance(body, str) else body, max_rows, _LIMIT)


def _frame(*found: dict[str, Any]) -> pl.DataFrame:
    return _read(json.dumps({"rows": found}))[1]


def test_options_and_rows_are_told_apart() -> None:
    options, frame = _read('{"source": "x", "rows": [{"a": 1}], "tz": null}')
    assert options == {"source": "x", "tz": None}
    assert frame.rows() == [(1,)]


@pytest.mark.parametrize(
    ("cells", "dtype", "read"),
    [
        ([1, -(2**63), None], pl.Int64, [1, -(2**63), None]),
        ([1, 2.5, None], pl.Float64, [1.0, 2.5, None]),
        ([None, None], pl.Null, [None, None]),
        (["a", None], pl.String, ["a", None]),
        ([1, "a", 2.5, 1e22, None], pl.String, ["1", "a", "2.5", "1e+22", None]),
        ([2**63, 1], pl.String, ["9223372036854775808", "1"]),
        ([2**63, 1.5], pl.Float64, [float(2**63), 1.5]),
        ([True, 1, None], pl.String, ["true", "1", None]),
        ([True, False], pl.String, ["true", "false"]),
        (["\0", 'é"\\'], pl.String, ["\0", 'é"\\']),
    ],
    ids=str,
)
def test_a_column_has_the_type_of_all_its_cells(
    cells: list[Any], dtype: pl.DataType, read: list[Any]
) -> None:
    frame = _frame(*({"a": cell} for cell in cells))
    assert_frame_equal(frame, pl.DataFrame({"a": pl.Series(read, dtype=dtype)}))


def test_cells_that_are_missing_are_null() -> None:
    frame = _frame({"a": 1}, {"b": "x"}, {})
    assert frame.to_dict(as_series=False) == {"a": [1, None, None], "b": [None, "x", None]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"rows": [{"a": NaN}]}', "no JSON"),
        (b'{"rows": [{"a": Infinity}]}', "no JSON"),
        (b'{"rows": [{"a": 1e999}]}', "no JSON"),
        (b'{"rows": [{"a": ' + b"9" * 400 + b"}]}", "no JSON"),
        (b'{"rows": [{"a": "\xc3"}]}', "no JSON"),
        (b'{"rows": [{"a": "\\ud800"}]}', "no JSON"),
        (b'{"rows": ' + b"[" * 1_000 + b"]" * 1_000 + b"}", "row 1 is a list"),
        (b'{"rows": [{"a": ' + b"[" * 900 + b"]" * 900 + b"}]}", "row 1: 'a' holds a list"),
        (b"[]", "no object"),
        (b"1", "no object"),
        (b"{}", 'expected "rows"'),
        (b'{"rows": null}', 'expected "rows"'),
        (b'{"rows": []}', 'expected "rows"'),
        (b'{"rows": {"a": [1]}}', 'expected "rows"'),
        (b'{"rows": [{"a": 1}, 5]}', "row 2 is a number"),
        (b'{"rows": [{"a": 1}, null]}', "row 2 is null"),
        (b'{"rows": [{}]}', "expected 1 to 64 columns, found 0"),
        (b'{"rows": [{"a": 1}, {"a": {"b": 2}}]}', "row 2: 'a' holds an object"),
        (b'{"source": ["x"], "rows": [{"a": 1}]}', "'source' holds a list"),
        (b'{"rows": [{"a": 1, "a": 2}]}', "twice"),
        (b'{"rows": [{"a": 1, "\\u0061": 2}]}', "twice"),
        (b'{"source": "x", "source": "y", "rows": [{"a": 1}]}', "twice"),
        (b'{"rows": [{"a": 1}], "rows": [{"a": 2}]}', "twice"),
        (json.dumps({"rows": [{f"c{n}": n} for n in range(65)]}).encode(), "found 65"),
        (json.dumps({"rows": [{"c" * 101: 1}]}).encode(), "longer than 100"),
        (json.dumps({f"o{n}": n for n in range(33)}).encode(), "33 keys"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_what_is_no_such_document_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(body)


def test_json_ten_thousand_deep_is_refused() -> None:
    with pytest.raises(DataError, match="no JSON"):
        _read(b'{"rows": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", max_rows=20_000)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"rows": [{"a": n} for n in range(11)]}).encode(),
        b'{"rows": [' + b"[]," * 100 + b"[]]}",
        b'{"rows": [{"a": [' + b"1.5," * 1_000 + b"1]}]}",
    ],
    ids=["rows", "lists", "values"],
)
def test_more_than_so_many_rows_have_is_too_large(body: bytes) -> None:
    with pytest.raises(BodyTooLarge) as refused:
        _read(body, max_rows=10)
    assert (refused.value.status_code, refused.value.detail) == (413, "split it")


_key = st.text(st.sampled_from('ab:"\\,{} é\0'), min_size=1, max_size=4)
_cell = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | _key
_cell |= st.floats(allow_nan=False, allow_infinity=False)
_rows = st.lists(st.dictionaries(_key, _cell, max_size=4), min_size=1, max_size=5)


@given(_rows.filter(any), st.booleans())
def test_any_rows_are_read_whatever_stands_in_their_strings(
    found: list[dict[str, Any]], ascii_only: bool
) -> None:
    body = json.dumps({"so:urce": "x", "rows": found}, ensure_ascii=ascii_only)
    _, frame = _read(body)
    assert frame.height == len(found)
    assert set(frame.columns) == {name for row in found for name in row}


@given(_rows.filter(any), st.data())
def test_a_key_that_comes_twice_is_found_wherever_it_stands(
    found: list[dict[str, Any]], data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from([n for n, row in enumerate(found) if row]))
    written = [json.dumps(row) for row in found]
    name = data.draw(st.sampled_from(list(found[place])))
    written[place] = written[place][:-1] + f", {json.dumps(name)}: 1}}"
    with pytest.raises(DataError, match="twice"):
        _read('{"rows": [' + ", ".join(written) + "]}")


def test_a_string_across_the_slices_of_the_count_is_one_string() -> None:
    long = ":" * (3 << 20)
    _, frame = rows.read(json.dumps({"rows": [{"a": long}]}).encode(), 10, _LIMIT)
    assert frame.item() == long
