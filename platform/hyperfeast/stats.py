"""Scores of a forecast, and what following it would have earned. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

_CLIP = 1e-15


def accuracy(labels: Labels, predictions: NDArray[np.bool_]) -> float:
    """Share of rows whose predicted class is the label.

    Args:
        labels: shape (n,), 0 or 1; n >= 1.
        predictions: shape (n,), whether 1 is predicted.
    """
    return float(np.mean((labels == 1) == predictions))


def auc(labels: Labels, scores: Floats) -> float:
    """Area under the ROC curve: P(score of a 1 > score of a 0) + P(equal) / 2.

    By the rank sum with mid-ranks for ties (Hanley & McNeil, Radiology 143, 1982; Mann & Whitney, 1947).

    Args:
        labels: shape (n,), 0 or 1.
        scores: shape (n,), higher means likelier 1; any monotone scale.

    Returns:
        0 to 1; NaN if the labels are all of one class, where no such probability exists.
    """
    positives = int(np.count_nonzero(labels == 1))
    negatives = len(labels) - positives
    if not positives or not negatives:
        return float("nan")
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(size) - (size - 1) / 2
    rank_sum = float(mid_rank[group][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(labels: Labels, probabilities: Floats) -> float:
    """Mean of -ln of the probability given to what happened (Good, 1952); nats, lower is better.

    Probabilities are clipped to [1e-15, 1 - 1e-15], so that one certain miss stays finite.

    Args:
        labels: shape (n,), 0 or 1; n >= 1.
        probabilities: shape (n,), of a 1.
    """
    p = np.clip(probabilities, _CLIP, 1 - _CLIP)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))


def brier(labels: Labels, probabilities: Floats) -> float:
    """Mean squared distance of the probability from what happened (Brier, 1950); lower is better.

    Args:
        labels: shape (n,), 0 or 1; n >= 1.
        probabilities: shape (n,), of a 1.
    """
    return float(np.mean((probabilities - labels) ** 2))


def roc_curve(labels: Labels, scores: Floats) -> tuple[Floats, Floats]:
    """The corners of the ROC curve, from (0, 0) to (1, 1) (Fawcett, 2006).

    Points on a straight line between two others are left out: the curve and its area stay the same.

    Args:
        labels: shape (n,), 0 or 1.
        scores: shape (n,), higher means likelier 1.

    Returns:
        False positive rates and true positive rates, shape (m,) each, ascending; the diagonal if
        the labels are all of one class.
    """
    positive = labels == 1
    if positive.all() or not positive.any():
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    _, group = np.unique(-scores, return_inverse=True)
    hits = np.concatenate(([0], np.cumsum(np.bincount(group[positive], minlength=group.max() + 1))))
    misses = np.concatenate(
        ([0], np.cumsum(np.bincount(group[~positive], minlength=group.max() + 1)))
    )
    turn = np.diff(hits[:-1]) * np.diff(misses[1:]) != np.diff(hits[1:]) * np.diff(misses[:-1])
    corner = np.concatenate(([True], turn, [True]))
    return misses[corner] / misses[-1], hits[corner] / hits[-1]


def overlapping_positions(signals: Floats, horizon: int) -> Floats:
    """Positions that hold every signal for `horizon` sessions, in as many tranches.

    Each session's signal opens one tranche of 1 / horizon of the capital, held `horizon` sessions, so
    the position is the mean of the last `horizon` signals (Jegadeesh & Titman, 1993). Before there
    are that many, the tranches not yet opened are cash.

    Args:
        signals: shape (sessions, symbols), 1 long or 0 flat; NaN where there is none: flat.
        horizon: sessions that a forecast looks ahead.

    Returns:
        Shape (sessions, symbols), 0 to 1: held from that session's close to the next one's.
    """
    filled = np.nan_to_num(signals, nan=0.0)
    opened = np.vstack([np.zeros((horizon, filled.shape[1])), np.cumsum(filled, axis=0)])
    return np.asarray((opened[horizon:] - opened[:-horizon]) / horizon, dtype=np.float64)


def growth(positions: Floats, next_returns: Floats, *, cost_bps: float = 5.0) -> Floats:
    """What 1 becomes under these positions, with equal weight on every symbol of a session.

    Weights are set at each close; turnover is the sum of the absolute changes of the target
    weights, so drift between sessions is rebalanced free of charge. Positions of 1 throughout are
    buy-and-hold under the same rule.

    Args:
        positions: shape (sessions, symbols), share of a symbol's weight held to the next close.
        next_returns: shape (sessions, symbols), log return from this close to the next one; NaN
            where the symbol has no such session: it takes no weight then.
        cost_bps: cost of trading, in basis points of what is bought or sold.

    Returns:
        Shape (sessions + 1,): 1 at the first close, then the worth at each next close.
    """
    traded = np.isfinite(next_returns)
    symbols = np.maximum(traded.sum(axis=1, keepdims=True), 1)
    weights = np.where(traded, positions, 0.0) / symbols
    earned = (weights * np.expm1(np.where(traded, next_returns, 0.0))).sum(axis=1)
    turnover = np.abs(np.diff(weights, axis=0, prepend=0.0)).sum(axis=1)
    worth = np.cumprod(1 + earned - turnover * cost_bps / 10_000)
    return np.concatenate(([1.0], worth))
