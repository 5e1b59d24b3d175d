"""Feast's own metrics of online reads, which its code for reading would have counted."""

from hyperfeast.stores.online.plan import Plan


def track_read(plan: Plan, rows: int, seconds: float) -> None:
    """Count a read, if Feast's metrics are on (`feast serve --metrics`).

    Args:
        plan: of the request.
        rows: of the request.
        seconds: that Redis took.
    """
    from feast import metrics

    if not metrics._config.online_features:  # noqa: SLF001 - where Feast itself looks
        return
    metrics.track_online_store_read(seconds)
    for view in plan.views:
        metrics.track_feature_statuses(view.name, rows * len(view.features), 0)
