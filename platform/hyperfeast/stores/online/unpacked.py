"""Packed values read: as numbers, as Arrow, and as Feast's own protobuf values."""

import struct
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from hyperfeast.errors import DataError, SchemaError
from hyperfeast.stores.online import decode
from hyperfeast.stores.online.encode import Column
from hyperfeast.stores.online.packed import (
    BIAS,
    END_BYTES,
    EVENT_AT,
    FIXED_WIDTHS,
    HEADER_BYTES,
    RECORDED_AT,
    Run,
    Schema,
    times_of,
)

_NOT_KNOWN = -BIAS
_NAN = float("nan")
# Up to here Python costs less than NumPy's calls.
_FEW = 16
_MICROS = 1_000_000
_END = struct.Struct("<I")
# How protobuf writes numbers: behind their tag as varints, and as they are.
_VARINTS = {
    ValueType.INT64: (b"\x20", struct.Struct("<q")),
    ValueType.UNIX_TIMESTAMP: (b"\x40", struct.Struct("<q")),
    ValueType.INT32: (b"\x18", struct.Struct("<i")),
    ValueType.BOOL: (b"\x38", struct.Struct("<B")),
}
_RAW = {ValueType.DOUBLE: b"\x29", ValueType.FLOAT: b"\x35"}


class Picked:
    """Numeric features of a schema, and where they stand.

    Args:
        schema: of the view.
        features: some of its features, in the order wanted; those that are no numbers are missing.
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
        self._not_a_number = [_NAN] * len(features)
        self._nothing: list[Any] = [None] * len(features)
        self.is_numeric = sum(len(pairs) for _, pairs in self._pairs) == len(features)
        """Whether all of them are numbers."""

    @cached_property
    def is_whole(self) -> bool:
        """Whether they are one whole run, in its order."""
        return len(self.runs) == 1 and self.runs[0][0].names == self.features

    def numbers(self, value: bytes | None) -> Sequence[float]:
        """The features of one packed value; NaN where one is missing."""
        return self._row(value, self._not_a_number)

    def cells(self, value: bytes | None) -> Sequence[Any]:
        """The same in their own types; None where one is missing."""
        return self._row(value, self._nothing)

    def _row(self, value: bytes | None, nothing: list[Any]) -> Sequence[Any]:
        if value is None:
            return nothing
        bits = int.from_bytes(value[self._bitmap], "little")
        if self.is_whole:
            run = self.runs[0][0]
            if bits & run.mask == run.mask and run.kind is not ValueType.UNIX_TIMESTAMP:
                return run.unpack(value)
        row = nothing.copy()
        for run, pairs in self._pairs:
            cells = run.unpack(value)
            missing = _NOT_KNOWN if run.kind is ValueType.UNIX_TIMESTAMP else None
            for place, target in pairs:
                if bits >> run.bit + place & 1 and cells[place] != missing:
                    row[target] = cells[place]
        return row


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

    def plain_numbers(self, picked: "Picked") -> list[list[Any]]:
        """Numeric features in their own types, a column each; None where one is missing."""
        rows = [picked.cells(value) for value in self._values]
        return [[*column] for column in zip(*rows, strict=True)]

    def column(self, feature: str) -> Column:
        """A feature as Arrow; see `decode.column`."""
        kind = self.schema.kinds[feature]
        if kind not in FIXED_WIDTHS:
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
        if kind not in FIXED_WIDTHS:
            return lambda value: self._other(value, feature)
        at = self.schema.offsets[feature]
        if kind in _RAW:
            tag, end = _RAW[kind], at + FIXED_WIDTHS[kind].itemsize
            return lambda value: tag + value[at:end] if value[byte] & mask else b""
        tag, width = _VARINTS[kind]
        return lambda value: (
            tag + _varint(width.unpack_from(value, at)[0]) if value[byte] & mask else b""
        )

    def _other(self, value: bytes | None, feature: str) -> bytes | None:
        """The bytes of a feature of varying length."""
        if value is None:
            return None
        schema = self.schema
        at = schema.ends_at + END_BYTES * schema.others.index(feature)
        first = _END.unpack_from(value, at - END_BYTES)[0] if feature != schema.others[0] else 0
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
            out[self.rows] = (biased.astype(np.uint64) ^ np.uint64(BIAS)).view(np.int64)
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
