"""Feast repositories for tests: a file registry, the servers that are given, Feast's own stores or ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from feast import FeatureStore, RepoConfig

from hyperfeast.stores.connection import postgres_config, redis_config

Whose = Literal["ours", "stock"]

_OFFLINE = {"ours": "hyperfeast.stores.TimescaleOfflineStore", "stock": "postgres"}
_ONLINE = {"ours": "hyperfeast.stores.FastRedisOnlineStore", "stock": "redis"}
_ENGINE = {"ours": "hyperfeast.stores.ArrowComputeEngine", "stock": "local"}
PROJECT = "test"


def repo(
    folder: Path,
    dsn: str,
    redis_url: str | None = None,
    *,
    offline: Whose = "ours",
    online: Whose = "ours",
    engine: Whose = "stock",
    offline_options: Mapping[str, Any] | None = None,
    online_options: Mapping[str, Any] | None = None,
    engine_options: Mapping[str, Any] | None = None,
) -> FeatureStore:
    """A Feast store over given servers, with its registry in a file.

    Args:
        folder: where the registry's file is; stores of one folder share it.
        dsn: the database with the features.
        redis_url: the online store; without one there is an SQLite file in the folder, which nothing should need.
        offline: whose offline store.
        online: whose online store.
        engine: whose materialization.
        offline_options: more keys of `offline_store`.
        online_options: more keys of `online_store`.
        engine_options: more keys of `batch_engine`.
    """
    if redis_url is None:
        online_store = {"type": "sqlite", "path": str(folder / "online.db")}
    else:
        online_store = {"type": _ONLINE[online], **redis_config(redis_url)}
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            repo_path=folder,
            registry={
                "registry_type": "file",
                "path": str(folder / "registry.db"),
                # Never read again by itself: what another store applied is seen after `refresh_registry()`.
                "cache_ttl_seconds": 0,
            },
            offline_store={
                "type": _OFFLINE[offline],
                **postgres_config(dsn),
                "db_schema": "public",
                **(offline_options or {}),
            },
            online_store={**online_store, **(online_options or {})},
            batch_engine={"type": _ENGINE[engine], **(engine_options or {})},
            entity_key_serialization_version=3,
        )
    )
