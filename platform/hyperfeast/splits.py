"""Walk-forward splits in which no label of the training part is known only in the test period."""

import numpy as np
from numpy.typing import NDArray

from hyperfeast.errors import TrainingError

Times = NDArray[np.datetime64]
Rows = NDArray[np.intp]


def walk_forward(
    event_timestamps: Times, label_ends: Times, *, folds: int = 5, purge: int
) -> list[tuple[Rows, Rows]]:
    """Split rows into an expanding training part and the test period that follows it, `folds` times.

    The sessions (unique event timestamps over all symbols) are cut into `folds` + 1 blocks of equal
    length; each block but the first is a test period once. A row trains only if its whole label
    interval [event_timestamp, label_end] lies before the test period and before the `purge`
    sessions that precede it (López de Prado, Advances in Financial Machine Learning, 2018, 7.4).

    Args:
        event_timestamps: shape (n,), UTC; from when each row's features were known.
        label_ends: shape (n,), UTC; when each row's label became known.
        folds: number of test periods.
        purge: sessions before each test period that no training row or label may touch.

    Returns:
        One pair (train rows, test rows) a fold, in time order: indices into the arguments, ascending.

    Raises:
        TrainingError: too few sessions for that many folds, or a label that ends before it begins.
    """
    if np.any(label_ends < event_timestamps):
        raise TrainingError(
            "a label must end after its event timestamp, and at least one ends before it: "
            "check the bars' session closes"
        )
    sessions = np.unique(event_timestamps)
    blocks = np.array_split(np.arange(len(sessions)), folds + 1)
    return [_fold(sessions, block, event_timestamps, label_ends, purge) for block in blocks[1:]]


def _fold(
    sessions: Times, block: Rows, event_timestamps: Times, label_ends: Times, purge: int
) -> tuple[Rows, Rows]:
    if not len(block) or block[0] < purge:
        raise _too_few(len(sessions))
    first, last = sessions[block[0]], sessions[block[-1]]
    train = np.flatnonzero(label_ends < sessions[block[0] - purge])
    if not len(train):
        raise _too_few(len(sessions))
    test = np.flatnonzero((event_timestamps >= first) & (event_timestamps <= last))
    return train, test


def _too_few(sessions: int) -> TrainingError:
    return TrainingError(
        f"{sessions} sessions are too few for this walk-forward split: the first fold has nothing "
        "to train on. Ingest a longer history, or declare fewer folds"
    )
