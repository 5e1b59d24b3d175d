"""Frames as PostgreSQL's binary COPY format, encoded by columns: no Python runs for a row.

A row is the number of its fields, and each field is a length (-1 for NULL) and that many bytes, all
big-endian (https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"). Rows are put
together from segments. A *block* is a run of bytes as wide in every row: lengths, and values that
have one width and no null. A *part* is as wide as each row's value: text, and what may be null.
Where all is one block, it is the message; otherwise each segment is laid at its rows' positions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from hyperfeast.errors import DataError

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_SLICE_ROWS = 65_536
_SLICE_TEXT_BYTES = 16 * 2**20

# PostgreSQL counts from 2000-01-01, Polars from 1970-01-01; PostgreSQL's calendar begins in 4714 BC.
_EPOCH_DAYS = 10_957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
_DAYS = (-2_440_588, 2_145_042_905)
_MICROSECONDS = (_DAYS[0] * 86_400_000_000, 2**63 - 1)
_EXACT_IN = {"float4": 2**24, "float8": 2**53}

_TEXT_OID, _FLOAT8_OID = 25, 701
_UUID_DIGITS = [*range(8), *range(9, 13), *range(14, 18), *range(19, 23), *range(24, 36)]
_UUID_HYPHENS = [8, 13, 18, 23]
_NO_DIGIT = 16

_Bytes: TypeAlias = NDArray[np.uint8]
_Integers: TypeAlias = NDArray[np.int64]
_Nulls: TypeAlias = NDArray[np.bool_]


class _Part(NamedTuple):
    """For each row, `lengths` bytes of `data` from `starts` on."""

    data: _Bytes
    starts: _Integers
    lengths: _Integers


class _Fixed(NamedTuple):
    """A field of one width without nulls: its big-endian values."""

    values: NDArray[Any]


class _Varying(NamedTuple):
    """A field whose rows differ in width: its lengths (-1 for NULL), and the parts that follow."""

    lengths: NDArray[Any]
    parts: Sequence[_Part]


_Field: TypeAlias = _Fixed | _Varying


class _Type(NamedTuple):
    """What columns a type of PostgreSQL takes, and how."""

    takes: str
    fits: Callable[[pl.DataType], bool]
    field: Callable[[pl.Series], _Field]


def encoded(frame: pl.DataFrame, types: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """What COPY … FROM STDIN (FORMAT binary) reads: the header, the rows in slices, the trailer.

    What fits: bool from Boolean; int2, int4, int8 from any integer; float8 from floats and integers;
    float4 from Float32 and integers; text, varchar, json, jsonb from String, Categorical, Enum; uuid
    from String (8-4-4-4-12 hexadecimal digits); date from Date; timestamptz from a zoned Datetime,
    nanoseconds rounded down to microseconds; text[] from List(String); float8[] from List(Float64). A
    column of nulls alone (Null) fits each. Numbers are never rounded: a value that the type cannot hold
    exactly is refused.

    Args:
        frame: the rows; the fields come in the order of its columns.
        types: the type of each column of the frame, as pg_type.typname has it (text[] is _text).

    Returns:
        Messages, encoded as they are asked for. About 65,000 rows each, fewer where text is long.

    Raises:
        DataError: a column does not fit its type: at once. A value does not: when its slice's turn comes.
    """
    misfits = [
        fault
        for name, dtype in frame.schema.items()
        if (fault := _misfit(name, dtype, types[name]))
    ]
    if misfits:
        raise DataError(f"{'; '.join(misfits)}: cast the frame's columns")
    return _messages(frame, types)


def _misfit(name: str, dtype: pl.DataType, type_name: str) -> str | None:
    kind = _TYPES.get(type_name)
    if kind is None:
        return (
            f"column {name} is {type_name} in the table, and only {', '.join(_TYPES)} can be copied"
        )
    if dtype == pl.Null or kind.fits(dtype):
        return None
    return f"column {name} is {type_name} in the table and takes {kind.takes}, found {dtype}"


def _messages(frame: pl.DataFrame, types: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    yield HEADER
    if frame.height:
        for part in frame.iter_slices(_rows_a_slice(frame)):
            fields = [_field(column, types[column.name]) for column in part]
            count = np.array(len(fields), ">i2")
            yield _joined(list(_segments(fields, part.height, [count])), part.height).data
    yield TRAILER


def _rows_a_slice(frame: pl.DataFrame) -> int:
    """Bounds memory: text can be of any length."""
    text = sum(int(column.str.len_bytes().sum()) for column in frame if column.dtype == pl.String)
    return max(1, min(_SLICE_ROWS, _SLICE_TEXT_BYTES * frame.height // max(text, 1)))


def _field(column: pl.Series, type_name: str) -> _Field:
    if column.null_count() == len(column):
        return _Varying(np.full(len(column), -1, ">i4"), ())
    return _TYPES[type_name].field(column)


# Rows from fields.


def _segments(
    fields: Sequence[_Field], rows: int, lead: Sequence[NDArray[Any]] = ()
) -> Iterator[NDArray[Any] | _Part]:
    """Blocks and parts in the order of a row's bytes; `lead` begins the first block."""
    members = list(lead)
    for field in fields:
        if isinstance(field, _Fixed):
            members += [np.array(field.values.itemsize, ">i4"), field.values]
        else:
            yield _block([*members, field.lengths], rows)
            yield from field.parts
            members = []
    if members:
        yield _block(members, rows)


def _block(members: Sequence[NDArray[Any]], rows: int) -> NDArray[Any]:
    """One packed structure a row; a member without a dimension is the same in every row."""
    layout = np.dtype([(f"f{number}", member.dtype) for number, member in enumerate(members)])
    pattern = np.zeros(1, layout)
    for name, member in zip(layout.names or (), members, strict=True):
        if not member.ndim:
            pattern[name] = member
    # Repeating plain bytes is several times faster than repeating a structure.
    block = np.tile(pattern.view(f"V{layout.itemsize}"), rows).view(layout)
    for name, member in zip(layout.names or (), members, strict=True):
        if member.ndim:
            block[name] = member
    return block


def _joined(segments: Sequence[NDArray[Any] | _Part], rows: int) -> _Bytes:
    if len(segments) == 1 and not isinstance(segments[0], _Part):
        return segments[0].view(np.uint8)
    widths = np.zeros(rows, np.int64)
    for segment in segments:
        widths += segment.lengths if isinstance(segment, _Part) else segment.itemsize
    ends = widths.cumsum()
    joined = np.empty(int(ends[-1]) if rows else 0, np.uint8)
    at = ends - widths
    for segment in segments:
        if isinstance(segment, _Part):
            _lay(segment, joined, at)
            at += segment.lengths
        elif rows:
            width = segment.itemsize
            _windows(joined, width)[at] = segment.view(f"V{width}")
            at += width
    return joined


def _lay(part: _Part, joined: _Bytes, at: _Integers) -> None:
    """Copy each row's bytes to where they belong.

    In pieces of 2^k bytes, one for each bit of a length: as many passes as the longest length has
    bits, whatever the lengths, and no index for each byte.
    """
    longest = int(part.lengths.max(initial=0))
    for bit in range(longest.bit_length()):
        width = 1 << bit
        rows = np.flatnonzero(part.lengths & width)
        if rows.size:
            wider = part.lengths[rows] & -(2 * width)
            source = _windows(part.data, width)[part.starts[rows] + wider]
            _windows(joined, width)[at[rows] + wider] = source


def _windows(data: _Bytes, width: int) -> NDArray[Any]:
    """A view whose item i is the `width` bytes from byte i on."""
    return np.ndarray((data.size - width + 1,), dtype=f"V{width}", buffer=data, strides=(1,))


# Fields from columns.


def _nulls(column: pl.Series) -> _Nulls | None:
    return column.is_null().to_numpy() if column.null_count() else None


def _fixed(column: pl.Series, values: NDArray[Any]) -> _Field:
    """Of big-endian values; what they are where the column is null does not matter."""
    nulls = _nulls(column)
    if nulls is None:
        return _Fixed(values)
    width = values.itemsize
    starts = np.arange(len(values)) * width
    lengths = np.where(nulls, 0, width)
    part = _Part(values.view(np.uint8), starts, lengths)
    return _Varying(_lengths(lengths, nulls), [part])


def _lengths(lengths: _Integers, nulls: _Nulls | None) -> NDArray[Any]:
    return (lengths if nulls is None else np.where(nulls, -1, lengths)).astype(">i4")


def _bounded(column: pl.Series, low: int, high: int, takes: str) -> pl.Series:
    """The integers of `column` with 0 for null.

    Raises:
        DataError: one of them is below `low` or above `high`.
    """
    # A column of nulls alone does not come here: there are both.
    extremes = cast("list[int]", [column.min(), column.max()])
    outside = [value for value in extremes if not low <= value <= high]
    if outside:
        raise DataError(
            f"column {column.name}: expected {takes}, found {outside[0]}: "
            "correct the value, or make the table's column wider"
        )
    return column.fill_null(0)


def _booleans(column: pl.Series) -> _Field:
    return _fixed(column, column.cast(pl.UInt8).fill_null(0).to_numpy())


def _integers(width: int) -> Callable[[pl.Series], _Field]:
    high = 2 ** (8 * width - 1) - 1
    takes = f"integers of {width} bytes"

    def field(column: pl.Series) -> _Field:
        values = _bounded(column, -high - 1, high, takes).cast(pl.Int64)
        return _fixed(column, values.to_numpy().astype(f">i{width}"))

    return field


def _floats(type_name: str) -> Callable[[pl.Series], _Field]:
    exact = _EXACT_IN[type_name]
    width = int(type_name.removeprefix("float"))
    takes = f"numbers that {type_name} holds exactly"

    def field(column: pl.Series) -> _Field:
        numbers = column.fill_null(0)
        if column.dtype.is_integer():
            numbers = _bounded(column, -exact, exact, takes)
        values = numbers.cast(pl.Float64 if width == np.float64().itemsize else pl.Float32)
        return _fixed(column, values.to_numpy().astype(f">f{width}"))

    return field


def _dates(column: pl.Series) -> _Field:
    days = _bounded(column.to_physical(), *_DAYS, "days since 1970 from 4714 BC on").to_numpy()
    return _fixed(column, (days.astype(np.int64) - _EPOCH_DAYS).astype(">i4"))


def _times(column: pl.Series) -> _Field:
    unit = column.dtype.time_unit if isinstance(column.dtype, pl.Datetime) else "us"
    counts = column.to_physical()
    if unit == "ns":
        values = counts.fill_null(0).to_numpy() // 1_000
    else:
        scale = {"us": 1, "ms": 1_000}[unit]
        low, high = -(-_MICROSECONDS[0] // scale), _MICROSECONDS[1] // scale
        takes = f"{unit} since 1970 from 4714 BC on that microseconds in 64 bits can hold"
        values = _bounded(counts, low, high, takes).to_numpy() * scale
    return _fixed(column, (values - _EPOCH_US).astype(">i8"))


def _uuids(column: pl.Series) -> _Field:
    text, nulls = _strings(column.cast(pl.String))
    present = slice(None) if nulls is None else ~nulls
    starts = text.starts[present]
    digits = None
    if (text.lengths[present] == len(_UUID_DIGITS) + len(_UUID_HYPHENS)).all():
        characters = _windows(text.data, 36)[starts].view(np.uint8).reshape(-1, 36)
        digits = _digits(characters)
    if digits is None:
        raise DataError(
            f"column {column.name}: expected UUIDs as 8-4-4-4-12 hexadecimal digits, "
            f"found {_no_uuid(column)!r}: correct the value"
        )
    values = np.zeros((len(column), 16), np.uint8)
    values[present] = digits[:, ::2] << 4 | digits[:, 1::2]
    return _fixed(column, values.reshape(-1).view("V16"))


def _digits(characters: _Bytes) -> _Bytes | None:
    """The 32 digits of each UUID, 0 to 15; None if one of them is no UUID."""
    digits = _DIGIT_OF[characters[:, _UUID_DIGITS]]
    hyphens = characters[:, _UUID_HYPHENS]
    return digits if (digits < _NO_DIGIT).all() and (hyphens == ord("-")).all() else None


def _no_uuid(column: pl.Series) -> str:
    pattern = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
    text = column.cast(pl.String)
    return str(text.filter(~text.str.contains(pattern))[0])


def _digit_of() -> _Bytes:
    table = np.full(256, _NO_DIGIT, np.uint8)
    for digits in (b"0123456789abcdef", b"0123456789ABCDEF"):
        table[list(digits)] = range(16)
    return table


_DIGIT_OF = _digit_of()


def _text(column: pl.Series) -> _Field:
    text, nulls = _strings(column.cast(pl.String))
    return _Varying(_lengths(text.lengths, nulls), [text])


def _jsonb(column: pl.Series) -> _Field:
    """The version of the format, 1, goes before the text."""
    text, nulls = _strings(column.cast(pl.String))
    present = np.ones(len(column), np.int64) if nulls is None else (~nulls).astype(np.int64)
    version = _Part(np.ones(1, np.uint8), np.zeros(len(column), np.int64), present)
    return _Varying(_lengths(text.lengths + 1, nulls), [version, text])


def _arrays(
    oid: int, element: pl.DataType, field: Callable[[pl.Series], _Field]
) -> Callable[[pl.Series], _Field]:
    """Dimensions, a flag, the elements' type; then a length, a lower bound, and the elements."""

    def of(column: pl.Series) -> _Field:
        lists = cast("pa.LargeListArray[Any]", _arrow(column.cast(pl.List(element))))
        bounds = _offsets(lists)
        flat = pl.Series(column.name, lists.values[bounds[0] : bounds[-1]], element)
        bounds = bounds - bounds[0]
        elements = field(flat)
        stream = _joined(list(_segments([elements], len(flat))), len(flat))
        ends = np.concatenate(([0], (_sizes(elements, len(flat)) + 4).cumsum()))
        starts, lengths = ends[bounds[:-1]], ends[bounds[1:]] - ends[bounds[:-1]]

        nulls = _nulls(column)
        counts = np.diff(bounds)
        # The second number would tell of nulls: the server goes by the elements' lengths.
        heads = np.zeros((len(column), 5), ">i4")
        heads[:, 0], heads[:, 2], heads[:, 3], heads[:, 4] = counts > 0, oid, counts, 1
        # An empty array has no dimension, and so neither length nor lower bound.
        widths = np.where(counts > 0, 20, 12)
        if nulls is not None:
            widths[nulls], lengths[nulls] = 0, 0
        head = _Part(heads.reshape(-1).view(np.uint8), np.arange(len(column)) * 20, widths)
        return _Varying(_lengths(widths + lengths, nulls), [head, _Part(stream, starts, lengths)])

    return of


def _sizes(field: _Field, rows: int) -> _Integers:
    """The bytes of each value, without its length."""
    if isinstance(field, _Fixed):
        return np.full(rows, field.values.itemsize)
    return np.maximum(field.lengths.astype(np.int64), 0)


def _strings(column: pl.Series) -> tuple[_Part, _Nulls | None]:
    """The bytes of a String column in UTF-8, and where it is null.

    Raises:
        DataError: a text has a NUL character, which PostgreSQL cannot store.
    """
    array = _arrow(column)
    offsets = _offsets(array)
    content = array.buffers()[2]
    data = np.frombuffer(memoryview(content) if content else b"", np.uint8)
    # Bytes may lie beneath a null: only a text that counts is held against the column.
    if not data[offsets[0] : offsets[-1]].all() and column.str.contains("\0", literal=True).any():
        raise DataError(
            f"column {column.name}: a text has the character NUL, and PostgreSQL cannot store it: "
            "remove it"
        )
    nulls = _nulls(column)
    lengths = np.diff(offsets)
    if nulls is not None:
        lengths[nulls] = 0
    return _Part(data, offsets[:-1], lengths), nulls


def _arrow(column: pl.Series) -> "pa.Array[Any]":
    return column.to_arrow(compat_level=pl.CompatLevel.oldest())


def _offsets(array: "pa.Array[Any]") -> _Integers:
    """Where each item of a large string or list begins, and the last one ends."""
    whole = np.frombuffer(memoryview(cast("pa.Buffer", array.buffers()[1])), np.int64)
    items = slice(array.offset, array.offset + len(array) + 1)
    return whole[items]


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.String, pl.Categorical, pl.Enum)


def _integral(dtype: pl.DataType) -> bool:
    return dtype.is_integer()


_TYPES: dict[str, _Type] = {
    "bool": _Type("Boolean", lambda dtype: dtype == pl.Boolean, _booleans),
    "int2": _Type("integers", _integral, _integers(2)),
    "int4": _Type("integers", _integral, _integers(4)),
    "int8": _Type("integers", _integral, _integers(8)),
    "float4": _Type(
        "Float32 or integers",
        lambda dtype: dtype.is_integer() or (dtype.is_float() and dtype != pl.Float64),
        _floats("float4"),
    ),
    "float8": _Type(
        "floats or integers",
        lambda dtype: dtype.is_integer() or dtype.is_float(),
        _floats("float8"),
    ),
    "text": _Type("String", _is_text, _text),
    "varchar": _Type("String", _is_text, _text),
    "json": _Type("String", _is_text, _text),
    "jsonb": _Type("String", _is_text, _jsonb),
    "uuid": _Type("String", _is_text, _uuids),
    "_text": _Type(
        "List(String)",
        lambda dtype: dtype in (pl.List(pl.String), pl.List(pl.Null)),
        _arrays(_TEXT_OID, pl.String(), _text),
    ),
    "_float8": _Type(
        "List(Float64)",
        lambda dtype: dtype in (pl.List(pl.Float64), pl.List(pl.Null)),
        _arrays(_FLOAT8_OID, pl.Float64(), _floats("float8")),
    ),
    "date": _Type("Date", lambda dtype: dtype == pl.Date, _dates),
    "timestamptz": _Type(
        "Datetime with a time zone",
        lambda dtype: isinstance(dtype, pl.Datetime) and dtype.time_zone is not None,
        _times,
    ),
}
