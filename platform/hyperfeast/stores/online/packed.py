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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
from feast import FeatureView
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from hyperfeast.errors import DataError, SchemaError
from hyperfeast.stores.online import decode
from hyperfeast.stores.online.encode import ArrayOfBytes, Column, fixed, joined
from hyperfeast.stores.online.encode import sizes as sizes_of
from hyperfeast.stores.online.views import Command, Commands, Found, KeyGroup, PlannedView

EVENT_AT, RECORDED_AT, HEADER_BYTES = 9, 17, 25
"""Where a value's times stand; each is eight bytes."""

_VERSION = 1
_HASH_BYTES = 8
_BIAS = 1 << 63
_NOT_KNOWN = -_BIAS
_NAN = float("nan")
# Up to here Python costs less than NumPy's calls.
_FEW = 16
_END_BYTES = 4
_LARGEST = 1 << 32
_MICROS = 1_000_000
_TIMES = struct.Struct(">QQ")
_END = struct.Struct("<I")

_FIXED: "dict[ValueType, np.dtype[Any]]" = {
    ValueType.DOUBLE: np.dtype("<f8"),
    ValueType.INT64: np.dtype("<i8"),
    ValueType.UNIX_TIMESTAMP: np.dtype("<i8"),
    ValueType.FLOAT: np.dtype("<f4"),
    ValueType.INT32: np.dtype("<i4"),
    ValueType.BOOL: np.dtype("u1"),
}
_NUMBERS = {
    ValueType.INT64: (b"\x20", struct.Struct("<q")),
    ValueType.UNIX_TIMESTAMP: (b"\x40", struct.Struct("<q")),
    ValueType.INT32: (b"\x18", struct.Struct("<i")),
    ValueType.BOOL: (b"\x38", struct.Struct("<B")),
}
# NumPy's own code for eight bytes is one that `struct` takes for four.
_CODES = {"<f8": "d", "<i8": "q", "<f4": "f", "<i4": "i", "|u1": "B"}
_RAW = {ValueType.DOUBLE: b"\x29", ValueType.FLOAT: b"\x35"}


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
        for kind, width in _FIXED.items():
            names = tuple(name for name, other in self.features if other is kind)
            if names:
                made.append(Run(kind, width, start, bit, names))
                start, bit = start + width.itemsize * len(names), bit + len(names)
        return tuple(made)

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The features whose length varies."""
        return tuple(name for name, kind in self.features if kind not in _FIXED)

    @cached_property
    def ends_at(self) -> int:
        """Where it says where the bytes of each feature of varying length end."""
        start = HEADER_BYTES + (len(self.features) + 7) // 8
        return start + sum(run.width.itemsize * len(run.names) for run in self.runs)

    @cached_property
    def fixed_bytes(self) -> int:
        """The size of everything before the bytes of varying length."""
        return self.ends_at + _END_BYTES * len(self.others)

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


class Picked:
    """Numeric features of a schema, and where they stand.

    Args:
        schema: of the view.
        features: some of its features, in the order wanted; each a number.
    """

    def __init__(self, schema: Schema, features: Sequence[str]) -> None:
        self.features = tuple(features)
        self.runs: list[tuple[Run, NDArray[np.intp], NDArray[np.intp]]] = []
        self._bitmap = slice(HEADER_BYTES, HEADER_BYTES + (len(schema.features) + 7) // 8)
        targets = {name: at for at, name in enumerate(features)}
        for run in schema.runs:
            places = [place for place, name in enumerate(run.names) if name in targets]
            if places:
                wanted = [targets[run.names[place]] for place in places]
                self.runs.append((run, np.array(places, np.intp), np.array(wanted, np.intp)))
        self._pairs = [
            (run, [*zip(places.tolist(), wanted.tolist(), strict=True)])
            for run, places, wanted in self.runs
        ]
        self._nothing = [_NAN] * len(features)

    @cached_property
    def is_whole(self) -> bool:
        """Whether they are one whole run, in its order."""
        return len(self.runs) == 1 and self.runs[0][0].names == self.features

    def numbers(self, value: bytes | None) -> Sequence[float]:
        """The features of one packed value."""
        if value is None:
            return self._nothing
        bits = int.from_bytes(value[self._bitmap], "little")
        if self.is_whole:
            run = self.runs[0][0]
            if bits & run.mask == run.mask and run.kind is not ValueType.UNIX_TIMESTAMP:
                return run.unpack(value)
        row = self._nothing.copy()
        for run, pairs in self._pairs:
            cells = run.unpack(value)
            missing = _NOT_KNOWN if run.kind is ValueType.UNIX_TIMESTAMP else None
            for place, target in pairs:
                if bits >> run.bit + place & 1 and cells[place] != missing:
                    row[target] = cells[place]
        return row


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
    biased = micros.astype(np.int64, copy=False).view(np.uint64) ^ np.uint64(_BIAS)
    return biased.astype(">u8").view(np.uint8).reshape(-1, 8)


def times_of(value: bytes) -> tuple[int, int | None]:
    """The event time of a packed value and when it was recorded, if that is known: microseconds since 1970."""
    event, recorded = _TIMES.unpack_from(value, EVENT_AT)
    return event - _BIAS, recorded - _BIAS if recorded else None


class Unpacked:
    """Packed values of one view.

    Args:
        schema: of the view.
        values: one an entity; None where there is none.

    Raises:
        SchemaError: a value was packed under another schema.
        DataError: a value is damaged.
    """

    def __init__(self, schema: Schema, values: Sequence[bytes | None]) -> None:
        self.schema = schema
        self._values = values
        there = [value for value in values if value is not None]
        self._there = there
        if len(there) <= _FEW or not self._are_all_whole():
            self._refuse(there)

    def _are_all_whole(self) -> bool:
        """Whether that is seen at a glance: of this schema, and all as long as it is."""
        schema = self.schema
        if schema.others or not {*map(len, self._there)} <= {schema.fixed_bytes}:
            return False
        head = np.frombuffer(schema.head, np.uint8)
        return bool((self._front[:, : len(head)] == head).all())

    def _refuse(self, there: Sequence[bytes]) -> None:
        """Refuse what is of another schema, or damaged; nothing, if all are well."""
        schema = self.schema
        others = sum(not value.startswith(schema.head) for value in there)
        if others:
            raise SchemaError(
                f"feature view {schema.view!r}: {others:,} of {len(there):,} entities hold values packed "
                "before its features or their types were changed, and those are not read as the new ones: "
                "materialize the view again"
            )
        if any(not self._is_whole(value) for value in there):
            raise DataError(
                f"feature view {schema.view!r}: a packed value is damaged (its length is not what it "
                "says): materialize the view again"
            )

    def _is_whole(self, value: bytes) -> bool:
        schema = self.schema
        if not schema.others:
            return len(value) == schema.fixed_bytes
        if len(value) < schema.fixed_bytes:
            return False
        ends = struct.unpack_from(f"<{len(schema.others)}I", value, schema.ends_at)
        in_order = all(first <= last for first, last in pairwise((0, *ends)))
        return in_order and len(value) == schema.fixed_bytes + ends[-1]

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Which entities have a value."""
        return np.array([at for at, one in enumerate(self._values) if one is not None], np.intp)

    @cached_property
    def _front(self) -> NDArray[np.uint8]:
        """Everything of fixed width: a row a value that is there."""
        size = self.schema.fixed_bytes
        if self.schema.others:
            return np.frombuffer(b"".join([one[:size] for one in self._there]), np.uint8).reshape(
                -1, size
            )
        return np.frombuffer(b"".join(self._there), np.uint8).reshape(-1, size)

    @cached_property
    def _present(self) -> NDArray[np.bool_]:
        """Which of its features each value that is there has, by bit."""
        features = len(self.schema.features)
        bitmap = self._front[:, HEADER_BYTES : HEADER_BYTES + (features + 7) // 8]
        return np.unpackbits(bitmap, axis=1, count=features, bitorder="little").view(np.bool_)

    def _cells(self, run: Run) -> NDArray[Any]:
        size = run.width.itemsize * len(run.names)
        return self._front[:, run.start : run.start + size].copy().view(run.width)

    def matrix(self, picked: "Picked") -> NDArray[np.float64]:
        """Numeric features as numbers.

        Returns:
            Values x features, NaN where one is missing; see `decode.matrix`.
        """
        if len(self._values) <= _FEW:
            rows = [picked.numbers(value) for value in self._values]
            return np.array(rows, np.float64).reshape(len(rows), len(picked.features))
        out = np.full((len(self._values), len(picked.features)), np.nan)
        for run, places, targets in picked.runs:
            cells = self._cells(run).astype(np.float64, copy=False)
            cells[~self._present[:, run.bit : run.bit + len(run.names)]] = np.nan
            if run.kind is ValueType.UNIX_TIMESTAMP:
                cells[cells == float(_NOT_KNOWN)] = np.nan
            if picked.is_whole and len(self._there) == len(out):
                return cells
            out[np.ix_(self.rows, targets)] = cells[:, places]
        return out

    def column(self, feature: str) -> Column:
        """A feature as Arrow; see `decode.column`."""
        kind = self.schema.kinds[feature]
        if kind not in _FIXED:
            label = f"feature view {self.schema.view!r}, feature {feature!r}"
            return decode.column([self._other(one, feature) for one in self._values], kind, label)
        run = next(run for run in self.schema.runs if run.kind is kind)
        place = run.names.index(feature)
        present = np.zeros(len(self._values), np.bool_)
        present[self.rows] = self._present[:, run.bit + place]
        cells = np.zeros(len(self._values), run.width)
        cells[self.rows] = self._cells(run)[:, place]
        return decode.numbers_to_arrow(cells, present, kind)

    def values(self, features: Sequence[str]) -> list[list[bytes | None]]:
        """Feast's protobuf values, a row a packed value; empty where one is missing, None without a row."""
        readers = [self._reader(feature) for feature in features]
        nothing: list[bytes | None] = [None] * len(features)
        return [
            nothing if value is None else [reader(value) for reader in readers]
            for value in self._values
        ]

    def _reader(self, feature: str) -> Any:
        """A function from a packed value to the feature's protobuf value."""
        if feature not in self.schema.kinds:
            return lambda _: b""
        kind, bit = self.schema.kinds[feature], self.schema.bits[feature]
        byte, mask = HEADER_BYTES + bit // 8, 1 << bit % 8
        if kind not in _FIXED:
            return lambda value: self._other(value, feature)
        at = self.schema.offsets[feature]
        if kind in _RAW:
            tag, end = _RAW[kind], at + _FIXED[kind].itemsize
            return lambda value: tag + value[at:end] if value[byte] & mask else b""
        tag, width = _NUMBERS[kind]
        return lambda value: (
            tag + _varint(width.unpack_from(value, at)[0]) if value[byte] & mask else b""
        )

    def _other(self, value: bytes | None, feature: str) -> bytes | None:
        """The bytes of a feature of varying length."""
        if value is None:
            return None
        schema = self.schema
        at = schema.ends_at + _END_BYTES * schema.others.index(feature)
        first = _END.unpack_from(value, at - _END_BYTES)[0] if feature != schema.others[0] else 0
        (last,) = _END.unpack_from(value, at)
        return value[schema.fixed_bytes + first : schema.fixed_bytes + last]

    def times(self) -> NDArray[np.datetime64]:
        """The event times, UTC, microseconds; NaT where there is no value."""
        if len(self._values) <= _FEW:
            few = [_NOT_KNOWN if one is None else times_of(one)[0] for one in self._values]
            return np.array(few, np.int64).view("datetime64[us]")
        out = np.full(len(self._values), _NOT_KNOWN)
        if len(self.rows):
            biased = self._front[:, EVENT_AT:RECORDED_AT].copy().view(">u8").reshape(-1)
            out[self.rows] = (biased.astype(np.uint64) ^ np.uint64(_BIAS)).view(np.int64)
        return out.view("datetime64[us]")

    def stamps(self) -> list[bytes | None]:
        """The event times as protobuf timestamps; None where there is no value."""
        return [None if value is None else _stamp(times_of(value)[0]) for value in self._values]


def _stamp(micros: int) -> bytes:
    seconds, rest = divmod(micros, _MICROS)
    return bytes(Timestamp(seconds=seconds, nanos=rest * 1_000).SerializeToString())


def _varint(number: int) -> bytes:
    """A protobuf varint; negative numbers take ten bytes."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


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
