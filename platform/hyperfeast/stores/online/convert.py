"""From one layout to the other: every stored row of a view copied into the form that the other layout reads.

Rows are copied as any writer writes them: the newest (event, recorded) wins, so that rows which arrive in the
new layout meanwhile stay. What is there already is left alone: a conversion that was interrupted goes on
where it stopped when it is run again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from feast import FeatureStore, FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID
from numpy.typing import NDArray

from hyperfeast.errors import UsageError
from hyperfeast.stores.online import packed, removal, resp, wire
from hyperfeast.stores.online.encode import ArrayOfBytes
from hyperfeast.stores.online.exchange import Exchange, translated
from hyperfeast.stores.online.layouts import HashLayout, Layout, PackedLayout
from hyperfeast.stores.online.reading import Reading, reader_of
from hyperfeast.stores.online.rows import NEVER, Rows
from hyperfeast.stores.online.unpacked import Unpacked
from hyperfeast.stores.online.views import Command, Commands
from hyperfeast.stores.online.write import Destination, write

Name = Literal["feast", "packed"]
Progress = Callable[[int, int], None]

_AT_ONCE = 2000
_BYTES = pa.large_binary()


@dataclass(frozen=True)
class Converted:
    """What became of a view.

    Attributes:
        view: its name.
        rows: how many entities have a row of it in the layout that was read.
        written: how many of them were copied.
        already_there: how many the other layout had already, as new or newer.
        removed: whether the rows in the layout that was read were deleted.
    """

    view: str
    rows: int
    written: int
    already_there: int
    removed: bool


def convert(
    store: FeatureStore,
    to: Name,
    *,
    views: Sequence[str] = (),
    remove_source: bool = False,
    progress: Progress | None = None,
) -> list[Converted]:
    """Copy stored rows into a layout.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.
        to: the layout that they are to have; they are read from the other one.
        views: which feature views; all that are online by default.
        remove_source: whether to delete each view's rows in the other layout once they are copied. What is
            written there meanwhile is lost: stop what writes in it before.
        progress: told (rows done, rows there are).

    Raises:
        UsageError: there is no feature view of a name.
        FeatureError: the online store is not ours.
        SchemaError: values were packed under another schema.
        ServerUnreachable: Redis does not answer in time.
    """
    online = reader_of(store)
    with translated(store.config.online_store):
        sides = [
            _Sides.of(online, store.config, view, to) for view in _views(store, frozenset(views))
        ]
        counts = [sum(1 for _ in side.source.entities()) for side in sides]
        total, done, converted = sum(counts), 0, []
        for side, count in zip(sides, counts, strict=True):
            before = done

            def told(rows: int, before: int = before) -> None:
                if progress:
                    progress(min(before + rows, total), total)

            converted.append(side.convert(told, remove_source=remove_source))
            done += count
    return converted


def _views(store: FeatureStore, names: frozenset[str]) -> list[FeatureView]:
    there = [view for view in store.list_feature_views() if view.online]
    # Views over a stream are listed apart, and stored alike.
    there += [view for view in store.list_stream_feature_views() if view.online]
    if unknown := names - {view.name for view in there}:
        raise UsageError(
            f"no feature view {', '.join(sorted(unknown))} is online: there are "
            f"{', '.join(sorted(view.name for view in there)) or 'none'}"
        )
    return [view for view in there if not names or view.name in names]


class _Source(Protocol):
    """A layout to read rows out of."""

    def entities(self) -> Iterator[bytes]:
        """The entities' keys."""

    def rows(self, keys: Sequence[bytes]) -> Rows:
        """The rows of those entities that have one."""

    def remove(self) -> None:
        """Delete the view's rows."""


@dataclass(frozen=True)
class _View:
    """A view, and the way to Redis."""

    name: str
    schema: packed.Schema
    join_keys: tuple[str, ...]
    project: str
    client: Any
    exchange: Exchange

    @property
    def features(self) -> list[str]:
        return [name for name, _ in self.schema.features]

    def send(self, commands: list[Command]) -> list[Any]:
        payload = b"".join(resp.command(*command) for command in commands)
        return self.exchange.send(Commands(len(commands), payload, lambda: commands))


@dataclass(frozen=True)
class _Hashes:
    """Feast's layout."""

    view: _View

    def entities(self) -> Iterator[bytes]:
        view = self.view
        return removal.entity_keys(view.client, view.join_keys, view.project)

    def rows(self, keys: Sequence[bytes]) -> Rows:
        view = self.view
        fields = [wire.field_hash(view.name, name) for name in view.features]
        times = (wire.timestamp_field(view.name), wire.recorded_field(view.name))
        replies = view.send([(b"HMGET", key, *times, *fields) for key in keys])
        # A key has the views of its entity that were written, not all.
        there = [at for at, reply in enumerate(replies) if reply[0] is not None]
        found = [replies[at] for at in there]
        event, recorded = HashLayout(view.name, 0).times([reply[:2] for reply in found])
        values = {
            name: _column([reply[at] or b"" for reply in found])
            for at, name in enumerate(view.features, start=2)
        }
        return Rows(_column([keys[at] for at in there]), event, recorded, values)

    def remove(self) -> None:
        view = self.view
        removal.delete_view(view.client, view.name, view.features, view.join_keys, view.project)


@dataclass(frozen=True)
class _Packed:
    """Ours."""

    view: _View

    @property
    def _head(self) -> bytes:
        return packed.key_head(self.view.name)

    def entities(self) -> Iterator[bytes]:
        view, head = self.view, self._head
        found = removal.entity_keys(view.client, view.join_keys, view.project, head)
        return (key.removeprefix(head) for key in found)

    def rows(self, keys: Sequence[bytes]) -> Rows:
        view = self.view
        replies = view.send([(b"GET", self._head + key) for key in keys])
        # One may have expired since it was found.
        there = [at for at, reply in enumerate(replies) if reply is not None]
        values = [replies[at] for at in there]
        cells = Unpacked(view.schema, values).values(view.features)
        times = [packed.times_of(value) for value in values]
        return Rows(
            _column([keys[at] for at in there]),
            np.array([event for event, _ in times], np.int64),
            np.array([NEVER if at is None else at for _, at in times], np.int64),
            {
                name: _column([row[at] or b"" for row in cells])
                for at, name in enumerate(view.features)
            },
        )

    def remove(self) -> None:
        view = self.view
        removal.delete_packed_view(view.client, view.name, view.join_keys, view.project)


@dataclass(frozen=True)
class _Sides:
    """One view's conversion."""

    view: _View
    source: _Source
    destination: Destination

    @classmethod
    def of(cls, online: Reading, config: RepoConfig, table: FeatureView, to: Name) -> "_Sides":
        options, name = config.online_store, wire.versioned_name(table, config)
        client = online.client(config)
        schema = packed.Schema.of(table)
        # Feast's lists leave out the one that stands for no entity.
        join_keys = tuple(table.join_keys) or (DUMMY_ENTITY_ID,)
        view = _View(name, schema, join_keys, config.project, client, online.exchange(config))
        ttl_s = options.key_ttl_seconds or 0
        layout: Layout = (
            PackedLayout(name, schema, ttl_s) if to == "packed" else HashLayout(name, ttl_s)
        )
        # What is stored has been let in before, however far ahead it lies.
        destination = Destination(client, layout, float("inf"), options.retries)
        return cls(view, _Hashes(view) if to == "packed" else _Packed(view), destination)

    def convert(self, told: Callable[[int], None], *, remove_source: bool) -> Converted:
        rows = written = 0
        for keys in _batches(self.source.entities()):
            found = self.source.rows(keys)
            rows += len(found)
            written += self._write(found.take(self._absent(found)))
            told(rows)
        if remove_source:
            self.source.remove()
        return Converted(self.view.schema.view, rows, written, rows - written, remove_source)

    def _absent(self, rows: Rows) -> NDArray[np.intp]:
        """Which rows the other layout does not have exactly so."""
        layout = self.destination.layout
        keys: list[Any] = rows.keys.to_pylist()
        commands: list[Command]
        if isinstance(layout, PackedLayout):
            head = packed.key_head(self.view.name)
            span = (b"%d" % packed.EVENT_AT, b"%d" % (packed.HEADER_BYTES - 1))
            commands = [(b"GETRANGE", head + key, *span) for key in keys]
        else:
            fields = (wire.timestamp_field(self.view.name), wire.recorded_field(self.view.name))
            commands = [(b"HMGET", key, *fields) for key in keys]
        event, recorded = layout.times(self.view.send(commands))
        return np.flatnonzero((event != rows.event) | (recorded != rows.recorded))

    def _write(self, rows: Rows) -> int:
        return write(self.destination, [rows]).rows if len(rows) else 0


def _batches(keys: Iterator[bytes]) -> Iterator[list[bytes]]:
    # A scan may find a key twice; in one batch it would be two rows of one entity.
    while some := list(dict.fromkeys(islice(keys, _AT_ONCE))):
        yield some


def _column(values: Iterable[bytes]) -> ArrayOfBytes:
    return pa.array(list(values), _BYTES)
