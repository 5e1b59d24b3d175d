"""The rules: equal to TA-Lib, null until warm, blind to the future, untouched by a split."""

from datetime import date

import numpy as np
import polars as pl
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.adjustment import forward_adjust
from hyperfeast.features import Feature
from hyperfeast.features.compute import over_bars
from market import bars, splits
from market_technical import market_technical

SESSIONS = 320
PRICE_FEATURES = [f.name for f in market_technical.features if f.description.endswith("; price.")]
RATIO_FEATURES = [f for f in market_technical.feature_names if f not in PRICE_FEATURES]


def one_symbol() -> tuple[pl.DataFrame, pl.DataFrame]:
    prices = bars(SESSIONS, symbols=("AAA",))
    return prices, over_bars(market_technical, prices)


@pytest.mark.parametrize("feature", market_technical.features, ids=lambda feature: feature.name)
def test_null_exactly_until_warm(feature: Feature) -> None:
    _, features = one_symbol()
    missing = features[feature.name].is_null()
    assert missing.to_list() == [row < _lookback(feature) for row in range(SESSIONS)]


def _lookback(feature: Feature) -> int:
    assert feature.rule is not None
    return feature.rule.lookback


def test_every_symbol_is_warmed_up_by_its_own_bars() -> None:
    features = over_bars(market_technical, bars(60))
    assert features.group_by("symbol").agg(pl.col("ema_50").count())["ema_50"].to_list() == [11, 11]


def test_equal_to_talib() -> None:
    prices, features = one_symbol()
    high, low, close = (prices[name].to_numpy() for name in ("high", "low", "close"))
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    expected = {
        "ema_12": talib.EMA(close, 12),
        "ema_26": talib.EMA(close, 26),
        "ema_50": talib.EMA(close, 50),
        "rsi_14": talib.RSI(close, 14),
        "macd": macd,
        "macd_signal": signal,
        "macd_histogram": histogram,
        "bollinger_upper": upper,
        "bollinger_middle": middle,
        "bollinger_lower": lower,
        "bollinger_percent_b": (close - lower) / (upper - lower),
        "bollinger_width": (upper - lower) / middle,
        "atr_14": talib.ATR(high, low, close, 14),
    }
    for name, values in expected.items():
        found = features[name].fill_null(float("nan")).to_numpy()
        np.testing.assert_array_equal(found, values, err_msg=name)


def test_equal_to_their_formulas() -> None:
    prices, features = one_symbol()
    close, high, volume = (prices[name].to_numpy() for name in ("close", "high", "volume"))
    returns = np.diff(np.log(close))
    last = features.row(-1, named=True)
    assert last["log_return_1"] == pytest.approx(returns[-1])
    assert last["log_return_5"] == pytest.approx(returns[-5:].sum())
    assert last["log_return_20"] == pytest.approx(returns[-20:].sum())
    assert last["realized_volatility_20"] == pytest.approx(returns[-20:].std(ddof=1) * 252**0.5)
    window = volume[-20:]
    assert last["volume_z_score_20"] == pytest.approx(
        (volume[-1] - window.mean()) / window.std(ddof=1)
    )
    assert last["distance_to_52w_high"] == pytest.approx(close[-1] / high[-252:].max() - 1)


def test_a_flat_series_gives_nulls_not_infinities() -> None:
    flat = bars(60, symbols=("AAA",)).with_columns(
        pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close", "volume")
    )
    features = over_bars(market_technical, flat)
    assert features["volume_z_score_20"].null_count() == features.height
    assert features["bollinger_percent_b"].null_count() == features.height
    assert not any(features[name].is_infinite().any() for name in market_technical.feature_names)


@given(seed=st.integers(0, 2**32 - 1), known=st.integers(0, SESSIONS - 1))
def test_the_future_changes_nothing(seed: int, known: int) -> None:
    prices = bars(SESSIONS, seed=seed)
    later = pl.col("ts") > prices["ts"][known]
    changed = prices.with_columns(
        pl.when(later).then(pl.col(name) * 1.5).otherwise(pl.col(name))
        for name in ("open", "high", "low", "close", "volume")
    )
    then = pl.col("event_timestamp") <= prices["event_timestamp"][known]
    before = over_bars(market_technical, prices).filter(then)
    after = over_bars(market_technical, changed).filter(then)
    assert before.height == 2 * (known + 1)
    assert_frame_equal(before, after, check_exact=True)


@given(seed=st.integers(0, 2**32 - 1), ex_day=st.integers(1, SESSIONS - 1))
def test_a_split_moves_prices_and_nothing_else(seed: int, ex_day: int) -> None:
    whole = bars(SESSIONS, symbols=("AAA",), seed=seed)
    after = pl.int_range(pl.len()) >= ex_day
    traded = whole.with_columns(
        *(
            pl.when(after).then(pl.col(name) / 2).otherwise(pl.col(name))
            for name in ("open", "high", "low", "close")
        ),
        volume=pl.when(after).then(pl.col("volume") * 2).otherwise(pl.col("volume")),
    ).drop("split_factor")
    ex_date: date = whole["ts"][ex_day].date()
    adjusted = forward_adjust(traded, splits(("AAA", ex_date, 2.0)))
    expected = over_bars(market_technical, whole)
    found = over_bars(market_technical, adjusted)
    # Halving and doubling are exact in binary, so not even a last bit may differ.
    assert_frame_equal(
        found.select(RATIO_FEATURES), expected.select(RATIO_FEATURES), check_exact=True
    )
    scale = pl.when(after).then(2.0).otherwise(1.0)
    assert_frame_equal(
        found.select(pl.col(name) * scale for name in PRICE_FEATURES),
        expected.select(PRICE_FEATURES),
        check_exact=True,
    )
