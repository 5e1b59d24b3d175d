"""Feast's offline store interface over PostgreSQL: each method calls the module that does the work."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from pydantic import AwareDatetime, Field, StrictStr

from hyperfeast.stores.configuration import PluginConfig
from hyperfeast.stores.offline import historical, latest, monitoring, write


class TimescaleOfflineStoreConfig(PluginConfig, PostgreSQLOfflineStoreConfig):
    """Feast's PostgreSQL keys and ours.

    Attributes:
        strategy: how to read features as of a moment: `auto` lets the planner choose, `lookup` asks
            the server's index for each spine row, `merge` streams both sides and joins them here.
        memory_limit_mb: how much memory a merge may take, in MiB; beyond it partitions go to the disk.
        as_known_at: read every feature as it was known at this moment (UTC); None reads it as known now.
        late_overlap_seconds: how much further back than asked materialization looks for rows that
            were recorded late, since a transaction may commit later than its clock says.
    """

    section: ClassVar[str] = "offline_store"

    # Feast passes the dotted path on: the inherited literal would refuse it.
    type: StrictStr = "hyperfeast.stores.TimescaleOfflineStore"
    password: StrictStr = Field(repr=False)
    strategy: Literal["auto", "lookup", "merge"] = "auto"
    memory_limit_mb: int = Field(default=1024, ge=16)
    as_known_at: AwareDatetime | None = None
    late_overlap_seconds: int = Field(default=300, ge=0)


class TimescaleOfflineStore(PostgreSQLOfflineStore):
    """Features out of PostgreSQL and TimescaleDB, for any repository with a `PostgreSQLSource`."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002
        **kwargs: Any,
    ) -> RetrievalJob:
        """Features as of the moments of a spine: see `historical.historical_features`."""
        return historical.historical_features(
            config,
            feature_views,
            feature_refs,
            entity_df,
            registry,
            project,
            full_feature_names=full_feature_names,
            filter_by_created_timestamp=filter_by_created_timestamp,
            start_date=kwargs.get("start_date"),
            end_date=kwargs.get("end_date"),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each entity in a range, late ones included: see `latest.pull_latest`."""
        return latest.pull_latest(
            config.offline_store,
            _wanted(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            ),
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """All rows of a range, late ones included: see `latest.pull_all`."""
        return latest.pull_all(
            config.offline_store,
            _wanted(
                config,
                data_source,
                join_key_columns,
                feature_name_columns,
                timestamp_field,
                created_timestamp_column,
                start_date,
                end_date,
            ),
        )

    @staticmethod
    def offline_write_batch(
        config: RepoConfig,
        feature_view: FeatureView,
        table: pa.Table,
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Append rows to the table of a view's source: see `write.write_batch`."""
        write.write_batch(config.offline_store, feature_view, table, progress)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Append the log of a feature service: see `write.write_log`."""
        write.write_log(config.offline_store, data, source, logging_config, registry)

    @staticmethod
    def compute_monitoring_metrics(
        config: RepoConfig, data_source: DataSource, *args: Any, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Feast's own metrics, of mapped columns too: see `monitoring.as_features`."""
        metrics: list[dict[str, Any]] = PostgreSQLOfflineStore.compute_monitoring_metrics(
            config, monitoring.as_features(data_source), *args, **kwargs
        )
        return metrics


def _wanted(
    config: RepoConfig,
    data_source: DataSource,
    join_key_columns: list[str],
    feature_name_columns: list[str],
    timestamp_field: str,
    created_timestamp_column: str | None,
    start_date: datetime | None,
    end_date: datetime | None,
) -> latest.Wanted:
    """Feast's arguments of both pulls, in its order."""
    return latest.Wanted(
        source=data_source,
        keys=join_key_columns,
        features=feature_name_columns,
        timestamp=timestamp_field,
        created=created_timestamp_column,
        start=start_date,
        end=end_date,
        overlap=timedelta(seconds=config.offline_store.late_overlap_seconds),
    )
