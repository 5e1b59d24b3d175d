"""Stored values as Python's own: what Feast's own code makes of them, or a refusal."""

from typing import Any

import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType
from hypothesis import example, given
from hypothesis import strategies as st

from hyperfeast.stores.online import plain

_VALUES: dict[ValueType, tuple[str, st.SearchStrategy[Any]]] = {
    ValueType.DOUBLE: ("double_val", st.floats(allow_nan=False)),
    ValueType.FLOAT: ("float_val", st.floats(width=32, allow_nan=False)),
    ValueType.INT64: ("int64_val", st.integers(-(2**63), 2**63 - 1)),
    ValueType.INT32: ("int32_val", st.integers(-(2**31), 2**31 - 1)),
    ValueType.BOOL: ("bool_val", st.booleans()),
    ValueType.STRING: ("string_val", st.text(max_size=300)),
}


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[ValueType], list[list[bytes | None]]]:
    """Kinds, and rows of their values; of which some are missing."""
    kinds = draw(st.lists(st.sampled_from([*_VALUES]), min_size=1, max_size=4))
    cells = [
        st.one_of(
            st.sampled_from([None, b""]),
            values.map(lambda one, field=field: Value(**{field: one}).SerializeToString()),
        )
        for field, values in map(_VALUES.__getitem__, kinds)
    ]
    rows = draw(st.lists(st.tuples(*cells).map(list), min_size=1, max_size=40))
    return kinds, rows


def _of_feast(rows: list[list[bytes | None]]) -> list[list[Any]]:
    return [
        [feast_value_type_to_python_type(Value.FromString(value or b"")) for value in column]
        for column in zip(*rows, strict=True)
    ]


@given(_tables())
def test_columns_are_feasts(table: tuple[list[ValueType], list[list[bytes | None]]]) -> None:
    kinds, rows = table
    assert repr(plain.columns(rows, kinds)) == repr(_of_feast(rows))


@pytest.mark.parametrize("rows", [1, 100])
def test_a_nan_that_is_stored_is_no_missing_value(rows: int) -> None:
    nan = Value(double_val=float("nan")).SerializeToString()
    assert repr(plain.columns([[nan, None]] * rows, [ValueType.DOUBLE] * 2)) == repr(
        [[float("nan")] * rows, [None] * rows]
    )


@given(st.sampled_from([*_VALUES]), st.binary(min_size=1, max_size=14))
@example(ValueType.INT64, b"\x20" + b"\xff" * 9 + b"\x7f")
@example(ValueType.INT32, b"\x18\x80\x80\x80\x80\x10")
@example(ValueType.INT64, b"\x20\x01\x20\x02")
@example(ValueType.BOOL, b"\x38\x02")
@example(ValueType.STRING, b"\x12\x01\xff")
@example(ValueType.STRING, b"\x12\x02a")
@example(ValueType.DOUBLE, b"\x29" + b"\x00" * 7)
def test_other_bytes_are_read_as_feast_reads_them_or_left_to_it(
    kind: ValueType, value: bytes
) -> None:
    found = plain.columns([[value]], [kind])
    assert found is None or repr(found) == repr(_of_feast([[value]]))


@pytest.mark.parametrize("kind", [*_VALUES])
def test_a_value_of_another_type_is_left_to_feast(kind: ValueType) -> None:
    other = Value(string_val="x") if kind is not ValueType.STRING else Value(double_val=1.0)
    assert plain.columns([[other.SerializeToString()]], [kind]) is None
    many = [[other.SerializeToString()]] * 100
    assert plain.columns(many, [kind]) is None


def test_lists_and_texts_with_a_meaning_are_not_plain() -> None:
    assert not any(
        plain.covers(kind)
        for kind in (ValueType.JSON, ValueType.UUID, ValueType.UNIX_TIMESTAMP, ValueType.INT64_LIST)
    )
