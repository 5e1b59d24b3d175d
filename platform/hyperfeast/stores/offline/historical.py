"""`get_historical_features`: Feast's call as a job of ours."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.infra.registry.base_registry import BaseRegistry
from feast.utils import compute_non_entity_date_range

from hyperfeast.errors import FeatureError, UsageError
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
        FeatureError: a view is not on PostgreSQL, names no event time, or has a negative TTL.
        UsageError: the range's begin or end is no moment.
    """
    own = config.offline_store
    _refuse_negative_ages(feature_views)
    between = None
    if entity_df is None:
        for name, moment in (("start_date", start_date), ("end_date", end_date)):
            _refuse_no_moment(name, moment)
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


def _refuse_no_moment(name: str, moment: Any) -> None:
    if moment is not None and not isinstance(moment, datetime):
        raise UsageError(
            f"get_historical_features: expected a moment in {name}, found {moment!r}: "
            "write datetime(2024, 5, 3, tzinfo=UTC)"
        )


def _refuse_negative_ages(feature_views: Sequence[FeatureView]) -> None:
    for view in feature_views:
        if view.ttl and view.ttl < timedelta(0):
            raise FeatureError(
                f"feature view {view.name!r}: expected a ttl that is not negative, found {view.ttl}: no row is "
                "that young: set how old a row may be, or 0 for any age"
            )
