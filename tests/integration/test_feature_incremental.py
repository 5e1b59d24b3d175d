"""Incremental equals full, to the last bit: whatever arrives, in whatever order, whoever computes meanwhile."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import feature_world as world
from every_rule import EVERY
from feature_world import (
    BARS,
    SETS,
    SYMBOLS,
    Arrive,
    Delete,
    Refresh,
    Split,
    Step,
    arrive,
    clear,
    create,
    do,
    made,
    no_revision_repeats,
    same_as_rebuilt,
)
from hyperfeast.db import Database
from hyperfeast.features import table
from hyperfeast.features.incremental import next_block, pending, refresh_symbols
from hyperfeast.indicators import Member, cross_rank, ta
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe
from market_technical import market_technical

TESTS = Path(__file__).parents[1]

timeframes = st.sampled_from([Timeframe.M1, Timeframe.D1])
symbols = st.integers(0, len(SYMBOLS) - 1)
arrivals = st.builds(
    Arrive,
    timeframes,
    symbols,
    st.integers(0, BARS - 1),
    st.sampled_from([1, 1, 2, 30, 120, BARS]),
    st.integers(0, 3),
)
deletions = st.builds(
    Delete, timeframes, symbols, st.integers(0, BARS - 1), st.sampled_from([1, 2, 60])
)
divisions = st.builds(
    Split, symbols, st.integers(-10, 4000), st.sampled_from([2.0, 3.0, 0.1, 7 / 3])
)
refreshes = st.builds(
    Refresh,
    st.integers(0, len(SETS) - 1),
    st.none() | st.tuples(symbols) | st.tuples(symbols, symbols),
    st.sampled_from([False, False, False, True]),
)
steps = st.lists(arrivals | refreshes | arrivals | refreshes | deletions | divisions, max_size=10)


@pytest.fixture
def market(database: Database) -> Iterator[Database]:
    """A database with the tables of the sets."""
    pooled = Database(database.dsn, pool_size=6)
    create(pooled, *SETS)
    yield pooled
    pooled.close()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
@example(
    [
        Arrive(Timeframe.M1, 0, 0, BARS, 0),
        Arrive(Timeframe.M1, 1, 0, BARS, 0),
        Refresh(0, None),
        Refresh(1, None),
        Arrive(Timeframe.M1, 0, 50, 1, 1),
        Delete(Timeframe.M1, 0, 95, 1),
        Delete(Timeframe.M1, 1, 219, 1),
        Refresh(0, (0,)),
    ]
)
@example(
    [
        Arrive(Timeframe.D1, 0, 100, 120, 0),
        Arrive(Timeframe.D1, 2, 0, BARS, 0),
        Refresh(2, None),
        Refresh(3, None),
        Split(2, 1500, 7 / 3),
        Refresh(2, (2,)),
        Arrive(Timeframe.D1, 0, 0, 100, 0),
        Split(2, 900, 0.1),
        Arrive(Timeframe.D1, 1, 0, BARS, 0),
    ]
)
def test_the_end_is_that_of_a_computation_from_scratch(
    market: Database, taken: Sequence[Step]
) -> None:
    clear(market)
    for one in taken:
        do(market, one)
    for one in SETS:
        refresh_symbols(market, one)
        same_as_rebuilt(market, one)
    again = SETS[len(taken) % len(SETS)]
    assert pending(market, again) == {}
    assert refresh_symbols(market, again, full=True).written == 0


def test_every_rule_that_ships(market: Database) -> None:
    named = {
        f"f{number}_{name.lower().replace('.', '_')}"[:40]: rule
        for number, (name, rule) in enumerate(EVERY.items())
    }
    every = made("every", Timeframe.D1, named)
    create(market, every)
    for taken in (
        Arrive(Timeframe.D1, 0, 0, 150, 0),
        Arrive(Timeframe.D1, 1, 40, BARS, 0),
        Split(0, 1700, 7 / 3),
        Arrive(Timeframe.D1, 0, 150, 69, 0),
        Arrive(Timeframe.D1, 0, 130, 1, 1),
        Arrive(Timeframe.D1, 0, BARS - 1, 1, 0),
        Arrive(Timeframe.D1, 1, 0, 40, 0),
    ):
        do(market, taken)
        for one in (every, market_technical):
            refresh_symbols(market, one)
    for one in (every, market_technical):
        same_as_rebuilt(market, one)
        no_revision_repeats(market, one)


def test_a_new_bar_writes_a_row_and_a_correction_no_more_than_it_touches(market: Database) -> None:
    brief = made("brief", Timeframe.M1, {"mean": ta("SMA", timeperiod=5)})
    create(market, brief)
    arrive(market, Timeframe.M1, 0, range(BARS - 1), 0)
    arrive(market, Timeframe.M1, 1, range(BARS), 0)
    assert refresh_symbols(market, brief).written == 2 * BARS - 1
    arrive(market, Timeframe.M1, 0, range(BARS - 1, BARS), 0)
    new = refresh_symbols(market, brief)
    assert (new.rows, new.written, new.newest["symbol"].to_list()) == (1, 1, ["AAA"])
    # Computed from its bar to the end of its block; written are the five means that hold it.
    arrive(market, Timeframe.M1, 0, range(30, 31), 1)
    behind = next_block(Timeframe.M1, world.moment(Timeframe.M1, 30))
    corrected = refresh_symbols(market, brief)
    assert corrected.rows == (behind - world.moment(Timeframe.M1, 30)) // timedelta(hours=1) > 5
    assert 5 <= corrected.written < corrected.rows
    # The windows of the block behind reach back to its last bar.
    last = (behind - world.moment(Timeframe.M1, 1)) // timedelta(hours=1)
    arrive(market, Timeframe.M1, 0, range(last, last + 1), 1)
    at_the_edge = refresh_symbols(market, brief)
    assert at_the_edge.rows == 1 + 48
    same_as_rebuilt(market, brief)


def test_the_same_again_writes_nothing(market: Database) -> None:
    arrive(market, Timeframe.M1, 0, range(BARS), 0)
    for one in SETS[:2]:
        assert refresh_symbols(market, one).written == BARS
        assert refresh_symbols(market, one).rows == 0
        market.execute("UPDATE candles SET c = c, vwap = 1")
        again = refresh_symbols(market, one)
        assert (again.rows, again.written) == (BARS, 0)


def test_what_lost_its_bar_has_no_value_and_nothing_is_deleted(market: Database) -> None:
    arrive(market, Timeframe.M1, 0, range(BARS), 0)
    refresh_symbols(market, SETS[0])
    market.execute("DELETE FROM candles WHERE ts >= %s", [world.moment(Timeframe.M1, BARS - 3)])
    done = refresh_symbols(market, SETS[0])
    assert done.written == 3
    (newest,) = done.newest.iter_rows(named=True)
    assert newest["event_timestamp"] == world.moment(Timeframe.M1, BARS - 1) + timedelta(minutes=1)
    assert all(newest[name] is None for name in SETS[0].feature_names)
    arrive(market, Timeframe.M1, 0, range(BARS), 0)
    assert refresh_symbols(market, SETS[0]).written == 3
    same_as_rebuilt(market, SETS[0])


@pytest.mark.parametrize("which", [0, 1])
def test_what_follows_from_bars_that_retention_dropped_stays(market: Database, which: int) -> None:
    feature_set, horizon = SETS[which], datetime(2024, 3, 11, tzinfo=UTC)
    for symbol in (0, 1):
        arrive(market, Timeframe.M1, symbol, range(BARS - 1), 0)
    refresh_symbols(market, feature_set)
    before = table.newest(market, feature_set)
    market.execute(
        "INSERT INTO lifecycle_in_force (relation, tf, dropped_before) VALUES ('candles', '1m', %s)",
        [horizon],
    )
    with market.connect() as connection:
        connection.execute(query("lifecycle", "silence_marks"))
        connection.execute("DELETE FROM candles WHERE ts < %s", [horizon])
    assert pending(market, feature_set) == {}
    refresh_symbols(market, feature_set, full=True)
    after = table.newest(market, feature_set)
    assert_frame_equal(after, before, rel_tol=1e-9)
    # A symbol that is new has lost nothing: its first bars can be corrected.
    arrive(market, Timeframe.M1, 2, range(150, BARS), 0)
    refresh_symbols(market, feature_set)
    arrive(market, Timeframe.M1, 2, range(160, 161), 1)
    assert refresh_symbols(market, feature_set).newest["symbol"].to_list()[-1] == "CCC"


def test_the_universe_is_the_one_of_the_moment(market: Database) -> None:
    since, until = world.moment(Timeframe.M1, 60), world.moment(Timeframe.M1, 120)
    members = (Member("AAA", since), Member("BBB", since, until), Member("CCC", since))
    listed = made("listed", Timeframe.M1, {"rank": cross_rank("close", universe=members)})
    create(market, listed)
    for symbol in (0, 1):
        arrive(market, Timeframe.M1, symbol, range(BARS), 0)
    refresh_symbols(market, listed)
    arrive(market, Timeframe.M1, 2, range(100, BARS), 0)
    refresh_symbols(market, listed)
    same_as_rebuilt(market, listed)
    rows = market.frame(
        "SELECT symbol, event_timestamp, count(*) AS revisions, "
        "(array_agg(rank ORDER BY recorded_at DESC))[1] AS rank "
        f"FROM {listed.table} GROUP BY 1, 2"
    )
    of_pair = rows.filter(pl.col("symbol") != "CCC")
    later = pl.col("event_timestamp") > world.moment(Timeframe.M1, 100)
    assert of_pair.filter(~later)["revisions"].max() == 1
    assert of_pair.filter(pl.col("event_timestamp") < since)["rank"].null_count() == 120
    assert of_pair.filter(later, pl.col("symbol") == "AAA")["revisions"].max() == 2
    left = (pl.col("event_timestamp") >= until) & (pl.col("symbol") == "BBB")
    assert rows.filter(left)["rank"].is_null().all()


def test_refreshers_and_writers_at_once(market: Database) -> None:
    for symbol in range(len(SYMBOLS)):
        arrive(market, Timeframe.M1, symbol, range(150), 0)

    def write() -> None:
        for number in range(24):
            arrive(market, Timeframe.M1, number % 3, range(number * 9, number * 9 + 2), number % 4)

    def compute(which: int, symbols: list[str] | None) -> None:
        for _ in range(8):
            refresh_symbols(market, SETS[which], symbols)

    with ThreadPoolExecutor(6) as threads:
        running = [
            threads.submit(write),
            threads.submit(compute, 0, None),
            threads.submit(compute, 0, ["BBB", "AAA"]),
            threads.submit(compute, 0, ["CCC"]),
            threads.submit(compute, 1, None),
            threads.submit(compute, 1, ["AAA"]),
        ]
        for one in running:
            one.result(120)
    for one in SETS[:2]:
        refresh_symbols(market, one)
        same_as_rebuilt(market, one)
        no_revision_repeats(market, one)


@pytest.mark.parametrize("which", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_refresher_killed_at_any_statement_loses_and_doubles_nothing(
    market: Database, which: int
) -> None:
    for symbol in range(2):
        arrive(market, Timeframe.M1, symbol, range(100), 0)
    refresh_symbols(market, SETS[which])
    with subprocess.Popen(
        [sys.executable, "-m", "killed_refresh", str(which)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{market.dsn}\n")
        killed = 0
        for statement in range(1, 100):
            arrive(market, Timeframe.M1, 0, range(60, 62), statement)
            child.stdin.write(f"{statement}\n")
            child.stdin.flush()
            ended = int(child.stdout.readline())
            if ended == 0:
                break
            assert ended == signal.SIGKILL
            killed += 1
        child.stdin.close()
    assert killed > 8
    assert pending(market, SETS[which]) == {}
    same_as_rebuilt(market, SETS[which])
    no_revision_repeats(market, SETS[which])
