"""The packed layout: one value a view and entity, instead of a hash field a feature.

A value is

    byte  0       the format's version, 1
    byte  1..8    the schema's hash
    byte  9..16   the event time, microseconds since 1970 plus 2**63, big endian: byte order is time order
    byte 17..24   the time of recording, the same; eight zeros if it is not known
    then          a bit for each feature, lowest first: set if the feature has a value
    then          the features of fixed width, little endian; zeros where one has no value
    then          for each other feature where its bytes end, counted from the first of them (4 bytes)
    then          those bytes: Feast's own protobuf value of each

Fixed width have float64, int64 and times (8 bytes), float32 and int32 (4), booleans (1), in that order of
types and within a type in the view's order; the others follow in the view's order.

A value that was packed under another schema is never read: what it says would be taken for something else.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import Any

import numpy as np
from feast import FeatureView
from feast.value_type import ValueType
from numpy.typing import NDArray

from hyperfeast.errors import DataError
from hyperfeast.stores.online import decode
from hyperfeast.stores.online.encode import ArrayOfBytes, fixed, joined
from hyperfeast.stores.online.encode import sizes as sizes_of

EVENT_AT, RECORDED_AT, HEADER_BYTES = 9, 17, 25
"""Where a value's times stand; each is eight bytes."""
BIAS = 1 << 63
"""What is added to a time."""
END_BYTES = 4
"""How long it is that says where the bytes of a feature of varying length end."""

_VERSION = 1
_HASH_BYTES = 8
_LARGEST = 1 << 32
_TIMES = struct.Struct(">QQ")

FIXED_WIDTHS: "dict[ValueType, np.dtype[Any]]" = {
    ValueType.DOUBLE: np.dtype("<f8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.UNIX_TIMESTAMP: np.dtype("<i8"),
    ValueType.FLOAT: np.dtype("<f4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.BOOL: np.dtype("u1"),
}
"""The types of fixed width, in the order in which they stand in a value."""
# NumPy's own code for eight bytes is one that `struct` takes for four.
_CODES = {"<f8": "d", "<i8": "q", "<f4": "f", "<i4": "i", "|u1": "?"}


def key_head(view: str) -> bytes:
    """What the keys of a view's values begin with; the entity's own key follows."""
    return b"_packed\x00%b\x00" % view.encode()


@dataclass(frozen=True)
class Schema:
    """The features of a view and where they stand in its values.

    Attributes:
        view: the view's name, for messages.
        features: name and type of each, in the view's order.
    """

    view: str
    features: tuple[tuple[str, ValueType], ...]

    @classmethod
    def of(cls, view: FeatureView) -> "Schema":
        """That of a view of a registry."""
        features = ((field.name, field.dtype.to_value_type()) for field in view.features)
        return cls(view.name, tuple(features))

    @cached_property
    def head(self) -> bytes:
        """What every value begins with: the format's version and the schema's hash."""
        written = "\n".join(f"{name}:{kind.name}" for name, kind in self.features)
        digest = blake2b(written.encode(), digest_size=_HASH_BYTES).digest()
        return bytes([_VERSION]) + digest

    @cached_property
    def runs(self) -> tuple["Run", ...]:
        """The features of fixed width, a run for each type."""
        made = []
        start, bit = HEADER_BYTES + (len(self.features) + 7) // 8, 0
        for kind, width in FIXED_WIDTHS.items():
            names = tuple(name for name, other in self.features if other is kind)
            if names:
                made.append(Run(kind, width, start, bit, names))
                start, bit = start + width.itemsize * len(names), bit + len(names)
        return tuple(made)

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The features whose length varies."""
        return tuple(name for name, kind in self.features if kind not in FIXED_WIDTHS)

    @cached_property
    def ends_at(self) -> int:
        """Where it says where the bytes of each feature of varying length end."""
        start = HEADER_BYTES + (len(self.features) + 7) // 8
        return start + sum(run.width.itemsize * len(run.names) for run in self.runs)

    @cached_property
    def fixed_bytes(self) -> int:
        """The size of everything before the bytes of varying length."""
        return self.ends_at + END_BYTES * len(self.others)

    @cached_property
    def bits(self) -> dict[str, int]:
        """Feature -> its bit."""
        in_runs = (name for run in self.runs for name in run.names)
        return {name: bit for bit, name in enumerate((*in_runs, *self.others))}

    @cached_property
    def kinds(self) -> dict[str, ValueType]:
        """Feature -> type."""
        return dict(self.features)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Feature of fixed width -> where it stands."""
        return {
            name: run.start + place * run.width.itemsize
            for run in self.runs
            for place, name in enumerate(run.names)
        }


@dataclass(frozen=True)
class Run:
    """Features of one fixed width that stand one after another, from byte `start` and bit `bit` on."""

    kind: ValueType
    width: "np.dtype[Any]"
    start: int
    bit: int
    names: tuple[str, ...]

    @cached_property
    def unpack(self) -> Callable[[bytes], tuple[Any, ...]]:
        """The run's cells out of a value."""
        cells = struct.Struct(f"<{len(self.names)}{_CODES[self.width.str]}")
        return partial(_unpack_from, cells, self.start)

    @cached_property
    def mask(self) -> int:
        """The run's bits."""
        return ((1 << len(self.names)) - 1) << self.bit


def _unpack_from(cells: struct.Struct, start: int, value: bytes) -> tuple[Any, ...]:
    return cells.unpack_from(value, start)


def pack(
    schema: Schema,
    columns: Sequence[ArrayOfBytes],
    events: NDArray[np.int64],
    recorded: NDArray[np.int64] | None = None,
) -> ArrayOfBytes:
    """Rows as packed values.

    Args:
        schema: of the view.
        columns: each feature's values as Feast's protobuf bytes, in the schema's order; empty or null
            where one is missing.
        events: event times, microseconds since 1970, UTC.
        recorded: when each row was recorded, likewise; None if it is not known.

    Returns:
        One value a row.

    Raises:
        DataError: a value is not of its feature's type, or a row's values exceed 4 GiB.
    """
    by_name = dict(zip((name for name, _ in schema.features), columns, strict=True))
    rows = len(events)
    front = np.zeros((rows, schema.fixed_bytes), np.uint8)
    front[:, : len(schema.head)] = np.frombuffer(schema.head, np.uint8)
    front[:, EVENT_AT:RECORDED_AT] = _big_endian(events)
    if recorded is not None:
        front[:, RECORDED_AT:HEADER_BYTES] = _big_endian(recorded)
    present = np.zeros((rows, len(columns)), np.bool_)
    for run in schema.runs:
        _pack_run(schema, run, by_name, front, present)
    others = [by_name[name] for name in schema.others]
    for name, column in zip(schema.others, others, strict=True):
        present[:, schema.bits[name]] = sizes_of(column) > 0
    bitmap = np.packbits(present, axis=1, bitorder="little")
    front[:, HEADER_BYTES : HEADER_BYTES + bitmap.shape[1]] = bitmap
    if not others:
        return fixed(front)
    ends = np.cumsum([sizes_of(column) for column in others], axis=0)
    if (ends >= _LARGEST).any():
        raise DataError(
            f"feature view {schema.view!r}: the values of one row take more than 4 GiB: store them "
            "elsewhere and keep a reference, or use `layout: feast`"
        )
    front[:, schema.ends_at :] = np.ascontiguousarray(ends.T.astype("<u4")).view(np.uint8)
    filled: list[Any] = [column.fill_null(b"") for column in others]
    return joined([fixed(front), *filled])


def _pack_run(
    schema: Schema,
    run: Run,
    columns: dict[str, ArrayOfBytes],
    front: NDArray[np.uint8],
    present: NDArray[np.bool_],
) -> None:
    cells = np.zeros((len(front), len(run.names)), run.width)
    for place, name in enumerate(run.names):
        label = f"feature view {schema.view!r}, feature {name!r}"
        rows, numbers = decode.dense_numbers(columns[name], run.kind, label)
        cells[rows, place] = numbers
        present[rows, run.bit + place] = True
    size = run.width.itemsize * len(run.names)
    front[:, run.start : run.start + size] = cells.view(np.uint8).reshape(len(front), size)


def _big_endian(micros: NDArray[np.int64]) -> NDArray[np.uint8]:
    biased = micros.astype(np.int64, copy=False).view(np.uint64) ^ np.uint64(BIAS)
    return biased.astype(">u8").view(np.uint8).reshape(-1, 8)


def times_of(value: bytes) -> tuple[int, int | None]:
    """The event time of a packed value and when it was recorded, if that is known: microseconds since 1970."""
    event, recorded = _TIMES.unpack_from(value, EVENT_AT)
    return event - BIAS, recorded - BIAS if recorded else None
