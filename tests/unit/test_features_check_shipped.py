"""The check of a declared set accuses nothing that ships: no rule on hard bars, no set on real ones."""

from datetime import timedelta

import pytest

import market
from every_rule import EVERY
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key
from hyperfeast.features.check import check, try_bars
from hyperfeast.features.verdict import Verdict
from hyperfeast.indicators import AnyRule
from hyperfeast.types import Timeframe
from market_technical import market_technical


def name_of(rule: str) -> str:
    return rule.lower().replace(".", "_")


def declared(rules: dict[str, AnyRule]) -> FeatureSet:
    lists = FeatureType.FLOAT64_LIST
    return FeatureSet(
        name="every",
        version=1,
        keys=(Key("symbol", "symbol"),),
        source=Bars(Timeframe.D1),
        features=tuple(
            Feature(name_of(name), "It.", rule, lists if rule.width > 1 else FeatureType.FLOAT64)
            for name, rule in rules.items()
        ),
        freshness=timedelta(days=7),
    )


PARTS = 6


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_rule_that_ships_is_accused(part: int) -> None:
    names = sorted(EVERY)[part::PARTS]
    verdict = check(declared({name: EVERY[name] for name in names}), None, moments=5, seed=part)
    assert verdict.findings == ()
    assert verdict.untried == ()


@pytest.mark.slow
def test_the_shipped_set_is_not_accused_on_real_bars() -> None:
    real = market.real_bars().group_by("symbol", maintain_order=True).tail(900)
    for verdict in (check(market_technical, None), try_bars(market_technical, real, "real bars")):
        assert verdict == Verdict("market_technical v1", verdict.trials, ())
        assert verdict.trials > 150
