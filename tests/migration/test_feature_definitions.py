"""A new feature set on TimescaleDB Community: a hypertable that the lifecycle has nothing to add to."""

from dataclasses import replace
from datetime import timedelta

from polars.testing import assert_frame_equal

from hyperfeast import lifecycle
from hyperfeast.db import Database
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key, table
from hyperfeast.features.compute import refresh
from hyperfeast.features.definitions import recorded
from hyperfeast.features.plan import State, apply, plan
from hyperfeast.indicators import log_return, sequence, ta
from hyperfeast.ingest import ingest_candles
from hyperfeast.types import Timeframe
from market import bars
from market_technical import market_technical
from personal_baseline import personal_baseline

MOMENTUM = FeatureSet(
    "momentum",
    1,
    (Key("symbol", "symbol", "An instrument."),),
    Bars(Timeframe.D1),
    (
        Feature("rsi", "Strength; 0 to 100.", ta("RSI", timeperiod=5)),
        Feature("returns", "Log returns.", sequence(log_return(1), 3), FeatureType.FLOAT64_LIST),
    ),
    timedelta(days=7),
)
FASTER = replace(
    MOMENTUM, version=2, features=(Feature("rsi", "Strength.", ta("RSI", timeperiod=3)),)
)


def test_a_new_set_is_a_hypertable_that_can_be_compressed(migrated_community: Database) -> None:
    database = migrated_community
    sets = [market_technical, personal_baseline, MOMENTUM, FASTER]
    done = apply(database, sets, retire=True)
    assert done.created == ["features_momentum_v1", "features_momentum_v2"]
    assert {one.state for one in plan(database, sets)} == {State.UNCHANGED}
    for one in sets:
        table.check(database, one)

    (chunks,) = database.fetch(
        "SELECT column_name, time_interval FROM timescaledb_information.dimensions "
        "WHERE hypertable_name = 'features_momentum_v1'"
    )
    assert chunks == {"column_name": "event_timestamp", "time_interval": timedelta(days=30)}
    due = [
        one.setting
        for one in lifecycle.plan(database).changes
        if one.relation == "features_momentum_v1"
    ]
    assert sorted(due) == ["compress_after", "keep_for", "retention_policy"]
    lifecycle.apply(database, lifecycle.plan(database))
    assert lifecycle.plan(database).changes == []

    candles = bars(60).drop("event_timestamp", "split_factor")
    ingest_candles(database, candles, timeframe=Timeframe.D1, source="test")
    for one in (MOMENTUM, FASTER):
        assert refresh(database, one).written == 120
    before = table.newest(database, MOMENTUM).sort("symbol", "event_timestamp")
    values = "SELECT count(*) AS n FROM feature_values WHERE metadata ->> 'set' = 'momentum'"
    shown = database.fetch(values)[0]["n"]
    database.execute("SELECT compress_chunk(c) FROM show_chunks('features_momentum_v1') AS c")
    after = table.newest(database, MOMENTUM).sort("symbol", "event_timestamp")
    assert_frame_equal(after, before, check_exact=True)
    assert database.fetch(values)[0]["n"] == shown > 120
    assert apply(database, [market_technical, FASTER], retire=True).retired == [
        "momentum_v1",
        "personal_baseline_v1",
    ]
    assert not recorded(database)["momentum_v1"].active
