"""TA-Lib by name: its own values on real bars, and errors that say what would be right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from every_rule import CATALOG
from hyperfeast.errors import FeatureError
from hyperfeast.indicators import (
    catalog_table,
    column,
    evaluate,
    functions,
    log_return,
    parameters,
    ta,
)
from hyperfeast.indicators.memory import CUMULATIVE_FUNCTIONS
from hyperfeast.indicators.rule import COLUMNS, FloatArray, Window
from hyperfeast.types import Timeframe
from market import real_bars

# What rounding leaves of a small difference of large numbers, or of an angle that turns round.
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def stocks() -> pl.DataFrame:
    return real_bars()


def as_drawn(part: pl.DataFrame, factor: float) -> dict[str, FloatArray]:
    """One symbol's bars as the shares that `factor` stands for."""
    scales = dict.fromkeys(("open", "high", "low", "close"), 1 / factor) | {"volume": factor}
    return {name: part[name].to_numpy() * scale for name, scale in scales.items()}


def at_the_share_of_its_moment(part: pl.DataFrame, compute: object) -> FloatArray:
    """What a function of a whole series gives, each row from the series as drawn at its moment."""
    assert callable(compute)
    factors = part["split_factor"].to_numpy()
    values = np.full(len(factors), np.nan)
    for factor in np.unique(factors):
        values[factors == factor] = compute(as_drawn(part, factor))[factors == factor]
    return values


GOLDEN = {
    "rsi": (ta("RSI", timeperiod=14), lambda b: talib.RSI(b["close"], 14)),
    "ema": (ta("EMA", timeperiod=50), lambda b: talib.EMA(b["close"], 50)),
    "macd": (ta("MACD", output="macd"), lambda b: talib.MACD(b["close"])[0]),
    "signal": (ta("MACD", output="macdsignal"), lambda b: talib.MACD(b["close"])[1]),
    "histogram": (ta("MACD", output="macdhist"), lambda b: talib.MACD(b["close"])[2]),
    "upper": (ta("BBANDS", output="upperband"), lambda b: talib.BBANDS(b["close"], 20)[0]),
    "middle": (ta("BBANDS", output="middleband"), lambda b: talib.BBANDS(b["close"], 20)[1]),
    "lower": (ta("BBANDS", output="lowerband"), lambda b: talib.BBANDS(b["close"], 20)[2]),
    "atr": (ta("ATR"), lambda b: talib.ATR(b["high"], b["low"], b["close"], 14)),
}


def test_values_on_real_bars_are_those_of_talib_over_the_whole_series(
    stocks: pl.DataFrame,
) -> None:
    found = evaluate({name: rule for name, (rule, _) in GOLDEN.items()}, stocks, Timeframe.D1)
    assert stocks.height > 12_000
    for (symbol,), part in stocks.group_by("symbol"):
        for name, (_, compute) in GOLDEN.items():
            expected = at_the_share_of_its_moment(part, compute)
            values = found.filter(symbol=symbol)[name].fill_null(float("nan")).to_numpy()
            scale = np.nanmean(np.abs(expected))
            np.testing.assert_allclose(
                values, expected, rtol=1e-9, atol=1e-11 * scale, err_msg=f"{name} {symbol}"
            )


VARIANTS = {
    f"{name} {parameters}": ta(name, output=output, **parameters)
    for name, output, parameters in [
        ("EMA", None, {"timeperiod": 100}),
        ("RSI", None, {"timeperiod": 3}),
        ("ADX", None, {"timeperiod": 28}),
        ("TEMA", None, {"timeperiod": 12}),
        ("T3", None, {"timeperiod": 9, "vfactor": 0.9}),
        ("TSI", None, {"firstperiod": 40, "secondperiod": 20}),
        ("ADOSC", None, {"fastperiod": 5, "slowperiod": 40}),
        ("KC", "upperband", {"timeperiod": 10, "atrperiod": 30}),
        ("MACDEXT", "macdsignal", {"fastmatype": 1, "slowmatype": 4, "signalmatype": 13}),
        ("STOCH", "slowd", {"slowk_matype": 1, "slowd_period": 9, "slowd_matype": 13}),
        ("STOCHF", "fastd", {"fastd_period": 6, "fastd_matype": 3}),
        ("KDJ", "j", {"slowk_period": 9, "slowk_matype": 11, "slowd_period": 6}),
        ("PPO", None, {"matype": 11}),
        *(("MA", None, {"timeperiod": 20, "matype": kind}) for kind in range(14)),
        *(("BBANDS", "upperband", {"matype": kind}) for kind in range(14)),
    ]
}


def test_the_warm_up_is_long_enough_for_every_function(stocks: pl.DataFrame) -> None:
    rules = VARIANTS | {
        name: rule
        for name, rule in CATALOG.items()
        if name.partition(".")[0] not in CUMULATIVE_FUNCTIONS
    }
    found = evaluate(rules, stocks, Timeframe.D1)
    for (symbol,), part in stocks.group_by("symbol"):
        for name, rule in rules.items():
            with np.errstate(all="ignore"):
                whole = at_the_share_of_its_moment(part, lambda b, r=rule: r(Window(b)))
            expected = np.where(np.isfinite(whole), whole, np.nan)
            values = found.filter(symbol=symbol)[name].fill_null(float("nan")).to_numpy()
            scale = max(1e-12, float(np.nanmax(np.abs(expected))))
            np.testing.assert_allclose(
                values, expected, rtol=0, atol=ROUNDING * scale, err_msg=f"{name} {symbol}"
            )


def test_too_short_a_warm_up_would_show(stocks: pl.DataFrame) -> None:
    exact = ta("RSI", timeperiod=14)
    hasty = replace(exact, warm_up=exact.warm_up // 4)
    found = evaluate({"exact": exact, "hasty": hasty}, stocks, Timeframe.D1)
    away = (found["exact"] - found["hasty"]).abs().max()
    assert isinstance(away, float)
    assert away > 1e-4


def test_the_catalog_is_whole() -> None:
    names = [function.name for function in functions()]
    assert sorted(names) == sorted(talib.get_functions())
    macd = next(function for function in functions() if function.name == "MACD")
    assert macd.group == "Momentum Indicators"
    assert macd.outputs == ("macd", "macdsignal", "macdhist")
    assert macd.parameters == {"fastperiod": 12, "slowperiod": 26, "signalperiod": 9}


@pytest.mark.parametrize(("name", "rule"), CATALOG.items(), ids=CATALOG)
def test_null_exactly_until_its_lookback(name: str, rule: object) -> None:
    assert isinstance(rule, type(column("close")))
    rng = np.random.default_rng(3)
    close = 100 * np.exp(rng.normal(0, 0.02, 700).cumsum())
    bars = Window(
        {
            "open": close * np.exp(rng.normal(0, 0.01, 700)),
            "high": close * 1.03,
            "low": close * 0.97,
            "close": close,
            "volume": rng.integers(1_000, 9_000, 700).astype(float),
        }
    )
    with np.errstate(all="ignore"):
        values = rule(bars)
    assert np.isnan(values[: rule.lookback]).all()
    if not name.startswith(
        ("LN.", "LOG10.", "SQRT.", "ACOS.", "ASIN.")
    ):  # of numbers above 0, or 1
        assert not np.isnan(values[rule.lookback])
    assert rule.warm_up >= rule.lookback
    assert rule.columns <= set(COLUMNS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ta("RSY"), r"no function 'RSY': did you mean RSI"),
        (lambda: ta("moving"), r"no function 'moving'"),
        (lambda: ta("RSI", period=14), r"RSI has no parameter 'period': it takes timeperiod=14 \(2 to 100000\)"),
        (lambda: ta("OBV", timeperiod=3), r"OBV has no parameter 'timeperiod': it takes none"),
        (lambda: ta("RSI", timeperiod=1), r"timeperiod=1 is out of range: it takes timeperiod=14 \(2 to 100000\)"),
        (lambda: ta("RSI", timeperiod=14.5), r"timeperiod=14.5: expected a whole number"),
        (lambda: ta("RSI", timeperiod=True), r"timeperiod=True: expected a whole number"),
        (lambda: ta("RSI", timeperiod="14"), r"timeperiod='14': expected a whole number"),  # type: ignore[arg-type]
        (lambda: ta("STDDEV", nbdev=float("nan")), r"nbdev=nan: expected a number, nbdev=1 \(any number\)"),
        (lambda: ta("MAMA", slowlimit=2, output="mama"), r"slowlimit=2 is out of .* \(0\.01 to 0\.99\)"),
        (lambda: ta("BBANDS", matype=99, output="upperband"), r"matype=99 .* matype=0 \(0 to 13\)"),
        (lambda: ta("MACD"), r"MACD gives macd, macdsignal, macdhist: say which with output="),
        (lambda: ta("MACD", output="signal"), r"MACD gives macd, macdsignal, macdhist, not 'signal'"),
        (lambda: ta("RSI", output="rsi"), r"RSI gives real, not 'rsi'"),
        (lambda: ta("ATR", on="close"), r"on= names 1 inputs, .* none: it always reads high, low, close"),
        (lambda: ta("BETA", on="close"), r"BETA: on= names 1 inputs, but it takes 2 \(by default high, low\)"),
        (lambda: ta("RSI", on="price"), r"no column 'price': take one of open, high, low, close, volume"),
        (lambda: ta("MAVP"), r"MAVP takes a series of periods"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_answered_with_what_is_right(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(FeatureError, match=message):
        call()


def test_ranges_are_those_of_the_library() -> None:
    assert [str(one) for one in parameters("T3")] == [
        "timeperiod=5 (1 to 100000)",
        "vfactor=0.7 (0 to 1)",
    ]
    assert [one.range for one in parameters("CDLDARKCLOUDCOVER")] == ["from 0"]


def test_the_documentation_has_the_whole_catalog() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "indicators.md").read_text()
    assert catalog_table() in documented


def test_a_rule_of_a_rule_is_computed_of_its_values(stocks: pl.DataFrame) -> None:
    part = stocks.filter(symbol="IBM")
    inner = talib.RSI(part["close"].to_numpy(), 10)
    rule = ta("SMA", timeperiod=5, on=ta("RSI", timeperiod=10))
    assert rule.lookback == 14
    assert rule.text == "SMA(RSI(close, timeperiod=10), timeperiod=5)"
    values = evaluate({"smooth": rule}, part, Timeframe.D1)["smooth"].to_numpy()
    np.testing.assert_allclose(values, talib.SMA(inner, 5), rtol=1e-9)


def test_an_index_is_how_many_bars_ago_it_was(stocks: pl.DataFrame) -> None:
    part = stocks.filter(symbol="MSFT")
    found = evaluate({"ago": ta("MAXINDEX", timeperiod=20)}, part, Timeframe.D1)["ago"]
    close = part["close"].to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(close, 20)
    assert found.null_count() == 19
    ago = found[19:].cast(pl.Int64).to_numpy()
    np.testing.assert_array_equal(windows[np.arange(len(ago)), 19 - ago], windows.max(axis=1))


def test_several_inputs_are_set_in_order(stocks: pl.DataFrame) -> None:
    part = stocks.filter(symbol="GOOG")
    rule = ta("CORREL", timeperiod=30, on=(log_return(1), "volume"))
    found = evaluate({"with_volume": rule}, part, Timeframe.D1)["with_volume"]
    returns = np.diff(np.log(part["close"].to_numpy()))
    expected = np.corrcoef(returns[-30:], part["volume"].to_numpy()[-30:])[0, 1]
    assert found[-1] == pytest.approx(expected)
