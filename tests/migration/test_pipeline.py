"""The same rows through ingestion and features, on TimescaleDB community and on plain PostgreSQL."""

from datetime import UTC, datetime, timedelta

import polars as pl
from polars.testing import assert_frame_equal

from hyperfeast.db import Database
from hyperfeast.features import FeatureSet, table
from hyperfeast.features.compute import refresh
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe
from market import bars
from market_technical import market_technical
from personal_baseline import personal_baseline

USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
CANDLES = bars(80).drop("event_timestamp", "split_factor")
READINGS = pl.DataFrame(
    {
        "ts": [datetime(2021, 1, 1, tzinfo=UTC) + timedelta(hours=5 * step) for step in range(160)],
        "value": [100.0 + step * 37 % 50 for step in range(160)],
    }
)


def rows(database: Database, feature_set: FeatureSet) -> pl.DataFrame:
    """What is served after everything was taken in, corrected once, and computed."""
    late = CANDLES.head(1).with_columns(close=pl.col("low"))
    for candles in (CANDLES, CANDLES, late):
        ingest_candles(database, candles, timeframe=Timeframe.D1, source="test")
    ingest_metrics(database, READINGS, user=USER, metric="glucose", source="test")
    assert refresh(database, feature_set).written > 0
    assert refresh(database, feature_set).written == 0
    return table.newest(database, feature_set).sort(*feature_set.key_columns, "event_timestamp")


def test_market_features_are_the_same(migrated_community: Database, database: Database) -> None:
    found = rows(migrated_community, market_technical)
    assert found.height == 160
    assert_frame_equal(found, rows(database, market_technical), check_exact=True)
    assert migrated_community.fetch("SELECT count(*) AS n FROM candle_revisions") == [{"n": 1}]


def test_baselines_are_the_same(migrated_community: Database, database: Database) -> None:
    found = rows(migrated_community, personal_baseline)
    assert found["z_score"].drop_nulls().len() > 20
    # Two PostgreSQL versions may add the same sums in another order.
    assert_frame_equal(found, rows(database, personal_baseline), rel_tol=1e-12)
