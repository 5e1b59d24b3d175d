"""An Arrow IPC stream from anybody as a frame: what it claims is checked before it is believed."""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import available_timezones

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from hyperfeast.api.bodies import BodyLimit, BodyTooLarge
from hyperfeast.api.rows import check_names
from hyperfeast.errors import DataError

_MAX_MESSAGES = 10_000
_MAX_METADATA_BYTES = 1 << 20
_MAX_DECIMAL_DIGITS = 38

# Polars cannot show, or even cast, what lies beyond; a day is left for the zones.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000}

# Where the format's tables (Message.fbs) keep what is looked at here, by their fields' numbers.
_MESSAGE_HEADER = 2
_DICTIONARY_DATA = 1
_BATCH_LENGTH, _BATCH_COMPRESSION = 0, 3

_PLAIN = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_date,
    pa.types.is_boolean,
    pa.types.is_null,
)


def read(body: bytes, max_rows: int, limit: BodyLimit) -> pl.DataFrame:
    """The rows of a stream.

    Args:
        body: a schema, dictionaries and record batches, uncompressed. Types: integers, floats, decimals of up
            to 38 digits, utf8 and large_utf8, also as dictionaries, dates, timestamps, booleans, null.
        max_rows: how many rows its batches may have together.
        limit: what is said of a stream with more.

    Raises:
        BodyTooLarge: there are more rows, or they unpack to more than twice the limit.
        DataError: it is damaged, compressed, of other types, or without rows.
    """
    try:
        _check_messages(body, max_rows, limit)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_schema(reader.schema)
            table = reader.read_all()
        table.validate(full=True)
        _check_unpacked(table, limit)
        plain = _plain(table)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the body is no Arrow IPC stream that can be read: {_brief(error)}"
        ) from None
    if not plain.num_rows:
        raise DataError("the stream has no rows: expected one or more")
    frame = pl.from_arrow(plain, rechunk=True)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 - a table is a frame
    return frame


def _check_messages(body: bytes, max_rows: int, limit: BodyLimit) -> None:
    """Look at each message's metadata: a batch of nulls claims any length, and compression any size."""
    lengths = {"record batch": 0, "dictionary": 0}
    for kind, metadata in _messages(body):
        if kind not in lengths:
            continue
        length, compressed = _batch(metadata, kind)
        if compressed:
            raise DataError(
                "the stream's buffers are compressed: write it without compression, and send the body "
                "with Content-Encoding: gzip"
            )
        if length < 0:
            raise DataError(f"the stream has a batch of {length} rows")
        lengths[kind] += length
        if lengths[kind] > max_rows:
            raise BodyTooLarge(limit)


def _messages(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Kind and metadata of each message, the schema first."""
    reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(body))
    for _ in range(_MAX_MESSAGES):
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.metadata.size > _MAX_METADATA_BYTES:
            raise DataError(
                f"the stream has a message with {message.metadata.size:,} bytes of metadata: expected "
                f"at most {_MAX_METADATA_BYTES:,}"
            )
        yield message.type, message.metadata.to_pybytes()
    raise DataError(f"the stream has over {_MAX_MESSAGES:,} batches: put more rows into each")


def _batch(metadata: bytes, kind: str) -> tuple[int, bool]:
    """Rows of a record batch, or of a dictionary's values, and whether they are compressed."""
    try:
        place = _followed(metadata, 0)
        batch = _table(metadata, place, _MESSAGE_HEADER)
        if kind == "dictionary":
            batch = _table(metadata, batch, _DICTIONARY_DATA)
        length = _field(metadata, batch, _BATCH_LENGTH)
        rows = struct.unpack_from("<q", metadata, length)[0] if length else 0
        return rows, bool(_field(metadata, batch, _BATCH_COMPRESSION))
    except struct.error:
        raise DataError("the stream has a message whose metadata is damaged") from None


def _field(metadata: bytes, table: int, number: int) -> int:
    """Where a flatbuffer's table keeps a field; 0 if it has the default."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    entry = 4 + 2 * number
    if vtable < 0 or entry >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + entry)[0]
    return table + offset if offset else 0


def _table(metadata: bytes, table: int, number: int) -> int:
    """Where a table that another one refers to begins."""
    field = _field(metadata, table, number)
    if not field:
        raise struct.error
    return _followed(metadata, field)


def _followed(metadata: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", metadata, place)[0])


def _check_schema(schema: pa.Schema) -> None:
    check_names(schema.names)
    again = {name for name in schema.names if schema.names.count(name) > 1}
    if again:
        raise DataError(f"the stream has more than one column {min(again)!r}")
    for field in schema:
        if not _is_plain(field.type):
            raise DataError(
                f"column {field.name!r} holds {str(field.type)[:100]}: expected integers, floats, decimals "
                "of up to 38 digits, text (also as a dictionary), dates, timestamps in UTC or a named zone, "
                "booleans or nulls"
            )


def _is_plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        return pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    if isinstance(kind, pa.Decimal128Type):
        return bool(0 <= kind.scale <= kind.precision <= _MAX_DECIMAL_DIGITS)
    if isinstance(kind, pa.TimestampType):
        return kind.tz is None or kind.tz in available_timezones()
    return any(is_one(kind) for is_one in _PLAIN)


def _check_unpacked(table: pa.Table, limit: BodyLimit) -> None:
    """A long value in a dictionary may stand in every row, and one buffer may serve every column."""
    size = sum(
        sum(map(_text_bytes, column.chunks))
        if pa.types.is_dictionary(column.type)
        else column.nbytes
        for column in table.columns
    )
    if size > 2 * limit.max_bytes:
        raise BodyTooLarge(limit)


def _text_bytes(chunk: Any) -> int:
    lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
    return int(pc.sum(lengths.take(chunk.indices)).as_py() or 0)


def _plain(table: pa.Table) -> pa.Table:
    """As Polars has it: dictionaries as text, half floats as floats, times within the years 1 to 9999."""
    return pa.table({name: _plain_column(table.column(name)) for name in table.column_names})


def _plain_column(column: Any) -> Any:
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        return column.cast(pa.large_string())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    if isinstance(kind, pa.TimestampType):
        # Polars has no whole seconds; nanoseconds cannot leave the years 1677 to 2262.
        within = column if kind.unit == "ns" else _within(column, pa.int64(), _A_SECOND[kind.unit])
        return within.cast(pa.timestamp("ms", kind.tz)) if kind.unit == "s" else within
    if pa.types.is_date32(kind):
        return _within(column, pa.int32(), 1 / 86_400)
    return _within(column, pa.int64(), 1_000) if pa.types.is_date64(kind) else column


def _within(column: Any, counted: pa.DataType, a_second: float) -> Any:
    """Times that no calendar holds become the nearest that one does: the gate refuses those, too."""
    first, last = (
        pa.scalar(int(moment.timestamp() * a_second), counted) for moment in (_FIRST, _LAST)
    )
    counts = pc.max_element_wise(column.cast(counted), first, skip_nulls=False)
    return pc.min_element_wise(counts, last, skip_nulls=False).cast(column.type)


def _brief(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:200]
