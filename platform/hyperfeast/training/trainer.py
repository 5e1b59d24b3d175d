"""One training, from bars to a version in the registry, with a record of it however it ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.errors import HyperfeastError
from hyperfeast.models import ModelSpec, registry
from hyperfeast.models.booster import MODEL_TYPE, SUFFIX, Booster
from hyperfeast.sqlfiles import query
from hyperfeast.training import dataset, importance
from hyperfeast.training.dataset import Dataset, HistoricalFeatures
from hyperfeast.training.evaluation import Equity, Evaluation, Roc, evaluate
from hyperfeast.training.importance import Importance


@dataclass(frozen=True)
class TrainingResult:
    """What came out of a training.

    Attributes:
        run_id: of the row in training_runs.
        model_id: of the row in model_registry.
        version: the model's version.
        created: whether that version is new; False if nothing changed since the active one.
        active: whether that version serves now.
        metrics: out-of-sample scores of model and baselines; see `evaluation.Evaluation`.
        oos: symbol, event_timestamp, proba, label of every test row; of prices forward_return, next_return.
        roc: of the model, over all test rows.
        importance: feature -> gain in the registered model; the most important first.
        equity: of the model's strategy, and of buy-and-hold; None where nothing is traded.
    """

    run_id: UUID
    model_id: UUID
    version: int
    created: bool
    active: bool
    metrics: dict[str, Any]
    oos: pl.DataFrame
    roc: Roc
    importance: dict[str, float]
    equity: Equity | None


def train(
    database: Database,
    spec: ModelSpec,
    bars: pl.DataFrame,
    historical_features: HistoricalFeatures,
    artifacts_root: Path | str,
    *,
    definition_hashes: Mapping[str, str],
    as_known_at: datetime | None = None,
    git_commit: str | None = None,
    promote: bool = True,
) -> TrainingResult:
    """Train a model, score it out of sample, register it, and keep what its features matter.

    The run is recorded before anything else. On failure it is FAILED with the reason, and the
    active version stays. The same bars, features and declaration give the same model, bit for bit.

    Args:
        database: where runs and versions are kept.
        spec: the model.
        bars: columns symbol, ts, event_timestamp, close, as for `labels.direction`; of a Deviation the
            set's rows at the ends of days, as for `labels.deviation`.
        historical_features: the offline store's point-in-time join; rows may come in any order.
        artifacts_root: a folder, or a URL that fsspec knows.
        definition_hashes: feature set -> hash of its definition, for the record.
        as_known_at: the moment whose knowledge `bars` and `historical_features` hold, UTC; None: now.
        git_commit: of the definitions, for the record.
        promote: whether the new version serves from now on. A first version serves in any case.

    Raises:
        TrainingError: the data are empty, of one class, without features, or too few.
        ModelError: the artifact cannot be written.
        ServerError: the database does not do its part.
    """
    provenance = {
        "definition_hashes": Jsonb(dict(definition_hashes)),
        "git_commit": git_commit,
        "as_known_at": as_known_at,
    }
    with _recorded(database, spec, bars, provenance) as run_id:
        data = dataset.build(bars, spec, historical_features)
        evaluation = evaluate(data, spec, bars)
        booster = Booster.fit(
            data.matrix,
            data.labels,
            data.columns,
            parameters=spec.parameters,
            rounds=spec.rounds,
            seed=spec.seed,
        )
        candidate = _candidate(spec, data, evaluation, booster, run_id)
        importances = importance.measure(booster, data, evaluation.folds, seed=spec.seed)
        model, created = _complete(
            database, candidate, data, importances, artifacts_root, promote=promote
        )
    return TrainingResult(
        run_id=run_id,
        model_id=model.model_id,
        version=model.version,
        created=created,
        active=model.is_active,
        metrics=evaluation.metrics,
        oos=evaluation.oos,
        roc=evaluation.roc,
        importance=_importance(booster),
        equity=evaluation.equity,
    )


@contextmanager
def _recorded(
    database: Database, spec: ModelSpec, bars: pl.DataFrame, provenance: Mapping[str, Any]
) -> Iterator[UUID]:
    """The run's row: RUNNING, and FAILED if the block does not end well, whatever stops it.

    A process that is killed leaves RUNNING; the model's next training marks that as FAILED.
    """
    # Autocommit: the session stays open for its lock, and its transaction does not.
    with database.connect(autocommit=True) as alive:
        alive.execute(query("training", "fail_abandoned"), {"model_name": spec.name})
        run_id = _begin(alive, spec, bars, provenance)
        try:
            yield run_id
        except BaseException as error:
            # If the database is what failed, the first error is the one to report.
            with suppress(HyperfeastError):
                database.execute(
                    query("training", "fail"), {"run_id": run_id, "reason": _reason(error)}
                )
            raise


def _begin(
    connection: Connection[DictRow],
    spec: ModelSpec,
    bars: pl.DataFrame,
    provenance: Mapping[str, Any],
) -> UUID:
    rows = connection.execute(
        query("training", "begin"),
        {
            "model_name": spec.name,
            "first": bars["event_timestamp"].min(),
            "last": bars["event_timestamp"].max(),
            "symbols": bars["symbol"].unique().sort().to_list(),
            "training_params": Jsonb(spec.hyperparameters),
            "feature_service": spec.feature_service,
            "random_seed": spec.seed,
            **provenance,
        },
    ).fetchall()
    run_id: UUID = rows[0]["run_id"]
    return run_id


def _reason(error: BaseException) -> str:
    if isinstance(error, HyperfeastError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _candidate(
    spec: ModelSpec, data: Dataset, evaluation: Evaluation, booster: Booster, run_id: UUID
) -> registry.Candidate:
    return registry.Candidate(
        name=spec.name,
        model_type=MODEL_TYPE,
        data=booster.data,
        suffix=SUFFIX,
        feature_columns=data.columns,
        feature_service=spec.feature_service,
        hyperparameters=spec.hyperparameters,
        metrics=evaluation.metrics,
        run_id=run_id,
    )


def _complete(
    database: Database,
    candidate: registry.Candidate,
    data: Dataset,
    importances: Sequence[Importance],
    artifacts_root: Path | str,
    *,
    promote: bool,
) -> tuple[registry.RegisteredModel, bool]:
    with database.connect() as connection:
        model, created = registry.register(connection, candidate, artifacts_root, promote=promote)
        if created:
            importance.keep(connection, model.model_id, importances)
        connection.execute(
            query("training", "complete"),
            {
                "run_id": candidate.run_id,
                "total_samples": data.rows.height,
                "metrics": Jsonb(dict(candidate.metrics)),
            },
        )
    return model, created


def _importance(booster: Booster) -> dict[str, float]:
    return dict(sorted(booster.gain().items(), key=lambda pair: (-pair[1], pair[0])))
