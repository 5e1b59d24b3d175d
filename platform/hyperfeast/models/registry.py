"""The registry of model versions: which there are, which one serves, and how a new one gets in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.errors import NoModel
from hyperfeast.models import artifacts
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a model, as the registry holds it.

    Attributes:
        model_id: stands in every prediction that this version answered.
        name: the model's name.
        model_type: the library: `xgboost`.
        version: from 1.
        training_date: UTC.
        metrics: out-of-sample scores of the model and its baselines.
        hyperparameters: as `ModelSpec.hyperparameters`.
        feature_columns: in the order of the matrix's columns.
        feature_service: where they come from.
        artifact_path: relative to the artifacts' root.
        artifact_sha256: hexadecimal.
        run_id: the training it came out of.
        is_active: whether it serves.
        created_at: UTC.
    """

    model_id: UUID
    name: str
    model_type: str
    version: int
    training_date: datetime
    metrics: dict[str, Any]
    hyperparameters: dict[str, Any]
    feature_columns: tuple[str, ...]
    feature_service: str
    artifact_path: str
    artifact_sha256: str
    run_id: UUID
    is_active: bool
    created_at: datetime

    @classmethod
    def from_row(cls, row: DictRow) -> Self:
        """A row of `model_registry`."""
        values = dict(row)
        return cls(
            name=values.pop("model_name"),
            feature_columns=tuple(values.pop("feature_columns")),
            **values,
        )


@dataclass(frozen=True)
class Candidate:
    """A trained model on its way into the registry.

    Attributes:
        name: the model's name.
        model_type: the library.
        data: the artifact's bytes.
        suffix: the artifact's format, with its dot.
        feature_columns: in the order of the matrix's columns.
        feature_service: where they come from.
        hyperparameters: as JSON holds them.
        metrics: as JSON holds them; no NaN.
        run_id: the training it came out of.
    """

    name: str
    model_type: str
    data: bytes
    suffix: str
    feature_columns: Sequence[str]
    feature_service: str
    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    run_id: UUID


def active(database: Database, name: str) -> RegisteredModel:
    """The version of a model that serves.

    Raises:
        NoModel: none does.
    """
    rows = database.fetch(query("models", "active"), {"name": name})
    if not rows:
        raise NoModel(
            f"there is no active model {name!r}: train one with `hyperfeast train {name}`"
        )
    return RegisteredModel.from_row(rows[0])


def versions(database: Database) -> list[RegisteredModel]:
    """Every version of every model, newest first within a name."""
    return [RegisteredModel.from_row(row) for row in database.fetch(query("models", "versions"))]


def register(
    connection: Connection[DictRow],
    candidate: Candidate,
    artifacts_root: Path | str,
    *,
    promote: bool,
) -> tuple[RegisteredModel, bool]:
    """Save the artifact, then add the next version in the caller's transaction.

    A candidate that equals the active version (same bytes, columns, service and hyperparameters) adds
    none; its artifact is written again all the same, in case the file was lost. Registrations of
    one name wait for each other until the transaction ends.

    Args:
        connection: in a transaction, which the caller commits.
        candidate: what was trained.
        artifacts_root: where the artifact goes.
        promote: whether it takes over from an active version. Without one it serves in any case.

    Returns:
        The version, and whether it is new.

    Raises:
        ModelError: the artifact cannot be written.
    """
    name = {"name": candidate.name}
    connection.execute(query("models", "lock"), name)
    serving = _serving(connection, candidate.name)
    if serving is not None and _same(serving, candidate):
        _save(candidate, serving.version, artifacts_root)
        return serving, False
    version = connection.execute(query("models", "next_version"), name).fetchall()[0]["version"]
    artifact = _save(candidate, version, artifacts_root)
    becomes_active = promote or serving is None
    if becomes_active:
        connection.execute(query("models", "retire"), name)
    row = connection.execute(
        query("models", "register"),
        {
            "name": candidate.name,
            "model_type": candidate.model_type,
            "version": version,
            "metrics": Jsonb(dict(candidate.metrics)),
            "hyperparameters": Jsonb(dict(candidate.hyperparameters)),
            "feature_columns": list(candidate.feature_columns),
            "feature_service": candidate.feature_service,
            "artifact_path": artifact.path,
            "artifact_sha256": artifact.sha256,
            "run_id": candidate.run_id,
            "is_active": becomes_active,
        },
    ).fetchall()[0]
    return RegisteredModel.from_row(row), True


def _serving(connection: Connection[DictRow], name: str) -> RegisteredModel | None:
    rows = connection.execute(query("models", "active"), {"name": name}).fetchall()
    return RegisteredModel.from_row(rows[0]) if rows else None


def _same(serving: RegisteredModel, candidate: Candidate) -> bool:
    return (
        serving.artifact_sha256 == artifacts.checksum(candidate.data)
        and serving.feature_columns == tuple(candidate.feature_columns)
        and serving.feature_service == candidate.feature_service
        and serving.hyperparameters == candidate.hyperparameters
    )


def _save(candidate: Candidate, version: int, artifacts_root: Path | str) -> artifacts.Artifact:
    return artifacts.save(artifacts_root, candidate.name, version, candidate.data, candidate.suffix)
