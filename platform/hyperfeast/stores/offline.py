"""Feast's PostgreSQL offline store on the database in use."""

from typing import Any

from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from pydantic import Field, StrictStr, model_validator

from hyperfeast.stores.connection import postgres_config, servers_in_use


class PlatformOfflineStoreConfig(PostgreSQLOfflineStoreConfig):
    """Feast's keys; those of the connection need not be written."""

    # Feast passes the dotted path on: the inherited literal would refuse it.
    type: StrictStr = "hyperfeast.stores.PlatformOfflineStore"
    password: StrictStr = Field(repr=False)

    @model_validator(mode="before")
    @classmethod
    def _connect_where_we_are(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "host" in values:
            return values
        return postgres_config(servers_in_use().postgres_dsn) | values


class PlatformOfflineStore(PostgreSQLOfflineStore):
    """Feast's own store; only its connection is found for it."""
