"""Labels: what they say, and that they know nothing after their end."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.training.labels import direction
from market import bars


def _closes(*closes: float) -> pl.DataFrame:
    return bars(len(closes), symbols=("AAA",)).with_columns(close=pl.Series(closes))


def test_an_example_by_hand() -> None:
    frame = _closes(100.0, 110.0, 100.0, 90.0)
    labels = direction(frame, 2)
    closes = frame["event_timestamp"]
    assert labels.columns == [
        "symbol",
        "event_timestamp",
        "label_end",
        "forward_return",
        "label",
        "last_return",
        "next_return",
    ]
    assert labels["event_timestamp"].to_list() == closes[:2].to_list()
    assert labels["label_end"].to_list() == closes[2:].to_list()
    # No change over the horizon counts as not up.
    assert labels["label"].to_list() == [0, 0]
    assert labels["forward_return"].to_list() == [0.0, math.log(90 / 110)]
    assert labels["last_return"].to_list() == [None, math.log(110 / 100)]
    assert labels["next_return"].to_list() == [math.log(110 / 100), math.log(100 / 110)]
    assert labels.schema["event_timestamp"] == pl.Datetime("us", "UTC")
    assert labels.schema["label"] == pl.Int64


def test_symbols_do_not_mix_and_order_does_not_matter() -> None:
    frame = bars(30, symbols=("AAA", "BBB", "CCC"))
    labels = direction(frame, 5)
    assert labels.height == 3 * 25
    assert_frame_equal(labels, direction(frame.sample(fraction=1, shuffle=True, seed=3), 5))
    for symbol in ("AAA", "BBB", "CCC"):
        alone = direction(frame.filter(symbol=symbol), 5)
        assert_frame_equal(labels.filter(symbol=symbol), alone)


def test_the_label_is_the_sign_of_the_return() -> None:
    labels = direction(bars(300), 5)
    assert set(labels["label"]) == {0, 1}
    assert ((labels["forward_return"] > 0) == (labels["label"] == 1)).all()


def test_a_history_no_longer_than_the_horizon_has_no_label() -> None:
    assert direction(bars(5), 5).is_empty()
    assert direction(bars(6), 5).height == 2
    assert direction(bars(6).clear(), 5).is_empty()


@given(
    after=st.integers(0, 79),
    horizon=st.integers(1, 10),
    factor=st.sampled_from([0.25, 1.5, 100.0]),
    seed=st.integers(0, 20),
)
def test_a_change_after_a_moment_changes_no_label_that_ended_by_then(
    after: int, horizon: int, factor: float, seed: int
) -> None:
    frame = bars(80, seed=seed)
    moment = datetime(2020, 1, 1, 21, tzinfo=UTC) + timedelta(days=after)
    later = pl.col("event_timestamp") > moment
    changed = frame.with_columns(
        close=pl.when(later).then(pl.col("close") * factor).otherwise("close")
    )
    known = pl.col("label_end") <= moment
    before = direction(frame, horizon)
    assert_frame_equal(
        before.filter(known), direction(changed, horizon).filter(known), check_exact=True
    )
    assert before.filter(known).height == 2 * max(0, after + 1 - horizon)
