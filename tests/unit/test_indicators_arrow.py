"""Rules that are Python functions over Arrow batches."""

from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from polars.testing import assert_frame_equal

from hyperfeast.errors import FeatureError
from hyperfeast.indicators import column, evaluate, python
from hyperfeast.types import Timeframe
from market import bars


def spread(batch: pa.RecordBatch) -> pa.Array:
    """High less low; null where a bar stood still."""
    width = pc.subtract(batch["high"], batch["low"])
    return pc.if_else(pc.greater(width, 0), width, None)


def typical(batch: pa.RecordBatch) -> pa.Array:
    return pc.divide(pc.add(pc.add(batch["high"], batch["low"]), batch["close"]), 3)


def too_few(batch: pa.RecordBatch) -> pa.Array:
    return batch["close"].slice(1)


def words(batch: pa.RecordBatch) -> pa.Array:
    return pa.array(["a"] * batch.num_rows)


def numpy(batch: pa.RecordBatch) -> pa.Array:
    return batch["close"].to_numpy()  # type: ignore[return-value]


PRICES = bars(700)


def computed(rule: object, since: datetime | None = None) -> pl.DataFrame:
    every = dict.fromkeys(("AAA", "BBB"), since) if since else None
    return evaluate({"value": rule}, PRICES, Timeframe.D1, since=every)  # type: ignore[arg-type, dict-item]


def test_it_is_what_the_function_gives() -> None:
    found = computed(python(spread, columns=("high", "low"), lookback=2))
    expected = computed(column("high") - column("low"))["value"]
    firsts = found.with_columns(place=pl.int_range(pl.len()).over("symbol"))["place"] < 2
    assert found["value"].filter(firsts).null_count() == 4
    assert found["value"].filter(~firsts).equals(expected.filter(~firsts))


def test_it_is_a_rule_among_others() -> None:
    rule = column("close") / python(typical, columns=("high", "low", "close"), lookback=0)
    assert computed(rule)["value"].null_count() == 0
    assert rule.columns == {"high", "low", "close"}


def test_a_part_of_it_is_the_same_to_the_last_bit() -> None:
    rule = python(typical, columns=("high", "low", "close"), lookback=3, warm_up=9)
    since = datetime(2021, 3, 1, tzinfo=UTC)
    later = computed(rule, since)
    assert 0 < later.height < 1400
    whole = computed(rule).filter(pl.col("ts") >= since)
    assert_frame_equal(later, whole, check_exact=True)


def test_another_source_is_another_rule() -> None:
    def texts(*functions: object) -> set[str]:
        return {python(one, columns=("close",), lookback=0).text for one in functions}  # type: ignore[arg-type]

    assert len(texts(spread, typical, too_few)) == 3
    assert texts(spread) == texts(spread)
    assert python(spread, columns=("close",), lookback=1).text not in texts(spread)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (too_few, "too_few: expected an Arrow array of .* numbers, found .* values"),
        (words, "words: expected numbers, found string"),
        (numpy, "numpy: expected an Arrow array of .* numbers, found ndarray"),
    ],
)
def test_what_is_no_number_a_bar_is_named(function: object, expected: str) -> None:
    rule = python(function, columns=("close",), lookback=0)  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match=expected):
        computed(rule)


def test_what_its_source_does_not_tell_is_refused() -> None:
    factor = 2.0

    def closed(batch: pa.RecordBatch) -> pa.Array:
        return pc.multiply(batch["close"], factor)

    for one in (closed, lambda batch: batch["close"], abs):
        with pytest.raises(FeatureError, match=r"source does not show, .* write it with `def`"):
            python(one, columns=("close",), lookback=0)
    with pytest.raises(FeatureError, match="spread reads vwap: bars have open"):
        python(spread, columns=("vwap",), lookback=0)
    with pytest.raises(FeatureError, match="a warm-up of 2 bars is less than its lookback of 3"):
        python(spread, columns=("low",), lookback=3, warm_up=2)
