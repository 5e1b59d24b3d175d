"""What one request asks of Redis: the views, the keys of their rows, the commands, and what came back."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from feast.feature_view import DUMMY_ENTITY_VAL
from feast.value_type import ValueType
from numpy.typing import NDArray

from hyperfeast.errors import DataError, UsageError
from hyperfeast.stores.online.encode import Column
from hyperfeast.stores.online.wire import EntityKeys

Cells: TypeAlias = "Sequence[Any] | NDArray[Any] | Column | pa.ChunkedArray[Any]"
Command: TypeAlias = tuple[bytes, ...]

# Up to here a key in Python costs less than Arrow's calls a column.
_FEW = 256
_INT64_HEAD = struct.pack("<II", ValueType.INT64.value, 8)
_as_int64 = struct.Struct("<q").pack
_INTEGERS = {ValueType.INT32: 31, ValueType.INT64: 63}


@dataclass(frozen=True)
class PlannedView:
    """A feature view as a request wants it.

    Attributes:
        name: as the request names it; with its version, if that was asked for.
        stored_as: its name in Redis.
        features: the names of those asked for.
        kinds: their types.
        outputs: their names in the answer.
        schema: every feature of the view and its type, in the view's order.
        ttl: how old a row may be; None if it does not matter.
    """

    name: str
    stored_as: str
    features: tuple[str, ...]
    kinds: tuple[ValueType, ...]
    outputs: tuple[str, ...]
    schema: tuple[tuple[str, ValueType], ...]
    ttl: timedelta | None

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The features as messages name them."""
        return tuple(
            f"feature view {self.name!r}, feature {feature!r}" for feature in self.features
        )


@dataclass(frozen=True)
class KeyGroup:
    """Views whose rows are found by the same columns of a request.

    Attributes:
        keys: how a key is written.
        columns: the request's column for each join key, in the keys' order; none if there is no entity.
        views: the positions of the views in the plan.
    """

    keys: EntityKeys
    columns: tuple[str, ...]
    views: tuple[int, ...]

    def of_plain(self, columns: Mapping[str, Cells], rows: int) -> list[bytes]:
        """The Redis key of each row, of values that `is_plain` holds for."""
        keys = self.keys
        if not self.columns:
            return [keys.of_row([DUMMY_ENTITY_VAL])] * rows
        cells = [columns[name] for name in self.columns]
        if [*keys.types.values()] == [ValueType.INT64]:
            # What almost all keys are, at a quarter of the cost.
            head, tail = keys.head + _INT64_HEAD, keys.tail
            return [head + _as_int64(value) + tail for value in cells[0]]
        return [keys.of_row(values) for values in zip(*cells, strict=True)]

    def of_cells(self, columns: Mapping[str, Cells], rows: int) -> list[bytes]:
        """The Redis key of each row.

        Raises:
            UsageError: the request lacks a join key.
            DataError: a value is missing, or is not of its type.
        """
        if absent := [name for name in self.columns if name not in columns]:
            raise UsageError(
                f"expected a value for each join key of {', '.join(self.columns)}; found "
                f"{', '.join(columns) or 'none'}: add {', '.join(absent)} to the entity rows"
            )
        if not self.columns or (rows <= _FEW and self._are_plain(columns)):
            return self.of_plain(columns, rows)
        arrow = {
            key: _arrow(name, columns[name])
            for name, key in zip(self.columns, self.keys.names, strict=True)
        }
        keys: list[bytes] = self.keys.of_columns(arrow).to_pylist()  # type: ignore[assignment]
        return keys

    def _are_plain(self, columns: Mapping[str, Cells]) -> bool:
        return all(
            is_plain(columns[name], self.keys.types[key])
            for name, key in zip(self.columns, self.keys.names, strict=True)
        )


@dataclass(frozen=True)
class Commands:
    """What is sent to Redis at once.

    Attributes:
        replies: how many replies there will be.
        payload: the commands as they go over a socket.
        each: the same, one by one, for clients that want to send them themselves.
    """

    replies: int
    payload: bytes
    each: Callable[[], list[Command]]


class Found(Protocol):
    """What Redis holds of one view, a row for each distinct entity."""

    def matrix(self) -> NDArray[np.float64]:
        """The features as numbers: entities x features; NaN where one is missing."""

    def column(self, feature: int) -> Column:
        """A feature as Arrow; null where it is missing."""

    def times(self) -> NDArray[np.datetime64]:
        """The event times, UTC, microseconds; NaT where there is no row."""

    def values(self) -> Sequence[Sequence[bytes | None]]:
        """Feast's values, a row an entity; None or empty where one is missing."""

    def stamps(self) -> Sequence[bytes | None]:
        """The event times as protobuf timestamps; None where there is no row."""

    def plain(self) -> list[list[Any]] | None:
        """Features that are all plain as columns of Python's own values: see `plain.columns`."""


class Reads(Protocol):
    """A plan's views in one layout: what to ask, and how to take the answer."""

    def commands(self, keys: Sequence[Sequence[bytes]]) -> Commands:
        """What to send for the distinct keys of each key group."""

    def found(self, keys: Sequence[Sequence[bytes]], replies: list[Any]) -> list[Found]:
        """What came back, for each view of the plan."""


def is_plain(values: Cells, kind: ValueType) -> bool:
    """Whether values are Python's own and of the type, so that Feast would store them as they are."""
    if kind is ValueType.STRING:
        return all(type(value) is str and value for value in values)
    bits = _INTEGERS.get(kind)
    if bits is None:
        return False
    return all(type(value) is int and -(1 << bits) <= value < 1 << bits for value in values)


def _arrow(name: str, values: Cells) -> Column:
    try:
        found = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"join key {name!r}: expected values of one type: {error}; convert them before"
        ) from error
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
