"""Feast plugins. One line each in `feature_store.yaml` puts them to use.

Feast looks for `<ClassName>Config` beside the class, so both stand here.
"""

from hyperfeast.stores.offline import PlatformOfflineStore, PlatformOfflineStoreConfig
from hyperfeast.stores.online import PlatformOnlineStore, PlatformOnlineStoreConfig

__all__ = [
    "PlatformOfflineStore",
    "PlatformOfflineStoreConfig",
    "PlatformOnlineStore",
    "PlatformOnlineStoreConfig",
]
