"""From one layout to the other: nothing lost, nothing older over newer, and again without effect."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32, Float64, Int32, Int64, Map, String
from feast.value_type import ValueType

from feast_repos import repo
from hyperfeast.errors import FeatureError, SchemaError, UsageError
from hyperfeast.stores.online import convert as conversion
from hyperfeast.stores.online.convert import Converted, Name, convert
from hyperfeast.stores.online.read import online_matrix

_NOWHERE = "postgresql://nobody@localhost:1/nothing"
_NOON = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
_SOURCE = FileSource(
    path="nowhere.parquet", timestamp_field="event_timestamp", created_timestamp_column="created"
)
_DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
_CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
_STATS = FeatureView(
    name="stats",
    entities=[_DRIVER],
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float64),
        Field(name="share", dtype=Float32),
        Field(name="trips", dtype=Int64),
        Field(name="small", dtype=Int32),
        Field(name="label", dtype=String),
        Field(name="history", dtype=Array(Int64)),
        Field(name="notes", dtype=Map),
    ],
    source=_SOURCE,
)
_SCORES = FeatureView(
    name="scores",
    entities=[_DRIVER],
    schema=[Field(name="driver_id", dtype=Int64), Field(name="score", dtype=Float64)],
    source=_SOURCE,
)
_WEATHER = FeatureView(
    name="weather",
    entities=[_CITY],
    schema=[Field(name="city", dtype=String), Field(name="rain", dtype=Float64)],
    source=_SOURCE,
)
_WORLD = FeatureView(
    name="world", entities=[], schema=[Field(name="warmth", dtype=Float64)], source=_SOURCE
)
_OBJECTS = [_DRIVER, _CITY, _STATS, _SCORES, _WEATHER, _WORLD]
_ALL = [f"stats:{field.name}" for field in _STATS.features] + ["scores:score", "world:warmth"]
_DRIVERS = 30


def _store(
    folder: Path, redis_url: str, layout: str = "feast", *, stock: bool = False
) -> FeatureStore:
    if stock:
        return repo(folder, _NOWHERE, redis_url, online="stock")
    return repo(folder, _NOWHERE, redis_url, online_options={"layout": layout})


def _online(store: FeatureStore) -> Any:
    return store._get_provider().online_store


def _value(**field: Any) -> Value:
    return Value(**field)


def _row(
    driver: int, *, event: datetime = _NOON, created: datetime | None = None, rate: float = 0.5
) -> Any:
    value = Value()
    value.map_val.val["driver"].int64_val = driver
    lists = Value()
    lists.int64_list_val.val.extend([driver, -1])
    cells = {
        "rate": _value(double_val=rate + driver),
        "share": _value(float_val=0.25),
        "trips": _value(int64_val=driver - 5),
        "small": Value(),
        "label": _value(string_val=f"número {driver}"),
        "history": lists,
        "notes": value,
    }
    return _key(driver), cells, event, created


def _key(driver: int) -> EntityKey:
    return EntityKey(join_keys=["driver_id"], entity_values=[_value(int64_val=driver)])


def _write(store: FeatureStore, view: FeatureView, rows: list[Any]) -> None:
    _online(store).online_write_batch(store.config, view, rows, None)


def _fill(store: FeatureStore) -> None:
    """Drivers from 0 on, each tenth of whom has no score; and two cities."""
    _write(
        store, _STATS, [_row(one, created=_NOON + timedelta(hours=1)) for one in range(_DRIVERS)]
    )
    scores = [
        (_key(one), {"score": _value(double_val=one / 3)}, _NOON, None)
        for one in range(_DRIVERS)
        if one % 10
    ]
    _write(store, _SCORES, scores)
    nobody = EntityKey(join_keys=["__dummy_id"], entity_values=[_value(string_val="")])
    _write(store, _WORLD, [(nobody, {"warmth": _value(double_val=15.1)}, _NOON, None)])
    frame = pd.DataFrame({"city": ["Lima", "Perth"], "rain": [1.5, None]})
    store.write_to_online_store("weather", frame.assign(event_timestamp=_NOON, created=_NOON))


def _answer(store: FeatureStore) -> Any:
    """Everything online, times included."""
    rows = [{"driver_id": one} for one in range(-1, _DRIVERS + 1)]
    drivers = store.get_online_features(_ALL, rows).proto
    cities = store.get_online_features(
        ["weather:rain"], [{"city": one} for one in ("Lima", "Perth", "Rome")]
    )
    return drivers, cities.proto


@pytest.mark.parametrize("first", ["stock", "feast"])
def test_there_and_back_again_everything_is_as_it_was(
    tmp_path: Path, redis_url: str, first: str
) -> None:
    feast = _store(tmp_path, redis_url, stock=first == "stock")
    feast.apply(_OBJECTS)
    _fill(feast)
    before = _answer(feast)
    ours, packed = _store(tmp_path, redis_url), _store(tmp_path, redis_url, "packed")

    there = convert(ours, "packed")
    assert {one.view: (one.rows, one.written, one.already_there) for one in there} == {
        "stats": (30, 30, 0),
        "scores": (27, 27, 0),
        "weather": (2, 2, 0),
        "world": (1, 1, 0),
    }
    assert _answer(packed) == before
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter():
            if not key.startswith(b"_packed"):
                client.delete(key)

    convert(packed, "feast")
    assert _answer(ours) == before
    assert _answer(_store(tmp_path, redis_url, stock=True)) == before


@pytest.mark.parametrize("to", ["packed", "feast"])
def test_a_second_run_writes_nothing(tmp_path: Path, redis_url: str, to: Name) -> None:
    store = _store(tmp_path, redis_url, "feast" if to == "packed" else "packed")
    store.apply(_OBJECTS)
    _fill(store)
    convert(store, to)
    again = convert(store, to)
    assert [(one.written, one.already_there) for one in again] == [(0, one.rows) for one in again]


class _Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_AT_ONCE", 10)
    store = _store(tmp_path, redis_url)
    store.apply(_OBJECTS)
    _fill(store)

    def stop(done: int, total: int) -> None:
        assert total == 30 + 30 + 2 + 1
        if done >= 10:
            raise _Interrupted

    with pytest.raises(_Interrupted):
        convert(store, "packed", views=["stats"], progress=lambda done, _: stop(done, 63))
    (stats,) = convert(store, "packed", views=["stats"])
    assert (stats.written, stats.already_there) == (20, 10)


def test_progress_ends_at_its_total(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_AT_ONCE", 10)
    store = _store(tmp_path, redis_url)
    store.apply(_OBJECTS)
    _fill(store)
    told: list[tuple[int, int]] = []
    convert(store, "packed", progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    # Both views of a driver are found under its key, and so both count it.
    assert {total for _, total in told} == {30 + 30 + 2 + 1}
    assert told[-1][0] == 63


@pytest.mark.parametrize("to", ["packed", "feast"])
def test_what_is_newer_in_the_other_layout_stays(tmp_path: Path, redis_url: str, to: Name) -> None:
    source = _store(tmp_path, redis_url, "feast" if to == "packed" else "packed")
    target = _store(tmp_path, redis_url, to)
    source.apply(_OBJECTS)
    target.refresh_registry()
    hour = timedelta(hours=1)
    created = _NOON + 2 * hour
    _write(source, _STATS, [_row(one, created=created) for one in range(4)])
    later = _row(0, event=_NOON + hour, created=created, rate=100.0)
    older = _row(1, event=_NOON - hour, created=created, rate=100.0)
    corrected = _row(2, created=created + hour, rate=100.0)
    superseded = _row(3, created=created - hour, rate=100.0)
    _write(target, _STATS, [later, older, corrected, superseded])
    (stats,) = convert(source, to, views=["stats"])
    assert (stats.rows, stats.written, stats.already_there) == (4, 2, 2)
    found = online_matrix(target, ["stats:rate"], [{"driver_id": one} for one in range(4)])
    assert found.values[:, 0].tolist() == [100.0, 1.5, 102.0, 3.5]


@pytest.mark.parametrize("to", ["packed", "feast"])
def test_the_source_goes_if_that_is_wanted(tmp_path: Path, redis_url: str, to: Name) -> None:
    source = _store(tmp_path, redis_url, "feast" if to == "packed" else "packed")
    source.apply(_OBJECTS)
    _fill(source)
    before = _answer(source)
    done = convert(source, to, remove_source=True)
    assert all(one.removed for one in done)
    rows = [{"driver_id": one} for one in range(_DRIVERS)]
    with pytest.raises(FeatureError, match="feature view stats, scores: expected rows"):
        online_matrix(source, ["stats:rate", "scores:score"], rows)
    assert _answer(_store(tmp_path, redis_url, to)) == before
    with redis.Redis.from_url(redis_url) as client:
        is_packed = {key.startswith(b"_packed") for key in client.scan_iter()}
    assert is_packed == {to == "packed"}


@pytest.mark.parametrize("to", ["packed", "feast"])
def test_rows_in_the_other_layout_alone_are_no_missing_values(
    tmp_path: Path, redis_url: str, to: Name
) -> None:
    written = "feast" if to == "packed" else "packed"
    before, after = _store(tmp_path, redis_url, written), _store(tmp_path, redis_url, to)
    before.apply(_OBJECTS)
    after.refresh_registry()
    _fill(before)
    features, known = ["stats:rate", "scores:score"], [{"driver_id": 1}]
    # Whoever is nowhere has no values, and makes nobody believe that all is well.
    assert np.isnan(online_matrix(after, features, [{"driver_id": 999}]).values).all()
    said = f"feature view stats, scores: .*'{written}' alone: run `hyperfeast online convert --to {to}`"
    for _ in range(2):
        with pytest.raises(FeatureError, match=said):
            online_matrix(after, features, known)
        with pytest.raises(FeatureError, match=said):
            after.get_online_features(features, known)
    asyncio.run(_refused_async(after, features, known, said))
    convert(before, to)
    assert online_matrix(after, features, known).values.tolist() == [[1.5, 1 / 3]]


def test_the_other_layout_is_looked_up_seldom(tmp_path: Path, redis_url: str) -> None:
    store = _store(tmp_path, redis_url, "packed")
    store.apply(_OBJECTS)
    _fill(store)
    with redis.Redis.from_url(redis_url) as client:

        def looked_up() -> int:
            return int(client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0))

        before = looked_up()
        for _ in range(8):
            online_matrix(store, ["stats:rate"], [{"driver_id": 999}])
            online_matrix(store, ["stats:rate"], [{"driver_id": 999}, {"driver_id": 1}])
        # The first, second, fourth and eighth time.
        assert looked_up() - before == 4


async def _refused_async(
    store: FeatureStore, features: list[str], rows: list[Any], said: str
) -> None:
    for _ in range(2):
        with pytest.raises(FeatureError, match=said):
            await store.get_online_features_async(features, rows)
    await _online(store)._client_async.aclose()


def test_another_projects_rows_are_left_alone(tmp_path: Path, redis_url: str) -> None:
    store = _store(tmp_path, redis_url)
    store.apply(_OBJECTS)
    _fill(store)
    with redis.Redis.from_url(redis_url) as client:
        # A project whose name ends with this one's.
        for key in list(client.scan_iter()):
            client.copy(key, key.removesuffix(b"test") + b"contest")
    assert [one.rows for one in convert(store, "packed")] == [30, 27, 2, 1]
    with redis.Redis.from_url(redis_url) as client:
        assert not [*client.scan_iter(b"_packed*contest")]


def test_a_view_that_is_not_there_is_named(tmp_path: Path, redis_url: str) -> None:
    store = _store(tmp_path, redis_url)
    store.apply(_OBJECTS)
    with pytest.raises(
        UsageError,
        match=r"no feature view statz is online: there are scores, stats, weather, world",
    ):
        convert(store, "packed", views=["statz"])


def test_feasts_own_store_is_refused(tmp_path: Path, redis_url: str) -> None:
    store = _store(tmp_path, redis_url, stock=True)
    store.apply(_OBJECTS)
    with pytest.raises(FeatureError, match="FastRedisOnlineStore"):
        convert(store, "packed")


def test_values_of_another_schema_are_not_taken_for_this_ones(
    tmp_path: Path, redis_url: str
) -> None:
    packed = _store(tmp_path, redis_url, "packed")
    packed.apply(_OBJECTS)
    _fill(packed)
    changed = FeatureView(
        name="scores",
        entities=[_DRIVER],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="score", dtype=Int64)],
        source=_SOURCE,
    )
    packed.apply([changed])
    with pytest.raises(SchemaError, match="'scores': 27 of 27 entities"):
        convert(packed, "feast", views=["scores"])


def test_nothing_online_is_nothing_to_convert(tmp_path: Path, redis_url: str) -> None:
    store = _store(tmp_path, redis_url)
    store.apply([_DRIVER, _SCORES])
    assert convert(store, "packed") == [Converted("scores", 0, 0, 0, removed=False)]
