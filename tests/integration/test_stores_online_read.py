"""Online reads: Feast's own response, byte for byte, and the same values as numbers and as Arrow."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import redis
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    RequestSource,
)
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from feast_repos import repo
from hyperfeast.errors import (
    DataError,
    FeatureError,
    SchemaError,
    ServerError,
    ServerUnreachable,
    UsageError,
)
from hyperfeast.servers import RedisServer
from hyperfeast.servers.binaries import valkey_binary
from hyperfeast.servers.ports import free_port
from hyperfeast.stores.online.convert import convert
from hyperfeast.stores.online.read import online_arrow, online_matrix
from hyperfeast.stores.online.read_async import online_arrow_async, online_matrix_async
from hyperfeast.stores.online.reading import reader_of

# Feast's, of the on-demand view that has to be there.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature")

_NOWHERE = "postgresql://nobody:secret@localhost:1/nothing"
_SOURCE = FileSource(path="nowhere.parquet", timestamp_field="event_timestamp")
_NOON = datetime(2026, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)

_DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
_CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
_UNUSED = Entity(name="unused", join_keys=["unused_id"], value_type=ValueType.INT64)

_STATS = FeatureView(
    name="stats",
    entities=[_DRIVER],
    ttl=timedelta(days=1),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="rate", dtype=Float64),
        Field(name="trips", dtype=Int64),
        Field(name="small", dtype=Int32),
        Field(name="share", dtype=Float32),
        Field(name="busy", dtype=Bool),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="label", dtype=String),
        Field(name="history", dtype=Array(Float64)),
        Field(name="tags", dtype=Array(String)),
    ],
    source=_SOURCE,
)
_SCORES = FeatureView(
    name="scores",
    entities=[_DRIVER],
    schema=[
        Field(name="driver_id", dtype=Int64),
        *(Field(name=f"s{at}", dtype=Float64) for at in range(5)),
    ],
    source=_SOURCE,
)
_WEATHER = FeatureView(
    name="weather",
    entities=[_CITY],
    schema=[Field(name="city", dtype=String), Field(name="rain", dtype=Float64)],
    source=_SOURCE,
)
_PAIRS = FeatureView(
    name="pairs",
    entities=[_DRIVER, _CITY],
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="city", dtype=String),
        Field(name="visits", dtype=Int64),
    ],
    source=_SOURCE,
)
_WORLD = FeatureView(
    name="world", entities=[], schema=[Field(name="temperature", dtype=Float64)], source=_SOURCE
)
_NUMBERS = [f"stats:{name}" for name in ("rate", "trips", "small", "share", "busy", "seen")]
_ALL = FeatureService(name="all", features=[_STATS, _SCORES, _WEATHER, _PAIRS, _WORLD])
_DRIVERS = FeatureService(name="drivers", features=[_STATS[["trips", "rate"]], _SCORES])
_TWICE = FeatureService(
    name="twice",
    features=[
        _WEATHER.with_name("origin").with_join_key_map({"city": "from_city"}),
        _WEATHER.with_name("target").with_join_key_map({"city": "to_city"}),
    ],
)


@on_demand_feature_view(
    sources=[_SCORES, RequestSource(name="request", schema=[Field(name="factor", dtype=Float64)])],
    schema=[Field(name="scaled", dtype=Float64)],
    mode="pandas",
)
def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"scaled": inputs["s0"] * inputs["factor"]})


_OBJECTS = [
    _DRIVER,
    _CITY,
    _UNUSED,
    _STATS,
    _SCORES,
    _WEATHER,
    _PAIRS,
    _WORLD,
    _ALL,
    _DRIVERS,
    _TWICE,
    scaled,
]


def _stats(driver: int, **changed: Any) -> dict[str, Any]:
    return {
        "driver_id": driver,
        "rate": driver / 7,
        "trips": driver * 1_000_003,
        "small": -driver,
        "share": 0.25 * driver,
        "busy": driver % 2 == 0,
        "seen": _NOON - timedelta(days=driver),
        "label": f"driver número {driver}",
        "history": [float(driver), 0.5],
        "tags": ["a", "", f"{driver}"],
        "event_timestamp": _NOON + timedelta(microseconds=driver),
    } | changed


def _write(store: FeatureStore, view: str, rows: list[dict[str, Any]]) -> None:
    store.write_to_online_store(view, pd.DataFrame(rows))


def _fill(store: FeatureStore) -> None:
    """Drivers 1 to 4, of whom the third has no label and the fourth no scores."""
    _write(store, "stats", [_stats(1), _stats(2), _stats(3, label=None), _stats(4)])
    scores = [
        {
            "driver_id": driver,
            **{f"s{at}": driver + at / 10 for at in range(5)},
            "event_timestamp": _NOON,
        }
        for driver in (1, 2, 3)
    ]
    scores[1]["s2"] = None
    _write(store, "scores", scores)
    weather = [("Zürich", 1.5), ("Lima", 0.0), ("Perth", -2.5)]
    _write(
        store,
        "weather",
        [{"city": city, "rain": rain, "event_timestamp": _NOON} for city, rain in weather],
    )
    _write(
        store, "pairs", [{"driver_id": 1, "city": "Lima", "visits": 11, "event_timestamp": _NOON}]
    )
    # Feast's own write_to_online_store puts such a row where nothing reads it; materialize puts it here.
    key = EntityKey(join_keys=["__dummy_id"], entity_values=[Value(string_val="")])
    row = (key, {"temperature": Value(double_val=15.1)}, _NOON, None)
    _online(store).online_write_batch(store.config, _WORLD, [row], None)


@pytest.fixture
def stock(tmp_path: Path, redis_url: str) -> FeatureStore:
    """Feast's own store, filled by itself."""
    store = repo(tmp_path, _NOWHERE, redis_url, online="stock")
    store.apply(_OBJECTS)
    _fill(store)
    return store


@pytest.fixture
def ours(tmp_path: Path, redis_url: str, stock: FeatureStore) -> FeatureStore:
    """Ours, on the same Redis and registry."""
    return repo(tmp_path, _NOWHERE, redis_url)


@pytest.fixture
def packed(tmp_path: Path, redis_url: str, stock: FeatureStore) -> FeatureStore:
    """Ours in the packed layout, with the same rows."""
    store = repo(tmp_path, _NOWHERE, redis_url, online_options={"layout": "packed"})
    _fill(store)
    return store


def _online(store: FeatureStore) -> Any:
    return store._get_provider().online_store


_DRIVER_ROWS = [{"driver_id": one} for one in (1, 3, 99, 2, 4, 1)]
_ALL_ROWS = [
    {"driver_id": 1, "city": "Lima"},
    {"driver_id": 2, "city": "Lima"},
    {"driver_id": 99, "city": "Atlantis"},
    {"driver_id": 1, "city": "Lima"},
]
_REQUESTS: dict[str, tuple[Any, Any]] = {
    "a reference": (["scores:s1"], _DRIVER_ROWS),
    "several references": (
        ["scores:s3", "stats:label", "scores:s1", "stats:history"],
        _DRIVER_ROWS,
    ),
    "one row": (["stats:rate"], [{"driver_id": 2}]),
    "columns": (["stats:rate", "stats:tags"], {"driver_id": [1, 2, 2]}),
    "a tuple as a column": (["stats:rate"], {"driver_id": (1, 2, 2)}),
    "a NumPy column": (["stats:rate"], [{"driver_id": one} for one in np.array([1, 2])]),
    "zero and below": (["stats:rate"], [{"driver_id": 0}, {"driver_id": -5}]),
    "a service": (_ALL, _ALL_ROWS),
    "a service of some features": (_DRIVERS, _DRIVER_ROWS),
    "a projection under two names": (
        _TWICE,
        [{"from_city": "Lima", "to_city": "Perth"}, {"from_city": "Perth", "to_city": "Zürich"}],
    ),
    "a composite key": (["pairs:visits"], _ALL_ROWS),
    "composite key, other order": (["pairs:visits"], [{"city": "Lima", "driver_id": 1}]),
    "without an entity": (["world:temperature"], _DRIVER_ROWS[:2]),
    "with and without": (["world:temperature", "scores:s0"], _DRIVER_ROWS),
    "another entity's key": (["scores:s0"], [{"driver_id": 1, "unused_id": 7}]),
    "another view's key": (["scores:s0"], [{"driver_id": 1, "city": "Lima"}]),
    "a column that is nothing": (["scores:s0"], [{"driver_id": 1, "note": "x"}]),
    "an entity's name": (["scores:s0"], [{"driver": 1}]),
    "values as messages": (["scores:s0"], {"driver_id": [Value(int64_val=1), Value(int64_val=2)]}),
    "an empty text": (["weather:rain"], [{"city": ""}]),
    "on demand": (["scaled:scaled", "scores:s1"], [{"driver_id": 1, "factor": 2.0}]),
}


@pytest.mark.filterwarnings("ignore:Using entity name is deprecated")
@pytest.mark.parametrize("full_names", [False, True], ids=["", "full names"])
@pytest.mark.parametrize("request_name", _REQUESTS)
def test_the_response_is_feasts_own(
    stock: FeatureStore,
    ours: FeatureStore,
    packed: FeatureStore,
    request_name: str,
    full_names: bool,
) -> None:
    features, rows = _REQUESTS[request_name]
    # Feast refuses two features of one name.
    full_names = full_names or features is _TWICE
    expected = stock.get_online_features(features, rows, full_feature_names=full_names)
    for store in (ours, packed):
        for found in (
            store.get_online_features(features, rows, full_feature_names=full_names),
            asyncio.run(
                _closing(store, store.get_online_features_async(features, rows, full_names))
            ),
        ):
            # As text, because 1, 1.0 and True are equal; and before the message is asked for, and after.
            assert repr(found.to_dict()) == repr(expected.to_dict())
            assert found.proto == expected.proto
            assert repr(found.to_dict()) == repr(expected.to_dict())
            assert found.to_dict(include_event_timestamps=True) == expected.to_dict(
                include_event_timestamps=True
            )


async def _closing(store: FeatureStore, awaited: Any) -> Any:
    """What is awaited; the event loop's connections do not outlive it."""
    try:
        return await awaited
    finally:
        online = _online(store)
        if online._client_async:
            await online._client_async.aclose()
            online._client_async = None


def test_a_response_is_what_its_message_is_made_to_be(ours: FeatureStore) -> None:
    response = ours.get_online_features(["scores:s1"], [{"driver_id": 1}])
    response.proto.results[1].values[0].double_val = 7.5
    assert response.to_dict() == {"driver_id": [1], "s1": [7.5]}
    assert response.to_df()["s1"].tolist() == [7.5]


def test_what_was_written_under_another_type_is_read_as_feast_reads_it(
    stock: FeatureStore, ours: FeatureStore
) -> None:
    """The value is an integer, and the feature is declared a float; another is no value at all."""
    key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=1)])
    later = _NOON + timedelta(seconds=1)
    row = (key, {"s1": Value(int64_val=3), "s2": Value(double_val=0.5)}, later, None)
    _online(stock).online_write_batch(stock.config, _SCORES, [row], None)
    for features in (["scores:s1"], ["scores:s2", "scores:s1"]):
        found, expected = (
            store.get_online_features(features, _DRIVER_ROWS).to_dict() for store in (ours, stock)
        )
        assert repr(found) == repr(expected)
        assert repr(found["s1"][0]) == "3"


def test_versions_of_views_are_told(stock: FeatureStore, ours: FeatureStore) -> None:
    expected, found = (
        store.get_online_features(
            ["scores:s1"], [{"driver_id": 1}], include_feature_view_version_metadata=True
        )
        for store in (stock, ours)
    )
    assert found.proto == expected.proto
    assert found.proto.metadata.feature_view_metadata[0].name == "scores"


def test_fallen_back_or_not_is_not_left_to_chance(
    ours: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests that a model makes do not go through Feast's own code."""
    called = []
    monkeypatch.setattr(
        "feast.infra.online_stores.online_store.OnlineStore.get_online_features",
        lambda *_, **__: called.append(1),
    )
    for name in (
        "a service",
        "columns",
        "a composite key",
        "with and without",
        "another view's key",
    ):
        features, rows = _REQUESTS[name]
        if name == "another view's key":
            # `city` is no key of the requested view, so its type is not known.
            continue
        ours.get_online_features(features, rows)
    assert called == []
    ours.get_online_features(*_REQUESTS["on demand"])
    assert called == [1]


@pytest.mark.parametrize(
    ("features", "rows"),
    [
        (["unknown:s1"], _DRIVER_ROWS),
        (["scores:s1", "scores:s1"], _DRIVER_ROWS),
        (["scores:s1"], []),
        (["scores:s1"], [{"driver_id": 1}, {"driver_id": 1, "city": "Lima"}]),
        (["scores:s1"], [{"city": "Lima"}]),
        (["scores:s1"], {"driver_id": [1, 2], "city": ["Lima"]}),
        (["scores:s1"], [{"driver_id": "one"}]),
        (["scores:s1"], [{"driver_id": 2**63}]),
        (["scaled:scaled"], [{"driver_id": 1}]),
    ],
    ids=str,
)
def test_feast_refuses_in_its_own_words(
    stock: FeatureStore, ours: FeatureStore, features: Any, rows: Any
) -> None:
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever it is
        stock.get_online_features(features, rows)
    with pytest.raises(expected.type) as found:
        ours.get_online_features(features, rows)
    assert str(found.value) == str(expected.value)


def test_an_aliased_key_is_not_taken_from_the_plain_column(
    stock: FeatureStore, ours: FeatureStore
) -> None:
    """Feast reads the aliased view by whichever of the two columns stands last."""
    plain = _WEATHER.with_name("plain")
    origin = _WEATHER.with_name("origin").with_join_key_map({"city": "from_city"})
    stock.apply([FeatureService(name="mixed", features=[plain, origin])])
    ours.refresh_registry()
    rows = [{"from_city": "Lima", "city": "Perth"}]
    theirs, found = (
        store.get_online_features(
            store.get_feature_service("mixed"), rows, full_feature_names=True
        ).to_dict()
        for store in (stock, ours)
    )
    assert theirs["origin__rain"] == [-2.5], "Feast's own answer: Perth's rain for Lima"
    assert (found["plain__rain"], found["origin__rain"]) == ([-2.5], [0.0])


def _wide(response: Any, features: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Feast's response as numbers."""
    columns = response.to_dict()
    plain = [
        [
            np.nan if one is None else one.timestamp() if isinstance(one, datetime) else float(one)
            for one in columns[name]
        ]
        for name in features
    ]
    return np.array(plain).T


@pytest.mark.parametrize("layout", ["ours", "packed"])
@pytest.mark.parametrize(
    "rows",
    [
        _DRIVER_ROWS,
        {"driver_id": np.array([1, 3, 99, 2, 4, 1])},
        {"driver_id": pa.array([1, 3, 99, 2, 4, 1])},
        {"driver_id": pa.chunked_array([[1, 3], [99, 2, 4, 1]])},
        {"driver_id": [one["driver_id"] for one in _DRIVER_ROWS * 50]},
        [{"driver_id": 1}],
        [{"driver_id": 99}],
    ],
    ids=["rows", "NumPy", "Arrow", "chunks", "300", "one", "unknown"],
)
def test_a_matrix_has_feasts_values(
    stock: FeatureStore, layout: str, rows: Any, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(layout)
    features = ["scores:s3", *_NUMBERS, "scores:s0", "world:temperature", "scores:s2"]
    found = online_matrix(store, features, rows)
    drivers = rows["driver_id"] if isinstance(rows, dict) else [row["driver_id"] for row in rows]
    asked = [int(one.as_py()) if isinstance(one, pa.Scalar) else int(one) for one in drivers]
    assert found.features == tuple(ref.partition(":")[2] for ref in features)
    expected = stock.get_online_features(features, [{"driver_id": one} for one in asked])
    np.testing.assert_array_equal(found.values, _wide(expected, found.features))
    assert found.values.dtype == np.float64
    asynchronous = asyncio.run(_closing(store, online_matrix_async(store, features, rows)))
    np.testing.assert_array_equal(asynchronous.values, found.values)

    times = dict(zip(found.views, found.event_timestamps.T, strict=True))
    naive = np.datetime64(_NOON.replace(tzinfo=None), "us")
    for driver, moment in zip(asked, times["stats"], strict=True):
        known = driver in (1, 2, 3, 4)
        assert moment == naive + np.timedelta64(driver, "us") if known else np.isnat(moment)
    assert (times["world"] == naive).all()


@pytest.mark.parametrize("layout", ["ours", "packed"])
def test_statuses_say_why_a_value_is_missing(layout: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue(layout)
    found = online_matrix(
        store, ["stats:rate", "scores:s2"], [{"driver_id": one} for one in (1, 2, 4, 99)]
    )
    present, null, absent = FieldStatus.PRESENT, FieldStatus.NULL_VALUE, FieldStatus.NOT_FOUND
    expected = [[present, present], [present, null], [present, absent], [absent, absent]]
    assert found.statuses(_NOON + timedelta(hours=23)).tolist() == expected
    too_old = FieldStatus.OUTSIDE_MAX_AGE
    expected = [[too_old, present], [too_old, null], [too_old, absent], [absent, absent]]
    assert found.statuses(_NOON + timedelta(days=2)).tolist() == expected


@pytest.mark.parametrize("layout", ["ours", "packed"])
@pytest.mark.parametrize("times", [1, 40], ids=["6 rows", "240 rows"])
def test_arrow_has_feasts_values(
    stock: FeatureStore, layout: str, times: int, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(layout)
    features = [f"stats:{field.name}" for field in _STATS.features] + ["scores:s2"]
    rows = _DRIVER_ROWS * times
    found = online_arrow(store, features, rows, event_timestamps=True)
    names = ["driver_id", *(ref.partition(":")[2] for ref in features)]
    assert found.column_names == [*names, "stats__event_timestamp", "scores__event_timestamp"]
    expected = stock.get_online_features(features, rows).to_dict()
    assert found.select(names).to_pydict() == {name: expected[name] for name in names}
    assert found.schema.field("history").type == pa.list_(pa.float64())
    assert found.schema.field("seen").type == pa.timestamp("us", "UTC")
    moments = found["stats__event_timestamp"].to_pylist()[:3]
    assert moments == [_NOON + timedelta(microseconds=1), _NOON + timedelta(microseconds=3), None]
    asynchronous = asyncio.run(
        _closing(store, online_arrow_async(store, features, rows, event_timestamps=True))
    )
    assert asynchronous.equals(found)
    assert pl.DataFrame(pl.from_arrow(found)).height == len(rows)


@pytest.mark.parametrize("layout", ["ours", "packed"])
def test_a_view_is_read_as_by_feasts_store(
    stock: FeatureStore, layout: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(layout)
    keys = [
        EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=one)])
        for one in (1, 3, 99)
    ]
    for names in (None, ["label", "trips"]):
        expected = _online(stock).online_read(stock.config, _STATS, keys, names and [*names])
        found = _online(store).online_read(store.config, _STATS, keys, names and [*names])
        assert found == expected
        asynchronous = _online(store).online_read_async(
            store.config, _STATS, keys, names and [*names]
        )
        assert asyncio.run(_closing(store, asynchronous)) == expected


def test_a_plan_lives_as_long_as_what_it_was_made_from(
    stock: FeatureStore, ours: FeatureStore
) -> None:
    rows = [{"driver_id": 1}]
    service = ours.get_feature_service("drivers")
    plans = _online(ours)._plans
    before = ours.get_online_features(service, rows).to_dict()
    first = _plan(ours, plans, service)
    ours.get_online_features(service, rows)
    assert _plan(ours, plans, service) is first
    stock.apply([FeatureService(name="drivers", features=[_STATS[["small"]]])])
    ours.refresh_registry()
    after = ours.get_online_features(ours.get_feature_service("drivers"), rows).to_dict()
    assert "rate" in before
    assert after == {"driver_id": [1], "small": [-1]}


def _plan(store: FeatureStore, plans: Any, service: FeatureService) -> Any:
    return plans.of(store.config, store.registry, store.project, service, full_feature_names=False)


def test_a_matrix_of_texts_is_refused(ours: FeatureStore) -> None:
    with pytest.raises(FeatureError, match=r"'stats': 'label' is STRING.*online_arrow"):
        online_matrix(ours, ["stats:rate", "stats:label"], [{"driver_id": 1}])


@pytest.mark.parametrize("layout", ["ours", "packed"])
def test_a_feature_that_a_view_lacks_is_named_with_the_nearest(
    layout: str, request: pytest.FixtureRequest
) -> None:
    store = request.getfixturevalue(layout)
    said = r"feature view 'stats' has no feature 'rat': did you mean 'stats:rate'\? It has "
    for ask in (online_matrix, online_arrow):
        with pytest.raises(FeatureError, match=said):
            ask(store, ["scores:s1", "stats:rat"], [{"driver_id": 1}])
    with pytest.raises(FeatureError, match=said):
        store.get_online_features(["stats:rat"], [{"driver_id": 1}])


def test_a_text_is_no_list_of_features(ours: FeatureStore) -> None:
    text: Any = "stats:rate"
    with pytest.raises(UsageError, match=r"expected a list .* found the text 'stats:rate'"):
        online_matrix(ours, text, [{"driver_id": 1}])


def test_what_is_computed_on_demand_is_refused_in_a_matrix(ours: FeatureStore) -> None:
    with pytest.raises(FeatureError, match=r"computed on demand.*get_online_features"):
        online_matrix(ours, ["scaled:scaled"], [{"driver_id": 1, "factor": 1.0}])


def test_another_store_is_refused(stock: FeatureStore) -> None:
    with pytest.raises(
        FeatureError, match=r"expected .*FastRedisOnlineStore, found RedisOnlineStore"
    ):
        online_matrix(stock, ["scores:s1"], [{"driver_id": 1}])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (
            [{"city": "Lima"}],
            UsageError,
            "expected a value for each join key of driver_id; found city",
        ),
        ([{"driver_id": 1}, {"city": "Lima"}], UsageError, "row 1 has city"),
        ({"driver_id": [1], "city": ["Lima", "Perth"]}, UsageError, "driver_id: 1, city: 2"),
        ({"driver_id": 1}, UsageError, r"expected a list of values for 'driver_id', found 1"),
        ({"driver_id": "one"}, UsageError, r"expected a list of values for 'driver_id'"),
        ([{"driver_id": None}], DataError, "driver_id"),
        ([{"driver_id": "one"}], DataError, "driver_id"),
        ([{"driver_id": 1}, {"driver_id": "one"}], DataError, "driver_id"),
    ],
    ids=str,
)
def test_rows_that_make_no_sense_are_refused(
    ours: FeatureStore, rows: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        online_matrix(ours, ["scores:s1"], rows)


@pytest.mark.parametrize("layout", ["ours", "packed"])
def test_no_rows_are_a_matrix_without_rows(layout: str, request: pytest.FixtureRequest) -> None:
    found = online_matrix(
        request.getfixturevalue(layout), ["scores:s1", "stats:rate"], {"driver_id": []}
    )
    assert found.values.shape == (0, 2)
    assert found.event_timestamps.shape == (0, 2)


def test_packed_under_another_schema_is_refused(
    stock: FeatureStore, packed: FeatureStore, tmp_path: Path, redis_url: str
) -> None:
    changed = FeatureView(
        name="scores",
        entities=[_DRIVER],
        schema=[Field(name="driver_id", dtype=Int64), Field(name="s0", dtype=Float32)],
        source=_SOURCE,
    )
    stock.apply([changed])
    store = repo(tmp_path, _NOWHERE, redis_url, online_options={"layout": "packed"})
    with pytest.raises(SchemaError, match=r"'scores': 2 of 2 entities.*materialize the view again"):
        online_matrix(store, ["scores:s0"], [{"driver_id": one} for one in (1, 2, 99)])
    _write(
        store, "scores", [{"driver_id": 1, "s0": 2.5, "event_timestamp": _NOON + timedelta(days=1)}]
    )
    assert online_matrix(store, ["scores:s0"], [{"driver_id": 1}]).values.tolist() == [[2.5]]


def test_many_threads_get_each_its_own(ours: FeatureStore) -> None:
    def read(driver: int) -> float:
        return float(online_matrix(ours, ["scores:s0"], [{"driver_id": driver}]).values[0, 0])

    drivers = [1, 2, 3] * 100
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, drivers)) == [float(driver) for driver in drivers]


def test_threads_that_begin_together_get_one_client(ours: FeatureStore) -> None:
    reader, together = reader_of(ours), Barrier(8)

    def client(_: int) -> int:
        together.wait()
        return id(reader.client(ours.config))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                reader._client = None
                assert len(set(pool.map(client, range(8)))) == 1
    finally:
        sys.setswitchinterval(before)


def test_a_reply_that_is_an_error_leaves_nothing_behind(ours: FeatureStore, redis_url: str) -> None:
    rows = [{"driver_id": 1}, {"driver_id": 5}, {"driver_id": 2}]
    assert np.isnan(online_matrix(ours, ["scores:s0"], rows).values[1, 0])
    key = EntityKey(join_keys=["driver_id"], entity_values=[Value(int64_val=5)])
    with redis.Redis.from_url(redis_url) as client:
        client.set(serialize_entity_key(key) + b"test", b"no hash")
        with pytest.raises(ServerError, match="WRONGTYPE"):
            online_matrix(ours, ["scores:s0"], rows)
        client.delete(serialize_entity_key(key) + b"test")
    assert online_matrix(ours, ["scores:s0"], rows).values[:, 0].tolist()[::2] == [1.0, 2.0]


def test_a_connection_that_redis_closed_is_made_again(ours: FeatureStore, redis_url: str) -> None:
    rows = [{"driver_id": 1}]
    online_matrix(ours, ["scores:s0"], rows)
    with redis.Redis.from_url(redis_url) as client:
        assert client.client_kill_filter(_type="normal", skipme=True) >= 1
    assert online_matrix(ours, ["scores:s0"], rows).values.tolist() == [[1.0]]


def test_one_connection_is_enough_to_read_and_to_write(
    stock: FeatureStore, tmp_path: Path, redis_url: str
) -> None:
    store = repo(tmp_path, _NOWHERE, redis_url)
    store.config.online_store.connection_string += ",max_connections=1"
    rows = [{"driver_id": 1}]
    assert online_matrix(store, ["scores:s0"], rows).values.tolist() == [[1.0]]
    later = _NOON + timedelta(days=1)
    score = {"driver_id": 1, **{f"s{at}": 7.0 for at in range(5)}, "event_timestamp": later}
    _write(store, "scores", [score])
    assert online_matrix(store, ["scores:s0"], rows).values.tolist() == [[7.0]]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, to be stopped."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.down()


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_redis_stopped_is_an_error_within_the_timeout(
    own_redis: RedisServer, tmp_path: Path, layout: str
) -> None:
    url = own_redis.up()
    password = url.partition("//:")[2].partition("@")[0]
    options = {"layout": layout}
    store = repo(tmp_path, _NOWHERE, url, online_options=options)
    store.config.online_store.connection_string = _with_timeout(
        store.config.online_store.connection_string
    )
    store.apply(_OBJECTS)
    _fill(store)
    rows = [{"driver_id": 1}]
    reads: list[Callable[[], Any]] = [
        lambda: online_matrix(store, ["scores:s0"], rows),
        lambda: store.get_online_features(["scores:s0"], rows),
        lambda: store.get_online_features(["scaled:scaled"], [{"driver_id": 1, "factor": 1.0}]),
        lambda: asyncio.run(_closing(store, online_matrix_async(store, ["scores:s0"], rows))),
    ]
    for read in reads:
        read()
    with redis.Redis.from_url(url) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        for read in reads:
            started = time.monotonic()
            with pytest.raises(ServerUnreachable) as refused:
                read()
            assert time.monotonic() - started < 4
            assert password
            assert password not in str(refused.value)
    finally:
        os.kill(pid, signal.SIGCONT)
    for read in reads:
        read()


def _with_timeout(connection_string: str) -> str:
    parts = [one for one in connection_string.split(",") if not one.startswith("socket_")]
    return ",".join([*parts, "socket_timeout=0.5", "socket_connect_timeout=0.5"])


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_glide_reads_the_same(
    stock: FeatureStore, packed: FeatureStore, tmp_path: Path, redis_url: str, layout: str
) -> None:
    pytest.importorskip("glide_sync", reason="client: glide needs feast[glide]")
    options = {"client": "glide", "layout": layout}
    store = repo(tmp_path, _NOWHERE, redis_url, online_options=options)
    for name in ("a service", "several references", "on demand"):
        features, rows = _REQUESTS[name]
        found = store.get_online_features(features, rows)
        assert found.proto == stock.get_online_features(features, rows).proto
    expected = online_matrix(packed, _NUMBERS, _DRIVER_ROWS)
    found = online_matrix(store, _NUMBERS, _DRIVER_ROWS)
    np.testing.assert_array_equal(found.values, expected.values)
    _online(store)._glide_client.close()
    with pytest.raises(ServerError, match="the client is closed"):
        online_matrix(store, _NUMBERS, _DRIVER_ROWS)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[int]:
    """The port of a cluster of one node that has all slots."""
    port = free_port(None)
    settings = {
        "port": str(port),
        # The default lies 10,000 higher, which may be more than there are.
        "cluster-port": str(free_port(None)),
        "bind": "127.0.0.1",
        "cluster-enabled": "yes",
        "save": "",
        "dir": str(tmp_path),
    }
    arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
    process = subprocess.Popen([str(valkey_binary()), *arguments], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while "cluster_state:ok" not in _info(client):
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _info(client: Any) -> str:
    """A cluster's state, which redis-py parses in some versions."""
    found = client.execute_command("CLUSTER INFO")
    lines = (
        found.items()
        if isinstance(found, dict)
        else [line.split(":") for line in str(found).split()]
    )
    return " ".join(":".join(line) for line in lines)


def test_a_cluster_is_read_the_same(
    stock: FeatureStore, cluster: int, tmp_path: Path, redis_url: str
) -> None:
    features, rows = _REQUESTS["a service"]
    expected = stock.get_online_features(features, rows)
    numbers = online_matrix(repo(tmp_path, _NOWHERE, redis_url), _NUMBERS, _DRIVER_ROWS).values
    stores = {}
    for layout in ("feast", "packed"):
        options = {
            "redis_type": "redis_cluster",
            "connection_string": f"127.0.0.1:{cluster}",
            "layout": layout,
        }
        store = stores[layout] = repo(tmp_path, _NOWHERE, redis_url, online_options=options)
        _fill(store)
        assert store.get_online_features(features, rows).proto == expected.proto
        np.testing.assert_array_equal(online_matrix(store, _NUMBERS, _DRIVER_ROWS).values, numbers)
        awaited = online_matrix_async(store, _NUMBERS, _DRIVER_ROWS)
        np.testing.assert_array_equal(asyncio.run(_closing(store, awaited)).values, numbers)
    copied = convert(stores["feast"], "packed")
    assert {one.view: one.written for one in copied} == {
        "stats": 0,
        "scores": 0,
        "weather": 0,
        "pairs": 0,
        "world": 0,
    }
    assert sum(one.rows for one in copied) == 4 + 3 + 3 + 1 + 1
