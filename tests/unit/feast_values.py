"""Values of all of Feast's types as Feast writes them, for tests of what reads them."""

from typing import Any

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE
from feast.value_type import ValueType
from hypothesis import strategies as st

# What a datetime can hold: Feast's own conversion raises beyond it.
_SECONDS = st.one_of(
    st.integers(-62_135_596_800, 253_402_300_799), st.just(NULL_TIMESTAMP_INT_VALUE)
)

ELEMENTS: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.BYTES: st.binary(max_size=200),
    ValueType.STRING: st.text(max_size=200),
    ValueType.INT32: st.integers(-(2**31), 2**31 - 1),
    ValueType.INT64: st.integers(-(2**63), 2**63 - 1),
    ValueType.DOUBLE: st.floats(allow_nan=False),
    ValueType.FLOAT: st.floats(width=32, allow_nan=False),
    ValueType.BOOL: st.booleans(),
    ValueType.UNIX_TIMESTAMP: _SECONDS,
    ValueType.JSON: st.sampled_from(['{"a": 1}', "[]", "null", '"x"']),
    ValueType.UUID: st.uuids().map(str),
    ValueType.TIME_UUID: st.uuids().map(str),
    ValueType.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False).map(str),
}
"""Content of the types that are neither list nor set."""

COLLECTIONS: dict[ValueType, ValueType] = {
    kind: element
    for element in ELEMENTS
    for suffix in ("_LIST", "_SET")
    if (kind := ValueType.__members__.get(element.name + suffix))
}
"""List or set -> type of its elements."""

KINDS = [*ELEMENTS, *COLLECTIONS]
"""Every primitive, list and set type."""


def contents(kind: ValueType) -> st.SearchStrategy[Any]:
    """What a value of a type can hold."""
    if kind in ELEMENTS:
        return ELEMENTS[kind]
    return st.lists(ELEMENTS[COLLECTIONS[kind]], max_size=5)


def value_bytes(kind: ValueType, content: Any) -> bytes:
    """One value as Feast writes it."""
    value = Value()
    field = Value.DESCRIPTOR.fields_by_number[kind.value].name
    if kind in ELEMENTS:
        setattr(value, field, content)
    else:
        message = getattr(value, field)
        message.SetInParent()
        message.val.extend(content)
    return bytes(value.SerializeToString())
