"""Names and keys as Feast writes them to Redis: which key an entity has, which field a feature.

Under one key stand all views of an entity, in one hash: a field named by a 32-bit hash for each
feature, `_ts:<view>` for the event time and, ours, `_rec:<view>` for the time of recording.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mmh3
import numpy as np
from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.value_type import ValueType

from hyperfeast.errors import DataError, FeatureError
from hyperfeast.stores.online.encode import (
    ArrayOfBytes,
    Column,
    fixed,
    integers,
    joined,
    seconds,
    sizes,
    text,
)

_KEY_TYPES = (
    ValueType.STRING,
    ValueType.BYTES,
    ValueType.INT32,
    ValueType.INT64,
    ValueType.UNIX_TIMESTAMP,
)
_NUMBERS: dict[ValueType, "np.dtype[Any]"] = {
    ValueType.INT32: np.dtype("<i4"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.UNIX_TIMESTAMP: np.dtype("<i8"),
}
# From this version on the key says how many join keys it has, and how long each name is.
_COUNTED_FROM = 3


def versioned_name(view: FeatureView, config: RepoConfig) -> str:
    """The view's name in Redis: with its version, where the registry keeps versions online."""
    return str(compute_versioned_name(view, config.registry.enable_online_feature_view_versioning))


def field_hash(view: str, feature: str) -> bytes:
    """The four bytes by which a feature's field is named: murmur3 of `<view>:<feature>`, little endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The field that holds the view's event time."""
    return f"_ts:{view}".encode()


def recorded_field(view: str) -> bytes:
    """The field that holds the event time and the time at which it was recorded."""
    return f"_rec:{view}".encode()


def refuse_collisions(view: str, features: Iterable[str]) -> None:
    """Refuse two features of a view that would be one field in Redis.

    Args:
        view: its name in Redis.
        features: their names.

    Raises:
        FeatureError: two names have one hash.
    """
    named: dict[bytes, str] = {}
    for feature in features:
        other = named.setdefault(field_hash(view, feature), feature)
        if other != feature:
            raise FeatureError(
                f"feature view {view!r}: {other!r} and {feature!r} have the same 32-bit hash "
                f"({field_hash(view, feature).hex()}), which names a feature's field in Redis, so "
                "that one would be served as the other: rename one of them, or move it to another view"
            )


@dataclass(frozen=True)
class EntityKeys:
    """The Redis keys of a view's entities.

    Attributes:
        project: the Feast project.
        types: join key -> its value type, in any order.
        version: of Feast's entity key serialization.

    Raises:
        FeatureError: a join key's type cannot be in a key.
    """

    project: str
    types: Mapping[str, ValueType]
    version: int = 3

    def __post_init__(self) -> None:
        for name, kind in self.types.items():
            if kind not in _KEY_TYPES:
                raise FeatureError(
                    f"join key {name!r} is {kind.name}, which Feast cannot write into a key: declare "
                    f"its entity as one of {', '.join(kind.name for kind in _KEY_TYPES)}"
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The join keys in the order in which they stand in the key."""
        return tuple(sorted(self.types))

    @cached_property
    def head(self) -> bytes:
        """What every key of the view begins with."""
        counted = self.version >= _COUNTED_FROM
        parts = [struct.pack("<I", len(self.names))] if counted else []
        for name in self.names:
            written = name.encode()
            parts.append(struct.pack("<I", ValueType.STRING.value))
            parts += [struct.pack("<I", len(written)), written] if counted else [written]
        return b"".join(parts)

    @cached_property
    def tail(self) -> bytes:
        """What every key of the project ends with."""
        return self.project.encode()

    def of_columns(self, columns: Mapping[str, Column]) -> ArrayOfBytes:
        """One key a row.

        Args:
            columns: join key -> its values; columns of other names do not count.

        Raises:
            DataError: a value is missing, or is not what its type says.
        """
        values = [_value(name, columns[name], self.types[name]) for name in self.names]
        return joined([self.head, *values, self.tail])

    def of_row(self, values: Sequence[str | bytes | int]) -> bytes:
        """The key of one entity, without the cost of a column.

        Args:
            values: in the order of `names`.
        """
        parts = [self.head]
        for name, value in zip(self.names, values, strict=True):
            kind = self.types[name]
            written = _written(value, kind)
            parts += [struct.pack("<II", kind.value, len(written)), written]
        return b"".join([*parts, self.tail])


def _value(name: str, column: Column, kind: ValueType) -> ArrayOfBytes:
    """A join key's value in the key: its type, its length, itself."""
    if column.null_count:
        raise DataError(
            f"join key {name!r}: {column.null_count} of {len(column)} rows have no value: "
            "a row without its entity cannot be stored; filter them out of the source"
        )
    try:
        return _number(column, kind) if kind in _NUMBERS else _text(column, kind)
    except DataError as error:
        raise DataError(f"join key {name!r}: {error}") from error


def _number(column: Column, kind: ValueType) -> ArrayOfBytes:
    width = _NUMBERS[kind]
    numbers = seconds(column) if kind is ValueType.UNIX_TIMESTAMP else integers(column, width)
    matrix = np.empty((len(column), 8 + width.itemsize), np.uint8)
    matrix[:, :8] = np.frombuffer(struct.pack("<II", kind.value, width.itemsize), np.uint8)
    matrix[:, 8:] = numbers.view(np.uint8).reshape(len(column), width.itemsize)
    return fixed(matrix)


def _text(column: Column, kind: ValueType) -> ArrayOfBytes:
    written = text(column)
    head = np.empty((len(column), 2), "<u4")
    head[:, 0], head[:, 1] = kind.value, sizes(written)
    return joined([fixed(head.view(np.uint8)), written])


def _written(value: str | bytes | int, kind: ValueType) -> bytes:
    if kind in _NUMBERS:
        return struct.pack("<i" if kind is ValueType.INT32 else "<q", int(value))
    return value if isinstance(value, bytes) else str(value).encode()
