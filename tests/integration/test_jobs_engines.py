"""The same partitions in this process, on processes of this machine, and on Ray: equal tables."""

import random
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, ServerError, UsageError
from hyperfeast.features.plan import prepare
from hyperfeast.features.repo import FeatureRepo
from hyperfeast.ingest import ingest_candles
from hyperfeast.jobs.engines import Engine, run
from hyperfeast.jobs.partition import Partition, Site, compute, compute_at, partitions
from hyperfeast.types import Timeframe

SYMBOLS = [f"S{number}" for number in range(7)]
BARS = 300
REPO = Path(__file__).parents[2] / "feature_repo"

on_ray = pytest.param(
    Engine.RAY,
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: extra `ray`"),
        # Ray's own, in this process.
        pytest.mark.filterwarnings("default"),
    ],
)


@pytest.fixture
def market(database: Database) -> Database:
    """Random walks of a few symbols, around the clock."""
    chance = random.Random(1)
    days = [datetime(2023, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(BARS)]
    for symbol in SYMBOLS:
        closes = [100.0]
        for _ in days:
            closes.append(closes[-1] * (1 + chance.gauss(0, 0.01)))
        frame = pl.DataFrame(
            {
                "symbol": [symbol] * BARS,
                "ts": days,
                "open": closes[:-1],
                "high": [1.01 * max(pair) for pair in pairwise(closes)],
                "low": [0.99 * min(pair) for pair in pairwise(closes)],
                "close": closes[1:],
                "volume": [chance.randint(1, 10_000) for _ in days],
            }
        )
        ingest_candles(database, frame, timeframe=Timeframe.D1, source="test")
    sets = list(FeatureRepo(REPO).feature_sets.values())
    prepare(database, sets, sets)
    return database


def rows(database: Database) -> list[Any]:
    found = database.fetch(
        "SELECT * FROM features_market_technical_v1 ORDER BY symbol, event_timestamp"
    )
    return [{name: value for name, value in row.items() if name != "recorded_at"} for row in found]


@pytest.mark.parametrize("engine", [pytest.param(Engine.PROCESSES, marks=pytest.mark.slow), on_ray])
def test_all_engines_give_the_same_table(market: Database, engine: Engine) -> None:
    declared = FeatureRepo(REPO).feature_set("market_technical_v1")
    site = Site(market.dsn, REPO)
    parts = partitions(market, declared, size=2)
    assert [one.keys for one in parts] == [
        ("S0", "S1"),
        ("S2", "S3"),
        ("S4", "S5"),
        ("S6",),
    ]
    told: list[tuple[int, int]] = []
    done = run(site, parts, engine=Engine.LOCAL, workers=1, progress=lambda *one: told.append(one))
    assert told == [(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]
    assert sum(one.written for one in done) == len(SYMBOLS) * BARS
    local = rows(market)
    assert partitions(market, declared) == []

    market.execute("TRUNCATE features_market_technical_v1")
    full = partitions(market, declared, full=True, size=2)
    assert [one.keys for one in full] == [one.keys for one in parts]
    told.clear()
    done = run(site, full, engine=engine, workers=2, progress=lambda *one: told.append(one))
    assert (told[0], told[-1], len(told)) == ((0, 7), (7, 7), 5)
    assert sum(one.written for one in done) == len(SYMBOLS) * BARS
    assert rows(market) == local

    # Again: nothing is new, and nothing is written.
    done = run(site, full, engine=engine, workers=2, progress=lambda *_: None)
    assert [one.written for one in done] == [0] * 4
    assert rows(market) == local


@pytest.mark.parametrize("engine", [Engine.LOCAL, Engine.PROCESSES, on_ray])
def test_what_a_partition_raises_is_raised(market: Database, engine: Engine) -> None:
    gone = Partition("market_technical", 9, ("S0",))
    with pytest.raises(FeatureError, match=r"no feature set 'market_technical_v9'.*cancel the job"):
        run(Site(market.dsn, REPO), [gone], engine=engine, workers=1, progress=lambda *_: None)


def test_a_password_is_in_no_repr() -> None:
    assert "secret" not in repr(Site("postgresql://me:secret@host/db", REPO))


def test_symbols_that_are_not_known(market: Database) -> None:
    repo = FeatureRepo(REPO)
    bars, readings = repo.feature_set("market_technical"), repo.feature_set("personal_baseline")
    with pytest.raises(UsageError, match=r"has no symbol 'NOPE', 'WHAT': take in"):
        partitions(market, bars, ["S1", "WHAT", "NOPE"])
    with pytest.raises(UsageError, match=r"has no readings of user 'Bob': take in"):
        partitions(market, readings, ["Bob"])
    assert partitions(market, readings, full=True) == []
    user = "123e4567-e89b-12d3-a456-426614174000"
    market.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, value, ts, source) VALUES (%s, 'm', 1, now(), 'd')",
        [user],
    )
    of_user = Partition("personal_baseline", readings.version, (user,), full=True)
    assert partitions(market, readings, full=True) == [of_user]
    assert partitions(market, readings, [user], full=True) == [of_user]


def test_a_partition_as_a_job_carries_it() -> None:
    for one in (Partition("a", 1, ("x", "y")), Partition("b", 2, None, full=True)):
        assert Partition.of(one.arguments()) == one


def test_a_partition_stops_where_it_is_told_to(market: Database) -> None:
    """What was stored until then stays, and is not done again."""
    declared = FeatureRepo(REPO).feature_set("market_technical_v1")
    (part,) = partitions(market, declared)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done:
            raise Stopped

    with pytest.raises(Stopped):
        compute(market, declared, part, stop)
    first = {row["symbol"] for row in rows(market)}
    assert 0 < len(first) < len(SYMBOLS)
    done = compute_at(Site(market.dsn, REPO), part)
    assert done.rows == (len(SYMBOLS) - len(first)) * BARS
    assert {row["symbol"] for row in rows(market)} == set(SYMBOLS)


def test_an_error_of_another_process_comes_as_it_is() -> None:
    site = Site("postgresql://nobody@127.0.0.1:1/none", REPO)
    part = Partition("market_technical", 1, ("S0",))
    with pytest.raises(ServerError, match="does not answer"):
        run(site, [part], engine=Engine.PROCESSES, workers=1, progress=lambda *_: None)


def test_a_process_that_dies_is_reported(database: Database, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: deadly\n")
    (tmp_path / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    part = Partition("deadly", 1, ("S0",))
    with pytest.raises(ServerError, match=r"a worker process died.*the same command does the rest"):
        run(
            Site(database.dsn, tmp_path),
            [part],
            engine=Engine.PROCESSES,
            workers=1,
            progress=lambda *_: None,
        )
