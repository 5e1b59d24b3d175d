"""Flags in the database: raised, kept, taken away; the bars themselves untouched."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.ingest import ingest_actions, ingest_candles
from hyperfeast.quality import flag_outliers, sync_calendars
from hyperfeast.types import Timeframe
from market import bars

DAY = datetime(2020, 4, 1, tzinfo=UTC)
CANDLES = bars(200).drop("event_timestamp", "split_factor")


def flags(database: Database) -> list[tuple[str, datetime, str]]:
    rows = database.fetch("SELECT key, ts, method FROM outlier_flags ORDER BY key, ts, method")
    return [(row["key"], row["ts"], row["method"]) for row in rows]


def scaled(symbol: str, times: float) -> pl.DataFrame:
    """One bar of DAY with its prices multiplied."""
    one = CANDLES.filter((pl.col("symbol") == symbol) & (pl.col("ts") == DAY))
    return one.with_columns(pl.col("open", "high", "low", "close") * times)


@pytest.fixture
def market(database: Database) -> Database:
    ingest_candles(database, CANDLES, timeframe=Timeframe.D1, source="test")
    return database


def test_a_flag_stands_until_its_bar_is_corrected(market: Database) -> None:
    assert flag_outliers(market).flagged == 0
    ingest_candles(market, scaled("AAA", 10), timeframe=Timeframe.D1, source="test")
    done = flag_outliers(market)
    assert (done.bars, done.flagged, done.added, done.cleared) == (400, 3, 3, 0)
    wrong = [
        ("AAA", DAY, "neighbor_jump"),
        ("AAA", DAY, "robust_z"),
        ("AAA", DAY + timedelta(days=1), "robust_z"),
    ]
    assert flags(market) == wrong
    raised = market.fetch("SELECT flagged_at FROM outlier_flags ORDER BY 1")
    # Judged again, in part or of another symbol: nothing changes.
    assert flag_outliers(market).added == 0
    assert flag_outliers(market, symbol="BBB").cleared == 0
    assert flag_outliers(market, since=DAY + timedelta(days=2)).bars < 400
    assert market.fetch("SELECT flagged_at FROM outlier_flags ORDER BY 1") == raised
    assert flags(market) == wrong
    assert market.fetch("SELECT count(*) AS n FROM candles")[0]["n"] == 400

    ingest_candles(market, scaled("AAA", 1), timeframe=Timeframe.D1, source="test")
    assert flag_outliers(market, since=DAY).cleared == 3
    assert flags(market) == []


def test_judging_from_a_moment_gives_the_same_flags(market: Database) -> None:
    ingest_candles(market, scaled("BBB", 0.1), timeframe=Timeframe.D1, source="test")
    flag_outliers(market)
    whole = market.fetch("SELECT key, ts, method, score FROM outlier_flags ORDER BY ts, method")
    market.execute("DELETE FROM outlier_flags")
    flag_outliers(market, since=DAY)
    assert (
        market.fetch("SELECT key, ts, method, score FROM outlier_flags ORDER BY ts, method")
        == whole
    )


def test_a_split_is_no_outlier(market: Database) -> None:
    after = pl.col("ts") >= DAY
    prices = [
        pl.when(after).then(pl.col(one) / 4).otherwise(pl.col(one)).alias(one)
        for one in ("open", "high", "low", "close")
    ]
    halved = CANDLES.filter(pl.col("symbol") == "AAA").with_columns(prices)
    ingest_candles(market, halved, timeframe=Timeframe.D1, source="test")
    assert flag_outliers(market).flagged == 1
    action = pl.DataFrame(
        {"symbol": ["AAA"], "ex_date": [DAY.date()], "kind": ["split"], "ratio": [4.0]}
    )
    ingest_actions(market, action, source="test")
    assert flag_outliers(market).cleared == 1


def test_a_split_counts_from_its_session_s_open_on_the_utc_day_before(database: Database) -> None:
    # In summer, Sydney opens at 23:00 UTC.
    database.execute("INSERT INTO instruments (symbol, calendar) VALUES ('AAA', 'XASX')")
    sync_calendars(database)
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c) "
        "SELECT 'AAA', '1h', bar, p, p, p, p FROM market_sessions, "
        "generate_series(opens, closes - interval '1 second', '1 hour') AS bar, "
        "LATERAL (SELECT (100 + mod(extract(hour FROM bar), 3) / 10) "
        "/ CASE WHEN session >= '2024-02-01' THEN 5 ELSE 1 END AS p) AS priced "
        "WHERE session BETWEEN '2024-01-02' AND '2024-03-01'"
    )
    assert flag_outliers(database, timeframe=Timeframe.H1).flagged == 1
    database.execute(
        "INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
        "VALUES ('AAA', '2024-02-01', 'split', 5, 'test')"
    )
    assert flag_outliers(database, timeframe=Timeframe.H1).flagged == 0
    assert flags(database) == []


def test_an_unknown_instrument_is_refused(database: Database) -> None:
    with pytest.raises(UsageError, match="no instrument 'NONE'"):
        flag_outliers(database, symbol="NONE")
