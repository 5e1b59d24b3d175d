"""A merge whose rows do not fit into memory: both sides in parts by entity and time, matched part by part.

The spine is cut first: its entities into groups, and the spine rows of a group, where they are many,
into stretches of time. A view's row goes to the file of the first stretch of its entity's group in
which it can be an answer. What a stretch needs of those before it is one row an entity: the newest.

The rows of a part are matched as they come, a share of the memory at a time, and of those that are
done with only the ones are kept that are an answer so far. So memory grows neither with the rows of
one entity, or of a view that has none, nor with the spine's.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from hyperfeast.stores.offline.answers import Answer, Filed, Held, features_schema, unmatched
from hyperfeast.stores.offline.asof import (
    Integers,
    Moments,
    able,
    known_from,
    newest,
    sorted_moments,
)
from hyperfeast.stores.offline.entities import Entities, as_numbers
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.rows import features, timed
from hyperfeast.stores.offline.sides import Side

_MIN_GROUPS, _MAX_GROUPS = 8, 128
_MIN_ANSWER_ROWS, _MAX_ANSWER_ROWS = 64, 8_192
_CODE = "code"


@dataclass(frozen=True)
class Sizes:
    """How large the parts are.

    Attributes:
        groups: how many groups of entities there are.
        spine_rows: how many rows of the spine a part has, about.
        batch_bytes: how many bytes of a part's rows are matched at a time.
        answer_rows: how many rows of an answer wait in memory, for each part.
    """

    groups: int
    spine_rows: int
    batch_bytes: int
    answer_rows: int


def sizes(memory: int, row_bytes: int, expected_bytes: int, spine: Side) -> Sizes:
    """What keeps a merge within the memory.

    Args:
        memory: how many bytes of rows may be in memory.
        row_bytes: what a row of the view takes.
        expected_bytes: what all of them take, by the planner's estimate.
        spine: the other side.
    """
    rows = len(spine.times)
    share = max(memory // 4, 1)
    spine_rows = max(share // 2 // row_bytes, -(-rows // _MAX_GROUPS), 1)
    wanted = max(expected_bytes // share, -(-rows // spine_rows), _MIN_GROUPS)
    groups = min(wanted, _MAX_GROUPS, max(spine.entities.count, 1))
    parts = groups + rows // spine_rows
    answer_rows = share // 4 // (parts * row_bytes)
    return Sizes(
        groups, spine_rows, share, min(max(answer_rows, _MIN_ANSWER_ROWS), _MAX_ANSWER_ROWS)
    )


def spilled(
    view: View,
    kept: list[pa.RecordBatch],
    rest: Iterator[pa.RecordBatch],
    spine: Side,
    *,
    by_created: bool,
    how: Sizes,
    files: ExitStack,
) -> Answer:
    """Match a view's rows with the spine by way of files.

    Args:
        view: whose rows.
        kept: the first rows, of which the list is emptied.
        rest: the rows after them.
        spine: the other side.
        by_created: whether only rows count that were recorded by the spine row's moment.
        how: how large the parts are.
        files: what removes the files.
    """
    folder = Path(files.enter_context(TemporaryDirectory(prefix="hyperfeast-")))
    cuts = _Cuts(spine, how)
    with closing(_Files(folder)) as rows:
        while kept:
            rows.put(*_placed(view, kept.pop(0), spine.entities, cuts, by_created=by_created))
        for batch in rest:
            rows.put(*_placed(view, batch, spine.entities, cuts, by_created=by_created))
    path = folder / "answer"
    schema = features_schema(column.arrow for column, _ in view.features)
    counts: list[int] = []
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for group in cuts.groups:
            carried: pa.Table | None = None
            for number in group:
                part = _Part(view, spine, cuts.positions(number), by_created=by_created)
                if number < group[-1]:
                    part.carry_on(cuts.entities(group), cuts.ends[number])
                if carried is not None:
                    part.add(carried)
                for table in rows.read(number, how.batch_bytes):
                    part.add(table)
                counts.append(part.write(writer, schema, how.answer_rows))
                carried = part.carried
    return Filed(cuts.parts, path, counts, files)


class _Cuts:
    """The spine in parts.

    Attributes:
        parts: int64[rows], the part of each row.
        count: how many there are.
        groups: the parts of each group of entities, in the order of time.
        ends: the last moment of each part.
    """

    def __init__(self, spine: Side, how: Sizes) -> None:
        self._codes = spine.entities.codes
        able_rows = self._codes >= 0
        if spine.timeless is not None:
            able_rows &= ~spine.timeless
        group_of = np.mod(self._codes, how.groups)
        self.parts = np.empty(len(group_of), np.int64)
        self.groups: list[range] = []
        self.ends: list[int] = []
        by_group = np.argsort(group_of, kind="stable")
        bounds = np.searchsorted(group_of[by_group], np.arange(how.groups + 1))
        for start, stop in pairwise(bounds):
            rows = by_group[start:stop]
            ends = _ends(spine.times[rows[able_rows[rows]]], how.spine_rows)
            first = len(self.ends)
            # Rows that can match nothing may be anywhere.
            stretch = np.minimum(np.searchsorted(ends, spine.times[rows]), len(ends) - 1)
            self.parts[rows] = first + stretch
            self.groups.append(range(first, first + len(ends)))
            self.ends += ends.tolist()
        self.count = len(self.ends)
        self._by_part = np.argsort(self.parts, kind="stable")
        self._starts = np.searchsorted(self.parts[self._by_part], np.arange(self.count + 1))

    def positions(self, part: int) -> Integers:
        """Where in the spine the rows of a part stand, in its order."""
        return self._by_part[self._starts[part] : self._starts[part + 1]]

    def entities(self, group: range) -> Integers:
        """The entities of a group."""
        rows = self._by_part[self._starts[group[0]] : self._starts[group[-1] + 1]]
        codes = np.unique(self._codes[rows])
        return codes[codes >= 0]

    def of(self, entities: Integers, times: Integers) -> Integers:
        """The part in which each row of a view can first be an answer; -1 where it can in none.

        Args:
            entities: int64[rows], of the spine's.
            times: from when each can be one.
        """
        group_of = np.mod(entities, len(self.groups))
        first = np.array([group[0] for group in self.groups])
        last_end = np.array([self.ends[group[-1]] for group in self.groups])
        found: Integers = first[group_of]
        for number, group in enumerate(self.groups):
            if len(group) > 1:
                rows = np.flatnonzero(group_of == number)
                found[rows] += np.searchsorted(self.ends[group[0] : group[-1] + 1], times[rows])
        found[times > last_end[group_of]] = -1
        return found


def _ends(times: Integers, most: int) -> Integers:
    """The last moments of stretches of about so many rows, ascending; of no rows one that nothing precedes."""
    if not times.size:
        return np.array([np.iinfo(np.int64).min])
    ordered = np.sort(times)
    count = -(-len(ordered) // most)
    last = len(ordered) * np.arange(1, count + 1) // count - 1
    return np.unique(ordered[last])


def _placed(
    view: View, batch: pa.RecordBatch, entities: Entities, cuts: _Cuts, *, by_created: bool
) -> tuple[pa.RecordBatch, Integers]:
    """A batch with its entities' numbers for its keys, and the part of each row; -1 where it matches nothing."""
    keys = [as_numbers(batch.column(f"key_{number}")) for number in range(len(view.keys))]
    codes = entities.of(keys)
    rows = timed(view, batch, codes)
    codes = np.zeros(batch.num_rows, np.int64) if codes is None else codes
    parts = cuts.of(codes, known_from(rows, by_created=by_created))
    chosen = able(rows, by_created=by_created)
    if chosen is not None:
        unable = np.ones(len(parts), bool)
        unable[chosen] = False
        parts[unable] = -1
    names = [name for name in batch.schema.names if not name.startswith("key_")]
    coded = pa.RecordBatch.from_arrays(
        [pa.array(codes), *(batch.column(name) for name in names)], names=[_CODE, *names]
    )
    return coded, parts


class _Files:
    """A view's rows in files, a file a part."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}
        self._open = ExitStack()

    def put(self, batch: pa.RecordBatch, parts: Integers) -> None:
        """Rows, and where each goes; nowhere where that is -1."""
        order = np.argsort(parts, kind="stable")
        numbers, starts = np.unique(parts[order], return_index=True)
        stops = [*starts[1:].tolist(), len(order)]
        ordered = batch.take(pa.array(order, pa.int64()))
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops, strict=True):
            if number >= 0:
                self._writer(number, batch.schema).write_batch(ordered.slice(start, stop - start))

    def close(self) -> None:
        """Nothing more comes; no file stays open."""
        self._open.close()
        self._writers.clear()

    def read(self, number: int, batch_bytes: int) -> Iterator[pa.Table]:
        """The rows of a part, so many bytes at a time; its file is gone afterwards."""
        path = self._path(number)
        if not path.exists():
            return
        with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
            some: list[pa.RecordBatch] = []
            size = 0
            for batch in reader:
                some.append(batch)
                size += batch.nbytes
                if size >= batch_bytes:
                    yield pa.Table.from_batches(some)
                    some.clear()
                    size = 0
            if some:
                yield pa.Table.from_batches(some)
        path.unlink()

    def _writer(self, number: int, schema: pa.Schema) -> Any:
        if number not in self._writers:
            # A writer that opens the file itself does not close it.
            file = self._open.enter_context(pa.OSFile(str(self._path(number)), "wb"))
            self._writers[number] = self._open.enter_context(pa.ipc.new_stream(file, schema))
        return self._writers[number]

    def _path(self, number: int) -> Path:
        return self._folder / f"rows-{number}"


class _Part:
    """Some of the spine's rows, and of the view's rows that came so far those that are needed."""

    def __init__(self, view: View, spine: Side, positions: Integers, *, by_created: bool) -> None:
        self._view, self._by_created = view, by_created
        self._length = len(positions)
        self._entities = spine.entities
        timeless = None if spine.timeless is None else spine.timeless[positions]
        self._moments = sorted_moments(
            spine.entities.codes[positions], spine.entities.count, spine.times[positions], timeless
        )
        self._end: Moments | None = None
        self._rows: pa.Table | None = None
        self._matched: Sequence[Integers] = ()

    def carry_on(self, entities: Integers, end: int) -> None:
        """Keep for each entity what is its newest row at the part's end, too."""
        times = np.full(len(entities), end, np.int64)
        self._end = sorted_moments(entities, self._entities.count, times, None)

    def add(self, rows: pa.Table) -> None:
        """Match more of the view's rows."""
        together = rows
        if self._rows is not None:
            together = pa.concat_tables([self._rows.take(_positions(self._matched)), rows])
        own = timed(self._view, together, together.column(_CODE).to_numpy())
        matched = [
            newest(self._moments, own, ttl_us=self._view.ttl_us, by_created=self._by_created)
        ]
        if self._end is not None:
            matched.append(newest(self._end, own, ttl_us=None, by_created=self._by_created))
        self._rows, self._matched = together, matched

    @property
    def carried(self) -> pa.Table | None:
        """The newest rows at the part's end; None where there are none, or nobody asked."""
        if self._rows is None or self._end is None:
            return None
        return self._rows.take(_positions(self._matched[1:]))

    def write(self, writer: Any, schema: pa.Schema, batch_rows: int) -> int:
        """The features of the spine's rows, in their order; and of how many batches they are."""
        answer = (
            unmatched(self._view, self._length)
            if self._rows is None
            else Held(features(self._view, self._rows), self._matched[0])
        )
        count = 0
        for start in range(0, self._length, batch_rows):
            stop = min(start + batch_rows, self._length)
            for batch in pa.table(answer.take(start, stop), schema=schema).to_batches():
                writer.write_batch(batch)
                count += 1
        return count


def _positions(matched: Sequence[Integers]) -> Any:
    """The rows that are an answer, each once."""
    unique = np.unique(np.concatenate(matched))
    return pa.array(unique[unique >= 0], pa.int64())
