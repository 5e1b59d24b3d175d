"""Gradient-boosted trees. The only module that imports XGBoost, and only when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hyperfeast.errors import ModelError, TrainingError
from hyperfeast.models import artifacts
from hyperfeast.models.registry import RegisteredModel
from hyperfeast.models.spec import Parameter

if TYPE_CHECKING:
    import xgboost

MODEL_TYPE = "xgboost"
SUFFIX = ".ubj"

# One thread: sums in another order are other numbers, and the models are small.
_FIXED: dict[str, Parameter] = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "device": "cpu",
    "nthread": 1,
    "verbosity": 0,
}


class Booster:
    """Trained trees over named columns.

    Args:
        trees: XGBoost's own booster.
        columns: the features' names, in the order of the matrix's columns.
    """

    def __init__(self, trees: xgboost.Booster, columns: Sequence[str]) -> None:
        self._trees = trees
        self.columns = tuple(columns)

    @classmethod
    def fit(
        cls,
        matrix: NDArray[np.float64],
        labels: NDArray[np.int64],
        columns: Sequence[str],
        *,
        parameters: Mapping[str, Parameter],
        rounds: int,
        seed: int,
    ) -> Self:
        """Train. The same arguments give the same bytes.

        Args:
            matrix: shape (n, k); NaN is missing.
            labels: shape (n,), 0 or 1.
            columns: k names.
            parameters: of the trees.
            rounds: number of trees.
            seed: of the row and column samples.

        Raises:
            TrainingError: XGBoost refuses a parameter or the data.
        """
        import xgboost

        data = xgboost.DMatrix(matrix, labels, feature_names=list(columns), nthread=1)
        settings = {**parameters, **_FIXED, "seed": seed}
        try:
            trees = xgboost.train(settings, data, num_boost_round=rounds)
        except (xgboost.core.XGBoostError, TypeError, ValueError) as error:
            raise TrainingError(
                f"XGBoost refuses {dict(parameters)}: {_reason(error)}. "
                "Correct the model's declaration"
            ) from error
        return cls(trees, columns)

    @classmethod
    def from_bytes(cls, data: bytes, columns: Sequence[str]) -> Self:
        """Trees from XGBoost's UBJ format. Hand in only bytes whose checksum has been verified.

        Args:
            data: what `to_bytes` gave.
            columns: the registered columns.

        Raises:
            ModelError: no model, or one of other columns.
        """
        import xgboost

        try:
            trees = xgboost.Booster({"nthread": 1}, model_file=bytearray(data))
        except xgboost.core.XGBoostError as error:
            raise ModelError(
                f"the artifact is no XGBoost model ({_reason(error)}): train again"
            ) from error
        if (found := list(trees.feature_names or [])) != list(columns):
            raise ModelError(
                f"the artifact reads {', '.join(found) or 'unnamed columns'}, registered are "
                f"{', '.join(columns)}: train again"
            )
        return cls(trees, columns)

    @classmethod
    def of(cls, model: RegisteredModel, artifacts_root: Path | str) -> Self:
        """The trees of a registered version, after its checksum is verified.

        Raises:
            ArtifactDamaged: the file is absent or not the one registered.
            ModelError: another kind of model or of file.
        """
        if model.model_type != MODEL_TYPE or not model.artifact_path.endswith(SUFFIX):
            raise ModelError(
                f"{model.name} v{model.version} is {model.model_type} in {model.artifact_path}: "
                f"only {MODEL_TYPE} in {SUFFIX} is read. Train again"
            )
        data = artifacts.load(artifacts_root, model.artifact_path, model.artifact_sha256)
        return cls.from_bytes(data, model.feature_columns)

    def to_bytes(self) -> bytes:
        """The model in XGBoost's UBJ format."""
        return bytes(self._trees.save_raw("ubj"))

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a 1 for each row. Safe to call from several threads.

        Args:
            matrix: shape (n, k), columns in the registered order; NaN is missing.

        Returns:
            Shape (n,), 0 to 1.

        Raises:
            ModelError: another number of columns, or an infinite value.
        """
        width = len(self.columns)
        if matrix.ndim != 2 or matrix.shape[1] != width:  # noqa: PLR2004 - rows and columns
            raise ModelError(
                f"expected rows of {width} features ({', '.join(self.columns)}), "
                f"found an array of shape {matrix.shape}"
            )
        if np.isinf(matrix).any():
            raise ModelError("expected finite features or NaN for a missing one, found infinity")
        if not len(matrix):
            return np.empty(0, dtype=np.float64)
        answer = self._trees.inplace_predict(matrix, missing=np.nan, validate_features=False)
        return np.asarray(answer, dtype=np.float64)

    def gain(self) -> dict[str, float]:
        """Mean improvement of the loss by the splits on each column; 0 for one never split on."""
        scores: dict[str, Any] = self._trees.get_score(importance_type="gain")
        return {column: float(scores.get(column, 0.0)) for column in self.columns}


def _reason(error: Exception) -> str:
    """The line that says what is wrong; XGBoost puts a C++ stack trace around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Check failed" in line or "Invalid" in line), lines[0])
