"""The bytes of Feast's protobuf values as Python's own, as Feast's response gives them, for types that are plain.

Plain are numbers, booleans and texts. Of values that are not as protobuf libraries write them, or not of their
declared type, nothing is said here: Feast's own code reads those.
"""

import struct
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from feast.value_type import ValueType

from hyperfeast.stores.online import decode
from hyperfeast.stores.online.stored import MORE, Stored, Unusual

# Up to here a Python call a value costs less than NumPy's calls.
_FEW = 64
_VARINT_BYTES, _PAYLOAD_BITS = 10, 7
_LENGTH_DELIMITED = 2
_BOOLS = {b"\x38\x00": False, b"\x38\x01": True}
_as_double = struct.Struct("<d").unpack_from
_as_float = struct.Struct("<f").unpack_from


def covers(kind: ValueType) -> bool:
    """Whether values of this type are plain."""
    return kind in _CONVERTERS


def columns(rows: Sequence[Stored], kinds: Sequence[ValueType]) -> list[list[Any]] | None:
    """Values of plain features.

    Args:
        rows: n rows of k values; at least one.
        kinds: the features' types, each plain.

    Returns:
        k columns of n; None where a value is missing. No columns if Feast's own code has to read a value.
    """
    if len(rows) * len(kinds) > _FEW and {*kinds} == {ValueType.DOUBLE}:
        found = decode.doubles([value or b"" for value in chain.from_iterable(rows)])
        if found is not None:
            listed: list[list[Any]] = found.reshape(len(rows), -1).T.tolist()
            return listed
    converters = [_CONVERTERS[kind] for kind in kinds]
    try:
        return [
            [convert(value) if value else None for value in column]
            for convert, column in zip(converters, zip(*rows, strict=True), strict=True)
        ]
    except Unusual:
        return None


def _double(value: bytes) -> Any:
    if value[0] != b"\x29"[0] or len(value) != 9:  # noqa: PLR2004 - a tag and eight bytes
        raise Unusual
    return _as_double(value, 1)[0]


def _float(value: bytes) -> Any:
    if value[0] != b"\x35"[0] or len(value) != 5:  # noqa: PLR2004 - a tag and four bytes
        raise Unusual
    return _as_float(value, 1)[0]


def _integer(kind: ValueType, bits: int, value: bytes) -> int:
    if value[0] != kind.value << 3:
        raise Unusual
    number, end = _varint(value)
    number -= number >> 63 << 64
    if end != len(value) or not -(1 << bits) <= number < 1 << bits:
        raise Unusual
    return number


def _bool(value: bytes) -> bool:
    if value not in _BOOLS:
        raise Unusual
    return _BOOLS[value]


def _text(value: bytes) -> str:
    if value[0] != ValueType.STRING.value << 3 | _LENGTH_DELIMITED:
        raise Unusual
    length, start = _varint(value)
    if start + length != len(value):
        raise Unusual
    try:
        return value[start:].decode()
    except UnicodeDecodeError as error:
        raise Unusual from error


def _varint(value: bytes) -> tuple[int, int]:
    """The variable-length integer after a tag of one byte, and where it ends."""
    number = 0
    for place, byte in enumerate(value[1 : 1 + _VARINT_BYTES]):
        number |= (byte & (MORE - 1)) << place * _PAYLOAD_BITS
        if byte < MORE and number < 1 << 64:
            return number, place + 2
    raise Unusual


_CONVERTERS: dict[ValueType, Callable[[bytes], Any]] = {
    ValueType.DOUBLE: _double,
    ValueType.FLOAT: _float,
    ValueType.INT64: partial(_integer, ValueType.INT64, 63),
    ValueType.INT32: partial(_integer, ValueType.INT32, 31),
    ValueType.BOOL: _bool,
    ValueType.STRING: _text,
}
