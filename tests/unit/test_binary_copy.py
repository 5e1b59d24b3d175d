"""The encoder of binary COPY against one that goes by rows, written from PostgreSQL's manual."""

import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.db import binary
from hyperfeast.errors import DataError
from typed_frames import KINDS, TYPES, frames

DAYS_TO_2000 = 10_957
US_TO_2000 = DAYS_TO_2000 * 86_400 * 10**6


def by_rows(frame: pl.DataFrame, types: dict[str, str]) -> bytes:
    columns = [_cells(column, types[column.name]) for column in frame]
    rows = zip(*columns, strict=True)
    body = b"".join(struct.pack(">h", len(columns)) + b"".join(row) for row in rows)
    return b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0) + body + struct.pack(">h", -1)


def _cells(column: pl.Series, type_name: str) -> list[bytes]:
    if isinstance(column.dtype, pl.Datetime | pl.Date):
        unit = getattr(column.dtype, "time_unit", None)
        values: Sequence[Any] = column.to_physical().to_list()
        if unit == "ms":
            values = [value if value is None else value * 1_000 for value in values]
        if unit == "ns":
            values = [value if value is None else value // 1_000 for value in values]
    else:
        values = column.to_list()
    return [_sized(None if value is None else _wire(value, type_name)) for value in values]


def _sized(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def _wire(value: Any, type_name: str) -> bytes:
    match type_name:
        case "bool":
            wire = b"\x01" if value else b"\x00"
        case "int2" | "int4" | "int8":
            wire = int(value).to_bytes(int(type_name[3:]), "big", signed=True)
        case "float4" | "float8":
            wire = np.array(value, f">f{type_name[5:]}").tobytes()
        case "jsonb":
            wire = b"\x01" + str(value).encode()
        case "uuid":
            wire = UUID(value).bytes
        case "date":
            wire = struct.pack(">i", value - DAYS_TO_2000)
        case "timestamptz":
            wire = struct.pack(">q", value - US_TO_2000)
        case "_text":
            items = [_sized(None if item is None else item.encode()) for item in value]
            shape = struct.pack(">ii", len(value), 1) if value else b""
            wire = struct.pack(">iii", bool(value), 0, 25) + shape + b"".join(items)
        case "_float8":
            items = [_sized(None if item is None else _wire(item, "float8")) for item in value]
            shape = struct.pack(">ii", len(value), 1) if value else b""
            wire = struct.pack(">iii", bool(value), 0, 701) + shape + b"".join(items)
        case _:
            wire = str(value).encode()
    return wire


def encoded(frame: pl.DataFrame, types: dict[str, str]) -> bytes:
    return b"".join(binary.encoded(frame, types))


@given(frames())
def test_the_bytes_are_those_of_an_encoder_by_rows(frame: pl.DataFrame) -> None:
    assert encoded(frame, TYPES) == by_rows(frame, TYPES)


@given(frames(), st.sets(st.sampled_from(list(KINDS)), min_size=1))
def test_any_columns_in_any_number(frame: pl.DataFrame, names: set[str]) -> None:
    some = frame.select(sorted(names))
    assert encoded(some, TYPES) == by_rows(some, TYPES)


@given(frames(), frames(), st.integers(0, 6))
def test_a_slice_of_a_frame_in_chunks_is_only_that_slice(
    first: pl.DataFrame, second: pl.DataFrame, start: int
) -> None:
    frame = pl.concat([first, second], rechunk=False)[start:]
    assert encoded(frame, TYPES) == by_rows(frame, TYPES)


def test_floats_keep_every_bit() -> None:
    bits = [0, 1 << 63, 1, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0xFFF8_0000_0000_0001]
    frame = pl.DataFrame({"x": np.array(bits, np.uint64).view(np.float64)})
    sent = encoded(frame, {"x": "float8"})
    assert sent[19:-2] == b"".join(struct.pack(">hiQ", 1, 8, one) for one in bits)


def test_what_lies_beneath_a_null_is_not_sent() -> None:
    offsets = pa.py_buffer(np.array([0, 20, 40, 60], np.int64).tobytes())
    text, valid = pa.py_buffer(b"abcde" * 4 + b"a\0" * 10 + b"abcde" * 4), pa.py_buffer(b"\x05")
    frame = pl.DataFrame({"x": pa.LargeStringArray.from_buffers(3, offsets, text, valid)})
    assert frame["x"].to_list() == ["abcde" * 4, None, "abcde" * 4]
    assert encoded(frame, {"x": "text"}) == by_rows(frame, {"x": "text"})


@pytest.mark.parametrize("length", [0, 1, 2, 3, 63, 64, 65, 4_095, 70_000])
def test_text_of_any_length_beside_text_of_another(length: int) -> None:
    texts = ["a" * length, None, "ü" * length, "", "b" * (length + 1), "c" * (length // 2)]
    frame = pl.DataFrame({"word": texts, "n": range(6)})
    types = {"word": "text", "n": "int8"}
    assert encoded(frame, types) == by_rows(frame, types)


def test_more_rows_than_a_slice() -> None:
    rows = 150_001
    frame = pl.select(
        n=pl.int_range(rows),
        symbol=pl.format("S{}", pl.int_range(rows) % 1_030),
        price=pl.when(pl.int_range(rows) % 7 > 0).then(pl.int_range(rows) / 3),
    )
    types = {"n": "int8", "symbol": "text", "price": "float8"}
    messages = list(binary.encoded(frame, types))
    assert len(messages) == 2 + 3
    assert b"".join(messages) == by_rows(frame, types)


def test_long_text_makes_small_messages() -> None:
    frame = pl.DataFrame({"word": ["x" * 2**20] * 64})
    messages = list(binary.encoded(frame, {"word": "text"}))
    assert max(len(message) for message in messages) < 17 * 2**20
    assert b"".join(messages) == by_rows(frame, {"word": "text"})


def test_no_rows_are_a_header_and_a_trailer() -> None:
    assert list(binary.encoded(pl.DataFrame({"n": []}, {"n": pl.Int64}), {"n": "int8"})) == [
        binary.HEADER,
        binary.TRAILER,
    ]


@pytest.mark.parametrize("type_name", sorted(set(TYPES.values())))
def test_a_column_of_nulls_alone_fits_every_type(type_name: str) -> None:
    frame = pl.DataFrame({"x": [None, None]})
    assert frame["x"].dtype == pl.Null
    assert encoded(frame, {"x": type_name}) == by_rows(frame, {"x": type_name})


@pytest.mark.parametrize("type_name", ["_text", "_float8"])
def test_lists_without_an_element_fit_any_array(type_name: str) -> None:
    frame = pl.DataFrame({"x": [[], [None]]})
    assert encoded(frame, {"x": type_name}) == by_rows(frame, {"x": type_name})


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["b", "a"])], ids=str)
def test_categories_go_as_their_text(dtype: pl.DataType) -> None:
    text = pl.DataFrame({"x": ["a", None, "b", "a"]})
    assert encoded(text.cast(dtype), {"x": "text"}) == encoded(text, {"x": "text"})


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.Int16, pl.UInt32, pl.Int64, pl.UInt64])
@pytest.mark.parametrize("type_name", ["int2", "int4", "int8", "float4", "float8"])
def test_integers_of_any_width_go_where_their_values_fit(
    dtype: pl.DataType, type_name: str
) -> None:
    frame = pl.DataFrame({"x": [0, None, 127]}, {"x": dtype})
    assert encoded(frame, {"x": type_name}) == by_rows(frame, {"x": type_name})


@pytest.mark.parametrize(
    ("column", "type_name", "message"),
    [
        (pl.Series([40_000]), "int2", "x: expected integers of 2 bytes, found 40000"),
        (
            pl.Series([-(2**31) - 1, 0]),
            "int4",
            "x: expected integers of 4 bytes, found -2147483649",
        ),
        (pl.Series([2**63], dtype=pl.UInt64), "int8", "found 9223372036854775808"),
        (pl.Series([2**53 + 1]), "float8", "float8 holds exactly, found 9007199254740993"),
        (pl.Series([2**24 + 1]), "float4", "float4 holds exactly, found 16777217"),
        (
            pl.Series([-(2**62)]).cast(pl.Datetime("us", "UTC")),
            "timestamptz",
            "from 4714 BC on that microseconds in 64 bits can hold, found -4611686018427387904",
        ),
        (pl.Series([2**62]).cast(pl.Datetime("ms", "UTC")), "timestamptz", "expected ms since"),
        (pl.Series([-(2**31)], dtype=pl.Int32).cast(pl.Date), "date", "expected days since"),
        (pl.Series(["a\0b"]), "text", "column x: a text has the character NUL"),
        (pl.Series([["a", "\0"]]), "_text", "column x: a text has the character NUL"),
        (pl.Series([None, "6f1c"]), "uuid", "expected UUIDs .* found '6f1c'"),
        (pl.Series(["6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4g"]), "uuid", "found '6f1c.*4g'"),
        (pl.Series(["6f1c6f0e03a55-4f0b-9b5c-0c6a3f1d2e4b"]), "uuid", "found '6f1c6f0e03a55-"),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    column: pl.Series, type_name: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encoded(column.to_frame("x"), {"x": type_name})


@pytest.mark.parametrize(
    ("dtype", "type_name", "takes"),
    [
        (pl.Datetime("us"), "timestamptz", "Datetime with a time zone"),
        (pl.Date(), "timestamptz", "Datetime with a time zone"),
        (pl.Datetime("us", "UTC"), "date", "Date"),
        (pl.Float64(), "float4", "Float32 or integers"),
        (pl.Float64(), "int8", "integers"),
        (pl.Int64(), "text", "String"),
        (pl.String(), "float8", "floats or integers"),
        (pl.Int8(), "bool", "Boolean"),
        (pl.Binary(), "uuid", "String"),
        (pl.Struct({"a": pl.Int8}), "jsonb", "String"),
        (pl.List(pl.Int64), "_text", "List(String)"),
        (pl.List(pl.Int64), "_float8", "List(Float64)"),
    ],
    ids=str,
)
def test_a_column_of_another_type_is_refused_at_once(
    dtype: pl.DataType, type_name: str, takes: str
) -> None:
    frame = pl.DataFrame({"x": []}, {"x": dtype})
    with pytest.raises(DataError) as refused:
        binary.encoded(frame, {"x": type_name})
    assert str(refused.value) == (
        f"column x is {type_name} in the table and takes {takes}, found {dtype}: "
        "cast the frame's columns"
    )


def test_each_column_that_does_not_fit_is_named() -> None:
    frame = pl.DataFrame({"a": [1], "b": [1.0], "c": ["x"]})
    with pytest.raises(DataError, match=r"column a is text .*; column b is int8 .*found Float64"):
        binary.encoded(frame, {"a": "text", "b": "int8", "c": "text"})


def test_a_type_that_cannot_be_copied_is_named_with_those_that_can() -> None:
    with pytest.raises(DataError, match=r"column x is numeric in the table, and only bool, int2"):
        binary.encoded(pl.DataFrame({"x": [1.0]}), {"x": "numeric"})
