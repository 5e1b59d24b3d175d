"""A point-in-time read from end to end: the tables, the spine, the plan, and the answers of all views."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Self, cast

import pyarrow as pa
from psycopg import sql

from hyperfeast.stores.as_known_at import KnownAt
from hyperfeast.stores.offline import answers, date_range, lookup, merge, spine
from hyperfeast.stores.offline.answers import Answer
from hyperfeast.stores.offline.blocks import BATCH_ROWS, AskedSpine
from hyperfeast.stores.offline.columns import conformed
from hyperfeast.stores.offline.connection import connection
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
from hyperfeast.stores.offline.rows import rows_query
from hyperfeast.stores.offline.session import Session
from hyperfeast.stores.offline.sides import Sides, key_columns
from hyperfeast.stores.offline.spine import EPOCH, Spine

_MIB = 2**20
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
        self._config, self._request = config, request
        self._stack = ExitStack()
        self._session = Session(config, timeout_s)
        self._plans: list[Plan] = []
        self._seen: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        with connection(self._config) as catalog:
            self._views = [
                resolved(
                    catalog,
                    view,
                    known_at=self._request.known_at,
                    by_created=self._request.by_created,
                    between=self._request.between,
                )
                for view in self._request.views
            ]
            self._spine = AskedSpine(self._asked_spine, views=len(self._views), memory=self._limit)
            if self._range_query is None:
                self._spine.describe(catalog)
        self._spine.read_with(self._stack.enter_context(self._session), self._stack)
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
        blocks = [self._block_table(block) for block in self._spine.blocks()]
        return pa.concat_tables(blocks) if blocks else self.schema.empty_table()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The answer from front to back, in batches of `BATCH_ROWS` rows at most."""
        if self._range_query is not None:
            yield from self._range_batches()
            return
        for block in self._spine.blocks():
            with ExitStack() as files:
                found = list(self._answers(block, files, keep=True))
                for start in range(0, block.rows, BATCH_ROWS):
                    stop = min(start + BATCH_ROWS, block.rows)
                    columns = dict(
                        zip(
                            block.table.column_names,
                            block.table.slice(start, stop - start).columns,
                            strict=True,
                        )
                    )
                    for outputs, answer in found:
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
        return pa.schema([*self._spine.schema, *(pa.field(*feature) for feature in features)])

    def planned(self) -> Sequence[Plan]:
        """The plans, without reading a feature."""
        if self._range_query is None:
            for block in self._spine.blocks():
                if block.bounds() is not None:
                    self._plan(block, self._sides(block))
        return self._plans

    def statement(self) -> str:
        """One statement that gives the same answer, with the spine written out."""
        if self._range_query is not None:
            return self._range_query.as_string()
        whole = self._spine.whole
        rows = lookup.staged(whole, key_columns(whole, self._views))
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
        return 0 if self._range_query is not None else self._spine.whole.rows

    def bounds(self) -> tuple[int, int] | None:
        """The first moment and the last that are asked about, in microseconds since 1970."""
        if self._request.between is not None:
            first, last = (
                (at - EPOCH) // timedelta(microseconds=1) for at in self._request.between
            )
            return first, last
        if self._seen is not None:
            return self._seen
        return self._spine.whole.bounds()

    def keys(self) -> list[str]:
        """The spine's columns besides the moment; of a date range the join keys."""
        if self._request.spine is None:
            return list(dict.fromkeys(key for view in self._views for key in view.keys))
        moments = spine.moments_column(self._spine.schema)
        return [name for name in self._spine.schema.names if name != moments]

    @property
    def _limit(self) -> int:
        return self._request.memory_limit_mb * _MIB

    # The date-range mode.

    @property
    def _asked_spine(self) -> Any:
        """The spine; of a date range the query of every moment at which a view has a row."""
        if self._request.spine is not None:
            return self._request.spine
        return date_range.moments(self._views, by_created=self._request.by_created).as_string()

    @property
    def _range_query(self) -> sql.Composed | None:
        """The statement of the date-range mode with one view, which joins nothing."""
        if self._request.spine is not None or len(self._views) != 1:
            return None
        return date_range.query_of_one(self._views[0], by_created=self._request.by_created)

    def _range_batches(self) -> Iterator[pa.RecordBatch]:
        statement = cast("sql.Composed", self._range_query)
        for batch in self._session.fetched(statement, _named(self._views)):
            columns = [
                conformed(column, field.type)
                for column, field in zip(batch.columns, self.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    # The plan.

    def _sides(self, block: Spine) -> Sides:
        return Sides(block, key_columns(block, self._views))

    def _plan(self, block: Spine, sides: Sides) -> list[tuple[View, Estimate, sql.Composed, str]]:
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
        self, view: View, bounds: tuple[int, int], sides: Sides
    ) -> tuple[sql.Composed, Expected]:
        statement = rows_query(view, bounds)
        reading = expected(self._session.value, statement)
        only = sides.only(view, _FEW_ENTITIES)
        if only is None:
            return statement, reading
        narrow = rows_query(view, bounds, only)
        fewer = expected(self._session.value, narrow)
        return (narrow, fewer) if fewer.rows <= _FEW_ROWS * reading.rows else (statement, reading)

    def _one_lookup(self, view: View, bounds: tuple[int, int], sides: Sides) -> Expected:
        """The lookup of the middle one of the spine's moments."""
        number = sides.middle
        rows = lookup.staged(
            sides.block.slice(number, 1),
            {key: column.slice(number, 1) for key, column in sides.keys.items()},
        )
        return expected(
            self._session.value,
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
    ) -> Iterator[tuple[list[str], Answer]]:
        sides = self._sides(block)
        bounds = block.bounds()
        self._seen = _widened(self._seen, bounds)
        if bounds is None:
            yield from ((view.outputs, answers.unmatched(view, block.rows)) for view in self._views)
            return
        planned = self._plan(block, sides)
        looked_up = [view for view, _, _, way in planned if way == "lookup"]
        held = 0
        if looked_up:
            answer = self._looked_up(looked_up, bounds, sides, files)
            held += answer.held_bytes if keep else 0
            yield [output for view in looked_up for output in view.outputs], answer
        merges = [(view, own, statement) for view, own, statement, way in planned if way == "merge"]
        fetched = self._session.numbered(
            [(statement, _named([view])) for view, _, statement in merges]
        )
        for number, (view, own, _) in enumerate(merges):
            own_files = files.enter_context(ExitStack())
            answer = merge.merged(
                view,
                fetched.of(number),
                sides.of(view),
                by_created=self._request.by_created,
                memory=max(self._limit // 2 - held, self._limit // 16),
                expected_bytes=own.expected_bytes,
                files=own_files,
            )
            if keep and held + answer.held_bytes > self._limit // 2:
                # However many views there are, half of the memory is all that they keep.
                answer = answers.in_file(answer, block.rows, view, files)
                own_files.close()
            held += answer.held_bytes if keep else 0
            yield view.outputs, answer
            del answer

    def _looked_up(
        self, views: list[View], bounds: tuple[int, int], sides: Sides, files: ExitStack
    ) -> Answer:
        rows = lookup.staged(sides.block, sides.keys)
        self._session.run(lambda connection: lookup.stage(connection, rows))
        statement = lookup.lookup_query(
            views, rows.names, lookup.on_server(), bounds, by_created=self._request.by_created
        )
        kinds = [column.arrow for view in views for column, _ in view.features]
        fetched = self._session.fetched(statement, _named(views))
        answer = answers.in_order(fetched, kinds, self._limit // 2, files)
        self._session.run(lookup.unstage)
        return answer


def _widened(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _named(views: Sequence[View]) -> str:
    names = ", ".join(repr(view.name) for view in views)
    return f"feature view{'s' if len(views) > 1 else ''} {names}"
