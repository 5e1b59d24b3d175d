"""What a declaration may not be."""

from dataclasses import replace
from datetime import timedelta

import pytest

from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, Key, Relation
from hyperfeast.indicators import ta
from hyperfeast.types import Timeframe
from market_technical import market_technical
from personal_baseline import personal_baseline


def declare(**changes: object) -> FeatureSet:
    whole: dict[str, object] = {
        "name": "momentum",
        "version": 1,
        "keys": (Key("symbol", "symbol"),),
        "source": Bars(Timeframe.D1),
        "features": (Feature("rsi_14", "Strength.", ta("RSI", timeperiod=14)),),
        "freshness": timedelta(days=7),
    }
    return FeatureSet(**(whole | changes))  # type: ignore[arg-type]


def test_a_good_one_names_its_table() -> None:
    assert declare().table == "features_momentum_v1"


@pytest.mark.parametrize(
    "name", ["", "Momentum", "1st", "a b", 'x"; DROP TABLE candles; --', "x" * 41, "é"]
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(FeatureError, match="no usable name"):
        declare(name=name)


def test_a_repeated_feature_is_refused_by_name() -> None:
    twice = (
        Feature("rsi_14", "One.", ta("RSI", timeperiod=14)),
        Feature("rsi_14", "Two.", ta("RSI", timeperiod=7)),
    )
    with pytest.raises(FeatureError, match=r"momentum v1: rsi_14 declared more than once"):
        declare(features=twice)


def test_a_set_over_bars_needs_rules() -> None:
    with pytest.raises(FeatureError, match="feature mean: a set over bars needs a rule"):
        declare(features=(Feature("mean", "No rule."),))


def test_a_set_over_a_relation_takes_none() -> None:
    with pytest.raises(FeatureError, match="takes none"):
        declare(source=Relation("somewhere"))


def test_no_features_or_no_keys_is_refused() -> None:
    for changes in ({"features": ()}, {"keys": ()}):
        with pytest.raises(FeatureError, match="at least one"):
            declare(**changes)


def test_the_hash_follows_the_rule_not_the_words() -> None:
    same = declare(features=(Feature("rsi_14", "Other words.", ta("RSI", timeperiod=14)),))
    other = declare(features=(Feature("rsi_14", "Strength.", ta("RSI", timeperiod=15)),))
    assert declare().definition_hash == same.definition_hash
    assert declare().definition_hash != other.definition_hash
    assert declare().definition_hash != replace(declare(), version=2).definition_hash


def test_a_rule_says_what_it_is() -> None:
    assert ta("ema", timeperiod=12).text == "EMA(close, timeperiod=12)"
    assert ta("RSI").text == ta("RSI", timeperiod=14).text


def test_the_shipped_sets_are_what_the_documentation_says() -> None:
    assert len(market_technical.feature_names) == 19
    assert personal_baseline.key_columns == ["user_id", "metric"]
