"""PostgreSQL killed in the middle of a COPY: batches are whole or absent, and the next run heals."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import Contended, HyperfeastError, ServerUnreachable
from hyperfeast.ingest import Candles, Ingested, ingest_candles, ingest_stream
from hyperfeast.migrate import migrate
from hyperfeast.servers import PostgresServer
from hyperfeast.servers.state import State
from hyperfeast.types import Timeframe

_ROWS = 200_000
_COPYING = (
    "SELECT p.pid, p.tuples_processed AS rows FROM pg_stat_progress_copy AS p "
    "WHERE p.datname = current_database() AND p.relid = 'candles'::regclass AND p.tuples_processed > 0"
)
_MINUTES = Candles(timeframe=Timeframe.M1, source="test")


def _bars(symbol: str) -> pl.DataFrame:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    last = first + timedelta(minutes=_ROWS - 1)
    times = pl.datetime_range(first, last, "1m", eager=True, time_unit="us")
    return pl.DataFrame({"ts": times}).with_columns(
        symbol=pl.lit(symbol), open=10.0, high=20.0, low=5.0, close=11.0, volume=100.0
    )


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server for one test alone: others do not notice what happens to it."""
    server = PostgresServer(tmp_path / "postgres")
    yield server
    server.down()


def _stored(database: Database) -> dict[str, int]:
    rows = database.fetch("SELECT symbol, count(*) AS n FROM candles GROUP BY symbol")
    return {row["symbol"]: row["n"] for row in rows}


def _statuses(database: Database) -> list[tuple[str, int]]:
    rows = database.fetch("SELECT status, inserted FROM ingest_batches ORDER BY started_at")
    return [(row["status"], row["inserted"]) for row in rows]


def _strike(database: Database, running: "Future[Ingested]", hit: Callable[[int], None]) -> int:
    """Hit the server process that copies the second batch; how many of its rows had come."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert not running.done(), "the batches were stored before the fault fired"
        if len(_stored_batches(database)) == 1:
            for row in database.fetch(_COPYING):
                hit(row["pid"])
                return int(row["rows"])
    raise AssertionError("no batch was ever being copied")


def _stored_batches(database: Database) -> list[dict[str, Any]]:
    return database.fetch("SELECT FROM ingest_batches WHERE status = 'COMPLETED'")


def _check_struck(running: "Future[Ingested]", copied: int) -> None:
    """The fault fired within a batch, and the caller was told that it may try again."""
    assert 0 < copied < _ROWS
    with pytest.raises(HyperfeastError) as caught:
        running.result()
    assert isinstance(caught.value, ServerUnreachable)
    assert caught.value.retryable


def test_a_session_that_is_terminated_in_the_middle_of_a_copy(database: Database) -> None:
    frames = [_bars("AAA"), _bars("BBB"), _bars("CCC")]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ingest_stream, database, frames, _MINUTES)
        copied = _strike(database, running, lambda pid: _terminate(database, pid))
        _check_struck(running, copied)
    assert _stored(database) == {"AAA": _ROWS}
    assert _statuses(database)[:2] == [("COMPLETED", _ROWS), ("FAILED", 0)]
    again = ingest_stream(database, frames, _MINUTES)
    assert (again.inserted, again.unchanged) == (2 * _ROWS, _ROWS)


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_of_a_copy(own_server: PostgresServer) -> None:
    database = Database(own_server.up())
    migrate(database)
    frames = [_bars("AAA"), _bars("BBB")]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ingest_stream, database, frames, _MINUTES)
        copied = _strike(database, running, lambda _: _kill_all(own_server))
        _check_struck(running, copied)
    database = Database(own_server.up())
    assert _stored(database) == {"AAA": _ROWS}
    assert _statuses(database) == [("COMPLETED", _ROWS), ("RUNNING", 0)]
    bar = _bars("BBB").head(1)
    assert ingest_candles(database, bar, timeframe=Timeframe.M1, source="test").inserted == 1
    assert _statuses(database) == [("COMPLETED", _ROWS), ("FAILED", 0), ("COMPLETED", 1)]
    again = ingest_stream(database, frames, _MINUTES)
    assert (again.inserted, again.unchanged) == (_ROWS - 1, _ROWS + 1)


def _terminate(database: Database, pid: int) -> None:
    database.fetch("SELECT pg_terminate_backend(%s)", (pid,))


def _kill_all(server: PostgresServer) -> None:
    """SIGKILL to the server and to every process that works for it, none of them warned by another."""
    state = State.read(server.folder / "state.json")
    assert state is not None
    assert state.pid is not None
    master = psutil.Process(state.pid)
    for process in [master, *master.children(recursive=True)]:
        os.kill(process.pid, signal.SIGKILL)


def test_a_horizon_that_moves_while_a_batch_is_judged(database: Database) -> None:
    """Retention and a late batch meet: its rows are judged again, by the new horizon."""
    moved: list[int] = []

    def move(*_: int) -> None:
        if not moved:
            moved.append(1)
            database.execute(
                "INSERT INTO lifecycle_in_force (relation, tf, keep_for, dropped_before) "
                "VALUES ('candles', '1m', '1 month', '2024-01-08Z')"
            )

    late, later = _bars("A").head(10), _bars("A").head(3)
    later = later.with_columns(pl.col("ts") + timedelta(weeks=2))
    done = ingest_candles(
        database, pl.concat([late, later]), timeframe=Timeframe.M1, source="test", progress=move
    )
    assert moved
    assert (done.inserted, done.refused) == (3, {"retention": 10})
    assert _stored(database) == {"A": 3}


def test_a_deadlock_is_fought_again(database: Database) -> None:
    database.execute("CREATE SEQUENCE attempts")
    database.execute(
        "CREATE FUNCTION lose_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF nextval('attempts') < 3 THEN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END IF; "
        "RETURN NULL; END $$"
    )
    database.execute(
        "CREATE TRIGGER lose_once AFTER INSERT ON candles FOR EACH STATEMENT EXECUTE FUNCTION lose_once()"
    )
    done = ingest_candles(database, _bars("A").head(10), timeframe=Timeframe.M1, source="test")
    assert done.inserted == 10
    assert _stored(database) == {"A": 10}
    assert database.fetch("SELECT last_value AS n FROM attempts") == [{"n": 3}]


def test_a_deadlock_that_is_always_lost_is_told(database: Database) -> None:
    with pytest.raises(
        Contended, match=r"undid this for another transaction .*deadlock.*do it again"
    ) as told:
        database.execute("DO $$ BEGIN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END $$")
    assert told.value.retryable
