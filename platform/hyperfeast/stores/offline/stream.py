"""An answer as it comes, whose `close` gives its connection back."""

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from hyperfeast.errors import UsageError


class RecordBatches:
    """Record batches of one schema: what `pyarrow.RecordBatchReader` does, and closed when it says so.

    Arrow's own reader over a Python generator keeps it, and the connection that it reads from, until the last
    reference to the reader is gone. Whatever takes Arrow's stream protocol takes this: `pyarrow.table(stream)`,
    `polars.from_arrow(stream)`, `pyarrow.RecordBatchReader.from_stream(stream)`.

    Args:
        schema: of every batch.
        batches: the rows; closing it closes what they come from.
    """

    def __init__(self, schema: pa.Schema, batches: Generator[pa.RecordBatch, None, None]) -> None:
        self._schema, self._batches = schema, batches
        self._closed = False

    @property
    def schema(self) -> pa.Schema:
        """Of the answer."""
        return self._schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        return self.read_next_batch()

    def read_next_batch(self) -> pa.RecordBatch:
        """The next rows.

        Raises:
            StopIteration: there are no more.
            UsageError: it was closed.
        """
        if self._closed:
            raise UsageError(
                "these rows were closed before they were read: ask the job for them anew"
            )
        return next(self._batches)

    def read_all(self) -> pa.Table:
        """The rows that are left."""
        return pa.Table.from_batches(list(self), self._schema)

    def read_pandas(self, **options: Any) -> Any:
        """The rows that are left, as a frame; options are those of `pyarrow.Table.to_pandas`."""
        return self.read_all().to_pandas(**options)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        batches = pa.RecordBatchReader.from_batches(self._schema, self)
        return batches.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Give the connection back, read or not; a statement that still runs is canceled."""
        self._closed = True
        self._batches.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
