"""The newest row of many entities, in PostgreSQL and in Redis: what `materialize` and `online` are timed on."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import redis
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, Int64

from feast_repos import Whose, repo
from hyperfeast.db import Database

VIEW, SERVICE, KEY = "latest", "all", "entity"
FEATURES = tuple(f"f{number}" for number in range(20))
_AT = datetime(2024, 1, 1, tzinfo=UTC)
_KEYS_A_CALL = 2_000
_MARKERS = b"hyperfeast:online:"

# Key -> field -> value, as they lie in Redis.
Hashes = dict[bytes, dict[bytes, bytes]]


@dataclass(frozen=True)
class Latest:
    """So many entities with 20 float64 each, and a repository over them.

    Attributes:
        database: has the table `latest`.
        redis_url: the online store.
        folder: of the registry.
        entities: how many.
    """

    database: Database
    redis_url: str
    folder: Path
    entities: int

    def create(self) -> None:
        """The table and the registry."""
        columns = ", ".join(f"{name} double precision" for name in FEATURES)
        values = ", ".join("random()" for _ in FEATURES)
        with self.database.connect(autocommit=True) as connection:
            connection.execute(
                f"CREATE TABLE latest (entity bigint, event_timestamp timestamptz, {columns})".encode()
            )
            connection.execute(
                f"INSERT INTO latest SELECT entity, %s::timestamptz, {values} "
                "FROM generate_series(1, %s) AS entity".encode(),
                (_AT, self.entities),
            )
            connection.execute("CREATE INDEX ON latest (entity, event_timestamp DESC)")
            connection.execute("VACUUM ANALYZE latest")
        entity = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.INT64)
        view = FeatureView(
            name=VIEW,
            entities=[entity],
            ttl=timedelta(0),
            schema=[
                Field(name=KEY, dtype=Int64),
                *(Field(name=name, dtype=Float64) for name in FEATURES),
            ],
            source=PostgreSQLSource(
                name="latest_source", table="latest", timestamp_field="event_timestamp"
            ),
        )
        service = FeatureService(name=SERVICE, features=[view])
        with quiet():
            self.store("stock").apply([entity, view, service])

    def store(self, whose: Whose, **online_options: Any) -> FeatureStore:
        """Feast over its own stores, or over ours."""
        return repo(
            self.folder,
            self.database.dsn,
            self.redis_url,
            offline=whose,
            online=whose,
            engine=whose,
            online_options=online_options,
        )

    def empty(self) -> None:
        """Nothing in Redis."""
        with self._redis() as client:
            client.flushall()

    def hashes(self) -> Hashes:
        """Everything that is in Redis, but for the note of how far a view was brought online."""
        found: Hashes = {}
        with self._redis() as client:
            keys = self._keys(client)
            for start in range(0, len(keys), _KEYS_A_CALL):
                some = keys[start : start + _KEYS_A_CALL]
                with client.pipeline(transaction=False) as pipe:
                    for key in some:
                        pipe.hgetall(key)
                    found.update(zip(some, pipe.execute(), strict=True))
        return found

    def values(self) -> dict[bytes, bytes]:
        """The same, where a key holds one value."""
        found: dict[bytes, bytes] = {}
        with self._redis() as client:
            keys = self._keys(client)
            for start in range(0, len(keys), _KEYS_A_CALL):
                some = keys[start : start + _KEYS_A_CALL]
                found.update(zip(some, client.mget(some), strict=True))
        return found

    def served(self, whose: Whose, *, most: int = 1_000, **online_options: Any) -> dict[str, Any]:
        """The features of the first entities, and of one that nobody has, as Feast answers."""
        rows = [{KEY: number} for number in (*range(1, min(most, self.entities) + 1), -1)]
        store = self.store(whose, **online_options)
        with quiet():
            service = store.get_feature_service(SERVICE)
            return store.get_online_features(service, rows).to_dict()

    def _keys(self, client: redis.Redis) -> list[bytes]:
        keys = client.scan_iter(count=_KEYS_A_CALL)
        return [key for key in keys if not key.startswith(_MARKERS)]

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)


def materialize(store: FeatureStore) -> None:
    """Bring every entity's newest row online."""
    with quiet():
        store.materialize(_AT - timedelta(days=1), _AT + timedelta(days=1))


@contextmanager
def quiet() -> Iterator[None]:
    """Feast prints, warns and draws as it goes."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
