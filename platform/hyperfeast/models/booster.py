"""Gradient-boosted trees. The only module that imports XGBoost, and only when it is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from hyperfeast.errors import ModelError, TrainingError
from hyperfeast.models.spec import Parameter

if TYPE_CHECKING:
    import xgboost

MODEL_TYPE = "xgboost"
SUFFIX = ".ubj"

# An object whose first key has a 64-bit length, as XGBoost writes it: no JSON, no pickle, no archive.
_UBJ_OPENS = b"{L"

_SOURCE = re.compile(r"^\[[\d:]+\] \S+:\d+: ")

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
        data: a model in XGBoost's UBJ format. Hand in only bytes whose checksum has been verified:
            XGBoost trusts what it reads, and a forged model can end the process.
        columns: the features' names, in the order of the matrix's columns.

    Raises:
        ModelError: no UBJ model, or one of other columns.
    """

    def __init__(self, data: bytes, columns: Sequence[str]) -> None:
        self.data = data
        self.columns = tuple(columns)
        self._trees = _parsed(data)
        if (found := tuple(self._trees.feature_names or ())) != self.columns:
            raise ModelError(
                f"the artifact reads {', '.join(found) or 'unnamed columns'}, registered are "
                f"{', '.join(self.columns)}: train again"
            )

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

        settings = {**parameters, **_FIXED, "seed": seed}
        try:
            data = xgboost.DMatrix(matrix, labels, feature_names=list(columns), nthread=1)
            trees = xgboost.train(settings, data, num_boost_round=rounds)
        except (xgboost.core.XGBoostError, TypeError, ValueError) as error:
            raise TrainingError(
                f"XGBoost cannot train with {dict(parameters)}: {_reason(error)}. "
                "Correct the model's declaration"
            ) from error
        return cls(bytes(trees.save_raw(SUFFIX.removeprefix("."))), columns)

    def predict(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a 1 for each row. Safe to call from several threads.

        Args:
            matrix: shape (n, k), columns in the registered order; NaN is missing.

        Returns:
            Shape (n,), 0 to 1.

        Raises:
            ModelError: another number of columns, or an infinite value.
        """
        self._check(matrix)
        if not len(matrix):
            return np.empty(0, dtype=np.float64)
        answer = self._trees.inplace_predict(matrix, missing=np.nan, validate_features=False)
        return np.asarray(answer, dtype=np.float64)

    def contributions(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each feature adds to the log odds of a 1, by exact TreeSHAP.

        Args:
            matrix: as for `predict`.

        Returns:
            Shape (n, k): a row's sum and the model's mean log odds are the log odds of its answer.

        Raises:
            ModelError: another number of columns, or an infinite value.
        """
        self._check(matrix)
        if not len(matrix):
            return np.empty(matrix.shape, dtype=np.float64)
        import xgboost

        rows = xgboost.DMatrix(matrix, feature_names=list(self.columns), nthread=1)
        shares = self._trees.predict(rows, pred_contribs=True)
        # The last column is the mean.
        return np.asarray(shares[:, :-1], dtype=np.float64)

    def gain(self) -> dict[str, float]:
        """Mean improvement of the loss by the splits on each column; 0 for one never split on."""
        scores: dict[str, Any] = self._trees.get_score(importance_type="gain")
        return {column: float(scores.get(column, 0.0)) for column in self.columns}

    def _check(self, matrix: NDArray[np.float64]) -> None:
        width = len(self.columns)
        if matrix.ndim != 2 or matrix.shape[1] != width:  # noqa: PLR2004 - rows and columns
            raise ModelError(
                f"expected rows of {width} features ({', '.join(self.columns)}), "
                f"found an array of shape {matrix.shape}"
            )
        if np.isinf(matrix).any():
            raise ModelError("expected finite features or NaN for a missing one, found infinity")


def _parsed(data: bytes) -> xgboost.Booster:
    import xgboost

    if not data.startswith(_UBJ_OPENS):
        raise ModelError("the artifact is no XGBoost model in UBJ format: train again")
    try:
        return xgboost.Booster({"nthread": 1}, model_file=bytearray(data))
    except xgboost.core.XGBoostError as error:
        raise ModelError(
            f"the artifact is no XGBoost model ({_reason(error)}): train again"
        ) from error


def _reason(error: Exception) -> str:
    """What is wrong, out of a message that may hold a time, a source line and a C++ stack."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    return _SOURCE.sub("", line)
