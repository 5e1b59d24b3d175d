"""Arrow columns as the bytes of Feast's protobuf values, a whole column at a time.

A column of byte strings is an `ArrayOfBytes` (Arrow's large_binary): one buffer and the offsets into it,
so that no Python object is made for a value. What has no such path (maps, sets, JSON, structures, nested
lists, decimals) goes through Feast's own conversion, value by value.

The result equals `feast.type_map.python_values_to_proto_values`, which this follows also where it
surprises: a missing value is a message without a field, and so is a NaN; a missing timestamp is the
smallest integer; in a list of floats a missing element is NaN, in any other 0, False, or "".
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import VALUE_TYPE_TO_PROTO_VALUE_MAP, python_values_to_proto_values
from feast.value_type import ValueType
from numpy.typing import NDArray

from hyperfeast.errors import DataError

Column: TypeAlias = "pa.Array[Any]"
ArrayOfBytes: TypeAlias = pa.LargeBinaryArray
Encoder: TypeAlias = Callable[[Column, ValueType], ArrayOfBytes]

_BYTES = pa.large_binary()
_VARINT_BYTES = 10
_VARINT, _LENGTH_DELIMITED = 0, 2
# A repeated field has the number 1 in all of Feast's list messages.
_REPEATED = b"\x0a"
_NO_TIME = np.iinfo(np.int64).min
_MICROS = 1_000_000

_FLOATS: dict[ValueType, "np.dtype[Any]"] = {
    ValueType.DOUBLE: np.dtype("<f8"),
    ValueType.FLOAT: np.dtype("<f4"),
}
_INTEGERS: dict[ValueType, "np.dtype[Any]"] = {
    ValueType.INT32: np.dtype("<i4"),
    ValueType.INT64: np.dtype("<i8"),
}
_TEXTS = (ValueType.STRING, ValueType.UUID, ValueType.TIME_UUID, ValueType.DECIMAL)
_BINARIES = (ValueType.BYTES, ValueType.PDF_BYTES, ValueType.IMAGE_BYTES)
_ELEMENTS = {
    ValueType[f"{element.name}_LIST"]: element
    for element in (
        *_FLOATS,
        *_INTEGERS,
        *_TEXTS,
        ValueType.BYTES,
        ValueType.BOOL,
        ValueType.UNIX_TIMESTAMP,
    )
}
# Arrow gives these to NumPy as pairs, or without their zone: Feast wants Python's own objects.
_OBJECTS = (
    ValueType.MAP,
    ValueType.MAP_LIST,
    ValueType.SCALAR_MAP,
    ValueType.STRUCT,
    ValueType.STRUCT_LIST,
    ValueType.ZONED_TIMESTAMP,
)


def value_bytes(column: Column, kind: ValueType) -> ArrayOfBytes:
    """Each value of a feature as its serialized `feast.types.Value`.

    Args:
        column: the values; times are UTC.
        kind: the feature's type.

    Raises:
        DataError: a value is not what the type says, or does not fit it.
    """
    column = plain(column)
    if pa.types.is_null(column.type):
        return fixed(np.empty((len(column), 0), np.uint8))
    if _has_bulk_lists(kind, column.type):
        return _lists(column, kind)
    return _scalar_encoder(kind, column.type)(column, kind)


def timestamp_bytes(micros: NDArray[np.int64]) -> ArrayOfBytes:
    """Moments as serialized `google.protobuf.Timestamp`.

    Args:
        micros: microseconds since 1970, UTC.
    """
    seconds, fraction = np.divmod(micros, _MICROS)
    return joined(
        [
            _unless_zero(b"\x08", seconds),
            _unless_zero(b"\x10", fraction * 1000),
        ]
    )


def plain(column: Column) -> Column:
    """The column as an Arrow array of large strings, large binaries, lists or numbers: one way to hold each."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_binary_view(kind) or _is_fixed_binary(kind):
        return column.cast(_BYTES)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return column.cast(pa.large_list(kind.value_type))
    return column


def text(column: Column) -> ArrayOfBytes:
    """Strings or bytes as bytes; numbers as Python writes them.

    Raises:
        DataError: the column holds neither.
    """
    column = plain(column)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.large_string())
    if not (pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"expected text, found {column.type}: cast it in the source")
    return _filled(column)


def integers(column: Column, width: np.dtype[Any]) -> NDArray[Any]:
    """Whole numbers of a width; a fraction is cut off, what is missing is 0.

    Raises:
        DataError: the column holds no numbers, or one that does not fit.
    """
    limits = np.iinfo(width)
    if pa.types.is_floating(column.type):
        found = _no_nulls(column, pa.float64(), 0.0)
        found = np.trunc(np.where(np.isnan(found), 0.0, found))
        # No float is the largest integer of 64 bits: the next one is beyond.
        outside = (found < limits.min) | (found >= -float(limits.min))
    elif pa.types.is_integer(column.type):
        found = _no_nulls(column, column.type, 0)
        outside = (found < limits.min) | (found > limits.max)
    else:
        raise DataError(f"expected whole numbers, found {column.type}: cast it in the source")
    if outside.any():
        first = found[outside][0]
        raise DataError(
            f"{int(outside.sum())} of {len(found)} values do not fit {width.itemsize * 8} bits "
            f"(the first is {first}): declare the feature Int64, or Float64 beyond that"
        )
    return found.astype(width, copy=False)


def seconds(column: Column) -> NDArray[np.int64]:
    """Times, or whole seconds, as seconds since 1970; a missing one is the smallest integer.

    Raises:
        DataError: the column holds neither times nor whole numbers.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        # Arrow's own cast to coarser units cuts off toward zero, Feast's (NumPy's) toward the past.
        times = column.to_numpy(zero_copy_only=False).astype("datetime64[s]").astype(np.int64)
    else:
        times = integers(column, np.dtype("<i8"))
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(missing, _NO_TIME, times)


def fixed(matrix: NDArray[np.uint8], present: NDArray[np.bool_] | None = None) -> ArrayOfBytes:
    """Rows of a matrix of bytes as byte strings.

    Args:
        matrix: n x width.
        present: n; the others become empty.
    """
    rows, width = matrix.shape
    if present is None or present.all():
        return of_sizes(matrix.reshape(-1), np.full(rows, width, np.int64))
    return of_sizes(matrix[present].reshape(-1), np.where(present, width, 0))


def of_sizes(data: NDArray[np.uint8], lengths: NDArray[np.int64]) -> ArrayOfBytes:
    """Byte strings that stand one after another in `data`."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return of_offsets(data, offsets)


def of_offsets(data: NDArray[Any], offsets: NDArray[np.int64]) -> ArrayOfBytes:
    """Byte strings between successive offsets into `data`."""
    # Arrow takes whatever has the buffer protocol; its stubs do not know NumPy's arrays for that.
    parts: list[Any] = [np.ascontiguousarray(offsets), data]
    buffers = [None, *map(pa.py_buffer, parts)]
    array: Any = pa.LargeBinaryArray.from_buffers(_BYTES, len(offsets) - 1, buffers)
    return _typed(array)


def sizes(column: ArrayOfBytes) -> NDArray[np.int64]:
    """The length of each byte string."""
    return np.diff(offsets_of(column))


def offsets_of(column: ArrayOfBytes) -> NDArray[np.int64]:
    """Where in the buffer each byte string begins, and the last ends: one more than rows."""
    if not len(column):
        return np.zeros(1, np.int64)
    buffer: Any = column.buffers()[1]
    offsets: NDArray[np.int64] = np.frombuffer(buffer, np.int64)
    return offsets[column.offset : column.offset + len(column) + 1]


def joined(pieces: Sequence[bytes | ArrayOfBytes]) -> ArrayOfBytes:
    """Row by row, the pieces one after another; bytes stand in every row. A null anywhere makes a null.

    Args:
        pieces: at least one of them a column.
    """
    written: list[Any] = [
        pa.scalar(piece, _BYTES) if isinstance(piece, bytes) else piece for piece in pieces
    ]
    return _typed(pc.binary_join_element_wise(*written, pa.scalar(b"", _BYTES)))


def varints(numbers: NDArray[np.int64]) -> ArrayOfBytes:
    """Numbers as protobuf varints; negative ones take ten bytes."""
    unsigned = numbers.astype(np.int64, copy=False).view(np.uint64)
    lengths = np.ones(len(unsigned), np.int64)
    for groups in range(1, _VARINT_BYTES):
        lengths += unsigned >= np.uint64(1 << 7 * groups)
    width = int(lengths.max(initial=1))
    place = np.arange(width, dtype=np.uint64)
    matrix = ((unsigned[:, None] >> (7 * place)) & 0x7F).astype(np.uint8)
    matrix[place < lengths[:, None] - 1] |= 0x80
    return of_sizes(matrix[place < lengths[:, None]], lengths)


def _scalar_encoder(kind: ValueType, arrow: pa.DataType) -> Encoder:
    if kind in _FLOATS and _is_number(arrow):
        return _floats
    if kind in _INTEGERS and _is_number(arrow):
        return _integers
    if kind is ValueType.BOOL and pa.types.is_boolean(arrow):
        return _booleans
    if kind is ValueType.UNIX_TIMESTAMP and _is_time(arrow):
        return _timestamps
    if (kind in _TEXTS and pa.types.is_large_string(arrow)) or (
        kind in _BINARIES and pa.types.is_large_binary(arrow)
    ):
        return _texts
    return _by_feast


def _has_bulk_lists(kind: ValueType, arrow: pa.DataType) -> bool:
    """Whether the elements of such lists can be written as one column."""
    if kind not in _ELEMENTS or not pa.types.is_large_list(arrow):
        return False
    inner = plain(pa.nulls(0, arrow.value_type)).type
    return _scalar_encoder(_ELEMENTS[kind], inner) is not _by_feast


def _floats(column: Column, kind: ValueType) -> ArrayOfBytes:
    numbers = _as_floats(column, _FLOATS[kind])
    matrix = np.empty((len(numbers), 1 + numbers.itemsize), np.uint8)
    matrix[:, 0] = _tag(kind)[0]
    matrix[:, 1:] = numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)
    return fixed(matrix, ~np.isnan(numbers))


def _integers(column: Column, kind: ValueType) -> ArrayOfBytes:
    present = column.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        present &= ~np.isnan(_no_nulls(column, pa.float64(), np.nan))
    written = joined([_tag(kind), varints(integers(column, _INTEGERS[kind]))])
    return _empty_unless(present, written)


def _booleans(column: Column, kind: ValueType) -> ArrayOfBytes:
    matrix = np.empty((len(column), 2), np.uint8)
    matrix[:, 0] = _tag(kind)[0]
    matrix[:, 1] = _no_nulls(column, pa.bool_(), fill=False)
    return fixed(matrix, column.is_valid().to_numpy(zero_copy_only=False))


def _timestamps(column: Column, kind: ValueType) -> ArrayOfBytes:
    return joined([_tag(kind), varints(seconds(column))])


def _texts(column: Column, kind: ValueType) -> ArrayOfBytes:
    present = column.is_valid().to_numpy(zero_copy_only=False)
    written = _filled(column)
    return _empty_unless(present, joined([_tag(kind), varints(sizes(written)), written]))


def _lists(column: Column, kind: ValueType) -> ArrayOfBytes:
    """Lists whose elements have a bulk path: the elements are written as one column, and cut."""
    flat = plain(pc.list_flatten(column))
    message = _elements(flat, _ELEMENTS[kind], _bounds(column))
    written = joined([_tag(kind), varints(sizes(message)), message])
    return _empty_unless(column.is_valid().to_numpy(zero_copy_only=False), written)


def _elements(flat: Column, element: ValueType, bounds: NDArray[np.int64]) -> ArrayOfBytes:
    """The repeated field of each list: numbers packed behind one length, strings each behind its own."""
    if element in _TEXTS or element in _BINARIES:
        written = _filled(flat)
        return _cut(joined([_REPEATED, varints(sizes(written)), written]), bounds)
    if element in _FLOATS:
        numbers = _as_floats(flat, _FLOATS[element])
        packed = of_offsets(numbers, bounds * numbers.itemsize)
    else:
        packed = _cut(varints(_whole(flat, element)), bounds)
    header = joined([_REPEATED, varints(sizes(packed))])
    return joined([_empty_unless(sizes(packed) > 0, header), packed])


def _whole(flat: Column, element: ValueType) -> NDArray[np.int64]:
    """The elements of a list as the integers that are written; Feast cuts their times off toward zero."""
    if element is ValueType.BOOL:
        return _no_nulls(flat, pa.bool_(), fill=False).astype(np.int64)
    if element in _INTEGERS:
        return integers(flat, _INTEGERS[element]).astype(np.int64)
    if pa.types.is_integer(flat.type):
        return seconds(flat)
    cut = _no_nulls(flat.cast(pa.timestamp("s"), safe=False), pa.int64(), _NO_TIME)
    return cut.astype(np.int64)


def _by_feast(column: Column, kind: ValueType) -> ArrayOfBytes:
    """Value by value, by Feast."""
    values: Any
    if kind in _OBJECTS:
        values = column.to_pylist(maps_as_pydicts="strict")
    else:
        values = column.to_numpy(zero_copy_only=False)
    try:
        messages = python_values_to_proto_values(values, kind)
    except Exception as error:
        # Feast raises what comes: TypeError, ValueError, AssertionError, a bare Exception.
        raise DataError(
            f"{str(column.type).replace('large_', '')} cannot be written as {kind.name} ({error}): "
            "cast it in the source, or declare the type that it has"
        ) from error
    return _typed(pa.array([each.SerializeToString() for each in messages], _BYTES))


def _tag(kind: ValueType) -> bytes:
    """The number of the type's field in Feast's message, and how it is written, as a varint."""
    name = "bytes_val" if kind in _BINARIES else VALUE_TYPE_TO_PROTO_VALUE_MAP[kind]
    number = Value.DESCRIPTOR.fields_by_name[name].number
    if kind in _FLOATS:
        wire_type = 1 if kind is ValueType.DOUBLE else 5
    elif kind in _INTEGERS or kind in (ValueType.BOOL, ValueType.UNIX_TIMESTAMP):
        wire_type = _VARINT
    else:
        wire_type = _LENGTH_DELIMITED
    tag: bytes = varints(np.array([number << 3 | wire_type]))[0].as_py()
    return tag


def _unless_zero(tag: bytes, numbers: NDArray[np.int64]) -> ArrayOfBytes:
    """A field outside of any choice: proto3 does not write its zero."""
    return _empty_unless(numbers != 0, joined([tag, varints(numbers)]))


def _empty_unless(present: NDArray[np.bool_], written: ArrayOfBytes) -> ArrayOfBytes:
    if present.all():
        return written
    return _typed(pc.if_else(pa.array(present), written, pa.scalar(b"", _BYTES)))


def _as_floats(column: Column, width: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as floats; a missing one is NaN, one too large for the width infinite."""
    with np.errstate(over="ignore"):
        return _no_nulls(column.cast(pa.float64(), safe=False), pa.float64(), np.nan).astype(width)


def _no_nulls(column: Column, arrow: pa.DataType, fill: object) -> NDArray[Any]:
    cast: Any = column.cast(arrow)
    found: NDArray[Any] = cast.fill_null(pa.scalar(fill, arrow)).to_numpy(zero_copy_only=False)
    return found


def _filled(column: Any) -> ArrayOfBytes:
    """Strings or bytes as bytes; a missing one is empty."""
    return _typed(column.cast(_BYTES).fill_null(b""))


def _typed(array: Any) -> ArrayOfBytes:
    """What Arrow's stubs know only as an array of something."""
    typed: ArrayOfBytes = array
    return typed


def _bounds(column: Column) -> NDArray[np.int64]:
    """Where each list's elements begin among all elements, and the last's end."""
    lengths = _no_nulls(pc.list_value_length(column), pa.int64(), 0)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _cut(elements: ArrayOfBytes, bounds: NDArray[np.int64]) -> ArrayOfBytes:
    """The written elements of each list, one after another."""
    data: Any = elements.buffers()[2] or b""
    return of_offsets(np.frombuffer(data, np.uint8), offsets_of(elements)[bounds])


def _is_number(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_integer(arrow) or pa.types.is_floating(arrow))


def _is_time(arrow: pa.DataType) -> bool:
    return bool(
        pa.types.is_timestamp(arrow) or pa.types.is_date(arrow) or pa.types.is_integer(arrow)
    )


def _is_fixed_binary(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(arrow))
