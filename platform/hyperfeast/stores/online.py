"""Feast's Redis online store on the Redis in use, which also takes corrections."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import _redis_key
from feast.infra.online_stores.redis import (
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    _versioned_fv_name,
)
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import Field, StrictStr, model_validator

from hyperfeast.stores.connection import redis_config, servers_in_use

# Entity key, feature -> value, event timestamp, created timestamp: as Feast passes them.
Row = tuple[Any, dict[str, Any], datetime, datetime | None]
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class PlatformOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's keys; the connection string need not be written."""

    # Feast passes the dotted path on: the inherited literal would refuse it.
    type: StrictStr = "hyperfeast.stores.PlatformOnlineStore"
    connection_string: StrictStr = Field(repr=False)
    # Feast's own check also skips a row of the same event time, and so every correction.
    skip_dedup: bool = True

    @model_validator(mode="before")
    @classmethod
    def _connect_where_we_are(cls, values: dict[str, Any]) -> dict[str, Any]:
        if "connection_string" in values:
            return values
        return redis_config(servers_in_use().redis_url) | values


class PlatformOnlineStore(RedisOnlineStore):
    """Feast's own store and wire format; a row of an equal event time replaces the stored one.

    Two writers of one entity at the same moment are not told apart: the later one wins.
    """

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write the newest row of each entity, unless a later event is stored already."""
        newest = self._newest(config, data)
        stored = self._stored_at(config, table, list(newest))
        rows = [
            row
            for row, known in zip(newest.values(), stored, strict=True)
            if known is None or make_tzaware(row[2]) >= known
        ]
        super().online_write_batch(config, table, rows, None)
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, off the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def _newest(self, config: RepoConfig, data: Sequence[Row]) -> dict[bytes, Row]:
        """Redis key -> the row with the latest (event, created) time; of equals the last."""
        newest: dict[bytes, Row] = {}
        for row in data:
            key = _redis_key(
                config.project,
                row[0],
                entity_key_serialization_version=config.entity_key_serialization_version,
            )
            if key not in newest or _order(row) >= _order(newest[key]):
                newest[key] = row
        return newest

    def _stored_at(
        self, config: RepoConfig, table: FeatureView, keys: Sequence[bytes]
    ) -> list[datetime | None]:
        """The event time stored under each key, to the microsecond; None where there is none."""
        field = f"_ts:{_versioned_fv_name(table, config)}"
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hget(key, field)
            found = pipe.execute()
        return [Timestamp.FromString(raw).ToDatetime(tzinfo=UTC) if raw else None for raw in found]


def _order(row: Row) -> tuple[datetime, datetime]:
    return make_tzaware(row[2]), make_tzaware(row[3]) if row[3] else _EARLIEST
