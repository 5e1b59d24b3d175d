"""Importance against what follows from the definitions: stumps by hand, shuffles in expectation."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfeast.errors import ModelError
from hyperfeast.models import Booster
from hyperfeast.training import importance
from hyperfeast.training.dataset import Dataset
from hyperfeast.training.evaluation import Fold
from hyperfeast.training.importance import Importance, Method

COLUMNS = ("signal", "noise", "never")
ROWS = 400


def dataset(seed: int = 0, rows: int = ROWS) -> Dataset:
    """A label that follows the first column, mostly; the third is one number throughout."""
    random = np.random.default_rng(seed)
    matrix = np.column_stack(
        [random.normal(size=rows), random.normal(size=rows), np.full(rows, 3.0)]
    )
    labels = (matrix[:, 0] + 0.3 * random.normal(size=rows) > 0).astype(np.int64)
    return Dataset(pl.DataFrame({"label": labels}), COLUMNS, matrix, cold=0)


def fitted(data: Dataset, *, rounds: int = 20, **parameters: float | str) -> Booster:
    return Booster.fit(
        data.matrix,
        data.labels,
        data.columns,
        parameters={"max_depth": 2, "eta": 0.3, **parameters},
        rounds=rounds,
        seed=1,
    )


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


# shap


@given(seed=st.integers(0, 1000))
@settings(max_examples=15)
def test_contributions_add_up_to_the_answer(seed: int) -> None:
    data = dataset(seed)
    booster = fitted(data)
    gaps = data.matrix.copy()
    gaps[::7, 0] = np.nan
    whole = logit(booster.predict(gaps)) - booster.contributions(gaps).sum(axis=1)
    # What is left is the same for every row: the model's mean.
    assert whole == pytest.approx(np.full(len(gaps), whole[0]), abs=1e-4)


def test_the_contribution_of_a_stump_by_hand() -> None:
    """One split: a row's share is its leaf less the mean of the leaves, weighted by their covers."""
    data = dataset()
    booster = fitted(data, rounds=1, max_depth=1, min_child_weight=0)
    answers = logit(booster.predict(data.matrix))
    low, high = np.unique(answers.round(6))
    shares = booster.contributions(data.matrix)
    assert (shares[:, 1:] == 0).all()
    # At the first round every row's weight is p (1 - p) at the base score: covers are counts.
    share_of_high = float((answers.round(6) == high).mean())
    mean = share_of_high * high + (1 - share_of_high) * low
    assert shares[:, 0] == pytest.approx(answers - mean, abs=1e-5)
    assert importance.shap(booster, data, seed=0) == pytest.approx(
        {"signal": float(np.abs(answers - mean).mean()), "noise": 0, "never": 0}, abs=1e-5
    )


def test_contributions_refuse_what_predict_refuses() -> None:
    booster = fitted(dataset())
    with pytest.raises(ModelError, match="expected rows of 3 features"):
        booster.contributions(np.zeros((1, 2)))
    with pytest.raises(ModelError, match="found infinity"):
        booster.contributions(np.full((1, 3), np.inf))
    assert booster.contributions(np.zeros((0, 3))).shape == (0, 3)


# permutation


def expected_rise(data: Dataset, fold: Fold, column: int) -> float:
    """The mean over all pairs of rows: one's label and features, the other's value of the column."""
    rows = data.matrix[fold.test]
    labels = data.labels[fold.test]

    def loss(label: int, p: float) -> float:
        return -math.log(p if label else 1 - p)

    base = np.mean([loss(y, p) for y, p in zip(labels, fold.booster.predict(rows), strict=True)])
    total = 0.0
    for value in rows[:, column]:
        changed = rows.copy()
        changed[:, column] = value
        answers = fold.booster.predict(changed)
        total += float(np.mean([loss(y, p) for y, p in zip(labels, answers, strict=True)]))
    return total / len(rows) - float(base)


def test_the_rise_of_the_loss_is_that_of_all_pairs_in_expectation() -> None:
    data = dataset()
    fold = Fold(fitted(data), np.arange(0, ROWS, 4))
    found = importance.permutation(data, [fold], seed=3, repeats=200)
    for column, feature in enumerate(COLUMNS[:2]):
        assert found[feature] == pytest.approx(expected_rise(data, fold, column), rel=0.1, abs=0.01)
    assert found["never"] == 0
    assert found["signal"] > 10 * abs(found["noise"])


def test_folds_are_pooled_and_shuffled_within_themselves() -> None:
    """Shuffled across folds, a column that is one number in each would matter; within them it cannot."""
    data = dataset()
    matrix = data.matrix.copy()
    matrix[:, 0] = np.where(np.arange(ROWS) < ROWS // 2, -1.0, 1.0)
    apart = Dataset(data.rows, data.columns, matrix, cold=0)
    booster = fitted(apart)
    halves = np.array_split(np.arange(ROWS), 2)
    found = importance.permutation(apart, [Fold(booster, half) for half in halves], seed=1)
    assert found["signal"] == 0


def test_the_same_seed_measures_the_same() -> None:
    data = dataset()
    booster, folds = fitted(data), [Fold(fitted(data), np.arange(100))]
    first, again, other = (
        importance.measure(booster, data, folds, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_ranks_go_by_value_and_then_by_name() -> None:
    data = dataset()
    found = importance.measure(fitted(data), data, [Fold(fitted(data), np.arange(100))], seed=5)
    assert {one.method for one in found} == set(Method)
    for method in Method:
        own = [one for one in found if one.method is method]
        assert [one.rank for one in own] == [1, 2, 3]
        assert own == sorted(own, key=lambda one: (-one.value, one.feature))
        assert own[0].feature == "signal"
    equal = importance._ranked(Method.GAIN, {"b": 0.0, "a": 0.0, "c": 1.0})
    assert equal == [
        Importance("c", Method.GAIN, 1.0, 1),
        Importance("a", Method.GAIN, 0.0, 2),
        Importance("b", Method.GAIN, 0.0, 3),
    ]


def test_many_rows_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_MOST_ROWS", 60)
    monkeypatch.setattr(importance, "_MOST_EXPLAINED", 50)
    data = dataset()
    booster = fitted(data)
    folds = [Fold(booster, half) for half in np.array_split(np.arange(ROWS), 2)]
    found = importance.measure(booster, data, folds, seed=5)
    assert found == importance.measure(booster, data, folds, seed=5)
    assert next(one for one in found if one.method is Method.SHAP).feature == "signal"
