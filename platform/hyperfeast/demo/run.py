"""The stages of the demo, in order. Each is safe to repeat, so a killed demo is run again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hyperfeast.app import App
from hyperfeast.demo import data
from hyperfeast.demo.report import report
from hyperfeast.errors import UsageError
from hyperfeast.features import table
from hyperfeast.types import Timeframe

if TYPE_CHECKING:
    from hyperfeast.ingest import IngestSummary
    from hyperfeast.serving import Prediction
    from hyperfeast.training import TrainingResult

MODEL, GLUCOSE_MODEL = "market_direction", "glucose_deviation"
_LAST_DAYS = 5
# Stages whose rows say something to who reads the report.
_COUNTED = ("daily candles", "glucose readings", "features", "training", "predictions")


@dataclass(frozen=True)
class Stage:
    """What one stage did.

    Attributes:
        title: what it is about.
        rows: how many rows it handled.
        seconds: how long it took.
        note: what came of it, in a few words.
    """

    title: str
    rows: int
    seconds: float
    note: str


@dataclass
class DemoResult:
    """Everything that the demo has to show.

    Attributes:
        stages: in order.
        training: the model and its scores.
        tomorrow: the model of the next day's glucose and its scores.
        predictions: one a symbol.
        z_scores: the glucose series' whole feature set, in the order of time.
        report: where `report.html` was written.
    """

    stages: list[Stage] = field(default_factory=list)
    training: "TrainingResult | None" = None
    tomorrow: "TrainingResult | None" = None
    predictions: "list[Prediction]" = field(default_factory=list)
    z_scores: pl.DataFrame = field(default_factory=pl.DataFrame)
    report: Path | None = None

    @property
    def last_z_scores(self) -> list[dict[str, Any]]:
        """The last five days that have one, oldest first."""
        with_score = self.z_scores.filter(pl.col("z_score").is_not_null())
        columns = ("event_timestamp", "day_mean", "mean_30d", "std_30d", "z_score")
        return with_score.select(columns).tail(_LAST_DAYS).to_dicts()


def run(
    app: App, report_path: Path, *, on_stage: Callable[[str, Stage | None], None]
) -> DemoResult:
    """Run every stage.

    Args:
        app: the platform.
        report_path: where to write the HTML report.
        on_stage: called with a title and None when a stage begins, with its result when it is done.

    Raises:
        UsageError: the report's folder does not exist.
        HyperfeastError: whatever a stage runs into.
    """
    if not report_path.parent.is_dir():
        raise UsageError(f"--report: there is no folder {report_path.parent.resolve()}")
    result = DemoResult()
    for title, stage in STAGES.items():
        on_stage(title, None)
        started = time.perf_counter()
        rows, note = stage(app, result, report_path)
        done = Stage(title, rows, time.perf_counter() - started, note)
        result.stages.append(done)
        on_stage(title, done)
    return result


def _servers(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    edition = app.database.edition()
    return 2, f"PostgreSQL and Redis; {edition}"


def _migrations(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    from hyperfeast.migrate import migrate

    report = migrate(app.database)
    return len(report.applied), f"schema at {report.current:04d}"


def _candles(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    from hyperfeast.ingest import ingest_candles, read_file

    summary = ingest_candles(
        app.database,
        read_file(data.stocks()),
        timeframe=Timeframe.D1,
        source=data.SOURCE,
        calendar=data.CALENDAR,
    )
    return summary.rows_in, _told(summary)


def _actions(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    from hyperfeast.ingest import ingest_actions, read_file

    summary = ingest_actions(app.database, read_file(data.corporate_actions()), source="declared")
    return summary.rows_in, _told(summary)


def _readings(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    from hyperfeast.ingest import ingest_metrics, read_file

    summary = ingest_metrics(
        app.database,
        read_file(data.glucose()),
        user=data.USER,
        metric=data.METRIC,
        device=data.DEVICE,
        columns={"value": "glucose", "ts": "datetime"},
        source=data.SOURCE,
    )
    return summary.rows_in, _told(summary)


def _told(summary: "IngestSummary") -> str:
    counts = {
        "inserted": summary.inserted,
        "corrected": summary.corrected,
        "unchanged": summary.unchanged,
        "in quarantine": summary.quarantined,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def _features(app: App, result: DemoResult, __: Path) -> tuple[int, str]:
    done = app.compute_features()
    baseline = table.newest(app.database, app.repo.feature_set("personal_baseline"))
    result.z_scores = baseline.filter(user_id=data.USER, metric=data.METRIC).sort("event_timestamp")
    return sum(one.rows for one in done), f"{sum(one.written for one in done):,} written"


def _feast(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    names = app.feast.apply()
    return len(names), ", ".join(names)


def _training(app: App, result: DemoResult, __: Path) -> tuple[int, str]:
    result.training = app.train(MODEL)
    created = "registered" if result.training.created else "unchanged"
    return result.training.oos.height, f"{MODEL} v{result.training.version}, {created}"


def _tomorrow(app: App, result: DemoResult, __: Path) -> tuple[int, str]:
    result.tomorrow = app.train(GLUCOSE_MODEL)
    pooled = result.tomorrow.metrics["pooled"]
    right = {name: f"{pooled[name]['accuracy']:.0%}" for name in ("model", "persistence")}
    said = ", ".join(f"{name} {share}" for name, share in right.items())
    return result.tomorrow.oos.height, f"{GLUCOSE_MODEL} v{result.tomorrow.version}, right: {said}"


def _online(app: App, _: DemoResult, __: Path) -> tuple[int, str]:
    names = app.materialize()
    return len(names), "newest of every entity to Redis"


def _predictions(app: App, result: DemoResult, __: Path) -> tuple[int, str]:
    from hyperfeast.ingest import read_file

    symbols = read_file(data.stocks())["Ticker"].unique().sort().to_list()
    result.predictions = app.predictor(MODEL).predict(symbols)
    return len(result.predictions), "logged in signals"


def _report(_: App, result: DemoResult, path: Path) -> tuple[int, str]:
    if result.training is None or result.tomorrow is None:
        raise UsageError("the report needs a training: run the stages in order")
    result.report = report(
        path,
        summary=[(one.title, f"{one.rows:,}") for one in result.stages if one.title in _COUNTED],
        training=result.training,
        tomorrow=result.tomorrow,
        predictions=result.predictions,
        z_scores=result.z_scores,
    )
    return 4, str(path)


STAGES: dict[str, Callable[[App, DemoResult, Path], tuple[int, str]]] = {
    "servers": _servers,
    "migrations": _migrations,
    "daily candles": _candles,
    "corporate actions": _actions,
    "glucose readings": _readings,
    "features": _features,
    "Feast definitions": _feast,
    "training": _training,
    "tomorrow's glucose": _tomorrow,
    "online store": _online,
    "predictions": _predictions,
    "report": _report,
}
