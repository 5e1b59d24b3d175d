"""The demo's numbers as an HTML report."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from hyperfeast import clock
from hyperfeast.reports import (
    DemoReport,
    EquityCurve,
    PredictionRow,
    RocCurve,
    ScoreRow,
    ZScoreSeries,
    write_report,
)

if TYPE_CHECKING:
    from hyperfeast.serving import Prediction
    from hyperfeast.training import Equity, TrainingResult

_NOTES = (
    "Prices are adjusted for splits by what was known at each bar; a later split changes no earlier row.",
    (
        "Scores are out of sample: five walk-forward periods, each model trained only on labels that had "
        "ended before the period began. Costs of 5 basis points a unit of turnover are in the curve."
    ),
    "The data end in 2013, so every prediction rests on old features and is marked stale.",
    "The glucose baseline of a day is what was known before that day began.",
    (
        "Tomorrow's glucose is beyond its usual range if the day's mean lies more than one deviation of the 30 "
        "days' means from their mean. Persistence says of tomorrow what was so today."
    ),
)


def report(
    path: Path,
    *,
    summary: Sequence[tuple[str, str]],
    training: "TrainingResult",
    predictions: "Sequence[Prediction]",
    z_scores: pl.DataFrame,
    tomorrow: "TrainingResult",
) -> Path:
    """Write the report.

    Args:
        path: the HTML file.
        summary: what was handled, and how many rows of it.
        training: the model with its out-of-sample results.
        predictions: one a symbol.
        tomorrow: the model of the next day's glucose with its out-of-sample results.
        z_scores: columns event_timestamp (end of the day, UTC), day_mean, mean_30d, std_30d, z_score.
    """
    return write_report(
        DemoReport(
            title="hyperfeast: from raw rows to a logged prediction",
            created_at=clock.now(),
            summary=summary,
            scores=[_score(name, one) for name, one in training.metrics["pooled"].items()],
            equity=_equity(training.equity),
            roc=RocCurve(
                training.roc.false_positive_rate,
                training.roc.true_positive_rate,
                training.roc.auc,
            ),
            importance=list(training.importance.items()),
            predictions=[_prediction(one) for one in predictions],
            glucose=_glucose(z_scores),
            glucose_scores=[_score(name, one) for name, one in tomorrow.metrics["pooled"].items()],
            notes=[*_NOTES, _few(tomorrow.oos.height)],
        ),
        path,
    )


def _few(days: int) -> str:
    return (
        f"Of tomorrow's glucose {days} days were tested: one day is {100 / days:.1f} points of accuracy. A model "
        "that is ahead by no more, and behind by log loss, knows nothing of tomorrow."
    )


def _equity(curve: "Equity | None") -> EquityCurve:
    if curve is None:
        return EquityCurve([], [], [])
    dates = [close.date() for close in curve.dates]
    return EquityCurve(dates, curve.signal, curve.buy_and_hold)


def _score(name: str, scores: dict[str, float | None]) -> ScoreRow:
    return ScoreRow(
        name.replace("_", " "),
        accuracy=scores["accuracy"] or 0.0,
        auc=scores.get("auc"),
        log_loss=scores.get("log_loss"),
        brier=scores.get("brier"),
    )


def _prediction(one: "Prediction") -> PredictionRow:
    return PredictionRow(one.symbol, one.label, one.proba, one.known_at, one.stale)


def _glucose(rows: pl.DataFrame) -> ZScoreSeries:
    days = [moment.date() - timedelta(days=1) for moment in rows["event_timestamp"]]
    return ZScoreSeries(
        days,
        day_mean=rows["day_mean"].to_list(),
        mean_30d=rows["mean_30d"].to_list(),
        std_30d=rows["std_30d"].to_list(),
        z_score=rows["z_score"].to_list(),
    )
