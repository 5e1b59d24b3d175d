"""Feast plugins. One line each in `feature_store.yaml` puts them to use; the functions read what they serve.

Feast looks for `<ClassName>Config` beside the class, so both stand here.
"""

from hyperfeast.stores.as_known_at import as_known_at
from hyperfeast.stores.engine import ArrowComputeEngine, ArrowComputeEngineConfig
from hyperfeast.stores.offline.store import TimescaleOfflineStore, TimescaleOfflineStoreConfig
from hyperfeast.stores.offline.write import PostgreSQLLoggingDestination
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.hot import HotVectors
from hyperfeast.stores.online.read import online_arrow, online_matrix
from hyperfeast.stores.online.read_async import online_arrow_async, online_matrix_async
from hyperfeast.stores.online.store import FastRedisOnlineStore, FastRedisOnlineStoreConfig
from hyperfeast.stores.platform import (
    PlatformOfflineStore,
    PlatformOfflineStoreConfig,
    PlatformOnlineStore,
    PlatformOnlineStoreConfig,
)

__all__ = [
    "ArrowComputeEngine",
    "ArrowComputeEngineConfig",
    "FastRedisOnlineStore",
    "FastRedisOnlineStoreConfig",
    "HotVectors",
    "OnlineMatrix",
    "PlatformOfflineStore",
    "PlatformOfflineStoreConfig",
    "PlatformOnlineStore",
    "PlatformOnlineStoreConfig",
    "PostgreSQLLoggingDestination",
    "TimescaleOfflineStore",
    "TimescaleOfflineStoreConfig",
    "as_known_at",
    "online_arrow",
    "online_arrow_async",
    "online_matrix",
    "online_matrix_async",
]
