"""A model's declaration, its artifact's way to disk and back, and the booster."""

import math
import pickle
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import fsspec.config
import numpy as np
import pytest
from botocore.exceptions import BotoCoreError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperfeast.errors import ArtifactDamaged, ModelError, TrainingError
from hyperfeast.models import Booster, ModelSpec, artifacts
from market_direction import market_direction

_COLUMNS = ("first", "second", "third")
_RANDOM = np.random.default_rng(11)
_MATRIX = _RANDOM.normal(size=(400, 3))
_MATRIX[_RANDOM.random((400, 3)) < 0.1] = np.nan
_LABELS = (np.nan_to_num(_MATRIX[:, 1]) + _RANDOM.normal(size=400) > 0).astype(np.int64)


def _fit(seed: int = 1) -> Booster:
    return Booster.fit(
        _MATRIX,
        _LABELS,
        _COLUMNS,
        parameters={"max_depth": 3, "subsample": 0.5},
        rounds=20,
        seed=seed,
    )


@pytest.fixture(scope="module")
def booster() -> Booster:
    return _fit()


# The declaration


def test_the_declared_model_is_repeatable_and_fits_the_registry() -> None:
    assert market_direction.name == "market_direction"
    assert market_direction.feature_service == "market_direction_v1"
    assert market_direction.hyperparameters["freshness_s"] == timedelta(days=4).total_seconds()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "../escape", "no usable name"),
        ("name", "Upper", "no usable name"),
        ("name", "", "no usable name"),
        ("feature_service", "a b", "no usable name"),
        ("label", "magnitude", "direction"),
        ("horizon", 0, "above 0"),
        ("rounds", -1, "above 0"),
        ("folds", 0, "above 0"),
        ("freshness", timedelta(0), "above 0"),
        ("parameters", {"nthread": 8}, "nthread"),
        ("parameters", {"max_dept": 3}, "max_dept "),
        ("parameters", {"objective": "reg:squarederror"}, "objective"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        replace(market_direction, **{field: value})


def test_a_declaration_has_defaults() -> None:
    spec = ModelSpec("small", "some_service", {"max_depth": 2})
    assert (spec.horizon, spec.folds, spec.entity, spec.label) == (5, 5, "symbol", "direction")


# Artifacts


@given(data=st.binary(max_size=2000), version=st.integers(1, 10**6))
def test_what_is_saved_is_loaded(
    data: bytes, version: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "artifacts"
    saved = artifacts.save(root, "a_model", version, data, ".ubj")
    assert artifacts.load(root, saved.path, saved.sha256) == data
    assert artifacts.save(str(root), "a_model", version, data, ".ubj") == saved


def test_nothing_but_the_artifact_is_left_behind(tmp_path: Path) -> None:
    saved = artifacts.save(tmp_path, "a_model", 1, b"trees", ".ubj")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [tmp_path / saved.path]


def test_databases_that_share_a_root_do_not_overwrite_each_other(tmp_path: Path) -> None:
    mine = artifacts.save(tmp_path, "a_model", 1, b"mine", ".ubj")
    yours = artifacts.save(tmp_path, "a_model", 1, b"yours", ".ubj")
    assert artifacts.load(tmp_path, mine.path, mine.sha256) == b"mine"
    assert artifacts.load(tmp_path, yours.path, yours.sha256) == b"yours"


def test_another_file_system_works_alike() -> None:
    root = f"memory://{uuid4().hex}/artifacts"
    saved = artifacts.save(root, "a_model", 1, b"trees", ".ubj")
    assert artifacts.load(root, saved.path, saved.sha256) == b"trees"
    with pytest.raises(ArtifactDamaged):
        artifacts.load(root, "a_model/v2.ubj", saved.sha256)


@given(position=st.integers(0, 99), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "flipped"
    data = bytes(range(100))
    saved = artifacts.save(root, "a_model", 1, data, ".ubj")
    damaged = bytearray(data)
    damaged[position] ^= 1 << bit
    (root / saved.path).write_bytes(damaged)
    with pytest.raises(ArtifactDamaged, match="SHA-256"):
        artifacts.load(root, saved.path, saved.sha256)


def test_truncated_or_absent_is_damaged(tmp_path: Path) -> None:
    saved = artifacts.save(tmp_path, "a_model", 1, b"trees", ".ubj")
    (tmp_path / saved.path).write_bytes(b"tree")
    with pytest.raises(ArtifactDamaged, match="train again"):
        artifacts.load(tmp_path, saved.path, saved.sha256)
    (tmp_path / saved.path).unlink()
    with pytest.raises(ArtifactDamaged, match="train again"):
        artifacts.load(tmp_path, saved.path, saved.sha256)
    with pytest.raises(ArtifactDamaged):
        artifacts.load(tmp_path, "a_model", saved.sha256)  # a folder


_HOSTILE = [
    "../secret",
    "a_model/../../secret",
    "a_model/..",
    "%2e%2e/secret",
    "a_model/%2e%2e%2fsecret",
    "/etc/passwd",
    "file:///etc/passwd",
    "s3://bucket/key",
    "a_model//v1.ubj",
    "a_model/./v1.ubj",
    ".hidden",
    "a_model\\v1.ubj",
    "a_model/v1.ubj\n",
    "a_model/v1\0.ubj",
    "~/secret",
    "",
    "a" * 129,
]


@pytest.mark.parametrize("path", _HOSTILE)
def test_a_path_that_could_leave_the_root_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ModelError, match="artifact path"):
        artifacts.load(root, path, artifacts.checksum(b"secret"))
    with pytest.raises(ModelError, match="artifact path"):
        artifacts.save(root, path, 1, b"data", "/../../x")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("name", ["../up", "a/../../up", "%2e%2e", "file://x", "..", "a b"])
def test_a_name_that_could_leave_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="artifact path"):
        artifacts.save(tmp_path / "root", name, 1, b"data", ".ubj")
    assert not list(tmp_path.iterdir())


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "v1.ubj").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a_model").symlink_to(outside)
    with pytest.raises(ModelError, match="link"):
        artifacts.load(root, "a_model/v1.ubj", artifacts.checksum(b"secret"))
    with pytest.raises(ModelError, match="link"):
        artifacts.save(root, "a_model", 2, b"data", ".ubj")
    assert [path.name for path in outside.iterdir()] == ["v1.ubj"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be written"):
        artifacts.save(blocked, "a_model", 1, b"data", ".ubj")


def test_a_root_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ModelError, match="nosuch"):
        artifacts.save("nosuch://place", "a_model", 1, b"data", ".ubj")


@pytest.fixture
def dead_s3(monkeypatch: pytest.MonkeyPatch) -> str:
    """A root on an S3 server where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = {
        "key": "a-key",
        "secret": "a-secret",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "config_kwargs": {
            "connect_timeout": 0.2,
            "read_timeout": 0.2,
            "retries": {"max_attempts": 0},
        },
    }
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    return "s3://a-bucket/artifacts"


def test_a_store_that_does_not_answer_is_a_model_error(dead_s3: str) -> None:
    with pytest.raises(ModelError, match="s3://a-bucket/artifacts cannot be written") as saving:
        artifacts.save(dead_s3, "a_model", 1, b"data", ".ubj")
    with pytest.raises(ModelError, match="s3://a-bucket/artifacts cannot be read") as loading:
        artifacts.load(dead_s3, "a_model/v1.ubj", artifacts.checksum(b"data"))
    for caught in (saving, loading):
        assert isinstance(caught.value.__cause__, BotoCoreError)
        assert not isinstance(caught.value, ArtifactDamaged)
        assert "a-secret" not in str(caught.value)


def test_an_address_that_s3_cannot_use_is_a_model_error(
    dead_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf["s3"], "endpoint_url", "not an address")
    with pytest.raises(ModelError, match="cannot be written"):
        artifacts.save(dead_s3, "a_model", 1, b"data", ".ubj")


def test_a_message_keeps_the_password_of_a_root_to_itself() -> None:
    with pytest.raises(ModelError, match="nosuch://place") as caught:
        artifacts.save("nosuch://user:a-secret@place", "a_model", 1, b"data", ".ubj")
    assert "a-secret" not in str(caught.value)


# The booster


def test_the_same_data_and_seed_give_the_same_bytes(booster: Booster) -> None:
    assert _fit().data == booster.data
    assert _fit(seed=2).data != booster.data


def test_a_loaded_model_predicts_what_the_trained_one_did(booster: Booster) -> None:
    loaded = Booster(booster.data, _COLUMNS)
    answer = loaded.predict(_MATRIX)
    assert answer.dtype == np.float64
    assert np.array_equal(answer, booster.predict(_MATRIX))
    assert np.all((answer > 0) & (answer < 1))


@given(
    rows=hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 6), st.just(3)),
        elements=st.one_of(st.floats(-5, 5), st.just(math.nan)),
    )
)
def test_a_row_is_answered_alike_alone_and_among_others(rows: np.ndarray, booster: Booster) -> None:
    together = booster.predict(rows)
    assert together.shape == (len(rows),)
    for row, answer in zip(rows, together, strict=True):
        assert booster.predict(row[None, :])[0] == answer


def test_gain_ranks_the_column_that_matters(booster: Booster) -> None:
    gain = booster.gain()
    assert list(gain) == list(_COLUMNS)
    assert max(gain, key=lambda name: gain[name]) == "second"
    lonely = Booster.fit(
        np.column_stack([_MATRIX[:, 1], np.zeros(400)]),
        _LABELS,
        ("used", "constant"),
        parameters={},
        rounds=3,
        seed=1,
    )
    assert lonely.gain()["constant"] == 0.0


@pytest.mark.parametrize("shape", [(1, 2), (1, 4), (3,), (0, 2)])
def test_another_width_is_refused(booster: Booster, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="3 features"):
        booster.predict(np.zeros(shape))


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinity_is_refused(booster: Booster, value: float) -> None:
    with pytest.raises(ModelError, match="infinity"):
        booster.predict(np.array([[0.0, value, 0.0]]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model",
        b"{}",
        b'{"learner": {}}',
        b"{L",
        pickle.dumps({"learner": 1}),
    ],
)
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="no XGBoost model"):
        Booster(data, _COLUMNS)


def test_a_truncated_model_is_refused(booster: Booster) -> None:
    with pytest.raises(ModelError, match="no XGBoost model"):
        Booster(booster.data[: len(booster.data) // 2], _COLUMNS)


@pytest.mark.parametrize("columns", [("second", "first", "third"), ("first", "second"), ()])
def test_a_model_of_other_columns_is_refused(booster: Booster, columns: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="registered are"):
        Booster(booster.data, columns)


def test_a_parameter_that_xgboost_refuses_is_a_training_error() -> None:
    with pytest.raises(TrainingError, match="expect int but value='deep'"):
        Booster.fit(_MATRIX, _LABELS, _COLUMNS, parameters={"max_depth": "deep"}, rounds=1, seed=1)
