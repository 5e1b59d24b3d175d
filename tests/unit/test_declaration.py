"""What a declaration may not be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key, Relation
from hyperfeast.features.page import describe, page
from hyperfeast.features.repo import FeatureRepo
from hyperfeast.features.template import module
from hyperfeast.indicators import expression, sequence, ta
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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 0}, "version=0: versions are 1, 2, 3"),
        ({"version": "one"}, "version='one'"),
        ({"freshness": timedelta()}, "a row needs a time to be fresh"),
        (
            {"keys": (Key("user", "user_id"),)},
            r"its keys are user_id, but bars are of symbols: keys=",
        ),
        ({"cron": "61 * * * *"}, r"cron='61 \* \* \* \*' is no schedule: five fields in UTC"),
        ({"cron": "* * * * * *"}, "is no schedule: five fields"),
        ({"tags": "price"}, r"tags=\('price',\)"),
        ({"name": "momentum_v2"}, "no usable name for a set: .* its version apart"),
        ({"name": "x" * 37}, "36 characters at most"),
    ],
)
def test_a_set_says_what_is_wrong_with_it(changes: dict[str, object], expected: str) -> None:
    with pytest.raises(FeatureError, match=f"^feature set .*{expected}"):
        declare(**changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rule": pl.col("close").diff()}, r"warm-up: expression\(\.\.\., lookback="),
        ({"rule": "RSI"}, "'RSI' is no rule: take one of hyperfeast.indicators"),
        (
            {"dtype": "numeric"},
            "no type that Feast has .* FeatureType.FLOAT64 or FeatureType.INT64",
        ),
        (
            {"dtype": FeatureType.FLOAT64_LIST},
            "is 1 number.s. a bar, .* declare FeatureType.FLOAT64$",
        ),
        ({"rule": sequence("close", 3)}, "is 3 number.s. a bar, .* FeatureType.FLOAT64_LIST$"),
        ({"bounds": (100, 0)}, r"bounds=\(100, 0\): expected the least and the greatest"),
        ({"bounds": (float("nan"), None)}, "expected the least and the greatest"),
        ({"bounds": (0, 1, 2)}, "expected the least and the greatest"),
        ({"null_rate": 5}, "null_rate=5: expected a share, 0 to 1"),
        ({"tags": "price"}, r"tags=\('price',\)"),
        ({"name": "recorded_at"}, "recorded_at: every table has a column of that name: rename it"),
    ],
)
def test_a_feature_says_what_is_wrong_with_it(changes: dict[str, object], expected: str) -> None:
    rsi = Feature("rsi_14", "Strength.", ta("RSI", timeperiod=14))
    told = "" if "name" in changes else "feature rsi_14: "
    with pytest.raises(FeatureError, match=f"^feature set momentum v1: {told}.*{expected}"):
        declare(features=(replace(rsi, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "arguments", "expected"),
    [
        (pl.col("close").diff(), {}, r"diff\(.* says nothing of its lookback: expression"),
        (pl.col("close").ewm_mean(span=9), {"lookback": 8}, "ewm_mean remembers .* warm_up=250"),
        (pl.col("volume").cum_sum(), {"lookback": 0}, "cum_sum remembers all bars before"),
        (pl.col("close").forward_fill(), {"lookback": 0}, "remembers all bars before"),
    ],
)
def test_an_expression_has_to_say_how_far_it_looks(
    value: pl.Expr, arguments: dict[str, int], expected: str
) -> None:
    with pytest.raises(FeatureError, match=expected):
        expression(value, **arguments)
    assert expression(value, lookback=8, warm_up=200).warm_up == 200


def test_the_hash_follows_all_that_decides_values_and_nothing_else() -> None:
    rsi = Feature("rsi_14", "Strength.", ta("RSI", timeperiod=14))
    same: list[dict[str, object]] = [
        {"features": (replace(rsi, bounds=(0, 100), tags=("a",), null_rate=0.5),)},
        {"keys": (Key("symbol", "symbol", "Told otherwise."),)},
        {
            "freshness": timedelta(days=1),
            "cron": "7 * * * *",
            "tags": ("a",),
            "description": "Words.",
        },
    ]
    others: list[dict[str, object]] = [
        {"features": (replace(rsi, dtype=FeatureType.INT64),)},
        {"features": (replace(rsi, name="rsi"),)},
        {"keys": (Key("stock", "symbol"),)},
        {"source": Bars(Timeframe.H1)},
        {"name": "strength"},
        {"version": 2},
    ]
    assert {declare(**one).definition_hash for one in same} == {declare().definition_hash}
    assert len({declare(**one).definition_hash for one in [*others, {}]}) == len(others) + 1


def test_the_hash_of_a_relation_is_that_of_its_query_without_its_comments() -> None:
    text = personal_baseline.source_text
    assert "--" not in text
    assert "user_baseline_daily" in text or "user_" in text
    assert "\n" not in text
    with pytest.raises(
        FeatureError, match=r"no query 'nothing' in sql/queries/features\.sql: add it"
    ):
        _ = replace(personal_baseline, source=Relation("nothing")).definition_hash


def test_a_schedule_is_taken() -> None:
    assert declare(cron="7 21 * * 1-5").cron == "7 21 * * 1-5"


def test_views_carry_what_the_declaration_says() -> None:
    from hyperfeast.features.views import entity, feature_view

    rsi = Feature("rsi_14", "Strength.", ta("RSI"), bounds=(0, 100), tags=("classic",))
    view = feature_view(
        declare(features=(rsi,), tags=("price",)), [entity(Key("symbol", "symbol"))]
    )
    assert view.name == "momentum_v1"
    assert view.tags["price"] == ""
    assert view.schema[-1].tags == {"low": "0", "high": "100", "classic": ""}


def test_the_page_says_everything(subtests: pytest.Subtests) -> None:
    told = describe(market_technical, datetime(2026, 5, 1, tzinfo=UTC))
    text = page(told)
    facts = ["# market_technical v1", "bars of 1d", "`features_market_technical_v1`", "0 to 100"]
    rules = [one.text for one in market_technical.rules.values()]
    for fact in [*facts, *market_technical.feature_names, *rules, market_technical.definition_hash]:
        with subtests.test(fact):
            assert fact in text
    assert told.block_since == datetime(2024, 1, 1, tzinfo=UTC)
    assert {one.name: one.unit for one in told.features}["ema_12"] == "price"
    of_relation = describe(personal_baseline, datetime(2026, 5, 1, tzinfo=UTC))
    assert of_relation.block_since is None
    assert "query personal_baseline" in page(of_relation)


@pytest.mark.parametrize("timeframe", Timeframe)
def test_a_new_module_declares_a_set(tmp_path: Path, timeframe: Timeframe) -> None:
    name = f"fresh_{timeframe.name.lower()}"
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    (tmp_path / f"{name}.py").write_text(module(name, timeframe))
    made = FeatureRepo(tmp_path).feature_set(name)
    assert (made.name, made.version, made.source) == (name, 1, Bars(timeframe))


@pytest.mark.parametrize("name", ["class", "calendar", "json", "Bad-Name", "a_v2", "../x", ""])
def test_a_name_that_cannot_be_a_module_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"usable name|no module can be called"):
        module(name, Timeframe.D1)
