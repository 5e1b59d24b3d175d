"""A view's features for the spine, in memory or in files: asked for from front to back, in the spine's order."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from hyperfeast.stores.offline.asof import Integers
from hyperfeast.stores.offline.columns import Array, Chunks, conformed, nulls
from hyperfeast.stores.offline.request import View

_FILED_ROWS = 8_192


class Answer(Protocol):
    """A view's features for the spine, to be asked for from front to back."""

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        """Columns for the spine rows from `start` up to `stop`, in the view's order of features."""

    @property
    def held_bytes(self) -> int:
        """How much memory it keeps."""


class Held:
    """Features in memory, and for each spine row the position of its row.

    Args:
        features: the columns, of any length.
        matched: int64[spine rows], positions in them; -1 for none.
    """

    def __init__(self, features: Sequence[Any], matched: Integers) -> None:
        self._features = features
        self._positions = pa.array(matched.astype(np.int64), mask=matched < 0)

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        """See `Answer`; in any order."""
        positions = self._positions.slice(start, stop - start)
        return [
            column.take(positions) if len(column) else nulls(stop - start, column.type)
            for column in self._features
        ]

    @property
    def held_bytes(self) -> int:
        """See `Answer`."""
        return int(self._positions.nbytes + sum(column.nbytes for column in self._features))


class Filed:
    """Features in a file: part by part of the spine, each in the spine's order; or in that of the spine.

    One file, however many parts: a read of many views has one open for each.

    Args:
        parts: int64[spine rows], which part has each row; None where there is only one.
        path: the file.
        counts: how many of its batches each part has, in their order.
        files: what closes it.
    """

    def __init__(
        self, parts: Integers | None, path: Path, counts: Sequence[int], files: ExitStack
    ) -> None:
        self._parts = None if parts is None else parts.astype(np.uint16)
        file = files.enter_context(pa.OSFile(str(path), "rb"))
        reader = files.enter_context(pa.ipc.open_file(file))
        ends = np.cumsum(counts).tolist()
        self._streams = [
            _Stream(reader, range(end - count, end))
            for count, end in zip(counts, ends, strict=True)
        ]
        # Each part keeps what is left of a batch.
        self._left_bytes = path.stat().st_size // max(sum(counts), 1) * len(counts)
        self._at = 0

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        """See `Answer`."""
        if start != self._at:
            raise ValueError(
                f"asked for row {start} after row {self._at}: files are read from front to back"
            )
        self._at = stop
        if self._parts is None:
            return list(self._streams[0].next(stop - start).columns)
        parts = self._parts[start:stop]
        counts = np.bincount(parts, minlength=len(self._streams))
        table = pa.concat_tables(
            [stream.next(int(count)) for stream, count in zip(self._streams, counts, strict=True)]
        )
        place = np.empty(len(parts), np.int64)
        place[np.argsort(parts, kind="stable")] = np.arange(len(parts))
        return list(table.combine_chunks().take(pa.array(place, pa.int64())).columns)

    @property
    def held_bytes(self) -> int:
        """See `Answer`."""
        return self._left_bytes + (0 if self._parts is None else int(self._parts.nbytes))


class _Stream:
    """Some batches of a file, read row by row."""

    def __init__(self, reader: Any, batches: range) -> None:
        self._reader, self._batches = reader, iter(batches)
        self._left = reader.schema.empty_table()

    def next(self, rows: int) -> pa.Table:
        """The next rows."""
        parts = [self._left.slice(0, rows)]
        left = self._left.slice(parts[0].num_rows)
        missing = rows - parts[0].num_rows
        while missing:
            table = pa.Table.from_batches([self._reader.get_batch(next(self._batches))])
            parts.append(table.slice(0, missing))
            left = table.slice(parts[-1].num_rows)
            missing -= parts[-1].num_rows
        self._left = left
        return pa.concat_tables(parts)


def unmatched(view: View, rows: int) -> Answer:
    """No features for any row of the spine."""
    return Held([nulls(0, column.arrow) for column, _ in view.features], np.full(rows, -1))


def features_schema(kinds: Iterable[pa.DataType]) -> pa.Schema:
    """Of features in a file, by their number."""
    return pa.schema([(f"f_{number}", kind) for number, kind in enumerate(kinds)])


def in_order(
    batches: Iterator[pa.RecordBatch], kinds: Sequence[pa.DataType], memory: int, files: ExitStack
) -> Answer:
    """The result of a lookup, which comes in the spine's order.

    Args:
        batches: the result.
        kinds: the types that its columns are to have.
        memory: how many bytes may stay in memory; beyond that it waits in a file.
        files: what closes the file, if any.
    """
    schema = features_schema(kinds)
    kept: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        kept.append(_conformed(batch, schema))
        size += kept[-1].nbytes
        if size > memory:
            rest = (_conformed(batch, schema) for batch in batches)
            return _file_in_order(kept, rest, schema, files)
    return _InOrder(pa.Table.from_batches(kept, schema))


def in_file(answer: Answer, rows: int, view: View, files: ExitStack) -> Answer:
    """The same answer out of a file in the spine's order, which keeps next to nothing in memory.

    Args:
        answer: a view's, of which nothing was asked for yet.
        rows: how many the spine has.
        view: whose features.
        files: what closes the file.
    """
    schema = features_schema(column.arrow for column, _ in view.features)
    batches = (
        batch
        for start in range(0, rows, _FILED_ROWS)
        for batch in pa.table(
            answer.take(start, min(start + _FILED_ROWS, rows)), schema=schema
        ).to_batches()
    )
    return _file_in_order([], batches, schema, files)


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        conformed(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _file_in_order(
    kept: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch], schema: pa.Schema, files: ExitStack
) -> Answer:
    path = Path(files.enter_context(TemporaryDirectory(prefix="hyperfeast-"))) / "answer"
    count = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        while kept:
            writer.write_batch(kept.pop(0))
            count += 1
        for batch in rest:
            writer.write_batch(batch)
            count += 1
    return Filed(None, path, [count], files)


class _InOrder:
    """Features in memory, a row each of the spine."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        return list(self._table.slice(start, stop - start).columns)

    @property
    def held_bytes(self) -> int:
        return int(self._table.nbytes)
