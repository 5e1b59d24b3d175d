"""Walk-forward splits: no label of the training part reaches into the test period."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import TrainingError
from hyperfeast.splits import Rows, Times, walk_forward


def _rows(listed: list[int], sessions: int, horizon: int) -> tuple[Times, Times]:
    """Rows of symbols listed from a session on, each with a label `horizon` sessions later."""
    start = [day for first in listed for day in range(first, sessions - horizon)]
    days = np.array(start, dtype="timedelta64[D]") + np.datetime64("2020-01-01", "us")
    return days, days + np.timedelta64(horizon, "D")


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Times, Times, int, int]:
    horizon = draw(st.integers(1, 8))
    sessions = draw(st.integers(horizon + 1, 150))
    listed = draw(st.lists(st.integers(0, sessions - 1), max_size=3))
    events, ends = _rows([0, *listed], sessions, horizon)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(events))
    return events[order], ends[order], draw(st.integers(1, 6)), draw(st.integers(0, 10))


def _split(case: tuple[Times, Times, int, int]) -> list[tuple[Rows, Rows]]:
    events, ends, folds, purge = case
    try:
        return walk_forward(events, ends, folds=folds, purge=purge)
    except TrainingError:
        # Refused only where it has to be: the first block cannot hold a label and the purge.
        horizon = int((ends[0] - events[0]) / np.timedelta64(1, "D"))
        assert len(np.unique(events)) <= (folds + 1) * (horizon + purge + 1)
        return []


@given(_cases())
def test_no_training_label_touches_the_test_period_or_the_purge_before_it(
    case: tuple[Times, Times, int, int],
) -> None:
    events, ends, _, purge = case
    sessions = np.unique(events)
    for train, test in _split(case):
        first = events[test].min()
        assert ends[train].max() < first
        between = sessions[(sessions > ends[train].max()) & (sessions < first)]
        assert len(between) >= purge


@given(_cases())
def test_test_periods_are_disjoint_in_order_and_cover_all_but_the_first_block(
    case: tuple[Times, Times, int, int],
) -> None:
    events, _, folds, _ = case
    splits = _split(case)
    if not splits:
        return
    assert len(splits) == folds
    tested = np.concatenate([test for _, test in splits])
    assert len(np.unique(tested)) == len(tested)
    for (_, earlier), (_, later) in itertools.pairwise(splits):
        assert events[earlier].max() < events[later].min()
    untested = np.setdiff1d(np.arange(len(events)), tested)
    assert events[untested].max() < events[tested].min()


@given(_cases())
def test_the_training_part_only_grows_and_holds_every_row_it_may(
    case: tuple[Times, Times, int, int],
) -> None:
    events, ends, _, purge = case
    sessions = np.unique(events)
    splits = _split(case)
    for (smaller, _), (larger, _) in itertools.pairwise(splits):
        assert set(smaller) < set(larger)
    for train, test in splits:
        before = sessions[np.searchsorted(sessions, events[test].min()) - purge]
        assert set(train) == {row for row in range(len(ends)) if ends[row] < before}


def test_an_example_by_hand() -> None:
    events, ends = _rows([0], 32, 2)  # 30 rows, blocks of 10 sessions
    (train, test), (longer, last) = walk_forward(events, ends, folds=2, purge=3)
    assert test.tolist() == list(range(10, 20))
    assert train.tolist() == list(range(5))  # the label of row 4 ends at 6; 7, 8, 9 are purged
    assert last.tolist() == list(range(20, 30))
    assert longer.tolist() == list(range(15))
    assert train.dtype == test.dtype == np.intp


@pytest.mark.parametrize(("sessions", "folds"), [(0, 5), (4, 5), (30, 5), (12, 1)])
def test_too_few_sessions_are_refused(sessions: int, folds: int) -> None:
    events, ends = _rows([0], sessions, 0)
    with pytest.raises(TrainingError, match="too few"):
        walk_forward(events, ends, folds=folds, purge=6)


def test_a_label_that_ends_before_it_begins_is_refused() -> None:
    events, ends = _rows([0], 100, 5)
    ends[3] = events[3] - np.timedelta64(1, "D")
    with pytest.raises(TrainingError, match="ends before"):
        walk_forward(events, ends, folds=2, purge=5)
