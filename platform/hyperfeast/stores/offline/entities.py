"""Entities as numbers: join keys of any type, alone or several, become one integer that both sides share."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError
from hyperfeast.stores.offline.columns import Array, Chunks, Column, compute

Codes: TypeAlias = NDArray[np.int64]

# A table of a slot a value, instead of a search, while it is not much longer than the values are many.
_SLOTS_A_VALUE = 8
_SLOTS = 1_000_000
# Hyphens may stand behind every four digits, or nowhere; braces around it all.
_UUID_DIGITS = "([0-9a-f]{4}-?){7}[0-9a-f]{4}"
_UUID = rf"^(?:{_UUID_DIGITS}|\{{{_UUID_DIGITS}\}})$"
_UUID_PARTS = "^(.{8})(.{4})(.{4})(.{4})(.{12})$"


class Entities:
    """The spine's entities of one set of join keys, numbered from 0.

    Composite keys are compared column by column, never as one text.

    Args:
        columns: the spine's key columns, each int64, float64 or string; none for a view without entities.
        rows: how many the spine has.

    Attributes:
        codes: int64[rows], the entity of each spine row; -1 where a key is NULL.
        count: how many entities there are.
    """

    def __init__(self, columns: Sequence[Chunks], rows: int) -> None:
        self._keys: list[_Key] = []
        self._combined: list[Codes] = []
        codes, count = np.zeros(rows, np.int64), 1
        for column in columns:
            key = _Key(column)
            codes = _combined(codes, key.codes(column), key.count)
            unique = np.unique(codes)
            unique = unique[unique >= 0]
            self._keys.append(key)
            self._combined.append(unique)
            codes, count = _positions(unique, codes), len(unique)
        self.codes, self.count = codes, count

    def of(self, columns: Sequence[Array | Chunks]) -> Codes | None:
        """The entity of each row of the other side: -1 where the spine does not have it.

        Args:
            columns: its key columns, in the spine's order and of the spine's types.

        Returns:
            int64[rows]; None without keys, where all rows are of the one entity 0.
        """
        codes: Codes | None = None
        for key, unique, column in zip(self._keys, self._combined, columns, strict=True):
            own = key.codes(column)
            codes = own if codes is None else _combined(codes, own, key.count)
            codes = _positions(unique, codes)
        return codes


class _Key:
    """The values of one key column that the spine has, numbered."""

    def __init__(self, column: Chunks) -> None:
        unique = compute.drop_null(compute.unique(column))
        self._numbers: NDArray[Any] | None = None
        self._texts = unique
        if not pa.types.is_string(column.type):
            self._numbers = np.unique(unique.to_numpy(zero_copy_only=False))
            self._slots = _slots(self._numbers)
        self.count = len(unique)

    def codes(self, column: Array | Chunks) -> Codes:
        """Each value's number; -1 where it has none."""
        if self._numbers is None:
            found = compute.fill_null(
                compute.index_in(column, value_set=self._texts, skip_nulls=True), -1
            )
            return cast("Codes", found.to_numpy().astype(np.int64))
        nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        if nulls is not None:
            column = compute.fill_null(column, 0)
        codes = self._number(column.to_numpy(zero_copy_only=False))
        if nulls is not None:
            codes[nulls] = -1
        return codes

    def _number(self, values: NDArray[Any]) -> Codes:
        numbers = cast("NDArray[Any]", self._numbers)
        if self._slots is None:
            return _positions(numbers, values)
        low, high = numbers[0], numbers[-1]
        inside = (values >= low) & (values <= high)
        codes: Codes = self._slots[np.where(inside, values, low) - low]
        codes[~inside] = -1
        return codes


def _slots(numbers: NDArray[Any]) -> Codes | None:
    """Number -> its position, where whole numbers lie close together."""
    if not numbers.size or not np.issubdtype(numbers.dtype, np.integer):
        return None
    length = int(numbers[-1]) - int(numbers[0]) + 1
    if length > max(_SLOTS, _SLOTS_A_VALUE * len(numbers)):
        return None
    slots = np.full(length, -1, np.int64)
    slots[numbers - numbers[0]] = np.arange(len(numbers))
    return slots


def _combined(codes: Codes, other: Codes, count: int) -> Codes:
    """One number for two; it stays below the square of the spine's length, which int64 holds."""
    return np.where((codes < 0) | (other < 0), -1, codes * count + other)


def _positions(sorted_values: NDArray[Any], values: NDArray[Any]) -> Codes:
    """Where each value stands among the sorted ones; -1 where it does not."""
    if not sorted_values.size:
        return np.full(len(values), -1, np.int64)
    found = np.searchsorted(sorted_values, values)
    found[found == len(sorted_values)] = 0
    return cast("Codes", np.where(sorted_values[found] == values, found, -1))


def key_values(column: Chunks, key: str, view: str, other: Column) -> Chunks:
    """A spine's key column in the type by which it is compared with a view's.

    Args:
        column: the spine's.
        key: its name, for messages.
        view: whose column it is compared with, for messages.
        other: that column.

    Returns:
        int64, float64 or string. What the other type cannot hold (1.5 as a whole number) is NULL, and
        equals nothing.

    Raises:
        FeatureError: the two types cannot be compared.
    """
    found = column.type
    if pa.types.is_null(found):
        return column.cast(numbered(other.key_type))
    fits, compared = _COMPARED[other.kind]
    if not any(test(found) for test in fits):
        raise FeatureError(
            f"feature view {view!r}: its join key {other.name!r} is {other.type_name}, and the spine's "
            f"column {key!r} is {found}: convert the spine's column, or cast the view's in its source's query"
        )
    return compared(column)


def numbered(key_type: pa.DataType) -> pa.DataType:
    """The type in which a key's values are compared."""
    return (
        key_type if pa.types.is_string(key_type) or pa.types.is_floating(key_type) else pa.int64()
    )


def as_numbers(column: Array | Chunks) -> Any:
    """A view's key column, as ADBC reads it, in the type by which it is compared with the spine's."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64())
    return column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column


def _whole(column: Chunks) -> Chunks:
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    # pandas makes floats of integers as soon as one is missing.
    real = column.cast(pa.float64(), safe=False)
    # 2^63 itself is no int64, and -2^63 is.
    held = compute.and_(compute.less(real, 2.0**63), compute.greater_equal(real, -(2.0**63)))
    whole = compute.and_(held, compute.equal(compute.floor(real), real))
    return compute.if_else(whole, real, None).cast(pa.int64())


def _uuids(column: Chunks) -> Chunks:
    """As PostgreSQL writes them; what it does not take for one equals none."""
    lower = compute.utf8_lower(column)
    plain = compute.replace_substring_regex(lower, "[{}-]", "")
    written = compute.replace_substring_regex(plain, _UUID_PARTS, r"\1-\2-\3-\4-\5")
    return compute.if_else(compute.match_substring_regex(lower, _UUID), written, None)


def _moments(column: Chunks) -> Chunks:
    return column.cast(pa.timestamp("us")).cast(pa.int64())


_NUMBER = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
_INSTANT = (pa.types.is_timestamp, pa.types.is_date)
# Kind of key -> what the spine's column may be, and how it is compared.
_COMPARED: dict[str, tuple[tuple[Callable[[Any], bool], ...], Callable[[Any], Any]]] = {
    "whole": (_NUMBER, _whole),
    "real": (_NUMBER, lambda column: column.cast(pa.float64(), safe=False)),
    "uuid": ((pa.types.is_string,), _uuids),
    "text": ((pa.types.is_string,), lambda column: column),
    "bool": ((pa.types.is_boolean,), lambda column: column.cast(pa.int64())),
    "instant": (_INSTANT, _moments),
}
