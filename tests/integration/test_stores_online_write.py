"""The online store's writing against a real Redis, with Feast's own store as the reader and the rival."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureView
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    UnixTimestamp,
    Uuid,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast import cache
from hyperfeast.errors import DataError, FeatureError, UsageError
from hyperfeast.stores.online import wire, write
from hyperfeast.stores.online.layouts import HashLayout
from hyperfeast.stores.online.rows import Rows
from hyperfeast.stores.online.store import FastRedisOnlineStore, FastRedisOnlineStoreConfig
from online_views import EVENT, config, entity, served, stock_read, table, view

_MINUTE = timedelta(minutes=1)

_TYPES: dict[str, tuple[FeastType, pa.DataType, list[Any]]] = {
    "f_float64": (Float64, pa.float64(), [1.5, None, float("inf")]),
    "f_float32": (Float32, pa.float32(), [1.5, None, -0.0]),
    "f_int64": (Int64, pa.int64(), [2**40, -1, 0]),
    "f_int32": (Int32, pa.int32(), [2**31 - 1, -1, 0]),
    "f_bool": (Bool, pa.bool_(), [True, None, False]),
    "f_string": (String, pa.string(), ["", "äß", None]),
    "f_bytes": (Bytes, pa.binary(), [b"\x00\r\n", None, b"x"]),
    "f_time": (
        UnixTimestamp,
        pa.timestamp("us", "UTC"),
        [EVENT, None, EVENT - 40_000 * timedelta(1)],
    ),
    "f_uuid": (Uuid, pa.string(), ["5ba7a53c-2e6a-4d63-b4b8-1d1c7e2b1f8b", None, None]),
    "f_decimal": (Decimal, pa.string(), ["1.10", None, "-3"]),
    "f_json": (Json, pa.large_string(), ['{"a": [1]}', None, "2"]),
    "l_float64": (Array(Float64), pa.list_(pa.float64()), [[1.0, None], [], None]),
    "l_float32": (Array(Float32), pa.list_(pa.float32()), [[1.0], [], None]),
    "l_int64": (Array(Int64), pa.list_(pa.int64()), [[1, -1], [], None]),
    "l_int32": (Array(Int32), pa.list_(pa.int32()), [[7], [], None]),
    "l_bool": (Array(Bool), pa.list_(pa.bool_()), [[True, None], [], None]),
    "l_string": (Array(String), pa.list_(pa.string()), [["a", None, ""], [], None]),
    "l_bytes": (Array(Bytes), pa.list_(pa.binary()), [[b"", b"x"], [], None]),
    "l_time": (
        Array(UnixTimestamp),
        pa.list_(pa.timestamp("us", "UTC")),
        [[EVENT, None], [], None],
    ),
    "s_int64": (Set(Int64), pa.list_(pa.int64()), [[3, 3, 4], None, None]),
    "m_string": (Map, pa.map_(pa.string(), pa.string()), [{"a": "b"}, None, None]),
}
_SYMBOLS = ["A", "B", "C"]


@pytest.fixture(params=["script", "transactions"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write, whatever the number of rows."""
    monkeypatch.setattr(write, "_FEW", 1 << 30 if request.param == "script" else 0)


def _write(redis_url: str, rows: list[dict[str, Any]], **keys: Any) -> write.Written:
    created = "rec" if "rec" in rows[0] else None
    return FastRedisOnlineStore().write_arrow(
        config(redis_url, **keys),
        view(),
        [table(rows)],
        timestamp_field="ts",
        created_field=created,
    )


def _row(symbol: str, minute: int, close: float, **rec: datetime | None) -> dict[str, Any]:
    return {"symbol": symbol, "ts": EVENT + minute * _MINUTE, "close": close, **rec}


def _wide() -> tuple[FeatureView, pa.RecordBatch]:
    features = view("wide", {name: kind for name, (kind, _, _) in _TYPES.items()})
    columns: dict[str, Any] = {name: pa.array(v, arrow) for name, (_, arrow, v) in _TYPES.items()}
    columns |= {"symbol": _SYMBOLS, "ts": pa.array([EVENT] * 3, pa.timestamp("us", "UTC"))}
    return features, pa.RecordBatch.from_pydict(columns)


def _tuples(of: FeatureView, batch: pa.RecordBatch) -> list[Any]:
    """Rows as Feast passes them to a store."""
    columns = {
        field.name: python_values_to_proto_values(
            batch.column(field.name).to_pylist(maps_as_pydicts="strict")
            if field.name.startswith("m_")
            else batch.column(field.name).to_numpy(zero_copy_only=False),
            field.dtype.to_value_type(),
        )
        for field in of.features
    }
    return [
        (entity(symbol), {name: column[at] for name, column in columns.items()}, EVENT, None)
        for at, symbol in enumerate(_SYMBOLS)
    ]


@pytest.mark.usefixtures("_way")
def test_hashes_are_byte_for_byte_feasts(redis_url: str) -> None:
    of, batch = _wide()
    theirs = config(redis_url, project="theirs", kind="redis")
    RedisOnlineStore().online_write_batch(theirs, of, _tuples(of, batch), None)
    store = FastRedisOnlineStore()

    store.write_arrow(config(redis_url, project="arrow"), of, [batch], timestamp_field="ts")
    store.online_write_batch(config(redis_url, project="tuple"), of, _tuples(of, batch), None)

    with cache.connect(redis_url) as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        keys: Any = client.keys("*")
        stored = {key: client.hgetall(key) for key in keys}
    assert len(stored) == 9
    for key in (key for key in stored if key.endswith(b"theirs")):
        entity_key = key.removesuffix(b"theirs")
        assert stored[entity_key + b"arrow"] == stored[key]
        assert stored[entity_key + b"tuple"] == stored[key]


def test_feasts_store_reads_what_ours_wrote_and_ours_what_feasts_wrote(redis_url: str) -> None:
    of, batch = _wide()
    keys = [entity(symbol) for symbol in _SYMBOLS]
    ours, store = config(redis_url), FastRedisOnlineStore()
    store.write_arrow(ours, of, [batch], timestamp_field="ts")
    by_feast = stock_read(redis_url, _SYMBOLS, of)

    RedisOnlineStore().online_write_batch(
        config(redis_url, project="theirs", kind="redis"), of, _tuples(of, batch), None
    )
    by_ours = store.online_read(config(redis_url, project="theirs"), of, keys)

    assert by_feast == by_ours
    assert [moment for moment, _ in by_feast] == [EVENT] * 3
    assert by_feast[0][1] is not None
    assert list(by_feast[0][1]["l_int64"].int64_list_val.val) == [1, -1]


_ARRIVALS = st.lists(
    st.tuples(st.sampled_from(_SYMBOLS), st.integers(-2, 2), st.none() | st.integers(0, 3)),
    min_size=1,
    max_size=24,
)


@pytest.mark.usefixtures("_way")
@given(
    arrivals=_ARRIVALS,
    cuts=st.sets(st.integers(1, 23)),
    layout=st.sampled_from(["feast", "packed"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_arrival_leaves_the_newest(
    redis_url: str, arrivals: list[tuple[str, int, int | None]], cuts: set[int], layout: str
) -> None:
    """The newest (event, recorded); of equals, and without a time of recording, the last that came."""
    with cache.connect(redis_url) as client:
        client.flushdb()
    rows = [
        _row(symbol, minute, number, rec=None if rec is None else EVENT + rec * _MINUTE)
        for number, (symbol, minute, rec) in enumerate(arrivals)
    ]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    store, repo = FastRedisOnlineStore(), config(redis_url, layout=layout)
    for start, stop in pairwise(bounds):
        store.write_arrow(
            repo, view(), [table(rows[start:stop])], timestamp_field="ts", created_field="rec"
        )

    newest: dict[str, tuple[int, int, int]] = {}
    for number, (symbol, minute, rec) in enumerate(arrivals):
        order = (minute, -1 if rec is None else rec, number)
        newest[symbol] = max(newest.get(symbol, order), order)
    for symbol, (minute, _, number) in newest.items():
        assert _read(redis_url, layout, symbol) == (EVENT + minute * _MINUTE, float(number))


def _read(redis_url: str, layout: str, symbol: str) -> tuple[datetime | None, float | None]:
    if layout == "feast":
        return served(redis_url, symbol)
    repo = config(redis_url, layout=layout)
    ((moment, values),) = FastRedisOnlineStore().online_read(repo, view(), [entity(symbol)])
    return moment, values["close"].double_val if values else None


@pytest.mark.usefixtures("_way")
def test_a_correction_at_an_equal_event_time_is_applied(redis_url: str) -> None:
    """Feast's own store keeps the first."""
    _write(redis_url, [_row("A", 0, 1.0)])
    stale = [(entity("A"), {"close": Value(double_val=2.0)}, EVENT, None)]
    theirs = config(redis_url, kind="redis")
    RedisOnlineStore().online_write_batch(theirs, view(), stale, None)
    assert served(redis_url, "A") == (EVENT, 1.0)

    written = _write(redis_url, [_row("A", 0, 2.0)])

    assert (written.rows, written.kept) == (1, 0)
    assert served(redis_url, "A") == (EVENT, 2.0)


@pytest.mark.usefixtures("_way")
def test_a_time_of_recording_counts_only_for_its_event(redis_url: str) -> None:
    """Feast's store leaves it behind when it writes a later event."""
    _write(redis_url, [_row("A", 0, 1.0, rec=EVENT + 9 * _MINUTE)])
    later = [(entity("A"), {"close": Value(double_val=2.0)}, EVENT + _MINUTE, None)]
    RedisOnlineStore().online_write_batch(config(redis_url, kind="redis"), view(), later, None)

    _write(redis_url, [_row("A", 1, 3.0, rec=EVENT + 2 * _MINUTE)])

    assert served(redis_url, "A") == (EVENT + _MINUTE, 3.0)


@pytest.mark.usefixtures("_way")
@pytest.mark.parametrize(
    "moment",
    [
        datetime(1969, 12, 31, 23, 59, 59, 5, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1900, 1, 1, tzinfo=UTC),
    ],
)
def test_times_before_1970_are_compared_too(redis_url: str, moment: datetime) -> None:
    close = 0.0
    for offset, kept in ((0, 0), (-1, 1), (1, 0), (0, 1)):
        close += 1
        row = {"symbol": "A", "ts": moment + offset * timedelta(microseconds=1), "close": close}
        assert _write(redis_url, [row]).kept == kept

    assert served(redis_url, "A")[1] == 3.0


@pytest.mark.parametrize("layout", ["feast", "packed"])
@pytest.mark.usefixtures("_way")
def test_the_future_is_refused_and_the_rest_is_written(redis_url: str, layout: str) -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    rows = [_row("A", 0, 1.0), {"symbol": "B", "ts": ahead, "close": 2.0}]

    with pytest.raises(
        DataError, match=r"'bars': 1 rows were not written.*300 s.*future_tolerance"
    ):
        _write(redis_url, rows, layout=layout)

    assert _read(redis_url, layout, "A") == (EVENT, 1.0)
    with cache.connect(redis_url) as client:
        assert client.dbsize() == 1
    assert _write(redis_url, rows, layout=layout, future_tolerance_seconds=7200).rows == 2


@pytest.mark.parametrize("layout", ["feast", "packed"])
@pytest.mark.usefixtures("_way")
def test_entities_expire(redis_url: str, layout: str) -> None:
    _write(redis_url, [_row("A", 0, 1.0)], layout=layout, key_ttl_seconds=50)

    with cache.connect(redis_url) as client:
        (key,) = client.scan_iter("*") if layout == "feast" else _raw_keys(redis_url)
        assert 40 < _ttl(redis_url, key) <= 50


def _raw_keys(redis_url: str) -> list[Any]:
    with cache.connect(redis_url) as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        return list(client.scan_iter("*"))


def _ttl(redis_url: str, key: Any) -> int:
    with cache.connect(redis_url) as client:
        return int(client.ttl(key))


@pytest.mark.usefixtures("_way")
def test_many_rows_of_many_batches_and_their_progress(redis_url: str) -> None:
    rows = [_row(f"S{number % 9000}", number // 9000, float(number)) for number in range(18_000)]
    seen: list[int] = []
    store = FastRedisOnlineStore()

    written = store.write_arrow(
        config(redis_url),
        view(),
        [table(rows[:10_000]), table(rows[10_000:])],
        timestamp_field="ts",
        progress=seen.append,
    )

    assert written.rows + written.kept == sum(seen) == 18_000
    found = stock_read(redis_url, ["S0", "S999", "S8999"])
    assert [values["close"].double_val for _, values in found if values] == [
        9000.0,
        9999.0,
        17999.0,
    ]


def test_writing_off_the_event_loop(redis_url: str) -> None:
    rows = [(entity("A"), {"close": Value(double_val=4.0)}, EVENT, None)]

    asyncio.run(
        FastRedisOnlineStore().online_write_batch_async(config(redis_url), view(), rows, None)
    )

    assert served(redis_url, "A") == (EVENT, 4.0)


@pytest.mark.usefixtures("_way")
def test_a_view_with_thousands_of_features(redis_url: str) -> None:
    """More arguments than a script can unpack at once."""
    value = pa.array([b"x"], pa.large_binary())
    values = {f"f{number}": value for number in range(5000)}
    rows = Rows(pa.array([b"key"], pa.large_binary()), np.array([0]), np.array([0]), values)

    with cache.connect(redis_url) as client:
        destination = write.Destination(client, HashLayout("wide", 0), 0, 0)
        assert write.write(destination, [rows]).rows == 1
        assert client.hlen("key") == 5002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda batch: batch.drop_columns(["close"]), r"'bars': no column 'close'"),
        (lambda batch: batch.set_column(1, "ts", pa.nulls(1, pa.timestamp("us"))), "no event time"),
        (lambda batch: batch.set_column(1, "ts", pa.array(["x"])), "'ts' holds string"),
        (
            lambda batch: batch.set_column(2, "close", pa.array(["x"])),
            "'bars': feature 'close': string",
        ),
        (
            lambda batch: batch.set_column(0, "symbol", pa.nulls(1, pa.string())),
            "join key 'symbol'",
        ),
    ],
    ids=["column", "timeless", "time", "type", "entity"],
)
def test_a_bad_batch_is_refused_whole(redis_url: str, change: Any, message: str) -> None:
    batch = change(table([_row("A", 0, 1.0)]))

    with pytest.raises(DataError, match=message):
        FastRedisOnlineStore().write_arrow(config(redis_url), view(), [batch], timestamp_field="ts")

    with cache.connect(redis_url) as client:
        assert client.dbsize() == 0


def _apply(redis_url: str, *, delete: list[FeatureView], keep: list[FeatureView]) -> None:
    FastRedisOnlineStore().update(config(redis_url), delete, keep, [], [], partial=False)


def test_colliding_features_are_refused_at_apply(redis_url: str) -> None:
    seen: dict[bytes, str] = {}
    names = (f"feature_{number}" for number in range(1 << 20))
    pair = next(
        (seen[hashed], name)
        for name in names
        if (hashed := wire.field_hash("bars", name)) in seen
        or seen.setdefault(hashed, name) != name
    )

    with pytest.raises(FeatureError, match=f"'{pair[0]}' and '{pair[1]}'"):
        _apply(redis_url, delete=[], keep=[view("bars", dict.fromkeys(pair, Float64))])


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_a_deleted_view_leaves_the_others(redis_url: str, layout: str) -> None:
    store, other = FastRedisOnlineStore(), view("other")
    rows = [table([_row("A", 0, 1.0, rec=EVENT)])]
    for of in (view(), other):
        for project in ("shop", "workshop"):
            repo = config(redis_url, project=project, layout=layout)
            store.write_arrow(repo, of, rows, timestamp_field="ts", created_field="rec")
    before = _everything(redis_url)

    _apply(redis_url, delete=[view()], keep=[other])

    gone = before - _everything(redis_url)
    assert gone
    assert all("bars" in str(name) or len(name) == 4 for _, name in gone if name)
    assert all(key.endswith(b"shop") and not key.endswith(b"workshop") for key, _ in gone)


def test_a_teardown_leaves_other_projects(redis_url: str) -> None:
    """Feast's own also deletes the keys of a project whose name ends with this one's."""
    for layout in ("feast", "packed"):
        _write(redis_url, [_row("A", 0, 1.0)], layout=layout)
        _write(redis_url, [_row("A", 0, 1.0)], layout=layout, project="workshop")

    FastRedisOnlineStore().teardown(config(redis_url), [view()], [])

    assert {key[-8:] for key, _ in _everything(redis_url)} == {b"workshop"}


def _everything(redis_url: str) -> set[tuple[bytes, bytes]]:
    """Each key with each of its fields."""
    with cache.connect(redis_url) as client:
        client.connection_pool.connection_kwargs["decode_responses"] = False
        keys: Any = client.keys("*")
        return {
            (key, name)
            for key in keys
            for name in (client.hkeys(key) if client.type(key) == b"hash" else [b""])
        }


def test_a_wrong_key_is_refused_with_the_nearest_right_one() -> None:
    with pytest.raises(UsageError, match=r"'retrys'.*'retries'"):
        FastRedisOnlineStoreConfig(retrys=1)


def test_the_connection_waits_no_longer_than_it_is_told() -> None:
    options = FastRedisOnlineStoreConfig(connection_string="h:1,socket_timeout=2,password=secret")
    client = FastRedisOnlineStore()._get_client(options)

    assert client.connection_pool.connection_kwargs["socket_timeout"] == 2
    assert client.connection_pool.connection_kwargs["socket_connect_timeout"] == 5
    assert client.get_retry().get_retries() == 2
    assert "secret" not in repr(options)
