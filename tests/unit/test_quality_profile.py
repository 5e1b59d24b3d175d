"""Statistics of features against values worked out by hand, and against their definitions."""

import math
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.features import Feature, FeatureType
from hyperfeast.quality.profile import (
    BINS,
    MonthOfNulls,
    Pair,
    association,
    months_of_nulls,
    pairs_above,
    profile,
    rank_correlations,
)

X = Feature("x", "It.", bounds=(0.0, 10.0))


def one(*values: float | None) -> pl.DataFrame:
    return pl.DataFrame({"x": values}, schema={"x": pl.Float64})


def test_a_profile_by_hand() -> None:
    found = profile(one(2, 4, 4, 4, 5, 5, 7, 9, None, None), X)
    assert (found.rows, found.nulls, found.null_rate) == (10, 2, 0.2)
    assert found.mean == 5
    # The squared distances from 5 are 9 1 1 1 0 0 4 16: 32 over seven degrees of freedom.
    assert found.std == pytest.approx(math.sqrt(32 / 7))
    assert (found.least, found.greatest) == (2, 9)
    # Linear between neighbors: the 5th percentile is 0.35 of the way from the first to the second.
    assert found.quantiles == pytest.approx((2.7, 4, 4.5, 5.5, 8.3))
    assert (found.violations, found.not_finite) == (0, 0)


def test_bounds_count_by_row_and_forgive_rounding() -> None:
    assert profile(one(0, -1e-12, 10 + 1e-9, 10.1, -0.1, None), X).violations == 2
    open_ended = Feature("x", "It.", bounds=(None, 1.0))
    assert profile(one(-1e9, 1, 2), open_ended).violations == 1
    assert profile(one(-1e9, 1, 2), Feature("x", "It.")).violations == 0
    lists = pl.DataFrame({"x": [[1.0, 2.0], [3.0, 11.0], None]})
    whole = profile(lists, Feature("x", "It.", dtype=FeatureType.FLOAT64_LIST, bounds=(0, 10)))
    assert (whole.violations, whole.nulls, whole.mean) == (1, 1, 4.25)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    found = profile(one(1, math.inf, math.nan, 3), Feature("x", "It."))
    assert (found.not_finite, found.mean, found.nulls) == (2, 2, 0)


def test_nothing_has_no_statistics() -> None:
    for rows in (one(), one(None, None)):
        found = profile(rows, X)
        assert (found.mean, found.std, found.least, found.greatest) == (None, None, None, None)
        assert (found.quantiles, found.histogram) == ((), None)
    assert profile(one(), X).null_rate is None
    assert profile(one(1), X).std is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_a_histogram_counts_every_value(values: list[float]) -> None:
    histogram = profile(one(*values), Feature("x", "It.")).histogram
    assert histogram is not None
    assert sum(histogram.counts) == len(values)
    assert len(histogram.counts) in (1, BINS)
    assert min(values) <= histogram.low <= histogram.high <= max(values)


def test_tails_count_to_the_outer_bins() -> None:
    histogram = profile(one(*range(1, 100), 1e6), Feature("x", "It.")).histogram
    assert histogram is not None
    assert histogram.high < 1e5
    # The least and the greatest lie outside of the 1st and the 99th percentile.
    assert histogram.counts[0] >= 1
    assert histogram.counts[-1] >= 1


def test_months_of_nulls_by_hand() -> None:
    rows = pl.DataFrame(
        {
            "event_timestamp": [
                datetime(2024, 1, 5, tzinfo=UTC),
                datetime(2024, 2, 1, tzinfo=UTC),
                datetime(2024, 1, 31, 23, 59, tzinfo=UTC),
            ],
            "x": [1.0, None, None],
            "y": [1.0, 2.0, 3.0],
        }
    )
    assert months_of_nulls(rows, ["x", "y"]) == [
        MonthOfNulls(date(2024, 1, 1), "x", 2, 1),
        MonthOfNulls(date(2024, 1, 1), "y", 2, 0),
        MonthOfNulls(date(2024, 2, 1), "x", 1, 1),
        MonthOfNulls(date(2024, 2, 1), "y", 1, 0),
    ]


# Correlation


def spearman(x: list[float], y: list[float]) -> float:
    """By its definition: the mid-rank of a value is one half, plus those below, plus half of those equal."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]

    p, q = ranks(x), ranks(y)
    mean_p, mean_q = sum(p) / len(p), sum(q) / len(q)
    over = sum((a - mean_p) * (b - mean_q) for a, b in zip(p, q, strict=True))
    return over / math.sqrt(sum((a - mean_p) ** 2 for a in p) * sum((b - mean_q) ** 2 for b in q))


def test_a_rank_correlation_by_hand() -> None:
    # Ranks 1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * (1 + 1 + 1 + 1 + 0) / (5 * 24) = 0.8.
    rows = pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0, 5.0], "y": [20.0, 1.0, 4e3, 30.0, 5e9]})
    found = rank_correlations(rows, ["x", "y"])
    assert found == pytest.approx(np.array([[1, 0.8], [0.8, 1]]))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40).filter(
        lambda pairs: len({x for x, _ in pairs}) > 1 and len({y for _, y in pairs}) > 1
    )
)
def test_rank_correlations_with_ties_follow_the_definition(pairs: list[tuple[int, int]]) -> None:
    x, y = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    found = rank_correlations(pl.DataFrame({"x": x, "y": y}), ["x", "y"])
    assert found[0, 1] == pytest.approx(spearman(x, y), abs=1e-12)


def test_what_does_not_vary_or_is_mostly_absent_has_no_correlation() -> None:
    rows = pl.DataFrame(
        {
            "x": [1.0, 2.0, 3.0, 4.0],
            "constant": [7.0] * 4,
            "absent": [1.0, None, None, None],
            "hole": [4.0, 3.0, 2.0, None],
        }
    )
    found = rank_correlations(rows, rows.columns)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[2]).all()
    assert found[0, 3] == pytest.approx(-1)
    assert np.isnan(rank_correlations(rows.head(2), rows.columns)).all()
    assert rank_correlations(rows, []).shape == (0, 0)


def test_pairs_come_once_and_the_strongest_first() -> None:
    matrix = np.array([[1, 0.96, -0.99], [0.96, 1, np.nan], [-0.99, np.nan, 1]])
    assert pairs_above(matrix, ["a", "b", "c"], 0.95) == [
        Pair("a", "c", -0.99),
        Pair("a", "b", 0.96),
    ]


# Leakage


def labelled(
    sessions: int, feature: str = "leak", *, symbols: int = 2, seed: int = 0
) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    returns = random.normal(size=sessions * symbols)
    first = np.datetime64("2020-01-01", "us")
    return pl.DataFrame(
        {
            "session": np.repeat(first + np.arange(sessions) * np.timedelta64(1, "D"), symbols),
            "forward_return": returns,
            "leak": returns + 0.5 * random.normal(size=len(returns)),
            "noise": random.normal(size=len(returns)),
            "constant": np.ones(len(returns)),
        }
    ).select("session", "forward_return", feature)


def held(feature: str, rows: pl.DataFrame, horizon: int = 5):  # type: ignore[no-untyped-def] # noqa: ANN201
    return association("model", horizon, feature, rows, threshold=0.3, least_score=4)


def test_a_leak_is_suspect_and_noise_is_not() -> None:
    leak = held("leak", labelled(300))
    assert leak.suspect
    assert leak.correlation == pytest.approx(0.9, abs=0.1)
    assert (leak.rows, leak.sessions) == (600, 300)
    # 300 sessions of five-session labels are 60 observations, whatever the symbols.
    assert leak.score == pytest.approx(leak.correlation * math.sqrt(59))
    assert not held("noise", labelled(300, "noise")).suspect


def test_overlapping_labels_do_not_count_as_so_many_observations() -> None:
    assert held("leak", labelled(60), horizon=1).suspect
    assert not held("leak", labelled(60), horizon=20).suspect
    assert held("leak", labelled(60), horizon=20).score == pytest.approx(
        (held("leak", labelled(60)).correlation or 0) * math.sqrt(2)
    )
    # A hundred symbols of one session are one observation.
    assert not held("leak", labelled(6, symbols=100), horizon=1).suspect


def test_a_leak_of_the_other_sign_is_one_too() -> None:
    rows = labelled(300).with_columns(-pl.col("leak"))
    assert held("leak", rows).suspect
    assert (held("leak", rows).correlation or 0) < 0


def test_what_does_not_vary_is_associated_with_nothing() -> None:
    found = held("constant", labelled(50, "constant"))
    assert (found.correlation, found.score, found.suspect) == (None, None, False)
    nothing = held("leak", labelled(50).clear())
    assert (nothing.correlation, nothing.rows, nothing.sessions) == (None, 0, 0)
