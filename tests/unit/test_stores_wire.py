"""Keys and names in Redis equal those that Feast itself makes."""

import warnings
from typing import Any

import pyarrow as pa
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import DataError, FeatureError
from hyperfeast.stores.online import wire
from hyperfeast.stores.online.wire import EntityKeys

_KINDS: dict[ValueType, tuple[str, pa.DataType, st.SearchStrategy[Any]]] = {
    ValueType.STRING: ("string_val", pa.string(), st.text(max_size=40)),
    ValueType.BYTES: ("bytes_val", pa.binary(), st.binary(max_size=40)),
    ValueType.INT32: ("int32_val", pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    ValueType.INT64: ("int64_val", pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    ValueType.UNIX_TIMESTAMP: (
        "unix_timestamp_val",
        pa.timestamp("s", "UTC"),
        st.integers(-(10**10), 10**11),
    ),
}
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def _entities(draw: st.DrawFn) -> tuple[dict[str, ValueType], list[dict[str, Any]]]:
    types = draw(st.dictionaries(_NAMES, st.sampled_from(list(_KINDS)), min_size=1, max_size=4))
    row = st.fixed_dictionaries({name: _KINDS[kind][2] for name, kind in types.items()})
    return types, draw(st.lists(row, min_size=1, max_size=6))


def _feasts(project: str, types: dict[str, ValueType], row: dict[str, Any], version: int) -> bytes:
    values = [Value(**{_KINDS[kind][0]: row[name]}) for name, kind in types.items()]
    key = EntityKey(join_keys=list(types), entity_values=values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(_redis_key(project, key, version))


@given(entities=_entities(), project=_NAMES, version=st.sampled_from([2, 3]))
def test_keys_are_feasts(
    entities: tuple[dict[str, ValueType], list[dict[str, Any]]], project: str, version: int
) -> None:
    types, rows = entities
    keys = EntityKeys(project, types, version)
    columns = {
        name: pa.array([row[name] for row in rows], _KINDS[kind][1]) for name, kind in types.items()
    }

    expected = [_feasts(project, types, row, version) for row in rows]

    assert keys.of_columns(columns).to_pylist() == expected
    assert [keys.of_row([row[name] for name in keys.names]) for row in rows] == expected


@given(view=_NAMES, feature=_NAMES)
def test_field_names_are_feasts(view: str, feature: str) -> None:
    assert wire.field_hash(view, feature) == _mmh3(f"{view}:{feature}")
    assert wire.timestamp_field(view) == bytes(f"_ts:{view}", "utf8")


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
        pa.chunked_array([["x", "a", "b"]]).combine_chunks()[1:],
    ],
    ids=["dictionary", "large", "view", "sliced"],
)
def test_however_arrow_holds_the_strings(column: Any) -> None:
    keys = EntityKeys("p", {"k": ValueType.STRING})

    assert keys.of_columns({"k": column}).to_pylist() == [keys.of_row("a"), keys.of_row("b")]


def test_a_row_without_its_entity_is_refused() -> None:
    keys = EntityKeys("p", {"symbol": ValueType.STRING})

    with pytest.raises(DataError, match="'symbol': 1 of 2 rows have no value"):
        keys.of_columns({"symbol": pa.array(["a", None])})


def test_a_number_that_does_not_fit_is_refused() -> None:
    keys = EntityKeys("p", {"id": ValueType.INT32})

    with pytest.raises(DataError, match=r"'id': 1 of 2 values do not fit 32 bits.*2147483648"):
        keys.of_columns({"id": pa.array([1, 2**31])})


def test_a_type_that_feast_has_no_key_for_is_refused() -> None:
    with pytest.raises(FeatureError, match="join key 'price' is DOUBLE"):
        EntityKeys("p", {"price": ValueType.DOUBLE})


def _collision(view: str) -> tuple[str, str]:
    """Two features of one hash; of 2**17 names there are two, as good as surely."""
    seen: dict[bytes, str] = {}
    for number in range(1 << 20):
        name = f"feature_{number}"
        other = seen.setdefault(wire.field_hash(view, name), name)
        if other != name:
            return other, name
    raise AssertionError


def test_colliding_features_are_refused_with_both_names_and_the_remedy() -> None:
    first, second = _collision("bars")

    with pytest.raises(FeatureError, match=rf"'bars'.*'{first}' and '{second}'.*rename one"):
        wire.refuse_collisions("bars", [first, "close", second])


def test_the_same_pair_is_free_to_be_in_another_view() -> None:
    first, second = _collision("bars")

    wire.refuse_collisions("other", [first, second])
