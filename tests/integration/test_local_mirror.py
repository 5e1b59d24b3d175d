"""Training sets from a pulled folder: the same as from the server that it was pulled from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, RequestSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float64, Int64, String
from polars.testing import assert_frame_equal

from feast_repos import repo
from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.stores.local_mirror import pull

pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature"),
    # Ibis calls DuckDB by a name that DuckDB 2 deprecates.
    pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning"),
]

_TABLES = """
    CREATE TABLE prices (
        symbol text, ts timestamptz, recorded timestamptz, close float8, n bigint, last float8[]
    );
    INSERT INTO prices
    SELECT 'S' || s, day, day, CASE WHEN d % 7 > 0 THEN s + d / 10.0 END, d, ARRAY[s, d]
    FROM generate_series(1, 5) AS s, generate_series(0, 799) AS d,
        LATERAL (SELECT timestamptz '2022-01-01' + d * interval '1 day' AS day);
    INSERT INTO prices
    SELECT symbol, ts, ts + interval '40 days', close + 1000, n, last FROM prices WHERE n % 10 = 3;
    CREATE TABLE sectors ("Symbol" text, ts timestamptz, "Sector" text);
    INSERT INTO sectors VALUES ('S1', '2022-02-01', 'energy'), ('S2', '2023-02-01', 'health');
    CREATE TABLE empty (symbol text, ts timestamptz, x float8);
"""
_SYMBOL = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
_PRICES = FeatureView(
    name="prices",
    entities=[_SYMBOL],
    ttl=timedelta(days=30),
    schema=[
        Field(name="close", dtype=Float64),
        Field(name="n", dtype=Int64),
        Field(name="last", dtype=Array(Float64)),
    ],
    source=PostgreSQLSource(
        name="prices", table="prices", timestamp_field="ts", created_timestamp_column="recorded"
    ),
)
_SECTORS = FeatureView(
    name="sectors",
    entities=[_SYMBOL],
    ttl=timedelta(0),
    schema=[Field(name="sector", dtype=String)],
    source=PostgreSQLSource(
        name="sectors",
        query='SELECT * FROM sectors WHERE "Symbol" IS NOT NULL',
        timestamp_field="ts",
        field_mapping={"Symbol": "symbol", "Sector": "sector"},
    ),
)
_EMPTY = FeatureView(
    name="empty",
    entities=[_SYMBOL],
    ttl=timedelta(0),
    schema=[Field(name="x", dtype=Float64)],
    source=PostgreSQLSource(name="empty", table="empty", timestamp_field="ts"),
)


@on_demand_feature_view(
    sources=[_PRICES, RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])],
    schema=[Field(name="scaled", dtype=Float64)],
)
def scaled(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"scaled": rows["close"] * rows["factor"]})


_SERVICE = FeatureService(name="all_of_it", features=[_PRICES, _SECTORS, _EMPTY, scaled])
_SPINE = pd.DataFrame(
    {
        "symbol": ["S1", "S2", "S3", "S9", "S5", "S1", "S2"],
        "event_timestamp": [
            datetime(2022, 1, 4, 12, tzinfo=UTC),
            datetime(2023, 3, 1, tzinfo=UTC),
            datetime(2022, 12, 31, 23, 59, 59, tzinfo=UTC),
            datetime(2022, 5, 1, tzinfo=UTC),
            datetime(2024, 4, 1, tzinfo=UTC),
            datetime(2024, 3, 20, tzinfo=UTC),
            datetime(2021, 3, 1, tzinfo=UTC),
        ],
        "factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
    }
)


@pytest.fixture
def store(empty_database: Database, tmp_path: Path) -> FeatureStore:
    """On the server."""
    with empty_database.connect() as opened:
        opened.execute(_TABLES.encode())
    served = repo(tmp_path, empty_database.dsn)
    served.apply([_SYMBOL, _PRICES, _SECTORS, _EMPTY, scaled, _SERVICE])
    return served


def _training_set(store: FeatureStore) -> pl.DataFrame:
    service = store.get_feature_service("all_of_it")
    rows = store.get_historical_features(entity_df=_SPINE, features=service).to_arrow()
    frame = pl.DataFrame(pl.from_arrow(rows)).with_columns(
        pl.col("event_timestamp").dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    )
    return frame.sort("factor")


def test_the_same_training_set_without_the_server(store: FeatureStore, tmp_path: Path) -> None:
    expected = _training_set(store)
    assert expected["close"].null_count() < 5
    done = {one.view: one for one in pull(store, tmp_path / "mirror")}
    assert {name: one.rows for name, one in done.items()} == {
        "prices": 4_400,
        "sectors": 2,
        "empty": 0,
    }
    assert sum(one.size_bytes for one in done.values()) > 0

    local = FeatureStore(repo_path=str(tmp_path / "mirror"))

    assert_frame_equal(_training_set(local), expected, check_column_order=False)
    years = {path.parent.name for path in (tmp_path / "mirror").rglob("prices/*/*.parquet")}
    assert years == {"2022", "2023", "2024"}


def test_a_second_pull_replaces_the_first(
    store: FeatureStore, empty_database: Database, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    pull(store, mirror)
    with empty_database.connect() as opened:
        opened.execute("UPDATE prices SET close = close + 1")
    pull(store, mirror, names=["prices"])

    local = FeatureStore(repo_path=str(mirror))

    assert [view.name for view in local.list_feature_views()] == ["prices"]
    assert local.list_feature_services() == []
    asked = {"entity_df": _SPINE, "features": ["prices:close"]}
    ours, theirs = (
        one.get_historical_features(**asked).to_df().sort_values("factor")["close"].tolist()
        for one in (local, store)
    )
    assert pd.Series(ours).equals(pd.Series(theirs))
    assert len([*(mirror / "data").iterdir()]) == 1


def test_a_pull_that_fails_leaves_the_one_before(
    store: FeatureStore, empty_database: Database, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    pull(store, mirror)
    before = _training_set(FeatureStore(repo_path=str(mirror)))
    with empty_database.connect() as opened:
        opened.execute("DROP TABLE empty")

    with pytest.raises(Exception, match="empty"):
        pull(store, mirror)

    assert_frame_equal(_training_set(FeatureStore(repo_path=str(mirror))), before)
    assert len([*(mirror / "data").iterdir()]) == 1


def test_a_first_pull_that_fails_is_no_obstacle_to_the_next(
    store: FeatureStore, empty_database: Database, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    with empty_database.connect() as opened:
        opened.execute("ALTER TABLE empty RENAME TO elsewhere")
    with pytest.raises(Exception, match="empty"):
        pull(store, mirror)
    assert not (mirror / "feature_store.yaml").exists()
    with empty_database.connect() as opened:
        opened.execute("ALTER TABLE elsewhere RENAME TO empty")
    assert len(pull(store, mirror)) == 3


def test_two_pulls_into_one_folder_are_one_too_many(store: FeatureStore, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"

    def second(*_: object) -> None:
        with pytest.raises(UsageError, match=r"another pull into .* is under way"):
            pull(store, mirror)

    assert len(pull(store, mirror, names=["prices"], progress=second)) == 1


def test_a_range_of_event_times(store: FeatureStore, tmp_path: Path) -> None:
    (done,) = pull(
        store,
        tmp_path / "mirror",
        names=["prices"],
        since=datetime(2022, 2, 1, tzinfo=UTC),
        until=datetime(2022, 2, 2, tzinfo=UTC),
    )
    assert done.rows == 2 * 5


def test_what_is_not_a_mirror_is_left_alone(store: FeatureStore, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("1")
    with pytest.raises(UsageError, match="no pull made"):
        pull(store, folder)
    with pytest.raises(
        UsageError, match="no feature view 'price': there are empty, prices, sectors"
    ):
        pull(store, tmp_path / "mirror", names=["price"])
