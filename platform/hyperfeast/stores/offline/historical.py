"""`get_historical_features`: Feast's call as a job of ours."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.utils import compute_non_entity_date_range

from hyperfeast.stores.as_known_at import asked_moment
from hyperfeast.stores.offline.job import PointInTimeJob
from hyperfeast.stores.offline.reading import Request
from hyperfeast.stores.offline.request import wanted


def historical_features(
    config: RepoConfig,
    feature_views: Sequence[FeatureView],
    feature_refs: list[str],
    entity_df: Any,
    registry: BaseRegistry,
    project: str,
    *,
    full_feature_names: bool,
    filter_by_created_timestamp: bool,
    start_date: datetime | None,
    end_date: datetime | None,
) -> PointInTimeJob:
    """Features as of the moments of a spine, or of a date range without one.

    Args:
        config: Feast's whole configuration.
        feature_views: every view that is referred to.
        feature_refs: `view:feature`.
        entity_df: a pandas or Polars frame, an Arrow table or reader, or a SQL query; None for a date range.
        registry: where the on-demand views are.
        project: whose.
        full_feature_names: whether features bear their view's name.
        filter_by_created_timestamp: whether only rows count that were recorded by the moment asked about.
        start_date: the range's begin; without one, as far back as the longest TTL.
        end_date: the range's end; without one, now.

    Raises:
        FeatureError: a view is not on PostgreSQL, or names no event time.
    """
    own = config.offline_store
    between = None
    if entity_df is None:
        between = compute_non_entity_date_range(
            list(feature_views), start_date=start_date, end_date=end_date
        )
    request = Request(
        views=wanted(feature_views, feature_refs, full_feature_names=full_feature_names),
        spine=entity_df,
        by_created=filter_by_created_timestamp,
        known_at=asked_moment(own.as_known_at),
        between=between,
        strategy=own.strategy,
        memory_limit_mb=own.memory_limit_mb,
    )
    return PointInTimeJob(
        own,
        request,
        feature_refs=feature_refs,
        on_demand_feature_views=OnDemandFeatureView.get_requested_odfvs(
            feature_refs, project, registry
        ),
        full_feature_names=full_feature_names,
    )
