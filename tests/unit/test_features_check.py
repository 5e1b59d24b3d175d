"""The check of a declared set: every planted cheater is caught and named, and nothing that ships is accused."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import polars as pl
import pytest

from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.features.check import check, different
from hyperfeast.features.hard_bars import SYMBOLS, hard_bars
from hyperfeast.features.verdict import Fault, Finding, Verdict
from hyperfeast.indicators import (
    AnyRule,
    CrossSection,
    Member,
    Rule,
    column,
    cross_rank,
    expression,
    log_return,
    mean,
    session,
    ta,
)
from hyperfeast.indicators.rule import FloatArray, Window
from hyperfeast.types import Timeframe

CLOSE = pl.col("close")
FEW = 5


def declare(rule: AnyRule, *, timeframe: Timeframe = Timeframe.D1, **more: object) -> FeatureSet:
    """A set of the rule and an honest neighbor."""
    return FeatureSet(
        name="planted",
        version=2,
        keys=(Key("symbol", "symbol"),),
        source=Bars(timeframe),
        features=(
            Feature("honest", "Honest.", mean("close", 5)),
            Feature("cheat", "Not so.", rule, **more),  # type: ignore[arg-type]
        ),
        freshness=timedelta(days=7),
    )


def of_one(text: str, function: Callable[[Window], FloatArray], *, lookback: int = 0) -> Rule:
    return Rule(text, lookback, lookback, function, frozenset({"close"}))


def faults(verdict: Verdict) -> set[tuple[str, Fault]]:
    return {(one.feature, one.fault) for one in verdict.findings}


def the(fault: Fault, verdict: Verdict) -> Finding:
    (finding,) = [one for one in verdict.findings if one.fault is fault]
    return finding


# Cheaters


@dataclass(frozen=True)
class Listing(CrossSection):
    """Ranks by how many symbols there are in all, whenever they were listed."""

    def across(self, bars: pl.DataFrame, values: FloatArray) -> FloatArray:
        return super().across(bars, values) / bars["symbol"].n_unique()


LISTED = cross_rank(log_return(1))
AHEAD: dict[str, tuple[AnyRule, str]] = {
    "shift(-1)": (expression(CLOSE.shift(-1), lookback=0), "the close of every symbol"),
    "a difference to tomorrow's volume": (
        expression(pl.col("volume").diff(-1), lookback=0),
        "the volume of every symbol",
    ),
    "a centered rolling mean": (
        expression(CLOSE.rolling_mean(5, center=True), lookback=4),
        "the close of every symbol",
    ),
    "a share of the whole series' greatest": (
        expression(CLOSE / CLOSE.max(), lookback=0),
        "the close of every symbol",
    ),
    "a z-score by the whole series": (
        expression((CLOSE - CLOSE.mean()) / CLOSE.std(), lookback=0),
        "the close of every symbol",
    ),
    "a rank in the whole series": (
        expression(pl.col("high").rank(), lookback=0),
        "the high of every symbol",
    ),
    "a fill from behind": (
        expression(
            pl.when(pl.col("volume") > 0).then(CLOSE).otherwise(None).backward_fill(),
            lookback=0,
            warm_up=50,
        ),
        "the close of every symbol",
    ),
    "how many bars there will be": (
        of_one("len(close)", lambda bars: np.full(len(bars["close"]), float(len(bars["close"])))),
        "whether there are bars",
    ),
    "a cross-section by how many are ever listed": (
        Listing("listing", LISTED.of, LISTED.compare),
        "which symbols are listed",
    ),
    "a cross-section by the mean of all moments": (
        CrossSection(
            "demeaned", column("close"), lambda values, _: values - np.asarray(values).mean()
        ),
        "the close of every symbol",
    ),
}


@pytest.mark.parametrize("cheat", AHEAD)
def test_what_looks_ahead_is_caught_and_named(cheat: str) -> None:
    rule, changed = AHEAD[cheat]
    verdict = check(declare(rule), None, moments=FEW)
    assert not verdict.passed
    assert {one.feature for one in verdict.findings} == {"cheat"}
    finding = the(Fault.LOOKS_AHEAD, verdict)
    assert finding.feature_set == "planted v2"
    assert finding.input == changed
    assert finding.moment is not None
    assert finding.at is not None
    assert finding.at <= finding.moment
    assert finding.entity in SYMBOLS
    assert finding.message.startswith(
        f"feature set planted v2: feature cheat looks ahead: changing {changed} after "
        f"{finding.moment:%Y-%m-%d %H:%M} UTC changed it on {finding.entity}'s row of "
        f"{finding.at:%Y-%m-%d %H:%M} UTC"
    )
    assert "a rule may read only what was known by its own row" in finding.message


def test_a_symbol_that_is_listed_later_is_an_input_of_its_own() -> None:
    """Where later bars of the symbols that there are change nothing, those of a new one still may."""

    class Names(Listing):
        def across(self, bars: pl.DataFrame, values: FloatArray) -> FloatArray:
            newcomers = bars.filter(~pl.col("symbol").is_in(list(SYMBOLS)))["symbol"].n_unique()
            return CrossSection.across(self, bars, values) + newcomers

    verdict = check(declare(Names("names", LISTED.of, LISTED.compare)), None, moments=FEW)
    assert the(Fault.LOOKS_AHEAD, verdict).input == "which symbols are listed"


def test_a_later_split_is_an_input_of_its_own() -> None:
    """A price as the last bar's shares have it is a back-adjusted one."""

    def of_today(bars: Window) -> FloatArray:
        # A window is priced in the shares of the moment that is asked for: the factor shows in its prices.
        return bars["close"] * 0 + bars._factor if bars["close"][-1] > 0 else bars["close"]

    class Adjusted(CrossSection):
        def across(self, bars: pl.DataFrame, values: FloatArray) -> FloatArray:
            last = bars.select(pl.col("split_factor").last().over("symbol")).to_series().to_numpy()
            return values / last

    whole = of_one("close of today's shares", of_today)
    assert check(declare(whole), None, moments=FEW).passed
    verdict = check(
        declare(Adjusted("adjusted", column("close"), LISTED.compare)), None, moments=FEW
    )
    assert the(Fault.LOOKS_AHEAD, verdict).input in {
        "whether there are bars",
        "how shares are split",
    }


def test_what_keeps_something_between_calls_is_caught() -> None:
    numbers = count()
    counting = of_one(
        "count",
        lambda bars: bars["close"] * 0 + next(numbers) if len(bars["close"]) else bars["close"],
    )
    assert ("cheat", Fault.NOT_REPEATABLE) in faults(check(declare(counting), None, moments=FEW))


def test_what_depends_on_the_end_of_its_window_is_no_incremental_result() -> None:
    last = of_one(
        "last",
        lambda bars: np.where(np.arange(len(bars["close"])) == len(bars["close"]) - 1, 1.0, 0.0),
    )
    assert ("cheat", Fault.NOT_INCREMENTAL) in faults(check(declare(last), None, moments=FEW))


def test_two_rules_under_one_text_are_caught() -> None:
    rise = of_one("the same", lambda bars: bars["close"] * 2)
    other = of_one("the same", lambda bars: bars["close"] * 3)
    doubled = Rule("uses it", 0, 0, rise, frozenset({"close"}))
    tripled = Rule("uses the other", 0, 0, other, frozenset({"close"}))
    whole = declare(tripled)
    whole = replace(whole, features=(Feature("first", "One.", doubled), whole.features[1]))
    assert faults(check(whole, None, moments=FEW)) == {("cheat", Fault.MINDS_COMPANY)}


def test_one_number_for_a_whole_series_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"gives 1 values for \d+ bars, expected one a bar"):
        check(declare(expression(CLOSE.max(), lookback=0)), None, moments=FEW)


def test_a_value_before_the_lookback_is_caught() -> None:
    early = Rule("early", 10, 10, lambda bars: bars["close"] * 1, frozenset({"close"}))
    finding = the(Fault.TOO_EARLY, check(declare(early), None, moments=FEW))
    assert "before it has the 10 earlier bars" in finding.message


@pytest.mark.parametrize("bounds", [(0.0, 99.0), (1.0, None), (None, 50.0)])
def test_a_value_out_of_bounds_is_caught(bounds: tuple[float | None, float | None]) -> None:
    strength = ta("RSI", timeperiod=14)
    assert check(declare(strength, bounds=(0.0, 100.0)), None, moments=FEW).passed
    finding = the(Fault.OUT_OF_BOUNDS, check(declare(strength, bounds=bounds), None, moments=FEW))
    assert finding.at is not None
    assert "widen the declared bounds, or correct the rule" in finding.message


# What is honest


@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_rules_are_tried_on_bars_of_every_timeframe(timeframe: Timeframe) -> None:
    honest = declare(cross_rank(ta("EMA", timeperiod=3)), timeframe=timeframe)
    assert check(honest, None, moments=2).passed
    cheat = declare(expression(CLOSE.shift(-1), lookback=0), timeframe=timeframe)
    assert ("cheat", Fault.LOOKS_AHEAD) in faults(check(cheat, None, moments=2))


def test_calendar_rules_are_tried() -> None:
    assert check(declare(session("weekday")), None, moments=FEW).passed


def test_the_members_of_a_universe_are_tried_by_name() -> None:
    since = datetime(2000, 1, 1, tzinfo=UTC)
    universe = (Member("AAPL", since), Member("IBM", since, datetime(2024, 6, 1, tzinfo=UTC)))
    assert check(declare(cross_rank("close", universe=universe)), None, moments=FEW).untried == ()


def test_what_never_has_a_value_is_said_to_be_untried() -> None:
    since = datetime(1990, 1, 1, tzinfo=UTC)
    long_gone = (Member("ENRN", since, datetime(2001, 12, 1, tzinfo=UTC)),)
    verdict = check(declare(cross_rank("close", universe=long_gone)), None, moments=FEW)
    assert verdict.passed
    (untried,) = verdict.untried
    assert untried.startswith("feature set planted v2: feature cheat had no value on any bar")


def test_the_same_seed_tries_the_same() -> None:
    rule, _ = AHEAD["shift(-1)"]
    assert check(declare(rule), None, moments=2, seed=3) == check(
        declare(rule), None, moments=2, seed=3
    )


# The bars


@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_made_up_bars_are_bars_and_hard(timeframe: Timeframe) -> None:
    bars = hard_bars(timeframe, warm_up=50, seed=5)
    assert bars.equals(hard_bars(timeframe, warm_up=50, seed=5))
    assert bars["symbol"].unique().sort().to_list() == sorted(SYMBOLS)
    for name in ("open", "high", "low", "close", "volume"):
        assert bars[name].is_finite().all(), name
    assert bars.select((pl.col("low") <= pl.min_horizontal("open", "close")).all()).item()
    assert bars.select((pl.col("high") >= pl.max_horizontal("open", "close")).all()).item()
    assert bars.select((pl.col("event_timestamp") == pl.col("ts") + timeframe.width).all()).item()
    assert not bars.select(pl.struct("symbol", "ts").is_duplicated().any()).item()
    own = {str(symbol): part for (symbol,), part in bars.group_by("symbol")}
    assert own["PLAIN"].height < own["THIN"].height
    assert 0.2 < (own["THIN"]["volume"] == 0).mean() < 0.7  # type: ignore[operator]
    assert (own["THIN"]["close"].diff() == 0).sum() > 10
    assert own["LEAPS"]["close"].log().diff().abs().max() > 8  # type: ignore[operator]
    assert own["LEAPS"]["ts"].min() > own["FLAT"]["ts"].min()  # type: ignore[operator]
    assert own["FLAT"]["close"].n_unique() == 1
    assert own["SPLIT"]["split_factor"].unique().sort().to_list() == [1.0, 2.0, 6.0]
    assert own["SPLIT"]["ts"].max() < own["FLAT"]["ts"].max()  # type: ignore[operator]


def test_other_bits_are_other_values() -> None:
    before = pl.Series([0.0, 1.0, None, 2.0, None])
    after = pl.Series([-0.0, 1.0, None, None, 0.0])
    assert different(before, after).tolist() == [True, False, False, True, True]
    lists = pl.Series([[1.0, 2.0], None, [3.0, 4.0]])
    assert different(lists, pl.Series([[1.0, 2.0], [0.0, 0.0], [3.0, 5.0]])).tolist() == [
        False,
        True,
        True,
    ]
