"""From declarations to tables, records and views: once, on both editions, and refused when rules change."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast import lifecycle
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key, Relation, table
from hyperfeast.features import plan as plans
from hyperfeast.features.definitions import recorded, refuse_changed
from hyperfeast.features.plan import State, apply, plan, prepare
from hyperfeast.indicators import AnyRule, cross_rank, log_return, sequence, ta
from hyperfeast.types import Timeframe
from market_technical import market_technical
from personal_baseline import personal_baseline

SHIPPED = [market_technical, personal_baseline]
RSI = Feature("rsi", "Strength; 0 to 100.", ta("RSI", timeperiod=14), bounds=(0, 100))
RETURNS = Feature(
    "returns", "The last 3 log returns.", sequence(log_return(1), 3), FeatureType.FLOAT64_LIST
)


def momentum(version: int = 1, *features: Feature) -> FeatureSet:
    return FeatureSet(
        "momentum",
        version,
        (Key("symbol", "symbol", "An instrument."),),
        Bars(Timeframe.D1),
        features or (RSI, RETURNS),
        timedelta(days=7),
        description="How fast prices rise.",
        tags=("price",),
    )


def test_a_new_set_gets_its_table_and_is_on_record(database: Database) -> None:
    done = apply(database, [*SHIPPED, momentum()])
    assert done.created == ["features_momentum_v1"]
    assert done.recorded == ["market_technical_v1", "personal_baseline_v1", "momentum_v1"]
    table.check(database, momentum())
    rows = database.fetch(
        "SELECT feature_set, name, version, data_type, source_table, computation_rule, warmup, is_active "
        "FROM feature_definitions WHERE feature_set = 'momentum' ORDER BY name"
    )
    assert [tuple(row.values()) for row in rows] == [
        (
            *("momentum", "returns", 1, "float64_list", "candles"),
            *(RETURNS.rule.text if RETURNS.rule else "", 3, True),
        ),
        ("momentum", "rsi", 1, "float64", "candles", "RSI(close, timeperiod=14)", 387, True),
    ]
    (row,) = database.fetch("SELECT * FROM feature_sets WHERE name = 'momentum'")
    assert (row["entity"], row["features"]) == ("symbol", ["rsi", "returns"])
    assert row["metadata"]["timeframe"] == "1d"


def test_applied_twice_nothing_changes(database: Database) -> None:
    sets = [*SHIPPED, momentum()]
    apply(database, sets, retire=True)
    before = _everything(database)
    assert apply(database, sets, retire=True) == plans.Applied([], [], [])
    assert _everything(database) == before
    assert {one.state for one in plan(database, sets)} == {State.UNCHANGED}


def test_what_a_migration_made_is_taken_as_it_is(database: Database) -> None:
    before = _columns(database, "features_market_technical_v1")
    assert apply(database, SHIPPED).created == []
    assert _columns(database, "features_market_technical_v1") == before


def test_every_column_says_what_it_is(database: Database) -> None:
    apply(database, [momentum()])
    rows = database.fetch(
        "SELECT attname AS name, col_description(attrelid, attnum) AS says FROM pg_attribute "
        "WHERE attrelid = 'features_momentum_v1'::regclass AND attnum > 0"
    )
    said = {row["name"]: row["says"] for row in rows}
    assert None not in said.values()
    assert said["rsi"] == "Strength; 0 to 100."
    (comment,) = database.fetch("SELECT obj_description('features_momentum_v1'::regclass) AS says")
    assert comment["says"] == "Feature set momentum, version 1. How fast prices rise."


def test_a_changed_rule_is_refused_with_both_texts_and_the_remedy(database: Database) -> None:
    apply(database, [momentum()])
    slower = momentum(1, replace(RSI, rule=ta("RSI", timeperiod=21)), RETURNS)
    expected = (
        r"feature set momentum v1: feature rsi is on record as RSI\(close, timeperiod=14\), and declared "
        r"as RSI\(close, timeperiod=21\)\. .* version=2 beside it"
    )
    with pytest.raises(FeatureError, match=expected):
        apply(database, [slower])
    with pytest.raises(FeatureError, match=expected):
        prepare(database, [slower], [slower])
    (step,) = plan(database, [slower])
    assert step.state is State.REFUSED
    assert "RSI(close, timeperiod=21)" in (step.problem or "")
    assert recorded(database)["momentum_v1"].features[0].rule == "RSI(close, timeperiod=14)"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ((RSI,), "returns is on record, but not declared"),
        ((RETURNS, RSI), "order of its features is on record as rsi, returns"),
        ((RSI, RETURNS, replace(RSI, name="more")), "more is declared, but not on record"),
        ((replace(RSI, dtype=FeatureType.INT64), RETURNS), "type of feature rsi .* int64"),
    ],
)
def test_whatever_changes_the_values_is_refused(
    database: Database, features: tuple[Feature, ...], expected: str
) -> None:
    apply(database, [momentum()])
    with pytest.raises(FeatureError, match=expected):
        apply(database, [momentum(1, *features)])


def test_another_source_is_refused(database: Database) -> None:
    apply(database, [momentum()])
    hourly = replace(momentum(), source=Bars(Timeframe.H1))
    with pytest.raises(
        FeatureError, match="source is on record as bars 1d, and declared as bars 1h"
    ):
        apply(database, [hourly])


def test_of_a_long_text_the_difference_is_shown(database: Database) -> None:
    apply(database, [personal_baseline])
    record = recorded(database)["personal_baseline_v1"]
    half = len(record.source) // 2
    other = replace(
        record,
        definition_hash="0" * 64,
        source=f"{record.source[:half]} IN BERLIN {record.source[half:]}",
    )
    with pytest.raises(FeatureError, match=r"source is on record as \.\.\..* IN BERLIN ") as caught:
        refuse_changed({"personal_baseline_v1": other}, [personal_baseline])
    assert len(str(caught.value)) < 600


def test_words_and_times_may_change_under_a_version(database: Database) -> None:
    apply(database, [momentum()])
    told = replace(
        momentum(1, replace(RSI, description="Wilder's; 0 to 100.", tags=("classic",)), RETURNS),
        description="In other words.",
        freshness=timedelta(days=2),
        cron="7 21 * * 1-5",
    )
    assert [one.state for one in plan(database, [told])] == [State.REWORDED]
    assert apply(database, [told]).created == []
    record = recorded(database)["momentum_v1"]
    assert (record.description, record.cron) == ("In other words.", "7 21 * * 1-5")
    assert record.features[0].tags == ("classic",)
    (said,) = database.fetch("SELECT col_description('features_momentum_v1'::regclass, 4) AS says")
    assert said["says"] == "Wilder's; 0 to 100."


def test_a_version_stands_beside_the_old_one_and_the_old_one_retires(database: Database) -> None:
    second = momentum(2, replace(RSI, rule=ta("RSI", timeperiod=21)))
    apply(database, [momentum()], retire=True)
    assert apply(database, [momentum(), second], retire=True).created == ["features_momentum_v2"]
    assert [one.view for one in recorded(database).values() if one.active] == [
        "momentum_v1",
        "momentum_v2",
    ]
    steps = {one.version: one.state for one in plan(database, [second])}
    assert steps == {2: State.UNCHANGED, 1: State.RETIRED}
    assert apply(database, [second], retire=True).retired == ["momentum_v1"]
    assert not recorded(database)["momentum_v1"].active
    table.check(database, momentum())
    assert [one.state for one in plan(database, [momentum(), second])] == [
        State.REVIVED,
        State.UNCHANGED,
    ]
    apply(database, [momentum(), second], retire=True)
    assert recorded(database)["momentum_v1"].active


def test_without_being_told_nothing_retires(database: Database) -> None:
    apply(database, [momentum()])
    assert apply(database, SHIPPED).retired == []
    assert recorded(database)["momentum_v1"].active


def test_a_retired_rule_is_still_held_to(database: Database) -> None:
    apply(database, [momentum()], retire=True)
    apply(database, SHIPPED, retire=True)
    with pytest.raises(FeatureError, match="timeperiod=21"):
        apply(database, [momentum(1, replace(RSI, rule=ta("RSI", timeperiod=21)), RETURNS)])


def test_a_refused_set_holds_up_no_other(database: Database) -> None:
    apply(database, [momentum()])
    slower = momentum(1, replace(RSI, rule=ta("RSI", timeperiod=21)), RETURNS)
    other = replace(momentum(), name="other")
    assert prepare(database, [slower, other], [other]).recorded == ["other_v1"]


def test_the_views_show_every_active_set(database: Database) -> None:
    apply(database, [*SHIPPED, momentum()], retire=True)
    database.execute(
        "INSERT INTO features_momentum_v1 (symbol, event_timestamp, rsi, returns) VALUES "
        "('A', '2024-01-02 21:00Z', 40, '{0.1, NULL, 0.3}'), ('A', '2024-01-02 21:00Z', 41, NULL)"
    )
    database.execute(
        "INSERT INTO features_momentum_v1 (symbol, event_timestamp, rsi, returns) VALUES "
        "('A', '2024-01-02 21:00Z', 42, '{0.1, NULL, 0.3}')"
    )
    rows = database.fetch("SELECT feature_name, entity_id, value FROM feature_values ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [
        ("returns[1]", "A", 0.1),
        ("returns[2]", "A", None),
        ("returns[3]", "A", 0.3),
        ("rsi", "A", 42),
    ]
    apply(database, SHIPPED, retire=True)
    assert database.fetch("SELECT * FROM feature_store") == []
    apply(database, [], retire=True)
    assert database.fetch("SELECT * FROM feature_store") == []


def test_rows_to_backfill_are_the_bars_there_are(database: Database) -> None:
    database.execute("INSERT INTO instruments (symbol) VALUES ('A')")
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) SELECT 'A', '1d', day, 1, 1, 1, 1, 1 "
        "FROM generate_series('2024-01-01'::timestamptz, '2024-01-10', '1 day') AS day"
    )
    (step,) = plan(database, [momentum()])
    assert (step.state, step.creates_table, step.rows_to_backfill) == (State.NEW, True, 10)
    apply(database, [momentum()])
    (step,) = plan(database, [momentum()])
    assert (step.state, step.creates_table, step.rows_to_backfill) == (State.UNCHANGED, False, 10)
    database.execute(
        "INSERT INTO features_momentum_v1 (symbol, event_timestamp) VALUES ('A', '2024-01-02Z')"
    )
    assert plan(database, [momentum()])[0].rows_to_backfill == 0
    assert plan(database, [personal_baseline])[0].rows_to_backfill is None


def test_what_was_known_of_a_new_table(database: Database) -> None:
    apply(database, [momentum()])
    for moment, rsi in (("2024-01-03", 40), ("2024-01-05", 41)):
        database.execute(
            "INSERT INTO features_momentum_v1 (symbol, event_timestamp, recorded_at, rsi) "
            "VALUES ('A', '2024-01-02Z', %s, %s)",
            [datetime.fromisoformat(moment).replace(tzinfo=UTC), rsi],
        )
    served = "SELECT rsi FROM features_momentum_v1_as_known_at(%s)"
    at = datetime(2024, 1, 4, tzinfo=UTC)
    assert [row["rsi"] for row in database.fetch(served, [at])] == [40]


def test_many_apply_at_once(database: Database) -> None:
    sets = [*SHIPPED, *(replace(momentum(), name=f"set_{n}") for n in range(5))]
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda _: apply(database, sets, retire=True), range(6)))
    assert sorted(name for one in done for name in one.created) == [
        f"features_set_{n}_v1" for n in range(5)
    ]
    assert len(recorded(database)) == len(sets)


def test_a_table_that_is_not_what_is_declared_is_refused_whole(database: Database) -> None:
    database.execute("CREATE TABLE features_momentum_v1 (symbol text, event_timestamp timestamptz)")
    other = replace(momentum(), name="other")
    with pytest.raises(
        FeatureError, match="rsi, returns declared, but not in features_momentum_v1"
    ):
        apply(database, [other, momentum()])
    assert recorded(database) == {}


def test_the_new_table_is_read_by_the_index_on_what_was_recorded(database: Database) -> None:
    apply(database, [momentum()])
    for name in ("momentum", "market_technical", "personal_baseline"):
        rows = database.fetch(
            "SELECT indexdef FROM pg_indexes WHERE indexname = %s", [f"features_{name}_v1_recorded"]
        )
        assert "brin (recorded_at, event_timestamp)" in rows[0]["indexdef"]


def test_the_lifecycle_knows_the_new_table(database: Database) -> None:
    apply(database, [momentum(), replace(personal_baseline, name="people")])
    tables = lifecycle.plan(database).tables
    assert "features_*" not in tables
    assert tables["features_momentum_v1"].segment_by == ("symbol",)
    assert tables["features_people_v1"].segment_by == ("user_id", "metric")
    # One that is declared itself stays as it is declared.
    declared = lifecycle.load()["features_market_technical_v1"]
    assert tables["features_market_technical_v1"] == declared
    shown = {one.relation: one for one in lifecycle.show(database)}
    assert [one.declared for one in shown["features_momentum_v1"].kept] == ["1 year"]
    lifecycle.apply(database, lifecycle.plan(database))
    database.execute(
        "INSERT INTO features_momentum_v1 (symbol, event_timestamp) VALUES ('A', '2001-01-02Z')"
    )
    (drop,) = lifecycle.plan(database).drops
    assert (drop.relation, drop.rows) == ("features_momentum_v1", 1)
    lifecycle.enforce(database, refresh=lambda: None)
    assert database.fetch("SELECT * FROM features_momentum_v1") == []


_RULES: dict[str, tuple[Callable[[], AnyRule], FeatureType]] = {
    "rsi": (lambda: ta("RSI", timeperiod=5), FeatureType.FLOAT64),
    "sign": (lambda: ta("CDLDOJI"), FeatureType.INT64),
    "rank": (lambda: cross_rank("close"), FeatureType.FLOAT64),
    "returns": (lambda: sequence(log_return(1), 3), FeatureType.FLOAT64_LIST),
}
# Words that SQL means something by among them.
_NAMES = st.one_of(
    st.sampled_from(["select", "user", "table", "order", "v", "t", "newest", "at"]),
    st.from_regex(r"\A[a-z][a-z0-9_]{0,35}\Z").filter(lambda name: not _ends_like_a_version(name)),
)
_numbers: Iterator[int] = count(1)


def _ends_like_a_version(name: str) -> bool:
    stem, found, digits = name.rpartition("_v")
    return bool(stem) and bool(found) and digits.isdigit()


@st.composite
def _sets(draw: st.DrawFn) -> FeatureSet:
    name = draw(_NAMES)
    others = st.lists(
        _NAMES.filter(lambda one: one != "symbol"), min_size=1, max_size=6, unique=True
    )
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
    over_bars = draw(st.booleans())
    features = []
    for one in draw(others):
        make, dtype = _RULES[draw(st.sampled_from(sorted(_RULES)))]
        rule = make() if over_bars else None
        features.append(Feature(one, draw(words), rule, dtype))
    keys = (
        ["symbol"] if over_bars else [f"k{n}_{name}"[:40] for n in range(draw(st.integers(1, 3)))]
    )
    source = Bars(draw(st.sampled_from(Timeframe))) if over_bars else Relation("personal_baseline")
    return FeatureSet(
        name,
        next(_numbers),
        tuple(Key(key, key) for key in keys),
        source,
        tuple(features),
        timedelta(days=1),
        description=draw(words),
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(feature_set=_sets())
def test_any_declaration_becomes_a_table_that_passes(
    database: Database, feature_set: FeatureSet
) -> None:
    apply(database, [feature_set], retire=True)
    table.check(database, feature_set)
    assert not plans.differs(recorded(database)[feature_set.view], feature_set)
    assert apply(database, [feature_set]) == plans.Applied([], [], [])
    assert table.newest(database, feature_set).height == 0
    database.fetch("SELECT * FROM feature_values")


def _everything(database: Database) -> dict[str, object]:
    return {
        relation: database.fetch(f"SELECT t.*, xmin::text FROM {relation} AS t ORDER BY 1, 2, 3")
        for relation in ("feature_sets", "feature_definitions")
    }


def _columns(database: Database, relation: str) -> list[object]:
    rows = database.fetch(
        "SELECT attname, format_type(atttypid, atttypmod), col_description(attrelid, attnum) "
        "FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        [relation],
    )
    return [tuple(row.values()) for row in rows]
