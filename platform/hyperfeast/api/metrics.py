"""What Prometheus reads."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import Scope

from hyperfeast.ingest import IngestSummary
from hyperfeast.serving import Prediction


class Metrics:
    """The API's counters, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "hyperfeast_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "hyperfeast_request_seconds",
            "Time to the answer.",
            ["route"],
            registry=self.registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
        )
        self._predictions = Counter(
            "hyperfeast_predictions",
            "Predictions answered.",
            ["model", "label"],
            registry=self.registry,
        )
        self._ingested = Counter(
            "hyperfeast_ingested_rows",
            "Rows pushed, by what came of them.",
            ["table", "outcome"],
            registry=self.registry,
        )
        self._age = Gauge(
            "hyperfeast_feature_age_seconds",
            "Age of the oldest features of the last prediction.",
            ["feature_view"],
            registry=self.registry,
        )

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answer. The route's pattern, not the path: a path is anybody's text."""
        route = getattr(scope.get("route"), "path", "unmatched")
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def predictions(self, model: str, predictions: Sequence[Prediction]) -> None:
        """Count predictions by label, and note how old their features were."""
        for one in predictions:
            self._predictions.labels(model, one.label).inc()
        for view in {view for one in predictions for view in one.feature_ages}:
            self._age.labels(view).set(max(one.feature_ages.get(view, 0) for one in predictions))

    def ingested(self, table: str, summary: IngestSummary) -> None:
        """Count a batch's rows by what came of them."""
        for outcome in ("inserted", "corrected", "unchanged", "quarantined"):
            self._ingested.labels(table, outcome).inc(getattr(summary, outcome))
