"""How much each feature matters to a trained model, measured in three ways, and kept per version.

- gain: the mean improvement of the training loss by the splits on the feature. What the trees used.
- permutation: how much the log loss of the out-of-sample forecasts rises when the feature's values are
  shuffled among the rows of a test period (Breiman, Machine Learning 45, 2001; Fisher, Rudin and
  Dominici, JMLR 20, 2019). What the forecasts rest on; below 0 where they would do better without.
- shap: the mean absolute share of the feature in the registered model's log odds, by XGBoost's own exact
  TreeSHAP (Lundberg et al., Nature Machine Intelligence 2, 2020). What moves the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import Connection
from psycopg.rows import DictRow

from hyperfeast import stats
from hyperfeast.db import Database
from hyperfeast.models.booster import Booster
from hyperfeast.sqlfiles import query
from hyperfeast.training.dataset import Dataset
from hyperfeast.training.evaluation import Fold

REPEATS = 3
"""How often a feature is shuffled."""

_MOST_ROWS = 50_000
_MOST_EXPLAINED = 10_000

Rows = NDArray[np.intp]


class Method(StrEnum):
    """How importance is measured."""

    GAIN = "gain"
    PERMUTATION = "permutation"
    SHAP = "shap"


@dataclass(frozen=True)
class Importance:
    """How much one feature matters by one method.

    Attributes:
        feature: its name.
        method: how it was measured.
        value: the measure; its unit is the method's.
        rank: 1 for the most important; of equal ones the first by name is ahead.
    """

    feature: str
    method: Method
    value: float
    rank: int


@dataclass(frozen=True)
class Measured:
    """An importance that was kept: of which version of which model, and when (UTC) it was measured."""

    model: str
    version: int
    method: str
    feature: str
    importance: float
    rank: int
    ts: datetime


def measure(
    booster: Booster, dataset: Dataset, folds: Sequence[Fold], *, seed: int
) -> list[Importance]:
    """Measure the features of a model in every way. The same arguments give the same numbers.

    Args:
        booster: the registered model.
        dataset: what it was trained on.
        folds: the models and test rows of the walk-forward evaluation.
        seed: of the shuffles, and of the samples of more than 50,000 rows (10,000 for shap).

    Returns:
        By method, in the order of their ranks.
    """
    measured: dict[Method, Mapping[str, float]] = {
        Method.GAIN: booster.gain(),
        Method.PERMUTATION: permutation(dataset, folds, seed=seed),
        Method.SHAP: shap(booster, dataset, seed=seed),
    }
    return [one for method, values in measured.items() for one in _ranked(method, values)]


def permutation(
    dataset: Dataset, folds: Sequence[Fold], *, seed: int, repeats: int = REPEATS
) -> dict[str, float]:
    """By feature, how much the pooled out-of-sample log loss (nats a row) rises when it is shuffled.

    Args:
        dataset: the rows.
        folds: the models and test rows.
        seed: of the shuffles.
        repeats: how often each feature is shuffled; the rise is the mean.
    """
    random = np.random.default_rng(seed)
    tested = [_sample(random, fold.test, _MOST_ROWS // max(len(folds), 1)) for fold in folds]
    labels = dataset.labels[np.concatenate(tested)]
    usual = [
        fold.booster.predict(dataset.matrix[rows]) for fold, rows in zip(folds, tested, strict=True)
    ]
    base = stats.log_loss(labels, np.concatenate(usual))
    rises = {}
    for column, feature in enumerate(dataset.columns):
        losses = []
        for _ in range(repeats):
            proba = [
                fold.booster.predict(_shuffled(dataset.matrix[rows], column, random))
                for fold, rows in zip(folds, tested, strict=True)
            ]
            losses.append(stats.log_loss(labels, np.concatenate(proba)))
        rises[feature] = float(np.mean(losses)) - base
    return rises


def shap(booster: Booster, dataset: Dataset, *, seed: int) -> dict[str, float]:
    """By feature, the mean absolute contribution to the log odds of a 1.

    Args:
        booster: the model.
        dataset: the rows whose answers are explained.
        seed: of the sample.
    """
    random = np.random.default_rng(seed)
    rows = _sample(random, np.arange(len(dataset.matrix)), _MOST_EXPLAINED)
    shares = np.abs(booster.contributions(dataset.matrix[rows])).mean(axis=0)
    return dict(zip(dataset.columns, shares.tolist(), strict=True))


def keep(
    connection: Connection[DictRow], model_id: UUID, importances: Sequence[Importance]
) -> None:
    """Write the measures of a version, all under one moment, in the caller's transaction."""
    with connection.cursor() as cursor:
        cursor.executemany(
            query("training", "importance"),
            [
                {
                    "model_id": model_id,
                    "feature_name": one.feature,
                    "method": one.method.value,
                    "importance": one.value,
                    "rank": one.rank,
                }
                for one in importances
            ],
        )


def history(database: Database) -> list[Measured]:
    """Every importance that was kept, by model and version; within one, by method and rank."""
    return [Measured(**row) for row in database.fetch(query("training", "importances"))]


def _shuffled(
    matrix: NDArray[np.float64], column: int, random: np.random.Generator
) -> NDArray[np.float64]:
    changed = matrix.copy()
    changed[:, column] = random.permutation(changed[:, column])
    return changed


def _sample(random: np.random.Generator, rows: Rows, most: int) -> Rows:
    """At most so many of the rows, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(random.choice(rows, most, replace=False))


def _ranked(method: Method, values: Mapping[str, float]) -> list[Importance]:
    ordered = sorted(values.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        Importance(feature, method, value, rank)
        for rank, (feature, value) in enumerate(ordered, start=1)
    ]
