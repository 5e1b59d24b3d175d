"""A point-in-time read from end to end: the tables, the spine, the plan, and the answers of all views."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import numpy as np
import psycopg
import pyarrow as pa
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from psycopg import sql

from hyperfeast.errors import FeatureError, QueryFailed
from hyperfeast.sqlfiles import query
from hyperfeast.stores.as_known_at import KnownAt
from hyperfeast.stores.offline import date_range, lookup, merge, spine
from hyperfeast.stores.offline.ahead import ahead
from hyperfeast.stores.offline.columns import Chunks, Column, conformed, described
from hyperfeast.stores.offline.connection import arrow_connection, connection, translated
from hyperfeast.stores.offline.entities import key_values
from hyperfeast.stores.offline.plan import (
    Estimate,
    Expected,
    Plan,
    Strategy,
    estimate,
    expected,
    plan,
)
from hyperfeast.stores.offline.request import View, Wanted, resolved
from hyperfeast.stores.offline.spine import EPOCH, Spine

# Answers come in batches of so many rows.
BATCH_ROWS = 65_536
# ADBC hands over 16 MiB at a time.
_AHEAD = 3
_MIB = 2**20
_SPINE = "the spine (entity_df)"
# Bytes that a spine row takes while it is matched: its entity and moment, sorted twice over; for each view.
_ROW_BYTES, _MATCH_BYTES = 96, 24
# A merge reads only the spine's own entities if they are few, and have this share of all rows at most.
_FEW_ENTITIES = 1_000
_FEW_ROWS = 0.5


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        views: whose features.
        spine: a frame, an Arrow table or the text of a query; None for all rows of `between`.
        by_created: whether only rows count that were recorded by the spine row's moment.
        known_at: read everything as known at this moment (UTC).
        between: the date range (UTC), where there is no spine.
        strategy: how views are to be read.
        memory_limit_mb: what the read may take, in MiB.
    """

    views: Sequence[Wanted]
    spine: Any
    by_created: bool
    known_at: KnownAt
    between: tuple[datetime, datetime] | None
    strategy: Strategy
    memory_limit_mb: int


class Reading:
    """One run of a request: a context manager whose transaction sees one state of the database.

    Args:
        config: Feast's `offline_store` section.
        request: what is asked for.
        timeout_s: how long the server may work on a statement.
    """

    def __init__(self, config: Any, request: Request, timeout_s: float | None = None) -> None:
        self._config, self._request, self._timeout_s = config, request, timeout_s
        self._stack = ExitStack()
        self._plans: list[Plan] = []
        self._seen: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        with connection(self._config) as catalog:
            self._views = self._resolved(catalog)
            self._spine_columns = self._described_spine(catalog)
        with self._stack:
            # What the driver raises later, while batches are read, is translated as well.
            self._stack.enter_context(translated(self._config))
            opened = arrow_connection(self._config, timeout_s=self._timeout_s)
            self._connection: ArrowConnection = self._stack.enter_context(opened)
            self._execute(query("point_in_time", "snapshot"))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> bool | None:
        return self._stack.__exit__(*raised)  # type: ignore[arg-type]

    @property
    def plans(self) -> Sequence[Plan]:
        """One a block of the spine, as far as they are read."""
        return self._plans

    def table(self) -> pa.Table:
        """The whole answer. Views are read one after the other, and only the features stay."""
        if self._range_query is not None:
            return pa.Table.from_batches(list(self.batches()), self.schema)
        blocks = [self._block_table(block) for block in self._blocks()]
        return pa.concat_tables(blocks) if blocks else self.schema.empty_table()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The answer from front to back, in batches of `BATCH_ROWS` rows at most."""
        if self._range_query is not None:
            yield from self._range_batches()
            return
        for block in self._blocks():
            with ExitStack() as files:
                answers = list(self._answers(block, files, keep=True))
                for start in range(0, block.rows, BATCH_ROWS):
                    stop = min(start + BATCH_ROWS, block.rows)
                    columns = dict(
                        zip(
                            block.table.column_names,
                            block.table.slice(start, stop - start).columns,
                            strict=True,
                        )
                    )
                    for outputs, answer in answers:
                        columns |= zip(outputs, answer.take(start, stop), strict=True)
                    yield from self._ordered(columns).combine_chunks().to_batches()

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the answer."""
        if self._range_query is not None:
            return date_range.schema(self._views[0])
        features = [
            (output, column.arrow) for view in self._views for column, output in view.features
        ]
        return pa.schema([*self._spine_schema, *(pa.field(*feature) for feature in features)])

    def planned(self) -> Sequence[Plan]:
        """The plans, without reading a feature."""
        if self._range_query is None:
            for block in self._blocks():
                if block.bounds() is not None:
                    self._plan(block, self._sides(block))
        return self._plans

    def statement(self) -> str:
        """One statement that gives the same answer, with the spine written out."""
        if self._range_query is not None:
            return self._range_query.as_string()
        whole = self._whole_spine
        keys = self._key_columns(whole)
        rows = lookup.staged(whole, keys)
        spine_columns = {
            f"spine_{number}": column for number, column in enumerate(whole.table.columns)
        }
        rows = replace(rows, columns={**rows.columns, **spine_columns})
        before = [
            sql.SQL("spine.{} AS {}").format(sql.Identifier(own), sql.Identifier(name))
            for own, name in zip(spine_columns, whole.table.column_names, strict=True)
        ]
        return lookup.lookup_query(
            self._views, rows.names, lookup.written_out(rows), whole.bounds() or (0, 0),
            by_created=self._request.by_created, before=before,
        ).as_string()  # fmt: skip

    @property
    def spine_rows(self) -> int:
        """How many rows the spine has; 0 in the date-range mode with one view."""
        return 0 if self._range_query is not None else self._whole_spine.rows

    def bounds(self) -> tuple[int, int] | None:
        """The first moment and the last that are asked about, in microseconds since 1970."""
        if self._request.between is not None:
            first, last = (
                (at - EPOCH) // timedelta(microseconds=1) for at in self._request.between
            )
            return first, last
        if self._seen is not None:
            return self._seen
        return self._whole_spine.bounds()

    def keys(self) -> list[str]:
        """The spine's columns besides the moment; of a date range the join keys."""
        if self._request.spine is None:
            return list(dict.fromkeys(key for view in self._views for key in view.keys))
        moments = spine.moments_column(self._spine_schema)
        return [name for name in self._spine_schema.names if name != moments]

    # The tables.

    def _resolved(self, catalog: Any) -> list[View]:
        asked = self._request
        return [
            resolved(
                catalog,
                view,
                known_at=asked.known_at,
                by_created=asked.by_created,
                between=asked.between,
            )
            for view in asked.views
        ]

    @property
    def _range_query(self) -> sql.Composed | None:
        """The statement of the date-range mode with one view, which joins nothing."""
        if self._request.spine is not None or len(self._views) != 1:
            return None
        return date_range.query_of_one(self._views[0], by_created=self._request.by_created)

    def _range_batches(self) -> Iterator[pa.RecordBatch]:
        statement = cast("sql.Composed", self._range_query)
        for batch in self._fetched(statement, _named(self._views)):
            columns = [
                conformed(column, field.type)
                for column, field in zip(batch.columns, self.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    # The spine.

    @cached_property
    def _spine_query(self) -> str | None:
        """The text of the query that gives the spine, where one does."""
        if isinstance(self._request.spine, str):
            return self._request.spine
        if self._request.spine is None:
            return date_range.moments(self._views, by_created=self._request.by_created).as_string()
        return None

    def _described_spine(self, catalog: Any) -> list[Column]:
        if self._spine_query is None or (self._request.spine is None and len(self._views) == 1):
            return []
        relation = sql.SQL("({}\n)").format(_raw(self._spine_query))
        try:
            return list(described(catalog, relation).values())
        except psycopg.ProgrammingError as error:
            raise FeatureError(
                f"{_SPINE}: PostgreSQL refused its query ({error.diag.message_primary}): correct it"
            ) from error

    @cached_property
    def _spine_schema(self) -> pa.Schema:
        if self._spine_query is None:
            return self._whole_spine.table.schema
        empty = pa.schema(
            [(column.name, column.arrow) for column in self._spine_columns]
        ).empty_table()
        return spine.of_query(empty, [column.arrow for column in self._spine_columns]).table.schema

    @cached_property
    def _whole_spine(self) -> Spine:
        if self._spine_query is None:
            return spine.of_frame(self._request.spine)
        return spine.of_query(self._spine_table(), [column.arrow for column in self._spine_columns])

    def _blocks(self) -> Iterator[Spine]:
        """The spine in parts whose matching fits into the memory."""
        if self._spine_query is None:
            whole = self._whole_spine
            yield from (
                whole.slice(start, rows)
                for start, rows in self._cuts(whole.rows, whole.table.nbytes)
            )
            return
        table = self._spine_table()
        types = [column.arrow for column in self._spine_columns]
        for start, rows in self._cuts(table.num_rows, table.nbytes):
            yield spine.of_query(table.slice(start, rows), types)

    def _cuts(self, rows: int, size: int) -> Iterator[tuple[int, int]]:
        if not rows:
            yield 0, 0
        each = size // max(rows, 1) + _ROW_BYTES + _MATCH_BYTES * len(self._views)
        most = max(BATCH_ROWS, self._limit // 4 // each)
        count = -(-rows // most)
        for number in range(count):
            start = rows * number // count
            yield start, rows * (number + 1) // count - start

    def _spine_table(self) -> pa.Table:
        """The result of the spine's query: in memory, or in a file that is mapped where it is long."""
        selected = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(column.value, sql.Identifier(column.name))
            for column in self._spine_columns
        )
        statement = sql.SQL("SELECT {} FROM ({}\n) AS source").format(
            selected, _raw(cast("str", self._spine_query))
        )
        batches: list[pa.RecordBatch] = []
        fetched = self._fetched(statement, _SPINE)
        size = 0
        for batch in fetched:
            batches.append(batch)
            size += batch.nbytes
            if size > self._limit // 4:
                return self._mapped(batches, fetched)
        if batches:
            return pa.Table.from_batches(batches)
        return pa.schema(
            [(column.name, column.arrow) for column in self._spine_columns]
        ).empty_table()

    def _mapped(self, batches: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch]) -> pa.Table:
        folder = self._stack.enter_context(TemporaryDirectory(prefix="hyperfeast-"))
        path = str(Path(folder) / "spine")
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, batches[0].schema) as writer:
            while batches:
                writer.write_batch(batches.pop(0))
            for batch in rest:
                writer.write_batch(batch)
        return pa.ipc.open_file(self._stack.enter_context(pa.memory_map(path))).read_all()

    def _key_columns(self, block: Spine) -> dict[tuple[str, str], Chunks]:
        """(the spine's column, kind of key) -> its values as they are compared."""
        found: dict[tuple[str, str], Chunks] = {}
        names = block.table.column_names
        for view in self._views:
            for key, column in view.keys.items():
                if key not in names:
                    raise FeatureError(
                        f"feature view {view.name!r}: the spine (entity_df) has no column {key!r}, which is its "
                        f"join key; it has {', '.join(names)}: add the column, or rename the one that is meant"
                    )
                if (key, column.kind) not in found:
                    found[key, column.kind] = key_values(
                        block.table.column(key), key, view.name, column
                    )
            taken = next((output for output in view.outputs if output in names), None)
            if taken is not None:
                raise FeatureError(
                    f"feature view {view.name!r}: its feature and a column of the spine (entity_df) are both "
                    f"called {taken!r}: ask with full_feature_names=True, or rename the spine's column"
                )
        return found

    def _sides(self, block: Spine) -> "_Sides":
        return _Sides(block, self._key_columns(block))

    # The plan.

    def _plan(
        self, block: Spine, sides: "_Sides"
    ) -> list[tuple[View, Estimate, sql.Composed, str]]:
        bounds = cast("tuple[int, int]", block.bounds())
        estimates, statements = [], []
        for view in self._views:
            statement, reading = self._reading(view, bounds, sides)
            estimates.append(
                estimate(
                    view.name,
                    block.rows,
                    len(view.features),
                    self._one_lookup(view, bounds, sides),
                    reading,
                )
            )
            statements.append(statement)
        made = plan(estimates, block.rows, self._request.strategy, self._request.memory_limit_mb)
        self._plans.append(made)
        ways = [choice.way for choice in made.choices]
        return list(zip(self._views, estimates, statements, ways, strict=True))

    def _reading(
        self, view: View, bounds: tuple[int, int], sides: "_Sides"
    ) -> tuple[sql.Composed, Expected]:
        statement = merge.rows_query(view, bounds)
        reading = expected(self._value, statement)
        only = sides.only(view, _FEW_ENTITIES)
        if only is None:
            return statement, reading
        narrow = merge.rows_query(view, bounds, only)
        fewer = expected(self._value, narrow)
        return (narrow, fewer) if fewer.rows <= _FEW_ROWS * reading.rows else (statement, reading)

    def _one_lookup(self, view: View, bounds: tuple[int, int], sides: "_Sides") -> Expected:
        """The lookup of the middle one of the spine's moments."""
        number = sides.middle
        rows = lookup.staged(
            sides.block.slice(number, 1),
            {key: column.slice(number, 1) for key, column in sides.keys.items()},
        )
        return expected(
            self._value,
            lookup.lookup_query(
                [view],
                rows.names,
                lookup.written_out(rows),
                bounds,
                by_created=self._request.by_created,
            ),
        )

    # The answers.

    def _block_table(self, block: Spine) -> pa.Table:
        columns = dict(zip(block.table.column_names, block.table.columns, strict=True))
        with ExitStack() as files:
            for outputs, answer in self._answers(block, files, keep=False):
                columns |= zip(outputs, answer.take(0, block.rows), strict=True)
        return self._ordered(columns)

    def _ordered(self, columns: Mapping[str, Any]) -> pa.Table:
        return pa.table([columns[field.name] for field in self.schema], schema=self.schema)

    def _answers(
        self, block: Spine, files: ExitStack, *, keep: bool
    ) -> Iterator[tuple[list[str], merge.Answer]]:
        sides = self._sides(block)
        bounds = block.bounds()
        self._seen = _widened(self._seen, bounds)
        if bounds is None:
            yield from ((view.outputs, merge.unmatched(view, block.rows)) for view in self._views)
            return
        planned = self._plan(block, sides)
        looked_up = [view for view, _, _, way in planned if way == "lookup"]
        held = 0
        if looked_up:
            answer = self._looked_up(looked_up, bounds, sides, files)
            held += answer.held_bytes if keep else 0
            yield [output for view in looked_up for output in view.outputs], answer
        merges = [(view, own, statement) for view, own, statement, way in planned if way == "merge"]
        fetched = ahead(
            (
                (number, batch)
                for number, (_, _, statement) in enumerate(merges)
                for batch in self._fetched(statement, _named([merges[number][0]]))
            ),
            _AHEAD,
        )
        files.callback(fetched.close)
        numbered = _Numbered(fetched)
        for number, (view, own, _) in enumerate(merges):
            answer = merge.merged(
                view,
                numbered.of(number),
                sides.of(view),
                by_created=self._request.by_created,
                memory=max(self._limit // 2 - held, self._limit // 16),
                expected_bytes=own.expected_bytes,
                files=files,
            )
            held += answer.held_bytes if keep else 0
            yield view.outputs, answer
            del answer

    def _looked_up(
        self, views: list[View], bounds: tuple[int, int], sides: "_Sides", files: ExitStack
    ) -> merge.Answer:
        rows = lookup.staged(sides.block, sides.keys)
        lookup.stage(self._connection, rows)
        statement = lookup.lookup_query(
            views, rows.names, lookup.on_server(), bounds, by_created=self._request.by_created
        )
        kinds = [column.arrow for view in views for column, _ in view.features]
        fetched = self._fetched(statement, _named(views))
        answer = merge.in_order(fetched, kinds, self._limit // 2, files)
        lookup.unstage(self._connection)
        return answer

    # The server.

    @property
    def _limit(self) -> int:
        return self._request.memory_limit_mb * _MIB

    def _fetched(self, statement: sql.Composable, of: str) -> Generator[pa.RecordBatch, None, None]:
        """The result of a statement as it comes; `of` says what it is, for messages."""
        try:
            with translated(self._config), self._connection.cursor() as cursor:
                cursor.execute(statement.as_string())
                yield from cursor.fetch_record_batch()
        except QueryFailed as error:
            raise QueryFailed(f"{of} cannot be read: {error}: correct its source") from error

    def _execute(self, text: str) -> None:
        with translated(self._config), self._connection.cursor() as cursor:
            cursor.execute(text)

    def _value(self, text: str) -> Any:
        """The one value of a statement that cannot be copied out, such as EXPLAIN."""
        with translated(self._config), self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})
            cursor.execute(text)
            return cursor.fetch_arrow_table().column(0)[0].as_py()


class _Sides:
    """A block of the spine, sorted once for each set of join keys."""

    def __init__(self, block: Spine, keys: Mapping[tuple[str, str], Chunks]) -> None:
        self.block, self.keys = block, keys
        self._made: dict[tuple[tuple[str, str], ...], merge.Side] = {}

    def of(self, view: View) -> merge.Side:
        names = tuple((key, column.kind) for key, column in view.keys.items())
        if names not in self._made:
            self._made[names] = merge.side(self.block, [self.keys[name] for name in names])
        return self._made[names]

    def only(self, view: View, most: int) -> sql.Composable | None:
        """The condition that a row is of the spine's entities; None where these are many, or have many keys."""
        if len(view.keys) != 1:
            return None
        ((key, column),) = view.keys.items()
        unique = self._unique(key, column.kind)
        if (
            len(unique) > most
            or column.kind in ("instant", "bool")
            or column.type_name == "numeric"
        ):
            return None
        values = sql.SQL(", ").join(sql.Literal(value) for value in unique.to_pylist())
        own = column.key if lookup.needs_cast(column) else column.identifier
        array = sql.SQL("ARRAY[{}]::{}").format(values, lookup.array_type(column))
        return sql.SQL("{} = ANY ({})").format(own, array)

    @cache  # noqa: B019 - it lives as long as its block is read
    def _unique(self, key: str, kind: str) -> Any:
        return self.keys[key, kind].unique().drop_null()

    @cached_property
    def middle(self) -> int:
        """Where the row stands whose moment is the median; rows without one are left out."""
        block = self.block
        present = (
            np.arange(block.rows) if block.timeless is None else np.flatnonzero(~block.timeless)
        )
        middle = len(present) // 2
        return int(present[np.argpartition(block.moments[present], middle)[middle]])


class _Numbered:
    """A stream of (number, item) in ascending numbers, number by number."""

    def __init__(self, items: Iterator[tuple[int, pa.RecordBatch]]) -> None:
        self._items = items
        self._next: tuple[int, pa.RecordBatch] | None = next(items, None)

    def of(self, number: int) -> Iterator[pa.RecordBatch]:
        while self._next is not None and self._next[0] == number:
            batch = self._next[1]
            self._next = None
            yield batch
            del batch
            self._next = next(self._items, None)


def _widened(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _named(views: Sequence[View]) -> str:
    names = ", ".join(repr(view.name) for view in views)
    return f"feature view{'s' if len(views) > 1 else ''} {names}"


def _raw(text: str) -> sql.Composable:
    """A query that the caller wrote, as Feast takes it: it runs with the rights of the configured user."""
    return sql.SQL(text.strip().rstrip(";"))
