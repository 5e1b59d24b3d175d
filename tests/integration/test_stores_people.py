"""Entities found by a value among their keys, whatever stands beside it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64
from feast.value_type import ValueType

from feast_repos import repo
from hyperfeast.stores.online.people import forget, keys_of, rows_of

_NOWHERE = "postgresql://nobody@127.0.0.1:9/none"
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
_DEVICE = Entity(name="device", join_keys=["device"], value_type=ValueType.INT64)


def _view(name: str, entities: list[Entity]) -> FeatureView:
    return FeatureView(
        name=name,
        entities=entities,
        ttl=timedelta(0),
        schema=[Field(name=f"{name}_x", dtype=Float64)],
        source=PostgreSQLSource(name=name, table=name, timestamp_field="event_timestamp"),
    )


@pytest.fixture(params=["feast", "packed"])
def store(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> FeatureStore:
    """Two users, each by himself and with two devices, in either layout."""
    made = repo(tmp_path, _NOWHERE, redis_url, online_options={"layout": request.param})
    made.apply([_USER, _DEVICE, _view("days", [_USER]), _view("wears", [_USER, _DEVICE])])
    users = {"user_id": ["ann", "bob"], "event_timestamp": [_NOON] * 2}
    made.write_to_online_store("days", pd.DataFrame({**users, "days_x": [1.0, 2.0]}))
    worn = {
        "user_id": ["ann", "ann", "bob", "bob"],
        # Bytes that are no text, and bytes that are.
        "device": [300, -1, 300, int.from_bytes(b"ann", "little")],
        "event_timestamp": [_NOON] * 4,
        "wears_x": [3.0, 4.0, 5.0, 6.0],
    }
    made.write_to_online_store("wears", pd.DataFrame(worn))
    return made


def test_all_of_an_entity_and_nothing_else(store: FeatureStore) -> None:
    rows = sorted(rows_of(store, "ann"), key=repr)
    assert [(row["view"], row["keys"], row["features"]) for row in rows] == [
        ("days", {"user_id": "ann"}, {"days_x": 1.0}),
        ("wears", {"device": -1, "user_id": "ann"}, {"wears_x": 4.0}),
        ("wears", {"device": 300, "user_id": "ann"}, {"wears_x": 3.0}),
    ]


def test_the_name_of_a_key_is_no_value(store: FeatureStore) -> None:
    assert list(keys_of(store, "user_id")) == []
    assert list(keys_of(store, "an")) == []


def test_forgotten_once_and_the_others_stay(store: FeatureStore, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.dbsize()
        assert forget(store, "ann") == 3
        assert forget(store, "ann") == 0
        assert client.dbsize() == before - 3
    assert len(list(rows_of(store, "bob"))) == 3
