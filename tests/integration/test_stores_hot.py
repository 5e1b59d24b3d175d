"""Vectors kept in a process: never older than they may be, never what a write has ended."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64
from feast.value_type import ValueType
from numpy.testing import assert_array_equal
from prometheus_client import REGISTRY

from feast_repos import repo
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.hot import HotVectors
from hyperfeast.stores.online.invalidation import channel_of
from hyperfeast.stores.online.read import online_matrix

_NOWHERE = "postgresql://nobody@127.0.0.1:9/none"
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
_SHOP = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)


def _view(name: str, entities: list[Entity]) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        ttl=timedelta(0),
        schema=[Field(name=f"{name}_{at}", dtype=Float64) for at in range(3)],
        source=PostgreSQLSource(name=name, table=name, timestamp_field="event_timestamp"),
    )


_SCORES, _SALES = _view("scores", [_DRIVER]), _view("sales", [_DRIVER, _SHOP])
_SERVICE = FeatureService(name="both", features=[_SALES, _SCORES])
_ROWS = [{"driver_id": driver, "shop": shop} for driver, shop in [(1, "a"), (2, "b"), (1, "a")]]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["feast", "packed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> FeatureStore:
    """Rows of two drivers and two shops, in either layout."""
    made = repo(tmp_path, _NOWHERE, redis_url, online_options={"layout": request.param})
    made.apply([_DRIVER, _SHOP, _SCORES, _SALES, _SERVICE])
    _write(made, {1: 10.0, 2: 20.0}, _NOON)
    return made


def _write(store: FeatureStore, values: dict[int, float], at: datetime) -> None:
    rows = [
        {"driver_id": driver, "shop": shop, "event_timestamp": at}
        | {
            f"{view}_{column}": value + column
            for view in ("scores", "sales")
            for column in range(3)
        }
        for driver, value in values.items()
        for shop in "ab"
    ]
    for view in ("scores", "sales"):
        columns = ["driver_id", *(["shop"] if view == "sales" else []), "event_timestamp"]
        columns += [f"{view}_{column}" for column in range(3)]
        frame = pd.DataFrame(rows)[columns].drop_duplicates()
        store.write_to_online_store(view, frame)


@pytest.fixture
def hot(store: FeatureStore) -> Iterator[Callable[..., HotVectors]]:
    """Makes caches of the store, and closes them."""
    made: list[HotVectors] = []

    def make(**options: Any) -> HotVectors:
        made.append(HotVectors(store, **{"ttl_s": 60, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _hits() -> float:
    return _count("hyperfeast_feature_cache_reads_total", result="hit")


def _count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def _until(held: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 30
    while not held():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def _warm(cache: HotVectors) -> None:
    """Read until an answer comes from memory."""
    before = _hits()
    _until(lambda: cache.online(_SERVICE, _ROWS) is not None and _hits() > before)


def _same(cache: HotVectors, store: FeatureStore) -> bool:
    ours, plain = cache.online(_SERVICE, _ROWS), online_matrix(store, _SERVICE, _ROWS)
    assert ours.features == plain.features
    assert ours.views == plain.views
    return np.array_equal(ours.values, plain.values) and np.array_equal(
        ours.event_timestamps, plain.event_timestamps
    )


def test_the_same_numbers_from_memory(store: FeatureStore, hot: Callable[..., HotVectors]) -> None:
    cache = hot()
    _warm(cache)
    plain = online_matrix(store, _SERVICE, _ROWS)
    assert plain.values[:, 0].tolist() == [10.0, 20.0, 10.0]
    before = _hits()
    mixed = [*_ROWS, {"driver_id": 9, "shop": "z"}]
    ours = cache.online(_SERVICE, mixed)
    assert _hits() == before + 3
    assert_array_equal(ours.values[:3], plain.values)
    assert_array_equal(ours.event_timestamps[:3], plain.event_timestamps)
    assert_array_equal(ours.view_of, plain.view_of)
    assert np.isnan(ours.values[3]).all()
    assert np.isnat(ours.event_timestamps[3]).all()


def test_an_answer_is_the_callers_to_change(
    store: FeatureStore, hot: Callable[..., HotVectors]
) -> None:
    cache = hot()
    _warm(cache)
    cache.online(_SERVICE, _ROWS).values[:] = -1
    assert _same(cache, store)


def test_a_write_by_anybody_ends_what_was_kept(
    store: FeatureStore, hot: Callable[..., HotVectors]
) -> None:
    cache = hot()
    for turn in range(1, 6):
        _warm(cache)
        _write(store, {1: 100.0 * turn}, _NOON + timedelta(hours=turn))
        _until(lambda: _same(cache, store))


def test_a_flush_ends_everything(
    store: FeatureStore, hot: Callable[..., HotVectors], redis_url: str
) -> None:
    cache = hot()
    _warm(cache)
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    _until(lambda: bool(np.isnan(cache.online(_SERVICE, _ROWS).values).all()))


def test_nothing_is_served_beyond_its_time(
    store: FeatureStore, hot: Callable[..., HotVectors], redis_url: str
) -> None:
    clock = Clock()
    cache = hot(ttl_s=5, clock=clock)
    _warm(cache)
    misses = _count("hyperfeast_feature_cache_reads_total", result="miss")
    clock.now = 4.99
    cache.online(_SERVICE, _ROWS)
    assert _count("hyperfeast_feature_cache_reads_total", result="miss") == misses
    clock.now = 5.0
    cache.online(_SERVICE, _ROWS)
    assert _count("hyperfeast_feature_cache_reads_total", result="miss") == misses + 3


def test_no_more_is_kept_than_asked_for(
    store: FeatureStore, hot: Callable[..., HotVectors]
) -> None:
    cache = hot(most=1)
    _warm(cache)
    for driver in (1, 2, 1, 2):
        rows = [{"driver_id": driver, "shop": "a"}]
        assert cache.online(_SERVICE, rows).values[0, 0] == 10.0 * driver
    assert len(cache._kept) == 1
    assert len(cache._read_from) <= 2


def test_a_value_written_while_it_is_read_is_not_kept(
    store: FeatureStore, hot: Callable[..., HotVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = hot()
    _warm(cache)
    _write(store, {1: 11.0}, _NOON + timedelta(hours=1))
    _until(lambda: _same(cache, store))
    _write(store, {1: 12.0}, _NOON + timedelta(hours=2))
    _until(lambda: not cache._read_from.keys() & _keys_of_driver_1(cache))
    read = HotVectors._read

    def overtaken(self: HotVectors, *arguments: Any) -> OnlineMatrix:
        found = read(self, *arguments)
        _write(store, {1: 13.0}, _NOON + timedelta(hours=3))
        heard = _count("hyperfeast_feature_cache_invalidations_total")
        # Redis tells in order: when the other driver's vector has ended, so has this one's.
        _write(store, {2: 23.0}, _NOON + timedelta(hours=3))
        _until(lambda: _count("hyperfeast_feature_cache_invalidations_total") > heard)
        return found

    monkeypatch.setattr(HotVectors, "_read", overtaken)
    assert cache.online(_SERVICE, _ROWS).values[0, 0] == 12.0
    monkeypatch.setattr(HotVectors, "_read", read)
    assert cache.online(_SERVICE, _ROWS).values[0, 0] == 13.0


def _keys_of_driver_1(cache: HotVectors) -> set[bytes]:
    return {key for _, keys in cache._kept for key in keys if b"\x01\x00\x00\x00\x00" in key}


def test_definitions_that_were_applied_elsewhere_are_read_again(
    store: FeatureStore, hot: Callable[..., HotVectors], redis_url: str
) -> None:
    cache = hot()
    _warm(cache)
    read_at = store.registry.cached_registry_proto_created
    with redis.Redis.from_url(redis_url) as client:
        client.publish(channel_of(store.project), b"")
    _until(lambda: store.registry.cached_registry_proto_created > read_at)


def test_whatever_a_lost_connection_did_not_tell_is_not_served(
    store: FeatureStore, hot: Callable[..., HotVectors], redis_url: str
) -> None:
    cache = hot()
    _warm(cache)
    with redis.Redis.from_url(redis_url) as client:
        assert client.client_kill_filter(_type="pubsub") >= 1
    _write(store, {1: 77.0}, _NOON + timedelta(hours=1))
    _until(lambda: _same(cache, store))
    _warm(cache)
    assert cache.online(_SERVICE, _ROWS).values[0, 0] == 77.0


def test_definitions_that_change_in_mid_read_mix_up_nothing(
    store: FeatureStore, hot: Callable[..., HotVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = hot()
    _warm(cache)
    read = HotVectors._read

    def overtaken(self: HotVectors, *arguments: Any) -> OnlineMatrix:
        turned = _view("scores", [_DRIVER])
        turned.features = turned.projection.features = turned.features[::-1]
        store.apply([turned, FeatureService(name="both", features=[_SALES, turned])])
        store.refresh_registry()
        return read(self, *arguments)

    monkeypatch.setattr(HotVectors, "_read", overtaken)
    rows = [*_ROWS, {"driver_id": 2, "shop": "a"}]
    found = cache.online(_SERVICE, rows)
    assert dict(zip(found.features, found.values[3].tolist(), strict=True)) == {
        f"{view}_{column}": 20.0 + column for view in ("sales", "scores") for column in range(3)
    }


def test_one_entity_under_two_aliases(store: FeatureStore, hot: Callable[..., HotVectors]) -> None:
    cache = hot(most=1)
    twice = FeatureService(
        name="twice",
        features=[
            _SCORES.with_name("origin").with_join_key_map({"driver_id": "origin_id"}),
            _SCORES.with_name("destination").with_join_key_map({"driver_id": "destination_id"}),
        ],
    )
    store.apply([twice])
    service = store.get_feature_service("twice")

    def read(driver: int) -> list[float]:
        rows = [{"origin_id": driver, "destination_id": driver}]
        return cache.online(service, rows, full_feature_names=True).values[0, ::3].tolist()

    before = _hits()
    _until(lambda: read(1) == [10.0, 10.0] and _hits() > before)
    assert (read(2), read(1)) == ([20.0, 20.0], [10.0, 10.0])
    _write(store, {1: 55.0}, _NOON + timedelta(hours=1))
    _until(lambda: read(1) == [55.0, 55.0])
    again = _hits()
    _until(lambda: read(1) == [55.0, 55.0] and _hits() > again)


def test_it_is_closed_while_others_write(
    store: FeatureStore, hot: Callable[..., HotVectors], redis_url: str
) -> None:
    cache, done = hot(), threading.Event()
    _warm(cache)
    head = next(iter(cache._told._wanted)) if cache._told else b""

    def write() -> None:
        with redis.Redis.from_url(redis_url) as client:
            while not done.is_set():
                client.set(head + b"busy", b"")

    writer = threading.Thread(target=write)
    writer.start()
    closing = threading.Thread(target=cache.close)
    closing.start()
    closing.join(timeout=60)
    assert not closing.is_alive()
    done.set()
    writer.join()


def test_threads_and_writers_at_once(store: FeatureStore, hot: Callable[..., HotVectors]) -> None:
    cache, done = hot(), threading.Event()
    _warm(cache)

    def read() -> bool:
        newest = 0.0
        while not done.is_set():
            value = float(cache.online(_SERVICE, _ROWS[:1]).values[0, 0])
            # Values grow: a reader that steps back was given an old one.
            if value < newest:
                return False
            newest = value
        return True

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for turn in range(1, 40):
            _write(store, {1: 100.0 + turn}, _NOON + timedelta(minutes=turn))
        done.set()
        assert all(one.result() for one in readers)
    _until(lambda: _same(cache, store))
