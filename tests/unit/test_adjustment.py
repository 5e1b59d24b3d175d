"""Split adjustment: continuous across a split, blind to later ones."""

from datetime import date, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.adjustment import forward_adjust, split_factor
from market import bars, splits


def test_a_price_counts_in_the_shares_of_the_beginning() -> None:
    prices = bars(4, symbols=("AAA",)).with_columns(close=pl.Series([100.0, 102.0, 51.0, 52.0]))
    adjusted = forward_adjust(prices, splits(("AAA", date(2020, 1, 3), 2.0)))
    assert adjusted["close"].to_list() == [100.0, 102.0, 102.0, 104.0]
    assert adjusted["split_factor"].to_list() == [1.0, 1.0, 2.0, 2.0]


def test_volume_goes_the_other_way() -> None:
    prices = bars(2, symbols=("AAA",)).with_columns(volume=pl.Series([500.0, 1000.0]))
    adjusted = forward_adjust(prices, splits(("AAA", date(2020, 1, 2), 2.0)))
    assert adjusted["volume"].to_list() == [500.0, 500.0]


def test_splits_of_another_symbol_do_not_count() -> None:
    factor = split_factor(bars(3), splits(("BBB", date(2020, 1, 2), 3.0)))
    assert factor.to_list() == [1, 1, 1, 1, 3, 3]


def test_without_splits_nothing_changes() -> None:
    prices = bars(5)
    assert_frame_equal(forward_adjust(prices, splits()), prices, check_column_order=False)


@given(
    days=st.lists(st.integers(1, 39), min_size=0, max_size=4, unique=True),
    ratios=st.lists(st.sampled_from([2.0, 3.0, 1.5, 0.5, 7.0]), min_size=4, max_size=4),
    known=st.integers(0, 39),
)
def test_a_later_split_changes_no_earlier_row(
    days: list[int], ratios: list[float], known: int
) -> None:
    prices = bars(40, symbols=("AAA",))
    first = date(2020, 1, 1)
    all_splits = [
        ("AAA", first + timedelta(days=day), ratio)
        for day, ratio in zip(sorted(days), ratios, strict=False)
    ]
    known_splits = [one for one in all_splits if one[1] <= first + timedelta(days=known)]
    now = forward_adjust(prices, splits(*all_splits)).head(known + 1)
    then = forward_adjust(prices, splits(*known_splits)).head(known + 1)
    assert_frame_equal(now, then, check_exact=True)
