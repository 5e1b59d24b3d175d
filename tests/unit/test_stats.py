"""Scores against their definitions, and the strategy's growth against what it must obey."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hyperfeast import stats

_sizes = st.integers(2, 40)
# Few distinct values, so that ties are common.
_tied = st.integers(-4, 4).map(lambda whole: whole / 4)


@st.composite
def _scored(draw: st.DrawFn) -> tuple[stats.Labels, stats.Floats]:
    n = draw(_sizes)
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    labels[:2] = (0, 1)
    return labels, draw(hnp.arrays(np.float64, n, elements=_tied))


@given(_scored())
def test_auc_is_the_probability_that_a_one_outranks_a_zero(
    scored: tuple[stats.Labels, stats.Floats],
) -> None:
    labels, scores = scored
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    expected = ((difference > 0) + (difference == 0) / 2).mean()
    assert stats.auc(labels, scores) == pytest.approx(expected, abs=1e-12)


@given(_scored())
def test_auc_ignores_a_monotone_map_and_turns_with_the_sign(
    scored: tuple[stats.Labels, stats.Floats],
) -> None:
    labels, scores = scored
    area = stats.auc(labels, scores)
    assert stats.auc(labels, np.exp(3 * scores) + 7) == area
    assert stats.auc(labels, -scores) == pytest.approx(1 - area, abs=1e-12)
    assert stats.auc(1 - labels, scores) == pytest.approx(1 - area, abs=1e-12)


@given(_scored())
def test_the_roc_curve_rises_from_corner_to_corner_over_the_same_area(
    scored: tuple[stats.Labels, stats.Floats],
) -> None:
    labels, scores = scored
    fpr, tpr = stats.roc_curve(labels, scores)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(fpr) >= 0)
    assert np.all(np.diff(tpr) >= 0)
    assert np.trapezoid(tpr, fpr) == pytest.approx(stats.auc(labels, scores), abs=1e-12)


@given(_scored())
def test_every_point_of_the_roc_curve_is_a_threshold(
    scored: tuple[stats.Labels, stats.Floats],
) -> None:
    labels, scores = scored
    points = {
        (
            float(np.mean(scores[labels == 0] >= threshold)),
            float(np.mean(scores[labels == 1] >= threshold)),
        )
        for threshold in [*scores, np.inf]
    }
    assert (
        set(zip(*(rates.tolist() for rates in stats.roc_curve(labels, scores)), strict=True))
        <= points
    )


def test_one_class_has_no_auc_and_a_diagonal() -> None:
    ones = np.ones(3, dtype=np.int64)
    assert math.isnan(stats.auc(ones, np.array([0.1, 0.2, 0.3])))
    assert [rates.tolist() for rates in stats.roc_curve(ones, np.arange(3.0))] == [[0, 1], [0, 1]]


@given(_scored())
def test_scores_of_complementary_forecasts_agree(
    scored: tuple[stats.Labels, stats.Floats],
) -> None:
    labels, scores = scored
    p = (scores + 1) / 2
    assert stats.brier(labels, p) == pytest.approx(stats.brier(1 - labels, 1 - p))
    assert stats.log_loss(labels, p) == pytest.approx(stats.log_loss(1 - labels, 1 - p), rel=1e-3)
    assert stats.accuracy(labels, p > 0.5) == pytest.approx(1 - stats.accuracy(1 - labels, p > 0.5))


def test_scores_by_hand() -> None:
    labels = np.array([1, 0, 1, 0])
    p = np.array([0.9, 0.2, 0.4, 0.5])
    assert stats.accuracy(labels, p > 0.5) == 0.75
    assert stats.brier(labels, p) == pytest.approx((0.01 + 0.04 + 0.36 + 0.25) / 4)
    assert stats.log_loss(labels, p) == pytest.approx(-math.log(0.9 * 0.8 * 0.4 * 0.5) / 4)
    assert stats.auc(labels, p) == 0.75


def test_the_best_constant_forecast_is_the_share_of_ones() -> None:
    labels = np.array([1, 1, 1, 0])
    losses = {p: stats.log_loss(labels, np.full(4, p)) for p in (0.5, 0.7, 0.75, 0.8)}
    assert min(losses, key=lambda p: losses[p]) == 0.75


def test_a_certain_miss_costs_much_but_not_everything() -> None:
    loss = stats.log_loss(np.array([1, 0]), np.array([0.0, 1.0]))
    assert loss == pytest.approx(-math.log(1e-15), rel=1e-2)


@st.composite
def _markets(draw: st.DrawFn) -> tuple[stats.Floats, stats.Floats, int]:
    shape = (draw(st.integers(1, 12)), draw(st.integers(1, 3)))
    signals = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0])))
    returns = draw(
        hnp.arrays(np.float64, shape, elements=st.one_of(st.floats(-0.3, 0.3), st.just(math.nan)))
    )
    return signals, returns, draw(st.integers(1, 6))


@given(_markets())
def test_a_position_is_the_mean_of_the_last_signals(
    market: tuple[stats.Floats, stats.Floats, int],
) -> None:
    signals, _, horizon = market
    positions = stats.overlapping_positions(signals, horizon)
    for session in range(len(signals)):
        recent = signals[max(0, session - horizon + 1) : session + 1]
        assert positions[session] == pytest.approx(recent.sum(axis=0) / horizon)


@given(_markets())
def test_a_position_knows_no_later_signal(market: tuple[stats.Floats, stats.Floats, int]) -> None:
    signals, _, horizon = market
    middle = len(signals) // 2
    changed = signals.copy()
    changed[middle:] = 1 - changed[middle:]
    before, after = (
        stats.overlapping_positions(one, horizon)[:middle] for one in (signals, changed)
    )
    assert np.array_equal(before, after)


@given(_markets())
def test_growth_by_its_definition(market: tuple[stats.Floats, stats.Floats, int]) -> None:
    signals, returns, horizon = market
    positions = stats.overlapping_positions(signals, horizon)
    worth, expected, weights = 1.0, [1.0], [0.0] * signals.shape[1]
    for position, row in zip(positions, returns, strict=True):
        traded = [not math.isnan(one) for one in row]
        new = [p / sum(traded) if on else 0.0 for p, on in zip(position, traded, strict=True)]
        earned = sum(w * math.expm1(r) for w, r, on in zip(new, row, traded, strict=True) if on)
        cost = 0.0005 * sum(abs(a - b) for a, b in zip(new, weights, strict=True))
        worth, weights = worth * (1 + earned - cost), new
        expected.append(worth)
    assert stats.growth(positions, returns) == pytest.approx(np.array(expected))


@given(_markets())
def test_costs_only_take(market: tuple[stats.Floats, stats.Floats, int]) -> None:
    signals, returns, horizon = market
    positions = stats.overlapping_positions(signals, horizon)
    free = stats.growth(positions, returns, cost_bps=0)
    assert np.all(stats.growth(positions, returns, cost_bps=5) <= free + 1e-12)
    assert stats.growth(np.zeros_like(positions), returns).tolist() == [1.0] * (len(returns) + 1)


def test_holding_one_symbol_grows_by_its_returns_less_one_entry() -> None:
    returns = np.array([[0.1], [-0.2], [0.05]])
    held = stats.growth(np.ones((3, 1)), returns, cost_bps=0)
    assert held == pytest.approx(np.exp([0, 0.1, -0.1, -0.05]))
    assert stats.growth(np.ones((3, 1)), 0 * returns)[-1] == pytest.approx(0.9995)
