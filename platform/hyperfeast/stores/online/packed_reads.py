"""The packed layout, read: one value for each view and entity of a request."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperfeast.stores.online import plain
from hyperfeast.stores.online.encode import Column
from hyperfeast.stores.online.packed import Schema, key_head
from hyperfeast.stores.online.unpacked import Picked, Unpacked
from hyperfeast.stores.online.views import Command, Commands, Found, KeyGroup, PlannedView


class PackedReads:
    """One MGET for all views and entities of a request."""

    def __init__(self, groups: Sequence[KeyGroup], views: Sequence[PlannedView]) -> None:
        self._views = views
        self._groups = [group.views for group in groups]
        self._schemas = [Schema(view.name, view.schema) for view in views]
        self._picked = [
            Picked(schema, view.features) for schema, view in zip(self._schemas, views, strict=True)
        ]
        self._heads = [key_head(view.stored_as) for view in views]

    def commands(self, keys: Sequence[Sequence[bytes]]) -> Commands:
        """What to send for the distinct keys of each key group."""
        named = list(self._named(keys))
        if not named:
            return Commands(0, b"", list)
        parts = [b"$%d\r\n%b\r\n" % (len(key), key) for key in named]
        payload = b"*%d\r\n$4\r\nMGET\r\n%b" % (len(named) + 1, b"".join(parts))
        return Commands(1, payload, lambda: _each(named))

    def _named(self, keys: Sequence[Sequence[bytes]]) -> Iterable[bytes]:
        for views, mine in zip(self._groups, keys, strict=True):
            for view in views:
                head = self._heads[view]
                yield from [head + key for key in mine]

    def found(self, keys: Sequence[Sequence[bytes]], replies: list[Any]) -> list[Found]:
        """What came back, for each view of the plan."""
        # One reply to an MGET, or one to each GET.
        values = replies[0] if replies and isinstance(replies[0], list) else replies
        by_view: dict[int, Found] = {}
        start = 0
        for views, mine in zip(self._groups, keys, strict=True):
            for view in views:
                mine_of_view = values[start : start + len(mine)]
                start += len(mine)
                unpacked = Unpacked(self._schemas[view], mine_of_view)
                by_view[view] = FoundPacked(self._views[view], unpacked, self._picked[view])
        return [by_view[view] for view in range(len(self._views))]


def _each(keys: Iterable[bytes]) -> list[Command]:
    """One by one, because a cluster's MGET takes keys of one slot only."""
    return [(b"GET", key) for key in keys]


@dataclass(frozen=True)
class FoundPacked:
    """What was packed for one view's entities."""

    view: PlannedView
    unpacked: Unpacked
    picked: Picked

    def matrix(self) -> NDArray[np.float64]:
        """The features as numbers: entities x features; NaN where one is missing."""
        return self.unpacked.matrix(self.picked)

    def column(self, feature: int) -> Column:
        """A feature as Arrow; null where it is missing."""
        return self.unpacked.column(self.view.features[feature])

    def times(self) -> NDArray[np.datetime64]:
        """The event times, UTC, microseconds; NaT where there is no row."""
        return self.unpacked.times()

    def values(self) -> Sequence[Sequence[bytes | None]]:
        """Feast's values, a row an entity; None or empty where one is missing."""
        return self.unpacked.values(self.view.features)

    def stamps(self) -> Sequence[bytes | None]:
        """The event times as protobuf timestamps; None where there is no row."""
        return self.unpacked.stamps()

    def plain(self) -> list[list[Any]] | None:
        """Features that are all plain as columns of Python's own values."""
        if self.picked.is_numeric:
            return self.unpacked.plain_numbers(self.picked)
        return plain.columns(self.values(), self.view.kinds)
