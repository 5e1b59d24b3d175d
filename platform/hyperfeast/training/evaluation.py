"""How well a model would have done: walk-forward forecasts next to those of two baselines.

Each fold's model and baselines know only the rows before its test period. The baselines:

- always_up says up every time, with the share of ups in the training part as its probability;
- yesterday_sign says up if the last session rose, with the share of ups that followed such a
  session in the training part as its probability.

Of a deviation they are base_rate, which says what was more frequent in the training part, with its share
as the probability; and persistence, which says of tomorrow what was so today, with the share that followed
such a day.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast import stats
from hyperfeast.errors import TrainingError
from hyperfeast.models import ModelSpec
from hyperfeast.models.booster import Booster
from hyperfeast.splits import Rows, walk_forward
from hyperfeast.training.dataset import Dataset

MODEL = "model"
COST_BPS = 5.0

Floats = NDArray[np.float64]

_OOS = ("symbol", "event_timestamp", "proba", "label")
_RETURNS = ("forward_return", "next_return")


@dataclass(frozen=True)
class Equity:
    """What 1 is worth at each session's close, out of sample.

    Attributes:
        dates: n closes, UTC, ascending; of a session with several, the last.
        signal: n values: following the forecasts; the first is 1.
        buy_and_hold: n values: holding every symbol all the time.
    """

    dates: list[datetime]
    signal: list[float]
    buy_and_hold: list[float]


@dataclass(frozen=True)
class Roc:
    """The pooled ROC curve's corners.

    Attributes:
        false_positive_rate: n shares, ascending.
        true_positive_rate: n shares, ascending.
        auc: the area under it; None where only one class was seen.
    """

    false_positive_rate: list[float]
    true_positive_rate: list[float]
    auc: float | None


@dataclass(frozen=True)
class Fold:
    """One step of the walk forward.

    Attributes:
        booster: trained on the rows before the test period.
        test: the rows of the test period, as indices into the dataset's.
    """

    booster: Booster
    test: Rows


@dataclass(frozen=True)
class Evaluation:
    """Out-of-sample results.

    Attributes:
        metrics: JSON without NaN: `pooled` and `folds` with the scores of model and baselines,
            `strategy` with the final worth of 1, `rows`. A score that does not exist is null.
        oos: symbol, event_timestamp, proba, label of every test row; of prices forward_return, next_return.
        roc: of the model, over all test rows.
        equity: of the model's strategy, and of buy-and-hold; None where nothing is traded.
        folds: the models that made the forecasts, in time order.
    """

    metrics: dict[str, Any]
    oos: pl.DataFrame
    roc: Roc
    equity: Equity | None
    folds: tuple[Fold, ...]


@dataclass(frozen=True)
class _Forecast:
    """Of the test rows: the probability of a 1, and whether 1 is predicted."""

    proba: NDArray[np.float64]
    up: NDArray[np.bool_]

    def scores(self, labels: NDArray[np.int64]) -> dict[str, float | None]:
        scores = {
            "accuracy": stats.accuracy(labels, self.up),
            "auc": stats.auc(labels, self.proba),
            "log_loss": stats.log_loss(labels, self.proba),
            "brier": stats.brier(labels, self.proba),
        }
        return {name: value if math.isfinite(value) else None for name, value in scores.items()}


def evaluate(dataset: Dataset, spec: ModelSpec, bars: pl.DataFrame) -> Evaluation:
    """Train and test once a fold, and pool the test rows.

    Args:
        dataset: labels and features.
        spec: the model.
        bars: symbol, ts and event_timestamp of all bars: they date the equity curve, if the label is of prices.

    Raises:
        TrainingError: too few sessions for the folds, or a training part of one class.
    """
    folds = walk_forward(
        dataset.times("event_timestamp"),
        dataset.times("label_end"),
        folds=spec.folds,
        purge=spec.horizon,
    )
    boosters = [
        _trained(dataset, spec, train, fold) for fold, (train, _) in enumerate(folds, start=1)
    ]
    forecasts = [
        _forecasts(dataset, booster, train, test)
        for booster, (train, test) in zip(boosters, folds, strict=True)
    ]
    pooled = {
        name: _Forecast(
            np.concatenate([forecast[name].proba for forecast in forecasts]),
            np.concatenate([forecast[name].up for forecast in forecasts]),
        )
        for name in forecasts[0]
    }
    tested = np.concatenate([test for _, test in folds])
    labels = dataset.labels[tested]
    traded = _RETURNS[0] in dataset.rows.columns
    columns = (*_OOS, *_RETURNS) if traded else _OOS
    oos = dataset.rows[tested].with_columns(proba=pooled[MODEL].proba).select(columns)
    equity = equity_curve(oos, spec.horizon, bars) if traded else None
    scores = {name: forecast.scores(labels) for name, forecast in pooled.items()}
    fpr, tpr = stats.roc_curve(labels, pooled[MODEL].proba)
    metrics = {
        "pooled": scores,
        "folds": [
            _fold_metrics(dataset, train, test, forecast)
            for (train, test), forecast in zip(folds, forecasts, strict=True)
        ],
        **({"strategy": _strategy(equity)} if equity else {}),
        "rows": {"used": dataset.rows.height, "cold": dataset.cold, "out_of_sample": oos.height},
    }
    return Evaluation(
        metrics,
        oos,
        Roc(fpr.tolist(), tpr.tolist(), scores[MODEL]["auc"]),
        equity,
        tuple(Fold(booster, test) for booster, (_, test) in zip(boosters, folds, strict=True)),
    )


def _strategy(equity: Equity) -> dict[str, float]:
    return {
        "signal": equity.signal[-1],
        "buy_and_hold": equity.buy_and_hold[-1],
        "cost_bps": COST_BPS,
        "sessions": len(equity.dates) - 1,
    }


def equity_curve(oos: pl.DataFrame, horizon: int, bars: pl.DataFrame) -> Equity:
    """What 1 becomes by following the forecasts, and by holding every symbol all the time.

    At each close a symbol is held for its next session with the mean of the last `horizon` signals of
    its own sessions (long above a probability of one half, else flat); equal weight, costs on
    turnover, as in `stats.growth`. Sessions of one date stand side by side, whenever they close. On a
    date without a session of its own a symbol is held as it is and earns nothing.

    Args:
        oos: symbol, event_timestamp, proba and next_return, at least one row.
        horizon: sessions that a forecast looks ahead.
        bars: symbol, ts and event_timestamp of every row and of the session after the last.
    """
    dated = bars.select("symbol", "event_timestamp", pl.col("ts").dt.date().alias("session"))
    rows = oos.join(dated, on=["symbol", "event_timestamp"], how="left")
    sessions, session = np.unique(rows["session"].to_physical().to_numpy(), return_inverse=True)
    symbols, symbol = np.unique(rows["symbol"].to_numpy(), return_inverse=True)

    def by_session(values: pl.Series) -> Floats:
        grid = np.full((len(sessions), len(symbols)), np.nan)
        grid[session, symbol] = values.to_numpy()
        return grid

    returns = by_session(rows["next_return"])
    signals = by_session((rows["proba"] > 0.5).cast(pl.Float64))  # noqa: PLR2004 - even odds
    between = _between_sessions(np.isfinite(returns))
    positions = _carried(_own_positions(signals, horizon), between)
    returns[between] = 0.0
    return Equity(
        dates=_closes(dated, rows["session"]),
        signal=stats.growth(positions, returns, cost_bps=COST_BPS).tolist(),
        buy_and_hold=stats.growth(np.ones_like(returns), returns, cost_bps=COST_BPS).tolist(),
    )


def _own_positions(signals: Floats, horizon: int) -> Floats:
    """`stats.overlapping_positions` of each symbol over the sessions that it has; NaN elsewhere."""
    positions = np.full_like(signals, np.nan)
    for symbol in range(signals.shape[1]):
        own = np.isfinite(signals[:, symbol])
        positions[own, symbol] = stats.overlapping_positions(signals[own, symbol, None], horizon)[
            :, 0
        ]
    return positions


def _between_sessions(traded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a symbol has no session, but had one before and has one after."""
    begun = np.logical_or.accumulate(traded, axis=0)
    unfinished = np.logical_or.accumulate(traded[::-1], axis=0)[::-1]
    return np.asarray(begun & unfinished & ~traded, dtype=np.bool_)


def _carried(positions: Floats, between: NDArray[np.bool_]) -> Floats:
    """Positions with those of the session before where there is none of its own."""
    rows = np.arange(len(positions))[:, None]
    latest = np.maximum.accumulate(np.where(between, 0, rows), axis=0)
    return np.asarray(np.take_along_axis(positions, latest, axis=0), dtype=np.float64)


def _closes(dated: pl.DataFrame, sessions: pl.Series) -> list[datetime]:
    """When each of these sessions, and the one after the last, has closed for every symbol."""
    closes = dated.group_by("session").agg(pl.col("event_timestamp").max()).sort("session")
    seen = closes.filter(pl.col("session").is_in(sessions.unique().implode()))
    after = closes.filter(pl.col("session") > sessions.max()).head(1)
    return [*seen["event_timestamp"], *after["event_timestamp"]]


def _trained(dataset: Dataset, spec: ModelSpec, train: Rows, fold: int) -> Booster:
    labels = dataset.labels[train]
    if labels.min() == labels.max():
        raise TrainingError(
            f"fold {fold}: all {len(train)} rows before the test period have the label {labels[0]}, "
            "expected both. Ingest a longer history, or declare fewer folds"
        )
    return Booster.fit(
        dataset.matrix[train],
        labels,
        dataset.columns,
        parameters=spec.parameters,
        rounds=spec.rounds,
        seed=spec.seed,
    )


def _forecasts(dataset: Dataset, booster: Booster, train: Rows, test: Rows) -> dict[str, _Forecast]:
    labels = dataset.labels[train]
    proba = booster.predict(dataset.matrix[test])
    ups = float(labels.mean())
    if "persists" in dataset.rows.columns:
        today = dataset.rows["persists"].fill_null(value=False).to_numpy()
        always = ("base_rate", np.full(len(test), ups > 0.5))  # noqa: PLR2004 - even odds
        as_today = "persistence"
    else:
        today = dataset.rows["last_return"].fill_null(0.0).to_numpy() > 0
        always = ("always_up", np.ones(len(test), dtype=np.bool_))
        as_today = "yesterday_sign"
    after_one, after_none = (
        float(labels[today[train] == sign].mean()) if np.any(today[train] == sign) else ups
        for sign in (True, False)
    )
    return {
        MODEL: _Forecast(proba, proba > 0.5),  # noqa: PLR2004 - even odds
        always[0]: _Forecast(np.full(len(test), ups), always[1]),
        as_today: _Forecast(np.where(today[test], after_one, after_none), today[test]),
    }


def _fold_metrics(
    dataset: Dataset, train: Rows, test: Rows, forecasts: dict[str, _Forecast]
) -> dict[str, Any]:
    labels = dataset.labels[test]
    return {
        "train_rows": len(train),
        "train_label_end": _iso(dataset.rows["label_end"][train].max()),
        "test_rows": len(test),
        "test_first": _iso(dataset.rows["event_timestamp"][test].min()),
        "test_last": _iso(dataset.rows["event_timestamp"][test].max()),
        **{name: forecast.scores(labels) for name, forecast in forecasts.items()},
    }


def _iso(moment: object) -> str:
    return cast("datetime", moment).isoformat()
