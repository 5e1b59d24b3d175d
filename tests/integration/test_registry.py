"""The registry: one version after another, one of them active, whatever happens at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.errors import ModelError, NoModel, SchemaError
from hyperfeast.models import RegisteredModel, active, load_artifact, versions
from hyperfeast.models.registry import Candidate, register
from hyperfeast.sqlfiles import query

MakeCandidate = Callable[[bytes], Candidate]


@pytest.fixture
def candidate(database: Database) -> MakeCandidate:
    def make(data: bytes) -> Candidate:
        return Candidate(
            name="a_model",
            model_type="xgboost",
            data=data,
            suffix=".ubj",
            feature_columns=("second", "first"),
            feature_service="a_service",
            hyperparameters={"parameters": {"eta": 0.05}, "seed": 7},
            metrics={"pooled": {"model": {"auc": None}}},
            run_id=_run(database),
        )

    return make


def _run(database: Database) -> UUID:
    row = database.fetch(
        query("training", "begin"),
        {
            "model_name": "a_model",
            "first": None,
            "last": None,
            "symbols": [],
            "training_params": Jsonb({}),
            "feature_service": "a_service",
            "definition_hashes": Jsonb({}),
            "git_commit": None,
            "random_seed": 7,
            "as_known_at": None,
        },
    )[0]
    run_id: UUID = row["run_id"]
    return run_id


def _register(
    database: Database, candidate: Candidate, root: Path, *, promote: bool = True
) -> tuple[RegisteredModel, bool]:
    with database.connect() as connection:
        return register(connection, candidate, root, promote=promote)


def test_without_a_model_the_error_says_what_to_type(database: Database) -> None:
    with pytest.raises(NoModel, match="hyperfeast train a_model"):
        active(database, "a_model")
    assert versions(database) == []


def test_without_migrations_the_error_says_so(empty_database: Database) -> None:
    with pytest.raises(SchemaError, match="hyperfeast migrate"):
        active(empty_database, "a_model")


def test_what_is_registered_is_read_back(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    made = candidate(b"trees")
    model, created = _register(database, made, tmp_path)
    assert created
    assert active(database, "a_model") == model
    assert (model.version, model.is_active, model.run_id) == (1, True, made.run_id)
    assert model.feature_columns == ("second", "first")
    assert model.metrics == made.metrics
    assert model.hyperparameters == made.hyperparameters
    assert model.created_at.tzinfo is not None
    assert model.created_at.utcoffset() == UTC.utcoffset(None)
    assert load_artifact(tmp_path, model.artifact_path, model.artifact_sha256) == b"trees"


def test_the_newest_serves_and_the_one_before_retires(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    for data in (b"one", b"two", b"three"):
        _register(database, candidate(data), tmp_path)
    assert [(one.version, one.is_active) for one in versions(database)] == [
        (3, True),
        (2, False),
        (1, False),
    ]


def test_without_promotion_only_a_first_version_serves(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    first, _ = _register(database, candidate(b"one"), tmp_path, promote=False)
    second, created = _register(database, candidate(b"two"), tmp_path, promote=False)
    assert (first.is_active, second.is_active, created) == (True, False, True)
    assert active(database, "a_model").model_id == first.model_id


def test_the_same_model_again_is_no_new_version_and_heals_a_lost_file(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    first, _ = _register(database, candidate(b"trees"), tmp_path)
    (tmp_path / first.artifact_path).unlink()
    again, created = _register(database, candidate(b"trees"), tmp_path)
    assert not created
    assert again == first
    assert load_artifact(tmp_path, first.artifact_path, first.artifact_sha256) == b"trees"


@pytest.mark.parametrize(
    "change",
    [
        {"feature_columns": ("first", "second")},
        {"feature_service": "another_service"},
        {"hyperparameters": {"parameters": {"eta": 0.1}, "seed": 7}},
    ],
)
def test_the_same_bytes_under_other_terms_are_a_new_version(
    database: Database, candidate: MakeCandidate, tmp_path: Path, change: dict[str, object]
) -> None:
    _register(database, candidate(b"trees"), tmp_path)
    model, created = _register(database, replace(candidate(b"trees"), **change), tmp_path)
    assert (model.version, created) == (2, True)


def test_names_have_versions_of_their_own(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    _register(database, candidate(b"one"), tmp_path)
    other, _ = _register(database, replace(candidate(b"one"), name="b_model"), tmp_path)
    assert other.version == 1
    assert active(database, "a_model").is_active
    assert active(database, "b_model").is_active


def test_many_at_once_leave_one_active_and_no_gap(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    candidates = [candidate(f"trees {number}".encode()) for number in range(12)]
    with ThreadPoolExecutor(len(candidates)) as pool:
        results = list(pool.map(lambda one: _register(database, one, tmp_path), candidates))
    assert all(created for _, created in results)
    registered = versions(database)
    assert [one.version for one in registered] == list(range(12, 0, -1))
    assert [one.version for one in registered if one.is_active] == [12]


def test_the_same_at_once_is_one_version(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    candidates = [candidate(b"trees") for _ in range(8)]
    with ThreadPoolExecutor(len(candidates)) as pool:
        results = list(pool.map(lambda one: _register(database, one, tmp_path), candidates))
    assert sum(created for _, created in results) == 1
    assert len(versions(database)) == 1


class _PowerCutError(Exception):
    pass


def _register_without_commit(database: Database, made: Candidate, root: Path) -> None:
    with database.connect() as connection:
        register(connection, made, root, promote=True)
        raise _PowerCutError


def test_an_interrupted_registration_leaves_the_old_one_and_a_harmless_file(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    first, _ = _register(database, candidate(b"one"), tmp_path)
    with pytest.raises(_PowerCutError):
        _register_without_commit(database, candidate(b"two"), tmp_path)
    assert [one.version for one in versions(database)] == [1]
    assert active(database, "a_model") == first
    assert len(list(tmp_path.rglob("*.ubj"))) == 2
    second, _ = _register(database, candidate(b"three"), tmp_path)
    assert load_artifact(tmp_path, second.artifact_path, second.artifact_sha256) == b"three"


def test_an_artifact_that_cannot_be_written_registers_nothing(
    database: Database, candidate: MakeCandidate, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be written"):
        _register(database, candidate(b"trees"), blocked)
    assert versions(database) == []
