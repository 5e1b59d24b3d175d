"""The rows that features are asked for: whatever they come as, columns of Arrow and the moments as integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from hyperfeast.errors import DataError, FeatureError
from hyperfeast.stores.offline.columns import Array, Chunks, compute, conformed
from hyperfeast.stores.offline.stream import RecordBatches

EVENT_TIMESTAMP = "event_timestamp"
_TIME = pa.timestamp("us")
_START: Any = pa.scalar(0, _TIME)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_IN_US = 1_000
# A date, perhaps with a time, perhaps with a zone; and what pandas writes for a missing one.
_ISO_8601 = (
    r"^(\d{4}(-\d{2})?|(\d{8}|\d{4}-\d{2}-\d{2})"
    r"([T ]\d{2}(:?\d{2}(:?\d{2}(\.\d+)?)?)? ?(Z|[+-]\d{2}(:?\d{2})?)?)?|NaT)$"
)

# What PostgreSQL, and so Feast's own store, makes of types that it lacks.
_WIDER = {
    pa.int8(): pa.int32(),
    pa.int16(): pa.int32(),
    pa.uint8(): pa.int32(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.float16(): pa.float64(),
    pa.float32(): pa.float64(),
}


@dataclass(frozen=True)
class Spine:
    """The spine in its order.

    Attributes:
        table: its columns as they come back: times in UTC without a zone, in microseconds.
        timestamp: the column of the moments that are asked about.
        moments: int64[rows], microseconds since 1970 (UTC); of no meaning where `timeless`.
        timeless: bool[rows], where the moment is missing; None where none is.
    """

    table: pa.Table
    timestamp: str
    moments: NDArray[np.int64]
    timeless: NDArray[np.bool_] | None

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.table.num_rows)

    def slice(self, start: int, rows: int) -> "Spine":
        """So many rows from one on."""
        timeless = None if self.timeless is None else self.timeless[start : start + rows]
        return Spine(
            self.table.slice(start, rows),
            self.timestamp,
            self.moments[start : start + rows],
            timeless,
        )

    def bounds(self) -> tuple[int, int] | None:
        """The first moment and the last, in microseconds since 1970; None where there is none."""
        present = self.moments if self.timeless is None else self.moments[~self.timeless]
        return (int(present.min()), int(present.max())) if present.size else None


def instant(microseconds: int) -> datetime | None:
    """Microseconds since 1970 as a moment in UTC; None where Python's calendar does not reach."""
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return None


def of_frame(frame: Any) -> Spine:
    """The spine out of a pandas or Polars frame, a table or a batch of Arrow.

    Naive times are in UTC, text is read as ISO 8601, what is finer than a microsecond is cut off. The
    moments are in the column `event_timestamp`, else in the only column of times.

    Raises:
        FeatureError: it is none of these, a column cannot be read, or no column holds the moments.
        DataError: a whole number is beyond 64 bits.
    """
    table = _arrow(frame)
    timestamp = moments_column(table.schema)
    columns = [
        _moments(table.column(name), name)
        if name == timestamp
        else _plain(table.column(name), name)
        for name in table.column_names
    ]
    return _spine(pa.table(columns, names=table.column_names), timestamp)


def of_query(table: pa.Table, types: Sequence[pa.DataType]) -> Spine:
    """The spine out of a query's result.

    Args:
        table: as ADBC gives it.
        types: what each column is to be.

    Raises:
        FeatureError: no column holds the moments.
    """
    timestamp = moments_column(table.schema)
    columns = [
        _moments(column, timestamp) if name == timestamp else conformed(column, to)
        for name, column, to in zip(table.column_names, table.columns, types, strict=True)
    ]
    return _spine(pa.table(columns, names=table.column_names), timestamp)


def _spine(table: pa.Table, timestamp: str) -> Spine:
    moments = table.column(timestamp)
    timeless = None
    if moments.null_count:
        timeless = moments.is_null().to_numpy()
        moments = compute.fill_null(moments, _START)
    counts = moments.cast(pa.int64()).to_numpy()
    return Spine(table, timestamp, cast("NDArray[np.int64]", counts), timeless)


def _arrow(frame: Any) -> pa.Table:
    if isinstance(frame, pa.RecordBatch):
        frame = pa.Table.from_batches([frame])
    if isinstance(frame, pa.RecordBatchReader | RecordBatches):
        frame = frame.read_all()
    if isinstance(frame, pl.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, pl.DataFrame):
        frame = frame.to_arrow()
    if isinstance(frame, pd.DataFrame):
        frame = _of_pandas(frame)
    if not isinstance(frame, pa.Table):
        raise FeatureError(
            "the spine (entity_df): expected a pandas or Polars frame, an Arrow table or a SQL query, "
            f"found {type(frame).__name__}: convert it"
        )
    twice = sorted({name for name in frame.column_names if frame.column_names.count(name) > 1})
    if twice:
        raise FeatureError(
            f"the spine (entity_df) has two columns {twice[0]!r}: rename one of them"
        )
    return frame


def _of_pandas(frame: pd.DataFrame) -> pa.Table:
    columns = []
    for _, column in frame.items():  # noqa: PERF102 - a frame's values are an array
        try:
            columns.append(pa.Array.from_pandas(column))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            columns.append(_of_objects(column, error))
        except OverflowError as error:
            raise DataError(
                f"the spine (entity_df): its column {column.name!r} holds what no bigint can "
                f"(whole numbers are at most {2**63 - 1}): correct the values, or make it text"
            ) from error
    names = [str(name) for name in frame.columns]
    return pa.table(columns, names=names) if columns else pa.table({})


def _of_objects(column: "pd.Series[Any]", error: Exception) -> Array:
    """Times with and without a zone in one column are moments all the same; nothing else mixes."""
    values = [None if pd.isna(value) else value for value in column]
    if all(value is None or isinstance(value, datetime) for value in values):
        aware = [
            value if value is None or value.tzinfo else value.replace(tzinfo=UTC)
            for value in values
        ]
        return pa.array(aware, pa.timestamp("us", "UTC"))
    raise FeatureError(
        f"the spine (entity_df): its column {column.name!r} cannot be read "
        f"({str(error).splitlines()[0]}): make its values of one type"
    )


def moments_column(schema: pa.Schema) -> str:
    """The column of the moments: `event_timestamp`, else the only one of times.

    Raises:
        FeatureError: there is neither.
    """
    if EVENT_TIMESTAMP in schema.names:
        return EVENT_TIMESTAMP
    times = [field.name for field in schema if pa.types.is_timestamp(field.type)]
    if len(times) == 1:
        return times[0]
    found = f"{len(times)} columns of times: {', '.join(times)}" if times else "no column of times"
    raise FeatureError(
        f"the spine (entity_df): expected the column {EVENT_TIMESTAMP!r}, or only one column of times, found "
        f"{found}: rename the one that is meant {EVENT_TIMESTAMP!r}"
    )


def _moments(column: Chunks, name: str) -> Chunks:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _read(column, name)
    if pa.types.is_date(kind) or pa.types.is_null(kind):
        return column.cast(_TIME)
    if pa.types.is_timestamp(kind):
        return _microseconds(column)
    raise FeatureError(
        f"the spine (entity_df): expected times in its column {name!r}, found {kind}: convert it to timestamps"
    )


def _microseconds(column: Chunks) -> Chunks:
    """UTC without a zone; what is finer is cut off downward, as Python's own times do."""
    if column.type.unit != "ns":
        return column.cast(pa.timestamp("us", column.type.tz)).cast(_TIME)
    counts = column.cast(pa.int64())
    if (
        counts.length()
        and compute.any(
            compute.not_equal(
                counts, compute.multiply(compute.divide(counts, _NS_IN_US), _NS_IN_US)
            )
        ).as_py()
    ):
        filled = compute.fill_null(counts, 0).to_numpy()
        nulls = column.is_null().to_numpy() if column.null_count else None
        return pa.chunked_array([pa.array(filled // _NS_IN_US, pa.int64(), mask=nulls)]).cast(_TIME)
    return compute.divide(counts, _NS_IN_US).cast(_TIME)


def _read(column: Chunks, name: str) -> Chunks:
    """ISO 8601 alone: of 02.05.2024 nobody knows which number is the month."""
    column = column.cast(pa.string())
    other = compute.invert(compute.match_substring_regex(column, _ISO_8601))
    if compute.any(other).as_py():
        found = column.filter(other)[0].as_py()
        raise _unread(name, f"found {found!r}")
    try:
        times = pd.to_datetime(column.to_pandas(), utc=True, format="ISO8601")
    except ValueError as error:
        raise _unread(name, str(error).splitlines()[0].split(". You might")[0]) from error
    return _microseconds(pa.chunked_array([pa.Array.from_pandas(times)]))


def _unread(name: str, why: str) -> FeatureError:
    return FeatureError(
        f"the spine (entity_df): its column {name!r} cannot be read as times ({why}): expected ISO 8601: "
        "write them as 2024-01-31T12:00:00Z"
    )


def _plain(column: Chunks, name: str) -> Chunks:
    """A column as it would come back from PostgreSQL."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(_of_extension(column), name)
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type), name)
    if pa.types.is_timestamp(kind):
        return _microseconds(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if kind in _WIDER:
        try:
            return column.cast(_WIDER[kind])
        except pa.ArrowInvalid as error:
            raise FeatureError(
                f"the spine (entity_df): its column {name!r} holds what no bigint can ({error}): make it text"
            ) from error
    return column


def _of_extension(column: Chunks) -> Chunks:
    if column.type.extension_name == "arrow.uuid":
        values = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(values, pa.string())])
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
