"""The bytes of Feast's protobuf values as NumPy and Arrow columns, a whole column at a time.

The fast paths take values as protobuf libraries write them: one field, its length exact. A column with
anything else in it (fields out of order, repeated, unknown; another type than the declared one) is parsed
value by value instead, so that what is unusual is slower and never read wrongly.

A value is missing if its bytes are None (never written) or empty (written as null).
"""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE, feast_value_type_to_python_type
from feast.value_type import ValueType
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from hyperfeast.errors import DataError
from hyperfeast.stores.online.encode import ArrayOfBytes, Column, of_sizes
from hyperfeast.stores.online.stored import (
    MORE,
    Stored,
    StoredColumn,
    Unusual,
    gathered,
    packed_varints,
    varints,
)

_LARGEST_TIME_S = np.iinfo(np.int64).max // 1_000_000
_LENGTH_DELIMITED, _VARINT, _FIXED_64, _FIXED_32 = 2, 0, 1, 5
_ELEMENT = b"\x0a"[0]
# Up to here a Python call a value costs less than NumPy's calls a column.
_FEW, _VERY_FEW = 512, 64
_DISTINCT_TIMES = 4096

_DOUBLE_TAG, _FLOAT_TAG = b"\x29"[0], b"\x35"[0]
_DOUBLE_BYTES, _FLOAT_BYTES = 9, 5
_NAN = b"\x29" + struct.pack("<d", float("nan"))
_as_double = struct.Struct("<d").unpack_from
_as_float = struct.Struct("<f").unpack_from

_NUMBERS = frozenset(
    {
        ValueType.INT32,
        ValueType.INT64,
        ValueType.DOUBLE,
        ValueType.FLOAT,
        ValueType.BOOL,
        ValueType.UNIX_TIMESTAMP,
    }
)
_BYTES = frozenset({ValueType.BYTES, ValueType.PDF_BYTES, ValueType.IMAGE_BYTES})
_TEXTS = frozenset(
    {ValueType.STRING, ValueType.JSON, ValueType.UUID, ValueType.TIME_UUID, ValueType.DECIMAL}
)
_FIXED_WIDTH: "dict[ValueType, np.dtype[Any]]" = {
    ValueType.DOUBLE: np.dtype("<f8"),
    ValueType.FLOAT: np.dtype("<f4"),
}
# Feast's messages keep pictures and documents as plain bytes.
_FIELDS = {ValueType.PDF_BYTES: ValueType.BYTES.value, ValueType.IMAGE_BYTES: ValueType.BYTES.value}
_NUMERIC_FIELDS = frozenset(
    {"int32_val", "int64_val", "double_val", "float_val", "bool_val", "unix_timestamp_val"}
)
_ARROW: dict[ValueType, pa.DataType] = {
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.FLOAT: pa.float32(),
    ValueType.BOOL: pa.bool_(),
    ValueType.UNIX_TIMESTAMP: pa.timestamp("us", "UTC"),
    **dict.fromkeys(_BYTES, pa.binary()),
    **dict.fromkeys(_TEXTS, pa.string()),
}


def is_number(kind: ValueType) -> bool:
    """Whether a feature of this type can stand in a matrix of numbers."""
    return kind in _NUMBERS


def element_type(kind: ValueType) -> ValueType | None:
    """What a list or a set of this type holds; None if it is neither, or nested."""
    name = kind.name.removesuffix("_LIST").removesuffix("_SET")
    if name == kind.name or name not in ValueType.__members__:
        return None
    element = ValueType[name]
    return element if element in _ARROW else None


def arrow_type(kind: ValueType) -> pa.DataType | None:
    """The Arrow type of a decoded column; None where it follows from the values (maps, structures)."""
    element = element_type(kind)
    return pa.list_(_ARROW[element]) if element else _ARROW.get(kind)


def matrix(
    rows: Sequence[Stored], kinds: Sequence[ValueType], names: Sequence[str]
) -> NDArray[np.float64]:
    """Values of numeric features as numbers.

    Args:
        rows: n rows of k values.
        kinds: the features' types; each a number.
        names: of the features, for messages.

    Returns:
        n x k. NaN where a value is missing; True is 1; a time is in seconds since 1970. Integers beyond
        2**53 are rounded to the nearest float64.

    Raises:
        DataError: a value is stored that is not a number.
    """
    shape = (len(rows), len(kinds))
    flat = [value or _NAN for value in chain.from_iterable(rows)]
    if (found := doubles(flat)) is not None:
        return found.reshape(shape)
    if len(flat) <= _FEW:
        few = [_number(value, name) for value, name in zip(flat, [*names] * len(rows), strict=True)]
        return np.array(few, np.float64).reshape(shape)
    out = np.empty(shape)
    for position, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        out[:, position] = numbers([row[position] for row in rows], kind, name)
    return out


def doubles(values: Sequence[bytes]) -> NDArray[np.float64] | None:
    """The values, if each is a float64 as protobuf libraries write it."""
    if not set(map(len, values)) <= {_DOUBLE_BYTES}:
        return None
    cells = np.frombuffer(b"".join(values), np.uint8).reshape(-1, _DOUBLE_BYTES)
    if not (cells[:, 0] == _DOUBLE_TAG).all():
        return None
    return cells[:, 1:].copy().view("<f8").reshape(-1)


def numbers(values: Stored, kind: ValueType, name: str) -> NDArray[np.float64]:
    """One numeric feature's values; NaN where one is missing. See `matrix`."""
    column = StoredColumn.of(values)
    out = np.full(len(values), np.nan)
    try:
        out[column.rows] = _plain_numbers(column, kind)
    except Unusual:
        out[column.rows] = [_number(values[row] or _NAN, name) for row in column.rows]
    if kind is ValueType.UNIX_TIMESTAMP:
        out[out == NULL_TIMESTAMP_INT_VALUE] = np.nan
    return out


def dense_numbers(
    values: Stored | ArrayOfBytes, kind: ValueType, name: str
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The numbers of a numeric feature that are there, in its own type; times in seconds since 1970.

    Returns:
        The rows that have one, and their numbers.

    Raises:
        DataError: a value is stored that is not of the type.
    """
    found = StoredColumn.of(values)
    try:
        return found.rows, _plain_numbers(found, kind)
    except Unusual:
        parsed = _parsed_column(_listed(values), kind, name)
    there = parsed.is_valid().to_numpy(zero_copy_only=False)
    if kind is ValueType.UNIX_TIMESTAMP:
        parsed = parsed.cast(pa.timestamp("s", "UTC")).cast(pa.int64())
    return np.flatnonzero(there), parsed.drop_null().to_numpy(zero_copy_only=False)


def column(values: Stored | ArrayOfBytes, kind: ValueType, name: str) -> Column:
    """One feature's values as Arrow.

    Args:
        values: one a row.
        kind: the feature's declared type.
        name: of the feature, for messages.

    Returns:
        The type is `arrow_type(kind)`. Times are UTC, microseconds; sets are lists; JSON, UUIDs and
        decimals are text, as they are stored. Null where a value is missing.

    Raises:
        DataError: a value is stored that is not of the type.
    """
    if len(values) <= _VERY_FEW:
        return _parsed_column(_listed(values), kind, name)
    found = StoredColumn.of(values)
    try:
        dense = _plain_column(found, kind)
    except Unusual:
        return _parsed_column(_listed(values), kind, name)
    if len(found.rows) == len(values):
        return dense
    index = np.full(len(values), -1)
    index[found.rows] = np.arange(len(found.rows))
    return dense.take(pa.array(index, mask=index < 0))


def numbers_to_arrow(numbers: NDArray[Any], present: NDArray[np.bool_], kind: ValueType) -> Column:
    """Numbers in a feature's own type, times in seconds since 1970, as the column that `column` makes."""
    typed = _arrow(numbers != 0 if kind is ValueType.BOOL else numbers, kind)
    if present.all():
        return typed
    return _where(present, typed)


def timestamps(values: Stored) -> NDArray[np.datetime64]:
    """Event times out of the bytes of protobuf timestamps: UTC, microseconds; NaT where there is none."""
    if len(values) > _FEW:
        try:
            return _plain_timestamps(values)
        except Unusual:
            pass
    return np.array([_microseconds(value) for value in values], "<i8").view("datetime64[us]")


@lru_cache(_DISTINCT_TIMES)
def _microseconds(value: bytes | None) -> int:
    """Entities of one bar have the same."""
    if value is None:
        return int(np.iinfo(np.int64).min)
    moment = Timestamp.FromString(value)
    return int(moment.seconds * 1_000_000 + moment.nanos // 1_000)


def _plain_timestamps(values: Stored) -> NDArray[np.datetime64]:
    """Both parts where they are written in their order; a part that is zero is not written."""
    found = StoredColumn.of(values)
    here, ends = found.starts, found.starts + found.sizes
    seconds, here = _optional_varint(found.data, here, ends, 0x08)
    nanos, here = _optional_varint(found.data, here, ends, 0x10)
    if (here != ends).any():
        raise Unusual
    out = np.full(len(values), np.iinfo(np.int64).min)
    empty = [row for row, value in enumerate(values) if value == b""]
    out[empty] = 0
    out[found.rows] = seconds * 1_000_000 + nanos // 1_000
    return out.view("datetime64[us]")


def _optional_varint(
    data: NDArray[np.uint8], here: NDArray[np.int64], ends: NDArray[np.int64], tag: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values of a field that some rows have next, and what comes after it."""
    out = np.zeros(len(here), np.int64)
    has = here < ends
    has[has] = data[here[has]] == tag
    read, after = varints(data, here[has] + 1, ends[has])
    out[has] = read.view(np.int64)
    here = here.copy()
    here[has] = after
    return out, here


def _tag(kind: ValueType, wire_type: int) -> bytes:
    number = _FIELDS.get(kind, kind.value) << 3 | wire_type
    return bytes([number]) if number < MORE else bytes([number & 0x7F | MORE, number >> 7])


def _plain_numbers(found: StoredColumn, kind: ValueType) -> NDArray[Any]:
    """A dense array of the values that are there, in their own type; times are seconds."""
    if width := _FIXED_WIDTH.get(kind):
        body = found.after(_tag(kind, _FIXED_64 if kind is ValueType.DOUBLE else _FIXED_32))
        if (body.sizes != width.itemsize).any():
            raise Unusual
        return body.payload().view(width)
    body = found.after(_tag(kind, _VARINT))
    read, after = varints(body.data, body.starts, body.ends)
    if (after != body.ends).any():
        raise Unusual
    return _typed(read.view(np.int64), kind)


def _typed(read: NDArray[np.int64], kind: ValueType) -> NDArray[Any]:
    if kind is ValueType.BOOL:
        return read.astype(np.bool_)
    return read.astype(np.int32) if kind is ValueType.INT32 else read


def _plain_column(found: StoredColumn, kind: ValueType) -> Column:
    """A dense array of the values that are there."""
    if kind in _NUMBERS:
        return _arrow(_plain_numbers(found, kind), kind)
    if kind in _ARROW:
        body = found.after(_tag(kind, _LENGTH_DELIMITED)).delimited()
        return _texts(body.payload(), body.sizes, kind)
    element = element_type(kind)
    if element is None:
        raise Unusual
    message = found.after(_tag(kind, _LENGTH_DELIMITED)).delimited()
    if element in _NUMBERS:
        return _number_lists(message, element)
    return _text_lists(message, element)


def _arrow(values: NDArray[Any], kind: ValueType) -> Column:
    if kind is not ValueType.UNIX_TIMESTAMP:
        return pa.array(values, _ARROW[kind])
    missing = values == NULL_TIMESTAMP_INT_VALUE
    if (np.abs(np.where(missing, 0, values)) > _LARGEST_TIME_S).any():
        raise DataError(
            "a stored time lies beyond the year 294,247: expected seconds since 1970; were "
            "milliseconds or nanoseconds written?"
        )
    times: Column = pa.array(np.where(missing, 0, values) * 1_000_000, mask=missing)
    return times.cast(_ARROW[kind])


def _where(present: Any, values: Column) -> Column:
    """The values, null where they are not present."""
    kept: Column = pc.if_else(pa.array(present), values, pa.scalar(None, values.type))
    return kept


def _texts(payload: NDArray[np.uint8], sizes: NDArray[np.int64], kind: ValueType) -> Column:
    try:
        return of_sizes(payload, sizes).cast(_ARROW[kind])
    except pa.ArrowInvalid as error:
        # Not UTF-8: the parser says whose value it is.
        raise Unusual from error


def _number_lists(message: StoredColumn, element: ValueType) -> Column:
    """Lists whose elements are packed into one field; an empty list has no field."""
    filled = message.sizes > 0
    part = StoredColumn(
        message.data, message.starts[filled], message.sizes[filled], message.rows[filled]
    )
    body = part.after(bytes([_ELEMENT])).delimited()
    payload = body.payload()
    counts = np.zeros(len(filled), np.int64)
    if width := _FIXED_WIDTH.get(element):
        if (body.sizes % width.itemsize).any():
            raise Unusual
        counts[filled] = body.sizes // width.itemsize
        values = payload.view(width)
    else:
        ended = np.concatenate([[0], np.cumsum(payload < MORE)])
        ends = np.cumsum(body.sizes)
        if (payload[ends[body.sizes > 0] - 1] >= MORE).any():
            raise Unusual
        counts[filled] = ended[ends] - ended[ends - body.sizes]
        values = _typed(packed_varints(payload), element)
    return _lists(counts, _arrow(values, element))


def _text_lists(message: StoredColumn, element: ValueType) -> Column:
    """Lists of texts: a tag and a length before each element."""
    here, ends = message.starts.copy(), message.ends
    counts = np.zeros(len(here), np.int64)
    found_starts, found_sizes = [], []
    open_ = np.flatnonzero(here < ends)
    while len(open_):
        if (message.data[here[open_]] != _ELEMENT).any():
            raise Unusual
        lengths, starts = varints(message.data, here[open_] + 1, ends[open_])
        sizes = lengths.view(np.int64)
        if ((sizes < 0) | (sizes > ends[open_] - starts)).any():
            raise Unusual
        found_starts.append(starts)
        found_sizes.append(sizes)
        counts[open_] += 1
        here[open_] = starts + sizes
        open_ = open_[here[open_] < ends[open_]]
    starts = np.concatenate([np.zeros(0, np.int64), *found_starts])
    sizes = np.concatenate([np.zeros(0, np.int64), *found_sizes])
    # Rows stand one after another, so the order of the starts is that of rows and elements.
    order = np.argsort(starts, kind="stable")
    payload = gathered(message.data, starts[order], sizes[order])
    return _lists(counts, _texts(payload, sizes[order], element))


def _lists(counts: NDArray[np.int64], values: Column) -> Column:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    lists: Column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return lists


def _listed(values: Stored | ArrayOfBytes) -> Stored:
    return values.to_pylist() if isinstance(values, ArrayOfBytes) else values


def _parsed(value: bytes | None, name: str) -> tuple[str | None, Any]:
    """Which of a value's fields is set, and to what."""
    if not value:
        return None, None
    try:
        message = Value.FromString(value)
    except DecodeError as error:
        raise DataError(
            f"{name}: what is stored is no Feast value ({error}): something else wrote there; "
            "materialize the view again"
        ) from error
    field = message.WhichOneof("val")
    return (None, None) if field == "null_val" else (field, message)


def _number(value: bytes, name: str) -> float:
    """A number of whatever numeric type is stored."""
    if value[0] == _DOUBLE_TAG and len(value) == _DOUBLE_BYTES:
        return float(_as_double(value, 1)[0])
    if value[0] == _FLOAT_TAG and len(value) == _FLOAT_BYTES:
        return float(_as_float(value, 1)[0])
    field, message = _parsed(value, name)
    if field is None:
        return float("nan")
    if field not in _NUMERIC_FIELDS:
        raise _other_type(name, "a number", field)
    number = getattr(message, field)
    if field == "unix_timestamp_val" and number == NULL_TIMESTAMP_INT_VALUE:
        return float("nan")
    return float(number)


def _other_type(name: str, expected: str, field: str) -> DataError:
    return DataError(
        f"{name}: expected {expected}, found a stored {field.removesuffix('_val')}: the feature's type "
        "was changed after it was written; materialize the view again"
    )


def _parsed_column(values: Stored, kind: ValueType, name: str) -> Column:
    """The same as the fast paths, value by value, for whatever they do not take."""
    wanted = Value.DESCRIPTOR.fields_by_number[_FIELDS.get(kind, kind.value)].name
    cells = [_cell(value, wanted, name) for value in values]
    target, element = arrow_type(kind), element_type(kind) or kind
    if target is None or element is not ValueType.UNIX_TIMESTAMP:
        try:
            return pa.array(cells, target)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DataError(
                f"{name}: the stored values do not fit one Arrow column of {kind.name}: {error}; "
                "get_online_features() returns them as they are"
            ) from error
    present = [cell is not None for cell in cells]
    if kind is element:
        return _where(present, _arrow(np.array([cell or 0 for cell in cells], np.int64), kind))
    counts = np.array([len(cell or ()) for cell in cells], np.int64)
    times = _arrow(np.array(list(_all(cells)), np.int64), element)
    return _where(present, _lists(counts, times))


def _all(cells: Iterable[Iterable[int] | None]) -> Iterable[int]:
    return chain.from_iterable(cell or () for cell in cells)


def _cell(value: bytes | None, wanted: str, name: str) -> Any:
    field, message = _parsed(value, name)
    if field is None:
        return None
    if field == wanted:
        plain = getattr(message, field)
        if isinstance(plain, bool | int | float | str | bytes):
            return plain
        elements = getattr(plain, "val", None)
        nested = field in ("list_val", "set_val") or "map" in field or "struct" in field
        if elements is None or nested:
            return feast_value_type_to_python_type(message)
        return list(elements)
    if field in _NUMERIC_FIELDS and wanted in _NUMERIC_FIELDS:
        return _converted(getattr(message, field), wanted, field, name)
    raise _other_type(name, f"{wanted.removesuffix('_val')}", field)


def _converted(number: float, wanted: str, field: str, name: str) -> float | int | bool:
    """A number in the declared type, if that holds it exactly."""
    if wanted in ("double_val", "float_val"):
        return float(number)
    if number == int(number):
        return bool(number) if wanted == "bool_val" else int(number)
    raise _other_type(name, wanted.removesuffix("_val"), field)
