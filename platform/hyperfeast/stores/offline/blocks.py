"""The spine of a request, whatever gives it, in blocks whose matching fits into the memory."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import psycopg
import pyarrow as pa
from psycopg import sql

from hyperfeast.errors import FeatureError
from hyperfeast.stores.offline import spine
from hyperfeast.stores.offline.columns import Column, described
from hyperfeast.stores.offline.session import Session
from hyperfeast.stores.offline.spine import Spine

BATCH_ROWS = 65_536
"""Answers come in batches of so many rows; a block has as many at least."""

_SPINE = "the spine (entity_df)"
# Bytes that a spine row takes while it is matched: its entity and moment, sorted twice over; for each view.
_ROW_BYTES, _MATCH_BYTES = 96, 24


class AskedSpine:
    """The spine that was asked for: a frame, a table of Arrow, or the text of a query.

    Args:
        asked: it.
        views: how many views it is joined with.
        memory: how many bytes the whole read may take.
    """

    def __init__(self, asked: Any, *, views: int, memory: int) -> None:
        self._asked, self._views, self._memory = asked, views, memory
        self._columns: Sequence[Column] = ()
        self._session: Session | None = None
        self._files = ExitStack()

    @property
    def _is_query(self) -> bool:
        return isinstance(self._asked, str)

    def describe(self, catalog: psycopg.Connection[Any]) -> None:
        """Learn the columns of a query's result, without reading it.

        Raises:
            FeatureError: PostgreSQL refuses the query.
        """
        if not self._is_query:
            return
        relation = sql.SQL("({}\n)").format(_raw(self._asked))
        try:
            self._columns = list(described(catalog, relation).values())
        except psycopg.ProgrammingError as error:
            raise FeatureError(
                f"{_SPINE}: PostgreSQL refused its query ({error.diag.message_primary}): correct it"
            ) from error

    def read_with(self, session: Session, files: ExitStack) -> None:
        """Where a query's result comes from, and what removes the file that it may wait in."""
        self._session, self._files = session, files

    @cached_property
    def schema(self) -> pa.Schema:
        """Its columns, as they stand in the answer."""
        if not self._is_query:
            return self.whole.table.schema
        return spine.of_query(self._described.empty_table(), self._types).table.schema

    @cached_property
    def whole(self) -> Spine:
        """All of it at once."""
        if not self._is_query:
            return spine.of_frame(self._asked)
        return spine.of_query(self._table(), self._types)

    def blocks(self) -> Iterator[Spine]:
        """It in parts, from front to back."""
        if not self._is_query:
            whole = self.whole
            yield from (
                whole.slice(start, rows)
                for start, rows in self._cuts(whole.rows, whole.table.nbytes)
            )
            return
        table = self._table()
        for start, rows in self._cuts(table.num_rows, table.nbytes):
            yield spine.of_query(table.slice(start, rows), self._types)

    def _cuts(self, rows: int, size: int) -> Iterator[tuple[int, int]]:
        if not rows:
            yield 0, 0
        each = size // max(rows, 1) + _ROW_BYTES + _MATCH_BYTES * self._views
        most = max(BATCH_ROWS, self._memory // 4 // each)
        count = -(-rows // most)
        for number in range(count):
            start = rows * number // count
            yield start, rows * (number + 1) // count - start

    @property
    def _types(self) -> list[pa.DataType]:
        return [column.arrow for column in self._columns]

    @property
    def _described(self) -> pa.Schema:
        return pa.schema([(column.name, column.arrow) for column in self._columns])

    def _table(self) -> pa.Table:
        """The result of the query: in memory, or in a file that is mapped where it is long."""
        selected = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(column.value, sql.Identifier(column.name))
            for column in self._columns
        )
        statement = sql.SQL("SELECT {} FROM ({}\n) AS source").format(selected, _raw(self._asked))
        batches: list[pa.RecordBatch] = []
        fetched = cast("Session", self._session).fetched(statement, _SPINE)
        size = 0
        for batch in fetched:
            batches.append(batch)
            size += batch.nbytes
            if size > self._memory // 4:
                return self._mapped(batches, fetched)
        return pa.Table.from_batches(batches) if batches else self._described.empty_table()

    def _mapped(self, batches: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> pa.Table:
        folder = self._files.enter_context(TemporaryDirectory(prefix="hyperfeast-"))
        path = str(Path(folder) / "spine")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, batches[0].schema) as writer:
            while batches:
                writer.write_batch(batches.pop(0))
            for batch in rest:
                writer.write_batch(batch)
        return pa.ipc.open_file(self._files.enter_context(pa.memory_map(path))).read_all()


def _raw(text: str) -> sql.Composable:
    """A query that the caller wrote, as Feast takes it: it runs with the rights of the configured user."""
    return sql.SQL(text.strip().rstrip(";"))
