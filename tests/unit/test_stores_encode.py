"""Columns encoded in bulk equal what Feast makes of them value by value."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import DataError
from hyperfeast.stores.online import encode
from hyperfeast.stores.online.encode import timestamp_bytes, value_bytes, varints

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS = st.integers(-(2**50), 2**52)
_TIMES = _MICROS.map(lambda micros: _EPOCH + micros * timedelta(microseconds=1))
_EXACT = st.integers(-(2**53), 2**53)
_INT32 = st.integers(-(2**31), 2**31 - 1)
_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
_FLOAT32 = st.floats(width=32)
_TEXT = st.text(max_size=20)

_SCALARS: dict[ValueType, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    ValueType.DOUBLE: (pa.float64(), _FLOAT),
    ValueType.FLOAT: (pa.float32(), _FLOAT32),
    ValueType.INT32: (pa.int32(), _INT32),
    ValueType.INT64: (pa.int64(), _EXACT),
    ValueType.BOOL: (pa.bool_(), st.booleans()),
    ValueType.STRING: (pa.string(), _TEXT),
    ValueType.BYTES: (pa.binary(), st.binary(min_size=1, max_size=20)),
    ValueType.PDF_BYTES: (pa.binary(), st.binary(min_size=1, max_size=20)),
    ValueType.IMAGE_BYTES: (pa.large_binary(), st.binary(min_size=1, max_size=20)),
    ValueType.UNIX_TIMESTAMP: (pa.timestamp("us", "UTC"), _TIMES),
    ValueType.UUID: (pa.string(), st.uuids().map(str)),
    ValueType.TIME_UUID: (pa.string(), st.uuids().map(str)),
    ValueType.DECIMAL: (pa.string(), st.decimals(allow_nan=False).map(str)),
    ValueType.JSON: (pa.large_string(), st.dictionaries(_TEXT, _EXACT).map(json.dumps)),
}
_LISTS: dict[ValueType, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    ValueType.DOUBLE_LIST: (pa.float64(), _FLOAT),
    ValueType.FLOAT_LIST: (pa.float32(), _FLOAT32),
    ValueType.INT32_LIST: (pa.int32(), _INT32),
    ValueType.INT64_LIST: (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    ValueType.BOOL_LIST: (pa.bool_(), st.booleans() | st.none()),
    ValueType.STRING_LIST: (pa.string(), _TEXT | st.none()),
    ValueType.BYTES_LIST: (pa.binary(), st.binary(max_size=9) | st.none()),
    ValueType.UNIX_TIMESTAMP_LIST: (pa.timestamp("us", "UTC"), _TIMES | st.none()),
    ValueType.UUID_LIST: (pa.string(), st.uuids().map(str)),
    ValueType.TIME_UUID_LIST: (pa.string(), st.uuids().map(str)),
    ValueType.DECIMAL_LIST: (pa.string(), st.decimals(allow_nan=False).map(str)),
}


def _feasts(column: Any, kind: ValueType) -> list[bytes]:
    """As `feast materialize` converts an Arrow column."""
    values = column.to_numpy(zero_copy_only=False)
    return [value.SerializeToString() for value in python_values_to_proto_values(values, kind)]


@pytest.mark.parametrize("kind", _SCALARS, ids=lambda kind: kind.name)
@given(data=st.data())
def test_scalars_are_feasts(kind: ValueType, data: st.DataObject) -> None:
    arrow, values = _SCALARS[kind]
    column = pa.array(data.draw(st.lists(values | st.none(), max_size=12)), arrow)

    assert value_bytes(column, kind).to_pylist() == _feasts(column, kind)


@pytest.mark.parametrize("kind", _LISTS, ids=lambda kind: kind.name)
@given(data=st.data())
def test_lists_are_feasts(kind: ValueType, data: st.DataObject) -> None:
    arrow, values = _LISTS[kind]
    lists = st.lists(st.lists(values, max_size=5) | st.none(), max_size=8)
    column = pa.array(data.draw(lists), pa.list_(arrow))

    assert value_bytes(column, kind).to_pylist() == _feasts(column, kind)


@given(rows=st.lists(st.lists(_FLOAT32, min_size=3, max_size=3), min_size=1, max_size=5))
def test_vectors_of_a_fixed_length_are_lists(rows: list[list[float]]) -> None:
    fixed = pa.array(rows, pa.list_(pa.float32(), 3))
    lists = pa.array(rows, pa.list_(pa.float32()))

    found = value_bytes(fixed, ValueType.FLOAT_LIST)

    assert found.to_pylist() == _feasts(lists, ValueType.FLOAT_LIST)


@pytest.mark.parametrize("kind", [*_SCALARS, *_LISTS], ids=lambda kind: kind.name)
def test_a_slice_is_its_rows_alone(kind: ValueType) -> None:
    if kind in _SCALARS:
        arrow, strategy = _SCALARS[kind]
        whole = pa.array([_example(arrow)] * 3 + [None] + [_example(arrow)], arrow)
    else:
        arrow, strategy = _LISTS[kind]
        whole = pa.array([[_example(arrow)] * 2, [], None, [_example(arrow)], []], pa.list_(arrow))
    assert strategy is not None

    assert value_bytes(whole[2:4], kind).to_pylist() == value_bytes(whole, kind).to_pylist()[2:4]


def _example(arrow: pa.DataType) -> Any:
    examples = {"double": 1.5, "float": 2.5, "bool": True, "binary": b"x", "large_binary": b"x"}
    if pa.types.is_timestamp(arrow):
        return datetime(2024, 1, 1, tzinfo=UTC)
    if pa.types.is_integer(arrow):
        return 300
    return examples.get(str(arrow), "7")


# What has no bulk path: by Feast itself, so that equality of the messages is what there is to test.
_OTHERS: list[tuple[ValueType, Any, list[Any]]] = [
    (ValueType.MAP, pa.map_(pa.string(), pa.int64()), [{"a": 1, "b": 2}, None]),
    (ValueType.MAP_LIST, pa.list_(pa.map_(pa.string(), pa.string())), [[{"a": "x"}], None]),
    (ValueType.SCALAR_MAP, pa.map_(pa.int64(), pa.string()), [{1: "x", -2: "y"}, None]),
    (ValueType.STRUCT, pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": "x"}]),
    (ValueType.STRUCT_LIST, pa.list_(pa.struct([("a", pa.int64())])), [[{"a": 1}, {"a": 2}]]),
    (ValueType.JSON_LIST, pa.list_(pa.string()), [['{"a": 1}', "2"], None]),
    (ValueType.INT64_SET, pa.list_(pa.int64()), [[1, 2, 2], None]),
    (ValueType.STRING_SET, pa.list_(pa.string()), [["a"], None]),
    (ValueType.BOOL_SET, pa.list_(pa.bool_()), [[True, True]]),
    (ValueType.VALUE_LIST, pa.list_(pa.list_(pa.float64())), [[[1.0, 2.0], [3.0]], None]),
    (ValueType.VALUE_SET, pa.list_(pa.list_(pa.int64())), [[[1, 2]]]),
    (ValueType.ZONED_TIMESTAMP, pa.timestamp("us", "UTC"), [datetime(2024, 5, 1, tzinfo=UTC)]),
]


@pytest.mark.parametrize(("kind", "arrow", "values"), _OTHERS, ids=[row[0].name for row in _OTHERS])
def test_everything_else_is_what_feast_makes_of_the_python_values(
    kind: ValueType, arrow: Any, values: list[Any]
) -> None:
    found = value_bytes(pa.array(values, arrow), kind).to_pylist()

    expected = python_values_to_proto_values(values, kind)
    assert [Value.FromString(each) for each in found] == expected


def test_an_integer_beside_a_missing_one_keeps_all_its_digits() -> None:
    """Feast goes through floats there: of 2**53 + 1 it makes 2**53."""
    column = pa.array([2**53 + 1, None], pa.int64())

    found = value_bytes(column, ValueType.INT64).to_pylist()

    assert Value.FromString(found[0]).int64_val == 2**53 + 1
    assert found[1] == b""
    assert Value.FromString(_feasts(column, ValueType.INT64)[0]).int64_val == 2**53


def test_bytes_without_a_byte_are_no_missing_value() -> None:
    """Feast makes them one, but only in a column that holds nothing else."""
    column = pa.array([b"", None], pa.binary())

    found = value_bytes(column, ValueType.BYTES).to_pylist()

    assert [Value.FromString(each).WhichOneof("val") for each in found] == ["bytes_val", None]
    assert found == _feasts(pa.array([b"", None, b"x"]), ValueType.BYTES)[:2]
    assert _feasts(column, ValueType.BYTES) == [b"", b""]


def test_a_missing_element_of_integers_is_what_feasts_python_path_writes() -> None:
    """Its Arrow path raises."""
    found = value_bytes(pa.array([[1, None]]), ValueType.INT64_LIST).to_pylist()

    (expected,) = python_values_to_proto_values([[1, None]], ValueType.INT64_LIST)
    assert found == [expected.SerializeToString()]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_are_seconds(unit: str) -> None:
    """Feast takes a list's nanoseconds for seconds."""
    moment = datetime(2024, 2, 29, 12, tzinfo=UTC)
    scalar = pa.array([moment, None], pa.timestamp(unit, "UTC"))
    lists = pa.array([[moment, None]], pa.list_(pa.timestamp(unit)))
    missing = -(2**63)

    times = [
        Value.FromString(each) for each in value_bytes(scalar, ValueType.UNIX_TIMESTAMP).to_pylist()
    ]
    (listed,) = value_bytes(lists, ValueType.UNIX_TIMESTAMP_LIST).to_pylist()

    assert [time.unix_timestamp_val for time in times] == [moment.timestamp(), missing]
    assert list(Value.FromString(listed).unix_timestamp_list_val.val) == [
        moment.timestamp(),
        missing,
    ]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, 2**60], pa.int64()), ValueType.DOUBLE),
        (pa.array([0.5, 1e300]), ValueType.FLOAT),
        (pa.array([1.0, np.nan, 2.9, -2.9]), ValueType.INT64),
        (pa.array([1, 2], pa.uint8()), ValueType.INT32),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ValueType.STRING),
        (pa.array([1, 2]), ValueType.STRING),
        (pa.array([1_700_000_000, 0]), ValueType.UNIX_TIMESTAMP),
        (pa.nulls(3), ValueType.DOUBLE),
        (pa.nulls(2), ValueType.INT64_LIST),
    ],
    ids=str,
)
def test_other_arrow_types_are_taken_as_feast_takes_them(column: Any, kind: ValueType) -> None:
    assert value_bytes(column, kind).to_pylist() == _feasts(column, kind)


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (pa.array([1, 2**31]), ValueType.INT32, "do not fit 32 bits"),
        (pa.array([2**63], pa.uint64()), ValueType.INT64, "do not fit 64 bits"),
        (pa.array([float(2**63)]), ValueType.INT64, "do not fit 64 bits"),
        (pa.array(["x"]), ValueType.DOUBLE, "cannot be written as DOUBLE"),
        (pa.array([{"a": 1}]), ValueType.INT64_LIST, "cannot be written as INT64_LIST"),
        (pa.array(["{no json"]), ValueType.JSON, "Invalid JSON"),
    ],
)
def test_what_does_not_fit_its_type_is_refused(column: Any, kind: ValueType, message: str) -> None:
    with pytest.raises(DataError, match=message):
        value_bytes(column, kind)


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_varints_are_protobufs(numbers: list[int]) -> None:
    found = varints(np.array(numbers)).to_pylist()

    assert [b"\x20" + each for each in found] == [
        Value(int64_val=number).SerializeToString() for number in numbers
    ]


@given(micros=st.lists(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999), min_size=1))
def test_timestamps_are_protobufs(micros: list[int]) -> None:
    expected = []
    for moment in micros:
        message = Timestamp()
        message.FromMicroseconds(moment)
        expected.append(message.SerializeToString())

    assert timestamp_bytes(np.array(micros)).to_pylist() == expected


@given(rows=st.lists(st.tuples(st.binary(), st.binary()), min_size=1))
def test_pieces_are_joined_row_by_row(rows: list[tuple[bytes, bytes]]) -> None:
    first, second = (
        pa.array(list(column), pa.large_binary()) for column in zip(*rows, strict=True)
    )

    joined = encode.joined([b"<", first, b"|", second, b">"])

    assert joined.to_pylist() == [b"<%b|%b>" % row for row in rows]
    assert encode.sizes(joined).tolist() == [len(a) + len(b) + 3 for a, b in rows]
