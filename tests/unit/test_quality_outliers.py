"""Outlier scores: spikes are found, splits are not, and nothing looks ahead."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.errors import UsageError
from hyperfeast.quality import OutlierRules
from hyperfeast.quality.outliers import score

RULES = OutlierRules(window=30, least=10)
START = datetime(2020, 1, 1, tzinfo=UTC)


def bars(closes: list[float], symbol: str = "AAA", factor: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": symbol,
            "ts": [START + timedelta(days=day) for day in range(len(closes))],
            "close": closes,
            "factor": factor,
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )


def walk(length: int = 200, seed: int = 0, step: float = 0.01) -> list[float]:
    random = np.random.default_rng(seed)
    return list(100 * np.exp(random.normal(0, step, length).cumsum()))


def flagged(found: pl.DataFrame, method: str) -> list[int]:
    days = found.filter(pl.col("method") == method)["ts"]
    return [(day - START).days for day in days]


@pytest.mark.parametrize("times", [10.0, 0.1, 1.3])
@pytest.mark.parametrize("place", [40, 120, 198])
def test_an_injected_spike_is_found(times: float, place: int) -> None:
    closes = walk()
    assert score(bars(closes), RULES).is_empty()
    closes[place] *= times
    found = score(bars(closes), RULES)
    # The return back is as large: only the later neighbor tells which of the two is wrong.
    assert flagged(found, "robust_z") == [place, place + 1]
    assert flagged(found, "neighbor_jump") == [place]
    assert found["score"].sign()[0] == (1 if times > 1 else -1)


def test_a_lasting_move_is_no_jump_against_its_neighbors() -> None:
    closes = walk()
    found = score(bars(closes[:100] + [3 * close for close in closes[100:]]), RULES)
    assert flagged(found, "robust_z") == [100]
    assert flagged(found, "neighbor_jump") == []


def test_a_split_is_no_outlier() -> None:
    closes = walk()
    split = bars(closes[:100] + [close / 7 for close in closes[100:]])
    assert flagged(score(split, RULES), "robust_z") == [100]
    adjusted = split.with_columns(
        factor=pl.when(pl.int_range(pl.len()) >= 100).then(7.0).otherwise(1.0)
    )
    assert score(adjusted, RULES).is_empty()


def test_flags_rest_on_the_bars_that_they_name() -> None:
    closes = walk()
    closes[50] *= 5
    found = score(bars(closes), RULES)
    later = {"robust_z": 0, "neighbor_jump": 1}
    for row in found.iter_rows(named=True):
        assert row["rests_on"] - row["ts"] == timedelta(days=later[row["method"]])


@given(
    st.integers(0, 2**32 - 1),
    st.integers(40, 150),
    st.lists(st.tuples(st.integers(0, 149), st.sampled_from([0.2, 5.0])), max_size=4),
)
def test_later_bars_change_no_earlier_flag(
    seed: int, known: int, spikes: list[tuple[int, float]]
) -> None:
    closes = walk(150, seed)
    for place, times in spikes:
        closes[place] *= times
    whole, then = score(bars(closes), RULES), score(bars(closes[:known]), RULES)
    last = START + timedelta(days=known - 1)
    # Whatever rests on bars up to then is the same then and later; and all that was known then is that.
    assert_frame_equal(whole.filter(pl.col("rests_on") <= last), then)
    robust = pl.col("method") == "robust_z"
    assert_frame_equal(whole.filter(robust & (pl.col("ts") <= last)), then.filter(robust))


def test_symbols_do_not_mix() -> None:
    dear, cheap = bars(walk(seed=1), "AAA"), bars([c / 1e4 for c in walk(seed=2)], "BBB")
    assert score(pl.concat([dear, cheap]), RULES).is_empty()


def test_what_did_not_move_is_flagged_for_a_jump_and_not_for_a_tick() -> None:
    still = [100.0] * 60
    assert score(bars([*still, 100.5]), RULES).is_empty()
    assert flagged(score(bars([*still, 1000.0]), RULES), "robust_z") == [60]


def test_too_little_history_is_not_judged() -> None:
    assert score(bars([100.0] * 10 + [1000.0]), RULES).is_empty()


@pytest.mark.parametrize(
    "numbers",
    [
        {"window": 5},
        {"least": 1},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"least_scale": -1.0},
    ],
)
def test_rules_that_make_no_sense_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected a"):
        OutlierRules(**numbers)  # type: ignore[arg-type]
