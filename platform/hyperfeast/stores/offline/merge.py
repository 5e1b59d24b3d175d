"""The streamed as-of merge: a view's rows come as Arrow, are matched by position, and are gathered in spine order.

While rows fit into the memory that is left they stay there. As soon as they do not, they are put
into files, a file a group of entities, and matched group by group; the answers wait in files too,
and are read back from front to back. Nothing is lost when the estimate was wrong: the turn to files
is taken when the rows that came have filled the memory, not before.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.asof import Integers, Moments, Rows, newest, sorted_moments
from hyperfeast.stores.offline.columns import Array, Chunks, compute, conformed, nulls
from hyperfeast.stores.offline.entities import Entities, as_numbers
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.spine import Spine, instant

_EVENT, _CREATED = "event", "created"
_ANSWER_ROWS = 8_192
_MIN_FILES, _MAX_FILES = 8, 128


class Answer(Protocol):
    """A view's features for the spine, to be asked for from front to back."""

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        """Columns for the spine rows from `start` up to `stop`, in the view's order of features."""

    @property
    def held_bytes(self) -> int:
        """How much memory it keeps."""


@dataclass(frozen=True)
class Side:
    """The spine's side of the merge for one set of join keys.

    Attributes:
        entities: the spine's entities.
        moments: its rows, sorted.
        times: int64[rows], the moments in the spine's order.
        timeless: where a moment is missing.
    """

    entities: Entities
    moments: Moments
    times: Integers
    timeless: NDArray[np.bool_] | None


def side(spine: Spine, keys: Sequence[Chunks]) -> Side:
    """Number and sort the spine's rows by some of its columns, as `entities.key_values` gives them."""
    entities = Entities(keys, spine.rows)
    moments = sorted_moments(entities.codes, entities.count, spine.moments, spine.timeless)
    return Side(entities, moments, spine.moments, spine.timeless)


def rows_query(
    view: View, bounds: tuple[int, int], only: sql.Composable | None = None
) -> sql.Composed:
    """The rows of a view that can match a spine: keys, event time, created time, features.

    Args:
        view: whose rows.
        bounds: the spine's first and last moment, in microseconds since 1970.
        only: a further condition.
    """
    keys = [
        sql.SQL("{} AS {}").format(column.key, sql.Identifier(f"key_{number}"))
        for number, column in enumerate(view.keys.values())
    ]
    event = sql.SQL("{}::timestamptz AS {}").format(
        view.timestamp.identifier, sql.Identifier(_EVENT)
    )
    created = [
        sql.SQL("{}::timestamptz AS {}").format(column.identifier, sql.Identifier(_CREATED))
        for column in [view.created]
        if column is not None
    ]
    features = [
        sql.SQL("{} AS {}").format(column.value, sql.Identifier(f"f_{number}"))
        for number, (column, _) in enumerate(view.features)
    ]
    return sql.SQL(query("point_in_time", "rows")).format(
        columns=sql.SQL(", ").join([*keys, event, *created, *features]),
        relation=view.relation,
        condition=sql.SQL(" AND ").join([*conditions(view, bounds), *([only] if only else [])]),
    )


def conditions(view: View, bounds: tuple[int, int]) -> list[sql.Composable]:
    """What every row of a view fulfills that can match a spine row between two moments.

    Moments are written out, not computed by the server: it can tell which chunks of a hypertable they leave.
    """
    first, last = bounds
    oldest = None if view.ttl_us is None else instant(first - view.ttl_us)
    newest_event = instant(last)
    found: list[sql.Composable] = [
        sql.SQL("{} <= {}").format(view.timestamp.identifier, moment(newest_event))
        if newest_event
        else sql.SQL("{} IS NOT NULL").format(view.timestamp.identifier)
    ]
    if oldest is not None:
        found.append(sql.SQL("{} >= {}").format(view.timestamp.identifier, moment(oldest)))
    return found + held(view)


def held(view: View) -> list[sql.Composable]:
    """What a view's rows fulfill whatever the spine: its range, and what was known."""
    found: list[sql.Composable] = []
    if view.between is not None:
        first, last = map(moment, view.between)
        found.append(sql.SQL("{} BETWEEN {} AND {}").format(view.timestamp.identifier, first, last))
    if view.known_by is not None and view.created is not None:
        found.append(sql.SQL("{} <= {}").format(view.created.identifier, moment(view.known_by)))
    return found


def moment(value: Any) -> sql.Composable:
    """A moment written out, with its zone."""
    return sql.SQL("{}::timestamptz").format(sql.Literal(value.isoformat()))


def merged(
    view: View,
    batches: Iterator[pa.RecordBatch],
    spine: Side,
    *,
    by_created: bool,
    memory: int,
    expected_bytes: int,
    files: ExitStack,
) -> Answer:
    """Match a view's rows with the spine.

    Args:
        view: whose rows.
        batches: the result of `rows_query`.
        spine: the other side.
        by_created: whether only rows count that were recorded by the spine row's moment.
        memory: how many bytes of rows may stay in memory.
        expected_bytes: how many come, by the planner's estimate.
        files: what closes the files, if any.
    """
    kept: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        kept.append(batch)
        size += batch.nbytes
        if size > memory:
            return _spilled(
                view,
                kept,
                batches,
                spine,
                by_created,
                max(expected_bytes, 2 * size) // max(memory // 4, 1),
                files,
            )
    if not kept:
        return unmatched(view, len(spine.times))
    table = pa.Table.from_batches(kept)
    kept.clear()
    matched = newest(
        spine.moments, _rows(view, table, spine.entities), ttl_us=view.ttl_us, by_created=by_created
    )
    return _Held(_features(view, table), matched)


def unmatched(view: View, rows: int) -> Answer:
    """No features for any row of the spine."""
    return _Held([_nulls(column.arrow, 0) for column, _ in view.features], np.full(rows, -1))


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
    schema = pa.schema([(f"f_{number}", kind) for number, kind in enumerate(kinds)])
    kept: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        kept.append(_conformed(batch, schema))
        size += kept[-1].nbytes
        if size > memory:
            return _file_in_order(kept, batches, schema, files)
    return _InOrder(pa.Table.from_batches(kept, schema))


def _conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [
        conformed(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _file_in_order(
    kept: list[pa.RecordBatch], rest: Iterator[pa.RecordBatch], schema: pa.Schema, files: ExitStack
) -> Answer:
    path = Path(files.enter_context(TemporaryDirectory(prefix="hyperfeast-"))) / "answer"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        while kept:
            writer.write_batch(kept.pop(0))
        for batch in rest:
            writer.write_batch(_conformed(batch, schema))
    return _Filed(None, [path], files)


class _InOrder:
    """Features in memory, a row each of the spine."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        return list(self._table.slice(start, stop - start).columns)

    @property
    def held_bytes(self) -> int:
        return int(self._table.nbytes)


def _rows(view: View, table: pa.Table, entities: Entities) -> Rows:
    keys = [as_numbers(table.column(f"key_{number}")) for number in range(len(view.keys))]
    return _timed(view, table, entities.of(keys))


def _timed(view: View, table: pa.Table, codes: Integers | None) -> Rows:
    events, eventless = _instants(table.column(_EVENT))
    if view.created is None:
        return Rows(codes, events, eventless)
    created, unrecorded = _instants(table.column(_CREATED))
    return Rows(codes, events, eventless, created, unrecorded)


def _instants(column: Chunks) -> tuple[Integers, NDArray[np.bool_] | None]:
    absent = column.is_null().to_numpy() if column.null_count else None
    counts = column.cast(pa.timestamp("us")).cast(pa.int64())
    if absent is not None:
        counts = compute.fill_null(counts, 0)
    return cast("Integers", counts.to_numpy()), absent


def _features(view: View, table: pa.Table) -> list[Array]:
    return [
        _whole(conformed(table.column(f"f_{number}"), column.arrow))
        for number, (column, _) in enumerate(view.features)
    ]


def _whole(column: Chunks) -> Array | Chunks:
    """One array, so that a position needs no search for its chunk; unless text is more than one can hold."""
    combined = column.combine_chunks()
    return (
        combined
        if not isinstance(combined, pa.ChunkedArray) or combined.num_chunks != 1
        else combined.chunk(0)
    )


def _nulls(kind: pa.DataType, rows: int) -> Array:
    return nulls(rows, kind)


class _Held:
    """Features in memory, and for each spine row the position of its row."""

    def __init__(self, features: list[Any], matched: Integers) -> None:
        self._features = features
        self._positions = pa.array(matched.astype(np.int64), mask=matched < 0)

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        positions = self._positions.slice(start, stop - start)
        return [
            column.take(positions) if len(column) else _nulls(column.type, stop - start)
            for column in self._features
        ]

    @property
    def held_bytes(self) -> int:
        return int(self._positions.nbytes + sum(column.nbytes for column in self._features))


# Files.


def _spilled(
    view: View,
    kept: list[pa.RecordBatch],
    rest: Iterator[pa.RecordBatch],
    spine: Side,
    by_created: bool,  # noqa: FBT001
    wanted_files: int,
    files: ExitStack,
) -> Answer:
    count = min(max(wanted_files, _MIN_FILES), _MAX_FILES, max(spine.entities.count, 1))
    folder = Path(files.enter_context(TemporaryDirectory(prefix="hyperfeast-")))
    groups = _Groups(folder, count)
    while kept:
        groups.put(_coded(view, kept.pop(0), spine.entities))
    for batch in rest:
        groups.put(_coded(view, batch, spine.entities))
    groups.close()

    group_of_row = np.mod(spine.entities.codes, count)
    answers = []
    for number in range(count):
        table = groups.read(number)
        positions = np.flatnonzero(group_of_row == number)
        path = folder / f"answer-{number}"
        _answer_group(view, table, positions, spine, path, by_created=by_created)
        answers.append(path)
    return _Filed(group_of_row, answers, files)


def _coded(view: View, batch: pa.RecordBatch, entities: Entities) -> pa.RecordBatch:
    """A batch with its entities' numbers for its keys, and without the rows that the spine does not ask for."""
    keys = [as_numbers(batch.column(f"key_{number}")) for number in range(len(view.keys))]
    codes = entities.of(keys)
    codes = np.zeros(batch.num_rows, np.int64) if codes is None else codes
    names = [name for name in batch.schema.names if not name.startswith("key_")]
    coded = pa.RecordBatch.from_arrays(
        [pa.array(codes), *(batch.column(name) for name in names)], names=["code", *names]
    )
    return coded if (codes >= 0).all() else coded.filter(pa.array(codes >= 0))


def _positions(rows: Integers) -> Any:
    return pa.array(rows, pa.int64())


class _Groups:
    """Rows in files, a file a group of entities."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._writers: dict[int, Any] = {}
        self._schema: pa.Schema | None = None

    def put(self, batch: pa.RecordBatch) -> None:
        self._schema = batch.schema
        if not batch.num_rows:
            return
        groups = np.mod(batch.column("code").to_numpy(), self._count)
        order = np.argsort(groups, kind="stable")
        ordered = batch.take(_positions(order))
        ends = np.searchsorted(groups[order], np.arange(self._count), side="right")
        start = 0
        for number, end in enumerate(ends):
            if end > start:
                self._writer(number).write_batch(ordered.slice(start, int(end) - start))
            start = int(end)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def read(self, number: int) -> pa.Table:
        """The rows of a group; its file is gone afterwards."""
        if number not in self._writers:
            return cast("pa.Schema", self._schema).empty_table()
        path = self._folder / f"rows-{number}"
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
            table = reader.read_all()
        path.unlink()
        return table

    def _writer(self, number: int) -> Any:
        if number not in self._writers:
            path = str(self._folder / f"rows-{number}")
            self._writers[number] = pa.ipc.new_stream(path, cast("pa.Schema", self._schema))
        return self._writers[number]


def _answer_group(
    view: View, table: pa.Table, positions: Integers, spine: Side, path: Path, *, by_created: bool
) -> None:
    """Write the features of a group's spine rows, in their order."""
    timeless = None if spine.timeless is None else spine.timeless[positions]
    moments = sorted_moments(
        spine.entities.codes[positions], spine.entities.count, spine.times[positions], timeless
    )
    rows = _timed(view, table, table.column("code").to_numpy())
    matched = newest(moments, rows, ttl_us=view.ttl_us, by_created=by_created)
    held_rows = _Held(_features(view, table), matched)
    schema = pa.schema(
        [(f"f_{number}", column.arrow) for number, (column, _) in enumerate(view.features)]
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, len(positions), _ANSWER_ROWS):
            stop = min(start + _ANSWER_ROWS, len(positions))
            writer.write_table(pa.table(held_rows.take(start, stop), schema=schema))


class _Filed:
    """Features in files, a file a group of entities, each in the spine's order; or in one for all."""

    def __init__(self, groups: Integers | None, paths: list[Path], files: ExitStack) -> None:
        self._groups = groups
        self._streams = [_Stream(path, files) for path in paths]
        self._at = 0

    def take(self, start: int, stop: int) -> list[Array | Chunks]:
        if start != self._at:
            raise ValueError(
                f"asked for row {start} after row {self._at}: files are read from front to back"
            )
        self._at = stop
        if self._groups is None:
            return list(self._streams[0].next(stop - start).columns)
        groups = self._groups[start:stop]
        counts = np.bincount(groups, minlength=len(self._streams))
        table = pa.concat_tables(
            [stream.next(int(count)) for stream, count in zip(self._streams, counts, strict=True)]
        )
        place = np.empty(len(groups), np.int64)
        place[np.argsort(groups, kind="stable")] = np.arange(len(groups))
        return list(table.combine_chunks().take(_positions(place)).columns)

    @property
    def held_bytes(self) -> int:
        return 0 if self._groups is None else int(self._groups.nbytes)


class _Stream:
    """A file of batches, read row by row."""

    def __init__(self, path: Path, files: ExitStack) -> None:
        file = files.enter_context(pa.OSFile(str(path), "rb"))
        self._reader = files.enter_context(pa.ipc.open_stream(file))
        self._left = self._reader.schema.empty_table()

    def next(self, rows: int) -> pa.Table:
        """The next rows."""
        parts = [self._left.slice(0, rows)]
        left = self._left.slice(parts[0].num_rows)
        missing = rows - parts[0].num_rows
        while missing:
            table = pa.Table.from_batches([self._reader.read_next_batch()])
            parts.append(table.slice(0, missing))
            left = table.slice(parts[-1].num_rows)
            missing -= parts[-1].num_rows
        self._left = left
        return pa.concat_tables(parts)
