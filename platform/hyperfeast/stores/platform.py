"""The stores on the servers in use: only their connections are found for them."""

from typing import Any, ClassVar

from pydantic import Field, StrictStr, model_validator

from hyperfeast.stores.connection import postgres_config, redis_config, servers_in_use
from hyperfeast.stores.offline.store import TimescaleOfflineStore, TimescaleOfflineStoreConfig
from hyperfeast.stores.online.store import FastRedisOnlineStore, FastRedisOnlineStoreConfig


class PlatformOfflineStoreConfig(TimescaleOfflineStoreConfig):
    """The offline store's keys; those of the connection need not be written."""

    # Feast passes the dotted path on: the inherited default would name another class.
    type: StrictStr = "hyperfeast.stores.PlatformOfflineStore"
    password: StrictStr = Field(repr=False)

    @model_validator(mode="before")
    @classmethod
    def _connect_where_we_are(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "host" in values:
            return values
        return postgres_config(servers_in_use().postgres_dsn) | values


class PlatformOfflineStore(TimescaleOfflineStore):
    """The offline store on the database in use."""


class PlatformOnlineStoreConfig(FastRedisOnlineStoreConfig):
    """The online store's keys; the connection string need not be written."""

    # Where a user has written the connection, for messages.
    connection_setting: ClassVar[str] = "HYPERFEAST_REDIS_URL"

    type: StrictStr = "hyperfeast.stores.PlatformOnlineStore"
    connection_string: StrictStr = Field(repr=False)

    @model_validator(mode="before")
    @classmethod
    def _connect_where_we_are(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "connection_string" in values:
            return values
        return redis_config(servers_in_use().redis_url) | values


class PlatformOnlineStore(FastRedisOnlineStore):
    """The online store on the Redis in use."""
