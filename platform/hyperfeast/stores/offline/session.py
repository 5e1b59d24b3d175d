"""One transaction over Arrow: statements, and results that come while the caller works on what came before."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Self, TypeVar

import pyarrow as pa
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from psycopg import sql

from hyperfeast.errors import QueryFailed
from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.ahead import ahead, awaited
from hyperfeast.stores.offline.connection import arrow_connection, canceling, translated

_T = TypeVar("_T")
# ADBC hands over 16 MiB at a time.
_AHEAD = 3


class Session:
    """A context manager whose transaction sees one state of the database; it ends by a rollback.

    Whatever may take the server long runs in another thread: an interrupt, and a result that is left
    before its end, cancel it.

    Args:
        config: Feast's `offline_store` section.
        timeout_s: how long the server may work on a statement.
    """

    def __init__(self, config: Any, timeout_s: float | None = None) -> None:
        self._config, self._timeout_s = config, timeout_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            # What the driver raises later, while batches are read, is translated as well.
            self._stack.enter_context(translated(self._config))
            opened = arrow_connection(self._config, timeout_s=self._timeout_s)
            self._connection: ArrowConnection = self._stack.enter_context(opened)
            self._cancel = canceling(self._connection)
            self._execute(query("point_in_time", "snapshot"))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> bool | None:
        return self._stack.__exit__(*raised)  # type: ignore[arg-type]

    def fetched(self, statement: sql.Composable, of: str) -> Generator[pa.RecordBatch, None, None]:
        """The result of a statement as it comes.

        Args:
            statement: a query.
            of: what it reads, for messages.
        """
        return self._ahead(self._batches(statement, of))

    def numbered(self, statements: Sequence[tuple[sql.Composable, str]]) -> "Numbered":
        """The results of several statements, one after the other: the next one runs while one is worked on.

        Args:
            statements: each a query, and what it reads.
        """
        return Numbered(
            self._ahead(
                (number, batch)
                for number, (statement, of) in enumerate(statements)
                for batch in self._batches(statement, of)
            )
        )

    def run(self, work: Callable[[ArrowConnection], _T]) -> _T:
        """What some work on the connection gives."""
        with translated(self._config):
            return awaited(lambda: work(self._connection), self._cancel)

    def value(self, text: str) -> Any:
        """The one value of a statement that cannot be copied out, such as EXPLAIN."""
        with translated(self._config), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(text)
            return cursor.fetch_arrow_table().column(0)[0].as_py()

    def _ahead(self, items: Generator[_T, None, None]) -> Generator[_T, None, None]:
        results = ahead(items, _AHEAD, self._cancel)
        # The thread reads from the connection: it ends first.
        self._stack.callback(results.close)
        return results

    def _batches(self, statement: sql.Composable, of: str) -> Generator[pa.RecordBatch, None, None]:
        try:
            with translated(self._config), self._connection.cursor() as cursor:
                cursor.execute(statement.as_string())
                yield from cursor.fetch_record_batch()
        except QueryFailed as error:
            raise QueryFailed(f"{of} cannot be read: {error}: correct its source") from error

    def _execute(self, text: str) -> None:
        with translated(self._config), self._connection.cursor() as cursor:
            cursor.execute(text)


class Numbered:
    """A stream of (number, batch) in ascending numbers, number by number."""

    def __init__(self, items: Iterator[tuple[int, pa.RecordBatch]]) -> None:
        self._items = items
        self._next: tuple[int, pa.RecordBatch] | None = next(items, None)

    def of(self, number: int) -> Iterator[pa.RecordBatch]:
        """The batches of one number; those of the ones before are to be read."""
        while self._next is not None and self._next[0] == number:
            batch = self._next[1]
            self._next = None
            yield batch
            del batch
            self._next = next(self._items, None)
