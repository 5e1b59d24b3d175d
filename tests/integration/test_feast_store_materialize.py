"""Bringing all views of a repository online, run after run: what fails keeps nothing else from its run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.stores import feast_store
from hyperfeast.stores.feast_store import FeastStore

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
KEY = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)

_STORE = """\
project: hyperfeast
provider: local
registry: {registry_type: sql, path: 'postgresql+psycopg:///?plugin=hyperfeast'}
offline_store: {type: hyperfeast.stores.PlatformOfflineStore, db_schema: public}
online_store: {type: hyperfeast.stores.PlatformOnlineStore}
batch_engine: {type: hyperfeast.stores.ArrowComputeEngine}
entity_key_serialization_version: 3
"""


@pytest.fixture
def store(tmp_path: Path, database: Database, redis_url: str) -> Iterator[FeastStore]:
    (tmp_path / "feature_store.yaml").write_text(_STORE)
    made = FeastStore(tmp_path, postgres_dsn=database.dsn, redis_url=redis_url)
    yield made
    made.close()


def view(name: str) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[KEY],
        ttl=timedelta(days=100),
        schema=[Field(name="k", dtype=String), Field(name=f"{name}_v", dtype=Float64)],
        source=PostgreSQLSource(name=f"{name}_source", table=name, timestamp_field="ts"),
    )


def fill(database: Database, table: str, ago: timedelta, value: float) -> None:
    database.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (k text, ts timestamptz, {table}_v float8)"
    )
    database.execute(f"INSERT INTO {table} VALUES ('a', %s, %s)", (NOW - ago, value))


def served(store: FeastStore, *names: str) -> list[float | None]:
    features = [f"{name}:{name}_v" for name in names]
    answer = store._store.get_online_features(features, [{"k": "a"}]).to_dict()
    return [answer[f"{name}_v"][0] for name in names]


def test_a_new_view_that_fails_keeps_no_known_one_from_its_run(
    store: FeastStore, database: Database
) -> None:
    fill(database, "known", 4 * HOUR, 1.0)
    fill(database, "fresh", 4 * HOUR, 10.0)
    store._store.apply([KEY, view("known")])
    assert store.materialize(None, NOW - 3 * HOUR) == ["known"]

    fill(database, "known", 2 * HOUR, 2.0)
    store._store.apply([view("broken"), view("fresh")])
    with pytest.raises(FeatureError, match="feature view broken was not brought online"):
        store.materialize(None, NOW - HOUR)
    assert served(store, "known", "fresh") == [2.0, 10.0]

    database.execute("ALTER TABLE known RENAME TO gone")
    with pytest.raises(FeatureError, match=r"view broken was not .*; feature view known was not"):
        store.materialize(None, NOW)


def test_runs_that_join_on_are_kept_as_one(
    store: FeastStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feast_store, "_MOST_INTERVALS", 4)
    fill(database, "known", 40 * HOUR, 1.0)
    store._store.apply([KEY, view("known")])

    def intervals() -> list[tuple[datetime, datetime]]:
        found = store._store.registry.get_feature_view("known", store._store.project)
        return list(found.materialization_intervals)

    # A gap stays: nobody has read what lies in it.
    store.materialize(NOW - 40 * HOUR, NOW - 30 * HOUR)
    store.materialize(NOW - 20 * HOUR, NOW - 19 * HOUR)
    for ago in (18, 17):
        store.materialize(None, NOW - ago * HOUR)
    assert len(intervals()) == 4
    store.materialize(None, NOW - 16 * HOUR)
    merged = [
        (NOW - 40 * HOUR, NOW - 30 * HOUR),
        (NOW - 20 * HOUR, NOW - 16 * HOUR),
    ]
    assert intervals() == merged
    fill(database, "known", 16 * HOUR - HOUR / 2, 2.0)
    store.materialize(None, NOW)
    assert intervals() == [*merged, (NOW - 16 * HOUR, NOW)]
    assert served(store, "known") == [2.0]
