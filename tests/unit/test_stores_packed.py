"""The packed layout: what is packed comes out as it went in, and nothing of another schema is read."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import DataError, SchemaError
from hyperfeast.stores.online import decode, plain
from hyperfeast.stores.online.packed import (
    EVENT_AT,
    HEADER_BYTES,
    RECORDED_AT,
    Schema,
    key_head,
    pack,
    times_of,
)
from hyperfeast.stores.online.unpacked import Picked, Unpacked
from unit.feast_values import KINDS, contents, value_bytes

_MICROS = st.integers(-62_135_596_800_000_000, 253_402_300_799_000_000)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - NumPy's times have no zone


_NUMBERS = [kind for kind in KINDS if decode.is_number(kind)]
_PLAIN = [kind for kind in _NUMBERS if plain.covers(kind)]


@st.composite
def _tables(
    draw: st.DrawFn, of: list[ValueType] = KINDS
) -> tuple[Schema, list[list[bytes]], list[int], list[int]]:
    """A schema of such types, and rows: their values, event times, times of recording."""
    kinds = draw(st.lists(st.sampled_from(of), min_size=1, max_size=12))
    schema = Schema("stats", tuple((f"f{at}", kind) for at, kind in enumerate(kinds)))
    row = st.tuples(
        *[
            st.one_of(
                contents(kind).map(lambda one, kind=kind: value_bytes(kind, one)), st.just(b"")
            )
            for kind in kinds
        ]
    )
    rows = draw(st.lists(row, max_size=5))
    times = [draw(_MICROS) for _ in rows]
    recorded = [draw(_MICROS) for _ in rows]
    return schema, [list(row) for row in rows], times, recorded


def _packed(
    schema: Schema, rows: list[list[bytes]], times: list[int], recorded: list[int] | None
) -> list[bytes]:
    columns = [
        pa.array([row[at] for row in rows], pa.large_binary()) for at in range(len(schema.features))
    ]
    stamps = None if recorded is None else np.array(recorded, np.int64)
    return [*pack(schema, columns, np.array(times, np.int64), stamps).to_pylist()]


@given(_tables())
def test_every_type_comes_out_as_it_went_in(
    table: tuple[Schema, list[list[bytes]], list[int], list[int]],
) -> None:
    schema, rows, times, recorded = table
    # An entity without a value before, between and after.
    values = [None, *_packed(schema, rows, times, recorded), None]
    unpacked = Unpacked(schema, values)
    names = [name for name, _ in schema.features]

    nothing = [None] * len(names)
    assert [*map(list, unpacked.values(names))] == [nothing, *rows, nothing]
    for name, kind in schema.features:
        at = names.index(name)
        expected = decode.column([None, *[row[at] for row in rows], None], kind, name)
        assert unpacked.column(name).equals(expected)
    moments = [_EPOCH + timedelta(microseconds=micros) for micros in times]
    assert unpacked.times().tolist() == [None, *moments, None]
    assert [*map(times_of, values[1:-1])] == [*zip(times, recorded, strict=True)]


@given(st.one_of(_tables(_NUMBERS), _tables()), st.randoms(use_true_random=False))
def test_a_matrix_is_that_of_the_values(
    table: tuple[Schema, list[list[bytes]], list[int], list[int]], random: Any
) -> None:
    schema, rows, times, _ = table
    numbers = [at for at, (_, kind) in enumerate(schema.features) if decode.is_number(kind)]
    asked = random.sample(numbers, random.randint(0, len(numbers)))
    names = [schema.features[at][0] for at in asked]
    kinds = [schema.features[at][1] for at in asked]
    few = rows
    # Few rows go another way than many.
    for missing, rows in ((False, few), (True, few), (False, few * 30), (True, few * 30)):
        times = (times * 30)[: len(rows)]
        values = [*_packed(schema, rows, times, None), *[None] * missing]
        found = Unpacked(schema, values).matrix(Picked(schema, names))
        chosen = [[row[at] for at in asked] for row in rows] + [[None] * len(asked)] * missing
        np.testing.assert_array_equal(found, decode.matrix(chosen, kinds, names))


@given(_tables(_PLAIN), st.randoms(use_true_random=False))
def test_plain_numbers_are_those_of_the_values(
    table: tuple[Schema, list[list[bytes]], list[int], list[int]], random: Any
) -> None:
    schema, rows, times, _ = table
    asked = random.sample(range(len(schema.features)), random.randint(1, len(schema.features)))
    picked = Picked(schema, [schema.features[at][0] for at in asked])
    assert picked.is_numeric
    values = [*_packed(schema, rows, times, None), None]
    found = Unpacked(schema, values).plain_numbers(picked)
    chosen = [[row[at] for at in asked] for row in rows] + [[None] * len(asked)]
    assert repr(found) == repr(plain.columns(chosen, [schema.features[at][1] for at in asked]))


@given(_tables())
def test_timestamps_are_feasts(
    table: tuple[Schema, list[list[bytes]], list[int], list[int]],
) -> None:
    schema, rows, times, _ = table
    found = Unpacked(schema, _packed(schema, rows, times, None)).stamps()
    for stamp, micros in zip(found, times, strict=True):
        assert stamp is not None
        expected = Timestamp()
        expected.FromDatetime(_EPOCH + timedelta(microseconds=micros))
        assert Timestamp.FromString(stamp) == expected


@given(_MICROS, _MICROS)
def test_the_order_of_the_headers_bytes_is_the_order_of_time(first: int, second: int) -> None:
    schema = Schema("stats", (("f", ValueType.DOUBLE),))
    one, other = _packed(schema, [[b""], [b""]], [first, second], [second, first])
    assert (one[EVENT_AT:RECORDED_AT] < other[EVENT_AT:RECORDED_AT]) == (first < second)
    assert (one[RECORDED_AT:HEADER_BYTES] < other[RECORDED_AT:HEADER_BYTES]) == (second < first)


def test_a_time_of_recording_that_is_not_known_is_zeros() -> None:
    schema = Schema("stats", (("f", ValueType.DOUBLE),))
    (value,) = _packed(schema, [[b""]], [1], None)
    assert value[RECORDED_AT:HEADER_BYTES] == bytes(8)
    assert times_of(value) == (1, None)


def test_twenty_numbers_take_their_size_and_a_header() -> None:
    schema = Schema("stats", tuple((f"f{at}", ValueType.DOUBLE) for at in range(20)))
    (value,) = _packed(schema, [[value_bytes(ValueType.DOUBLE, 1.5)] * 20], [0], None)
    assert len(value) == HEADER_BYTES + 3 + 20 * 8


_OLD = Schema("stats", (("price", ValueType.DOUBLE), ("volume", ValueType.INT64)))


@pytest.mark.parametrize(
    "features",
    [
        [("volume", ValueType.INT64), ("price", ValueType.DOUBLE)],
        [("price", ValueType.DOUBLE), ("volume", ValueType.UNIX_TIMESTAMP)],
        [("price", ValueType.DOUBLE), ("turnover", ValueType.INT64)],
        [("price", ValueType.DOUBLE)],
        [("price", ValueType.DOUBLE), ("volume", ValueType.INT64), ("spread", ValueType.DOUBLE)],
    ],
    ids=["order", "type", "name", "one less", "one more"],
)
def test_another_schema_is_refused(features: list[tuple[str, ValueType]]) -> None:
    old = _packed(
        _OLD,
        [[value_bytes(ValueType.DOUBLE, 1.0), value_bytes(ValueType.INT64, 2)]] * 2,
        [0, 0],
        None,
    )
    with pytest.raises(SchemaError, match=r"'stats': 2 of 2 entities .*materialize the view again"):
        Unpacked(Schema("stats", tuple(features)), [*old, None])


def test_a_value_that_ends_too_soon_is_refused() -> None:
    (value,) = _packed(_OLD, [[b"", b""]], [0], None)
    with pytest.raises(DataError, match="'stats': a packed value is damaged"):
        Unpacked(_OLD, [value[:-1]])


def test_ends_that_run_backwards_are_refused() -> None:
    schema = Schema("stats", (("a", ValueType.STRING), ("b", ValueType.STRING)))
    text = value_bytes(ValueType.STRING, "four")
    (value,) = _packed(schema, [[text, text]], [0], None)
    at = schema.ends_at
    damaged = value[:at] + (200).to_bytes(4, "little") + value[at + 4 :]
    with pytest.raises(DataError, match="damaged"):
        Unpacked(schema, [damaged])


def test_a_number_of_another_type_is_taken_if_it_fits() -> None:
    schema = Schema("stats", (("f", ValueType.DOUBLE),))
    (value,) = _packed(schema, [[value_bytes(ValueType.INT64, 7)]], [0], None)
    assert Unpacked(schema, [value]).column("f").to_pylist() == [7.0]
    with pytest.raises(DataError, match="feature view 'stats', feature 'f': expected double"):
        _packed(schema, [[value_bytes(ValueType.STRING, "7")]], [0], None)


def test_a_map_comes_out_as_it_went_in() -> None:
    value = Value()
    value.map_val.val["a"].int64_val = 3
    schema = Schema("stats", (("f", ValueType.MAP), ("g", ValueType.BOOL)))
    row = [bytes(value.SerializeToString()), value_bytes(ValueType.BOOL, content=True)]
    (packed,) = _packed(schema, [row], [0], None)
    assert Unpacked(schema, [packed]).values(["g", "f"]) == [[row[1], row[0]]]


def test_a_feature_that_the_view_lacks_has_no_value() -> None:
    (packed,) = _packed(_OLD, [[b"", b""]], [0], None)
    assert Unpacked(_OLD, [packed, None]).values(["unknown"]) == [[b""], [None]]


def test_views_have_keys_of_their_own() -> None:
    assert key_head("a") != key_head("b")
    assert not key_head("ab").startswith(key_head("a"))


def test_nothing_stored_is_nothing_found() -> None:
    unpacked = Unpacked(_OLD, [None, None])
    assert np.isnan(unpacked.matrix(Picked(_OLD, ["price", "volume"]))).all()
    assert np.isnat(unpacked.times()).all()
