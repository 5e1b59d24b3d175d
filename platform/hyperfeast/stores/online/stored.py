"""A column of stored values as one buffer of bytes, taken apart in bulk: its tags, lengths and varints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hyperfeast.stores.online.encode import ArrayOfBytes, offsets_of

Stored: TypeAlias = Sequence[bytes | None]

MORE = 0x80
"""The bit of a byte that says that the integer goes on."""

_VARINT_BYTES, _PAYLOAD_BITS = 10, 7


class Unusual(Exception):
    """A value that is not as protobuf libraries write it, or not of the declared type."""


@dataclass(frozen=True)
class StoredColumn:
    """The values that are there.

    Attributes:
        data: the bytes of all.
        starts: where in them each begins.
        sizes: how many bytes each has.
        rows: whose they are.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, values: "Stored | ArrayOfBytes") -> "StoredColumn":
        """The values of a column that are neither None nor empty."""
        if isinstance(values, ArrayOfBytes):
            return cls._of_array(values)
        there = [value or b"" for value in values]
        sizes = np.fromiter(map(len, there), np.int64, len(there))
        starts = np.cumsum(sizes) - sizes
        rows = np.flatnonzero(sizes)
        data = np.frombuffer(b"".join(there), np.uint8)
        return cls(data, starts[rows], sizes[rows], rows)

    @classmethod
    def _of_array(cls, values: ArrayOfBytes) -> "StoredColumn":
        offsets = offsets_of(values)
        sizes = np.diff(offsets)
        if values.null_count:
            sizes = np.where(values.is_valid().to_numpy(zero_copy_only=False), sizes, 0)
        rows = np.flatnonzero(sizes)
        buffer = values.buffers()[2]
        data = np.frombuffer(memoryview(buffer), np.uint8) if buffer else np.zeros(0, np.uint8)
        return cls(data, offsets[:-1][rows], sizes[rows], rows)

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each ends."""
        return self.starts + self.sizes

    def after(self, tag: bytes) -> "StoredColumn":
        """What follows a tag, if every value begins with it."""
        if (self.sizes < len(tag)).any():
            raise Unusual
        for position, byte in enumerate(tag):
            if (self.data[self.starts + position] != byte).any():
                raise Unusual
        return StoredColumn(self.data, self.starts + len(tag), self.sizes - len(tag), self.rows)

    def delimited(self) -> "StoredColumn":
        """What follows a length, if that is the rest of the value."""
        lengths, starts = varints(self.data, self.starts, self.ends)
        sizes = self.ends - starts
        if (lengths != sizes.view(np.uint64)).any():
            raise Unusual
        return StoredColumn(self.data, starts, sizes, self.rows)

    def payload(self) -> NDArray[np.uint8]:
        """All values one after another."""
        return gathered(self.data, self.starts, self.sizes)


def gathered(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Sections of the bytes, one after another."""
    offsets = np.cumsum(sizes) - sizes
    return data[np.repeat(starts - offsets, sizes) + np.arange(int(sizes.sum()))]


def varints(
    data: NDArray[np.uint8], here: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """One variable-length integer at each position, and the position after it."""
    values = np.zeros(len(here), np.uint64)
    here = here.copy()
    open_ = np.arange(len(here))
    for turn in range(_VARINT_BYTES):
        if (here[open_] >= ends[open_]).any():
            raise Unusual
        byte = data[here[open_]]
        here[open_] += 1
        values[open_] |= (byte & (MORE - 1)).astype(np.uint64) << np.uint64(turn * _PAYLOAD_BITS)
        open_ = open_[byte >= MORE]
        if not len(open_):
            return values, here
    raise Unusual


def packed_varints(payload: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Variable-length integers that stand one after another."""
    if not len(payload):
        return np.zeros(0, np.int64)
    last = payload < MORE
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts >= _VARINT_BYTES).any():
        raise Unusual
    place = np.arange(len(payload)) - np.repeat(starts, ends - starts + 1)
    bits = (payload & (MORE - 1)).astype(np.uint64) << (place * _PAYLOAD_BITS).astype(np.uint64)
    return np.add.reduceat(bits, starts).view(np.int64)
