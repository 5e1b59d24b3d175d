"""Bytes of Feast's values as columns: whatever Feast can write, and only that, is read as Feast reads it."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE, feast_value_type_to_python_type
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import DataError
from hyperfeast.stores.online import decode
from unit.feast_values import COLLECTIONS, ELEMENTS, KINDS, contents, value_bytes

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = [kind for kind in ELEMENTS if decode.is_number(kind)]


def _columns(kind: ValueType) -> st.SearchStrategy[list[bytes | None]]:
    written = contents(kind).map(lambda content: value_bytes(kind, content))
    return st.lists(st.one_of(written, st.none(), st.just(b"")), max_size=12)


def _expected(stored: bytes | None, kind: ValueType) -> Any:
    """Feast's own reading, in the plain types that Arrow gives back."""
    if not stored:
        return None
    value = Value.FromString(stored)
    element = COLLECTIONS.get(kind, kind)
    raw = getattr(value, str(value.WhichOneof("val")))
    if element in (ValueType.JSON, ValueType.UUID, ValueType.TIME_UUID, ValueType.DECIMAL):
        return list(raw.val) if hasattr(raw, "val") else raw
    if element is ValueType.UNIX_TIMESTAMP:
        return [_moment(one) for one in raw.val] if hasattr(raw, "val") else _moment(raw)
    if kind.name.endswith("_SET"):
        return list(raw.val)
    return feast_value_type_to_python_type(value)


def _moment(seconds: int) -> datetime | None:
    return None if seconds == NULL_TIMESTAMP_INT_VALUE else _EPOCH + timedelta(seconds=seconds)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_column_is_what_feast_reads(kind: ValueType) -> None:
    @given(_columns(kind), st.sampled_from([1, 70]))
    def holds(few: list[bytes | None], times: int) -> None:
        stored = few * times
        found = decode.column(stored, kind, "f")
        assert found.type == decode.arrow_type(kind)
        found.validate(full=True)
        assert found.to_pylist() == [_expected(one, kind) for one in few] * times

    holds()


@pytest.mark.parametrize("kind", _NUMBERS, ids=lambda kind: kind.name)
def test_a_numeric_column_is_what_feast_reads(kind: ValueType) -> None:
    @given(_columns(kind))
    def holds(stored: list[bytes | None]) -> None:
        expected = [_number(one) for one in stored]
        np.testing.assert_array_equal(decode.numbers(stored, kind, "f"), expected)
        in_a_matrix = decode.matrix([[one] for one in stored], [kind], ["f"])
        np.testing.assert_array_equal(in_a_matrix, np.array(expected).reshape(-1, 1))

    holds()


def _number(stored: bytes | None) -> float:
    if not stored:
        return math.nan
    value = Value.FromString(stored)
    field = str(value.WhichOneof("val"))
    raw = getattr(value, field)
    is_no_time = field == "unix_timestamp_val" and raw == NULL_TIMESTAMP_INT_VALUE
    return math.nan if is_no_time else float(raw)


@given(
    st.lists(st.sampled_from(_NUMBERS), min_size=1, max_size=4).flatmap(
        lambda kinds: st.tuples(
            st.just(kinds),
            st.lists(
                st.tuples(
                    *[
                        contents(kind).map(lambda one, kind=kind: value_bytes(kind, one))
                        for kind in kinds
                    ]
                ),
                max_size=4,
            ),
        )
    ),
    st.sampled_from([1, 600]),
)
def test_a_mixed_matrix_is_the_same_for_few_and_for_many_rows(
    drawn: tuple[list[ValueType], list[tuple[bytes, ...]]], times: int
) -> None:
    kinds, rows = drawn
    found = decode.matrix(rows * times, kinds, [f"f{i}" for i in range(len(kinds))])
    assert found.shape == (len(rows) * times, len(kinds))
    expected = [[_number(one) for one in row] for row in rows]
    np.testing.assert_array_equal(found[: len(rows)], np.array(expected).reshape(-1, len(kinds)))


def test_nothing_is_missing_as_zero() -> None:
    found = decode.matrix([[None, b""]], [ValueType.DOUBLE, ValueType.INT64], ["a", "b"])
    assert np.isnan(found).all()


def test_a_value_with_repeated_and_unknown_fields_is_parsed() -> None:
    # The last field of a oneof counts; field 100 is unknown.
    odd = value_bytes(ValueType.DOUBLE, 1.0) + value_bytes(ValueType.DOUBLE, 2.0) + b"\xa0\x06\x01"
    stored = [odd, value_bytes(ValueType.DOUBLE, 3.0)] * 100
    assert decode.column(stored, ValueType.DOUBLE, "f").to_pylist() == [2.0, 3.0] * 100
    assert decode.numbers(stored, ValueType.DOUBLE, "f").tolist() == [2.0, 3.0] * 100


def test_eighteen_bytes_that_are_not_two_doubles_are_not_read_as_two() -> None:
    ten = value_bytes(ValueType.INT64, -1)[:-1] + b"\x01"
    eight = b"\x21"[:0] + value_bytes(ValueType.STRING, "sixsix")
    assert len(ten) + len(eight) in (18, 19)
    with pytest.raises(DataError, match="f1: expected a number, found a stored string"):
        decode.matrix([[ten, eight]], [ValueType.DOUBLE, ValueType.DOUBLE], ["f0", "f1"])


def test_another_numeric_type_than_the_declared_one_is_converted_if_it_fits() -> None:
    stored = [value_bytes(ValueType.INT64, 7), value_bytes(ValueType.DOUBLE, 2.5)]
    assert decode.column(stored, ValueType.DOUBLE, "f").to_pylist() == [7.0, 2.5]
    assert decode.numbers(stored, ValueType.DOUBLE, "f").tolist() == [7.0, 2.5]
    with pytest.raises(DataError, match="f: expected int64, found a stored double"):
        decode.column(stored, ValueType.INT64, "f")


def test_another_type_is_refused_with_the_feature_and_the_remedy() -> None:
    stored = [value_bytes(ValueType.STRING, "7")]
    for read in (decode.column, decode.numbers):
        with pytest.raises(
            DataError, match=r"price: expected .*, found a stored string.*materialize"
        ):
            read(stored, ValueType.DOUBLE, "price")


def test_bytes_that_are_no_value_are_refused() -> None:
    with pytest.raises(DataError, match="price: what is stored is no Feast value"):
        decode.column([b"\xff\xff\xff"], ValueType.STRING, "price")


def test_an_integer_too_large_for_its_type_is_refused() -> None:
    with pytest.raises(DataError, match="price: the stored values do not fit"):
        decode.column([value_bytes(ValueType.INT64, 2**40)], ValueType.INT32, "price")


@pytest.mark.parametrize("kind", [ValueType.UNIX_TIMESTAMP, ValueType.UNIX_TIMESTAMP_LIST])
def test_a_time_in_nanoseconds_is_refused(kind: ValueType) -> None:
    nanos = 1_700_000_000_000_000_000
    stored = [value_bytes(kind, nanos if kind is ValueType.UNIX_TIMESTAMP else [nanos])]
    with pytest.raises(DataError, match="expected seconds since 1970"):
        decode.column(stored, kind, "seen")


def test_what_arrow_has_no_fixed_type_for_is_what_feast_gives() -> None:
    value = Value()
    value.map_val.val["a"].int64_val = 3
    found = decode.column([value.SerializeToString(), None], ValueType.MAP, "f")
    assert found.to_pylist() == [{"a": 3}, None]
    assert pa.types.is_struct(found.type)


@given(
    st.lists(st.one_of(st.none(), st.datetimes()), max_size=8),
    st.sampled_from([1, 200]),
)
def test_timestamps_are_exact_to_the_microsecond(
    moments: list[datetime | None], times: int
) -> None:
    stored = [None if one is None else _timestamp(one) for one in moments] * times
    expected = np.array([*moments] * times, "datetime64[us]")
    np.testing.assert_array_equal(decode.timestamps(stored), expected)


def _timestamp(moment: datetime) -> bytes:
    written = Timestamp()
    written.FromDatetime(moment)
    return bytes(written.SerializeToString())
