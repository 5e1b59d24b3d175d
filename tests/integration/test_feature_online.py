"""What is computed goes online at once, and of what is online the newest stays."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
import redis

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import ServerError
from hyperfeast.features.compute import refresh
from hyperfeast.stores.feast_store import FeastStore
from market import bars
from market_technical import market_technical

FOLDER = Path(__file__).parents[2] / "feature_repo"
PRICES = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
SERVICE, VIEW = "market_direction_v1", market_technical.view
ENTITIES = [{"symbol": "AAA"}, {"symbol": "BBB"}]


@pytest.fixture
def feast(database: Database, redis_url: str) -> Iterator[FeastStore]:
    """Feast on the test's servers, with forty days of two symbols stored."""
    store = FeastStore(FOLDER, postgres_dsn=database.dsn, redis_url=redis_url)
    with database.connect() as connection:
        connection.execute("INSERT INTO instruments (symbol) VALUES ('AAA'), ('BBB')")
    add(database, range(40))
    yield store
    store.close()


def add(database: Database, days: range) -> None:
    prices = bars(60).select("symbol", "ts", *PRICES).rename(PRICES).with_columns(tf=pl.lit("1d"))
    first = prices["ts"].min()
    wanted = prices.filter((pl.col("ts") - first).dt.total_days().is_in(list(days)))
    with database.connect() as connection:
        copy_frame(connection, "candles", wanted)


def served(feast: FeastStore, name: str) -> list[float]:
    answer = feast.online(SERVICE, ENTITIES)
    return [float(one) for one in answer.values[:, answer.features.index(name)]]


def stored(database: Database, name: str) -> list[float]:
    return [
        row["value"]
        for row in database.fetch(
            f"SELECT DISTINCT ON (symbol) {name} AS value FROM {market_technical.table} "
            "ORDER BY symbol, event_timestamp DESC, recorded_at DESC"
        )
    ]


def test_a_set_that_feast_does_not_know_is_left_alone(
    database: Database, feast: FeastStore
) -> None:
    assert feast.bring_online(VIEW, refresh(database, market_technical).newest) == 0


def test_new_bars_and_corrections_are_online_with_the_computation(
    database: Database, feast: FeastStore
) -> None:
    feast.apply()
    assert feast.bring_online(VIEW, refresh(database, market_technical).newest) == 2
    assert served(feast, "rsi_14") == stored(database, "rsi_14")

    add(database, range(40, 41))
    assert feast.bring_online(VIEW, refresh(database, market_technical).newest) == 2
    new = served(feast, "rsi_14")
    assert new == stored(database, "rsi_14")

    database.execute(
        "UPDATE candles SET c = l WHERE symbol = 'AAA' AND ts = (SELECT max(ts) FROM candles)"
    )
    correction = refresh(database, market_technical).newest
    assert feast.bring_online(VIEW, correction) == 1
    corrected = served(feast, "rsi_14")
    assert corrected == stored(database, "rsi_14")
    assert (corrected[0] != new[0], corrected[1] == new[1]) == (True, True)

    # Whoever was late with what he had computed before.
    outdated = correction.with_columns(
        pl.col("recorded_at") - timedelta(seconds=1), rsi_14=pl.lit(1.0)
    )
    assert feast.bring_online(VIEW, outdated) == 0
    assert served(feast, "rsi_14") == corrected
    assert feast.bring_online(VIEW, correction.clear()) == 0


def test_what_lost_its_bar_is_online_without_a_value(database: Database, feast: FeastStore) -> None:
    feast.apply()
    feast.bring_online(VIEW, refresh(database, market_technical).newest)
    database.execute(
        "DELETE FROM candles WHERE symbol = 'BBB' AND ts = (SELECT max(ts) FROM candles)"
    )
    assert feast.bring_online(VIEW, refresh(database, market_technical).newest) == 1
    first, second = served(feast, "rsi_14")
    assert first == stored(database, "rsi_14")[0]
    assert second != second  # noqa: PLR0124 - only NaN is not itself


def test_without_redis_it_says_so_and_the_rows_are_stored(
    database: Database, feast: FeastStore
) -> None:
    feast.apply()
    gone = FeastStore(FOLDER, postgres_dsn=database.dsn, redis_url="redis://127.0.0.1:1/0")
    newest = refresh(database, market_technical).newest
    with pytest.raises(ServerError):
        gone.bring_online(VIEW, newest)
    gone.close()
    assert len(stored(database, "rsi_14")) == 2
    assert feast.bring_online(VIEW, newest) == 2


def test_materializing_afterwards_changes_nothing(
    database: Database, feast: FeastStore, redis_url: str
) -> None:
    feast.apply()
    feast.bring_online(VIEW, refresh(database, market_technical).newest)
    # Keys and values are bytes that are no text.
    with redis.Redis.from_url(redis_url) as client:
        keys = [key for key in client.scan_iter() if client.type(key) == b"hash"]
        before = {key: client.hgetall(key) for key in keys}
        end = bars(60)["event_timestamp"].max()
        assert end is not None
        feast.materialize(None, end)
        assert before
        assert {key: client.hgetall(key) for key in before} == before
