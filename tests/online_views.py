"""Feature views without a repository, and the configurations of the two Redis stores that write them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import FeastType, Float64, String

from hyperfeast.stores.connection import redis_config

OURS = "hyperfeast.stores.online.store.FastRedisOnlineStore"
EVENT = datetime(2024, 3, 1, 12, 30, 15, 123_456, tzinfo=UTC)


def config(redis_url: str, *, project: str = "shop", kind: str = OURS, **keys: Any) -> RepoConfig:
    """A repository's configuration with an online store on this server."""
    online = redis_config(redis_url) | {"type": kind} | keys
    return RepoConfig(
        project=project,
        provider="local",
        registry="unused.db",
        online_store=online,
        entity_key_serialization_version=3,
    )


def view(name: str = "bars", features: Mapping[str, FeastType] | None = None) -> FeatureView:
    """A view of entities `symbol`."""
    types = {"close": Float64} if features is None else features
    return FeatureView(
        name=name,
        entities=[Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)],
        schema=[
            Field(name="symbol", dtype=String),
            *(Field(name=feature, dtype=kind) for feature, kind in types.items()),
        ],
        source=FileSource(path="unused.parquet", timestamp_field="ts"),
        ttl=timedelta(0),
    )


def table(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Rows of symbol, ts, close and, where the first has one, rec."""
    columns: dict[str, pa.Array[Any]] = {
        "symbol": pa.array([row["symbol"] for row in rows], pa.string()),
        "ts": pa.array([row["ts"] for row in rows], pa.timestamp("us", "UTC")),
        "close": pa.array([row["close"] for row in rows], pa.float64()),
    }
    if rows and "rec" in rows[0]:
        columns["rec"] = pa.array([row["rec"] for row in rows], pa.timestamp("us", "UTC"))
    return pa.RecordBatch.from_pydict(columns)


def entity(symbol: str) -> EntityKey:
    """The key of an entity `symbol`."""
    return EntityKey(join_keys=["symbol"], entity_values=[Value(string_val=symbol)])


def stock_read(
    redis_url: str, symbols: list[str], of: FeatureView | None = None, project: str = "shop"
) -> list[tuple[datetime | None, dict[str, Value] | None]]:
    """What Feast's own store reads."""
    keys = [entity(symbol) for symbol in symbols]
    found: list[Any] = RedisOnlineStore().online_read(
        config(redis_url, project=project, kind="redis"), of or view(), keys
    )
    return found


def served(redis_url: str, symbol: str) -> tuple[datetime | None, float | None]:
    """Event time and close of an entity, as Feast's own store reads them."""
    ((moment, values),) = stock_read(redis_url, [symbol])
    if not values or not values["close"].WhichOneof("val"):
        return None, None
    return moment, values["close"].double_val
