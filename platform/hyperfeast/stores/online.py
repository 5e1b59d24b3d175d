"""Feast's Redis online store on the Redis in use."""

from typing import Any

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from pydantic import Field, StrictStr, model_validator

from hyperfeast.stores.connection import redis_config, servers_in_use


class PlatformOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's keys; the connection string need not be written."""

    # Feast passes the dotted path on: the inherited literal would refuse it.
    type: StrictStr = "hyperfeast.stores.PlatformOnlineStore"
    connection_string: StrictStr = Field(repr=False)

    @model_validator(mode="before")
    @classmethod
    def _connect_where_we_are(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "connection_string" in values:
            return values
        return redis_config(servers_in_use().redis_url) | values


class PlatformOnlineStore(RedisOnlineStore):
    """Feast's own store; only its connection is found for it."""
