"""Feast's layout: the hash of an entity has a field for each feature of each of its views."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperfeast.stores.online import decode, plain, wire
from hyperfeast.stores.online.encode import Column
from hyperfeast.stores.online.views import Command, Commands, Found, KeyGroup, PlannedView

_Row = Sequence[bytes | None]


class HashReads:
    """One HMGET an entity for all views that its key finds."""

    def __init__(self, groups: Sequence[KeyGroup], views: Sequence[PlannedView]) -> None:
        self._views = views
        self._groups = [_Fields.of(group, views) for group in groups]

    def commands(self, keys: Sequence[Sequence[bytes]]) -> Commands:
        """What to send for the distinct keys of each key group."""
        written = [
            b"%b$%d\r\n%b\r\n%b" % (group.head, len(key), key, group.tail)
            for group, mine in zip(self._groups, keys, strict=True)
            for key in mine
        ]
        return Commands(len(written), b"".join(written), lambda: self._each(keys))

    def found(self, keys: Sequence[Sequence[bytes]], replies: list[Any]) -> list[Found]:
        """What came back, for each view of the plan."""
        by_view: dict[int, Found] = {}
        start = 0
        for group, mine in zip(self._groups, keys, strict=True):
            rows = replies[start : start + len(mine)]
            start += len(mine)
            for view, (first, last) in group.places.items():
                by_view[view] = FoundInHashes(self._views[view], rows, first, last)
        return [by_view[view] for view in range(len(self._views))]

    def _each(self, keys: Sequence[Sequence[bytes]]) -> list[Command]:
        return [
            (b"HMGET", key, *group.fields)
            for group, mine in zip(self._groups, keys, strict=True)
            for key in mine
        ]


@dataclass(frozen=True)
class FoundInHashes:
    """One view's part of the replies: its features from `first` to `last`, then its event time."""

    view: PlannedView
    rows: Sequence[_Row]
    first: int
    last: int

    def matrix(self) -> NDArray[np.float64]:
        """The features as numbers: entities x features; NaN where one is missing."""
        return decode.matrix(self.values(), self.view.kinds, self.view.labels)

    def column(self, feature: int) -> Column:
        """A feature as Arrow; null where it is missing."""
        at = self.first + feature
        return decode.column(
            [row[at] for row in self.rows], self.view.kinds[feature], self.view.labels[feature]
        )

    def times(self) -> NDArray[np.datetime64]:
        """The event times, UTC, microseconds; NaT where there is no row."""
        return decode.timestamps(self.stamps())

    def values(self) -> Sequence[_Row]:
        """Feast's values, a row an entity; None or empty where one is missing."""
        return [row[self.first : self.last] for row in self.rows]

    def stamps(self) -> _Row:
        """The event times as protobuf timestamps; None where there is no row."""
        return [row[self.last] for row in self.rows]

    def plain(self) -> list[list[Any]] | None:
        """Features that are all plain as columns of Python's own values."""
        return plain.columns(self.values(), self.view.kinds)


@dataclass(frozen=True)
class _Fields:
    """The fields of a key group's HMGET, and which of them are which view's."""

    fields: tuple[bytes, ...]
    places: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, group: KeyGroup, views: Sequence[PlannedView]) -> "_Fields":
        fields: list[bytes] = []
        places = {}
        for at in group.views:
            view, first = views[at], len(fields)
            fields += [wire.field_hash(view.stored_as, feature) for feature in view.features]
            places[at] = (first, len(fields))
            fields.append(wire.timestamp_field(view.stored_as))
        return cls(tuple(fields), places)

    @cached_property
    def head(self) -> bytes:
        return b"*%d\r\n$5\r\nHMGET\r\n" % (len(self.fields) + 2)

    @cached_property
    def tail(self) -> bytes:
        return b"".join(b"$%d\r\n%b\r\n" % (len(field), field) for field in self.fields)
