"""Exact moments: merging, parting and order change no bit, and the deviation is the textbook's."""

import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.baselines.moments import Moments, pooled_std
from hyperfeast.errors import DataError

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)
samples = st.lists(numbers, max_size=30)


@given(samples, samples)
def test_merging_is_recomputing(one: list[float], other: list[float]) -> None:
    assert Moments.of(one) + Moments.of(other) == Moments.of([*other, *one])


@given(samples, samples)
def test_taking_out_is_recomputing(stays: list[float], goes: list[float]) -> None:
    assert Moments.of([*goes, *stays]) - Moments.of(goes) == Moments.of(stays)


@given(st.lists(numbers, min_size=2, max_size=30))
def test_mean_and_deviation_are_the_textbooks(values: list[float]) -> None:
    moments = Moments.of(values)
    assert moments.mean == float(sum(map(Fraction, values)) / len(values))
    assert moments.std == pytest.approx(statistics.stdev(values), rel=1e-15, abs=1e-160)


@given(st.lists(st.lists(numbers, max_size=9), max_size=4))
def test_the_pooled_deviation_is_that_around_each_groups_mean(groups: list[list[float]]) -> None:
    freedom = sum(max(len(group) - 1, 0) for group in groups)
    expected = None
    if freedom:
        within = sum(
            sum(
                (Fraction(value) - Fraction(sum(map(Fraction, group)), len(group))) ** 2
                for value in group
            )
            for group in groups
            if group
        )
        expected = math.sqrt(within / freedom)
    found = pooled_std(map(Moments.of, groups))
    assert found == (expected if expected is None else pytest.approx(expected, rel=1e-15))


def test_a_small_spread_around_a_large_mean_is_not_lost() -> None:
    moments = Moments.of([1e15, 1e15 + 1, 1e15 + 2])
    assert (moments.mean, moments.std) == (1e15 + 1, 1.0)


def test_of_too_few_there_is_none() -> None:
    assert (Moments().mean, Moments().std, Moments.of([3.0]).std) == (None, None, None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="expected a finite reading"):
        Moments.of([1.0, bad])
