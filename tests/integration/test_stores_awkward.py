"""What random cases do not reach: one view under two names, features on demand, an empty spine, an odd range."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String

from feast_repos import Whose, repo
from hyperfeast.db import Database

# Feast says of every view on demand that it is experimental.
pytestmark = pytest.mark.filterwarnings("ignore:On demand feature view is an experimental")
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_BOTH = pytest.mark.parametrize("strategy", ["lookup", "merge"])

_AIRPORTS = """
CREATE TABLE weather (airport text, ts timestamptz, wind double precision, gusts bigint);
INSERT INTO weather VALUES
    ('OSL', '2024-01-01', 3.5, 1), ('OSL', '2024-01-03', 9.0, 2), ('FRA', '2024-01-02', 1.0, NULL);
"""
_AIRPORT = Entity(name="airport", join_keys=["airport"], value_type=ValueType.STRING)
_WEATHER = FeatureView(
    name="weather",
    entities=[_AIRPORT],
    ttl=timedelta(0),
    schema=[
        Field(name="airport", dtype=String),
        Field(name="wind", dtype=Float64),
        Field(name="gusts", dtype=Int64),
    ],
    source=PostgreSQLSource(name="weather_source", table="weather", timestamp_field="ts"),
)


@on_demand_feature_view(sources=[_WEATHER], schema=[Field(name="knots", dtype=Float64)])
def _in_knots(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"knots": inputs["wind"] * 1.94384})


_FLIGHT = FeatureService(
    name="flight",
    features=[
        _WEATHER.with_name("origin").with_join_key_map({"airport": "from"}),
        _WEATHER.with_name("destination").with_join_key_map({"airport": "to"}),
    ],
)


@pytest.fixture
def database(empty_database: Database, tmp_path: Path) -> Database:
    """Three observations, and a registry of a view, a view on demand and a service with two names."""
    with psycopg.connect(empty_database.dsn) as connection:
        connection.execute(_AIRPORTS.encode())
    repo(tmp_path, empty_database.dsn, offline="stock").apply(
        [_AIRPORT, _WEATHER, _in_knots, _FLIGHT]
    )
    return empty_database


def _store(folder: Path, database: Database, whose: Whose, **options: Any) -> FeatureStore:
    return repo(folder, database.dsn, offline=whose, offline_options=options)


def _spine(*rows: tuple[Any, ...], keys: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*keys, "event_timestamp"])


@_BOTH
def test_one_view_under_two_names(tmp_path: Path, database: Database, strategy: str) -> None:
    asked = _spine(
        ("OSL", "FRA", _FIRST + 4 * _DAY),
        ("FRA", "OSL", _FIRST + _DAY),
        ("OSL", "OSL", _FIRST),
        keys=("from", "to"),
    )
    tables = []
    for store in (
        _store(tmp_path, database, "stock"),
        _store(tmp_path, database, "ours", strategy=strategy),
    ):
        job = store.get_historical_features(
            asked, store.get_feature_service("flight"), full_feature_names=True
        )
        tables.append(job.to_arrow())
    feasts, ours = tables
    assert ours.column("origin__wind").to_pylist() == [9.0, 1.0, 3.5]
    assert ours.column("destination__wind").to_pylist() == [1.0, 3.5, 3.5]
    order = [("event_timestamp", "ascending"), ("from", "ascending")]
    assert ours.sort_by(order).equals(feasts.sort_by(order))


@_BOTH
def test_what_an_on_demand_view_needs_is_joined(
    tmp_path: Path, database: Database, strategy: str
) -> None:
    asked = _spine(("OSL", _FIRST + 4 * _DAY), ("ARN", _FIRST + 4 * _DAY), keys=("airport",))
    frames = [
        store.get_historical_features(asked, ["_in_knots:knots", "weather:gusts"]).to_df()
        for store in (
            _store(tmp_path, database, "stock"),
            _store(tmp_path, database, "ours", strategy=strategy),
        )
    ]
    feasts, ours = (frame.sort_values("airport").reset_index(drop=True) for frame in frames)
    assert ours["knots"].to_list()[1] == pytest.approx(9.0 * 1.94384)
    pd.testing.assert_frame_equal(ours, feasts)


@_BOTH
def test_an_empty_spine_has_an_empty_answer(
    tmp_path: Path, database: Database, strategy: str
) -> None:
    asked = _spine(("OSL", _FIRST), keys=("airport",))[:0]
    store = _store(tmp_path, database, "ours", strategy=strategy)
    found = store.get_historical_features(asked, ["weather:wind"]).to_arrow()
    assert found.num_rows == 0
    assert found.column_names == ["airport", "event_timestamp", "wind"]


@_BOTH
def test_the_stream_is_the_table(tmp_path: Path, database: Database, strategy: str) -> None:
    asked = _spine(*[("OSL", _FIRST + _DAY / 24 * hour) for hour in range(100)], keys=("airport",))
    store = _store(tmp_path, database, "ours", strategy=strategy)
    job = store.get_historical_features(asked, ["weather:wind"])
    assert job.to_arrow_reader().read_all().equals(job.to_arrow())


@_BOTH
def test_the_statement_gives_the_same(tmp_path: Path, database: Database, strategy: str) -> None:
    asked = _spine(("OSL", _FIRST), ("FRA", _FIRST + 2 * _DAY), keys=("airport",))
    store = _store(tmp_path, database, "ours", strategy=strategy)
    job = store.get_historical_features(asked, ["weather:wind"])
    with psycopg.connect(database.dsn) as connection:
        rows = connection.execute(job.to_sql().encode()).fetchall()
    assert sorted(row[-1] for row in rows) == [1.0, 3.5]


@pytest.mark.parametrize("days", [(0, 2), (1, 1), (2, 0)])
def test_a_range_of_dates_is_as_feasts(
    tmp_path: Path, database: Database, days: tuple[int, int]
) -> None:
    """Where there are no corrections and no created time, Feast's own is right."""
    start, end = (_FIRST + day * _DAY for day in days)
    feasts, ours = (
        _store(tmp_path, database, whose)
        .get_historical_features(
            features=["weather:wind", "weather:gusts"], start_date=start, end_date=end
        )
        .to_arrow()
        for whose in ("stock", "ours")
    )
    order = [("event_timestamp", "ascending"), ("airport", "ascending")]
    assert ours.sort_by(order).equals(feasts.sort_by(order))


def test_a_range_may_not_have_a_spine_too(tmp_path: Path, database: Database) -> None:
    with pytest.raises(ValueError, match="entity_df"):
        _store(tmp_path, database, "ours").get_historical_features(
            _spine(("OSL", _FIRST), keys=("airport",)), ["weather:wind"], end_date=_FIRST
        )


def test_the_plan_says_why(tmp_path: Path, database: Database) -> None:
    asked = _spine(("OSL", _FIRST), keys=("airport",))
    explained = {
        strategy: _store(tmp_path, database, "ours", strategy=strategy)
        .get_historical_features(asked, ["weather:wind"])
        .explain()
        for strategy in ("auto", "lookup", "merge")
    }
    assert all("weather" in text and "1 spine row" in text for text in explained.values())
    assert "weather: lookup" in explained["lookup"]
    assert "weather: merge" in explained["merge"]
