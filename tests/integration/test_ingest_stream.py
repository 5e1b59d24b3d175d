"""A stream of frames: batch by batch, the next one judged ahead, stopped by an error or by hand."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import DataError, ServerUnreachable
from hyperfeast.ingest import Candles, Metrics, ingest_stream, read_batches
from hyperfeast.types import Timeframe

_DAILY = Candles(timeframe=Timeframe.D1, source="test")
_STATUSES = "SELECT status, error FROM ingest_batches ORDER BY started_at"


def _bars(*days: int, close: float = 11.0, symbol: str = "AAA") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": symbol, "ts": [f"2024-01-{day:02}" for day in days], "open": 10.0, "high": 20.0,
            "low": 5.0, "close": close, "volume": 100.0,
        }
    )  # fmt: skip


def _statuses(database: Database) -> list[str]:
    return [row["status"] for row in database.fetch(_STATUSES)]


def test_the_totals_of_all_batches(database: Database) -> None:
    frames = [_bars(2, 3, 3), _bars(3, 4, close=12.0), _bars(5, close=99.0), _bars(6, close=99.0)]
    told: list[tuple[int, int]] = []
    done = ingest_stream(database, frames, _DAILY, rows=8, progress=lambda *rows: told.append(rows))
    assert (done.rows_in, done.inserted, done.corrected, done.unchanged) == (7, 3, 1, 1)
    assert (done.quarantined, done.refused) == (2, {"high_is_highest": 2})
    assert told == [(3, 8), (5, 8), (6, 8), (7, 8), (7, 7)]
    kept = database.fetch("SELECT batch_id, status FROM ingest_batches ORDER BY started_at")
    assert [row["batch_id"] for row in kept] == done.batches
    assert _statuses(database) == ["COMPLETED"] * 4
    again = ingest_stream(database, frames[1:2], _DAILY)
    assert (again.inserted, again.corrected, again.unchanged) == (0, 0, 2)


def test_nothing_at_all(database: Database) -> None:
    done = ingest_stream(database, [], _DAILY)
    assert (done.batches, done.rows_in) == ([], 0)


def test_readings_stream_too(database: Database) -> None:
    frames = [
        pl.DataFrame({"ts": [f"2024-01-02 10:{minute:02}"], "bpm": ["60"]}) for minute in (1, 2)
    ]
    user = "0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47"
    done = ingest_stream(database, frames, Metrics(source="test", user=user, metric="bpm"))
    assert (done.inserted, len(done.batches)) == (2, 2)


def test_one_frame_is_judged_ahead_and_no_more(database: Database) -> None:
    drawn: list[int] = []

    def frames() -> Iterator[pl.DataFrame]:
        for day in range(2, 7):
            drawn.append(day)
            yield _bars(day)

    with ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        running = pool.submit(ingest_stream, database, frames(), _DAILY)
        _wait_for_blocked(database, 1)
        _wait_until(lambda: len(database.fetch(_STATUSES)) == 2)
        time.sleep(0.5)
        assert drawn == [2, 3]
        assert _statuses(database) == ["RUNNING", "RUNNING"]
        holder.rollback()
        assert running.result().inserted == 5
    assert drawn == [2, 3, 4, 5, 6]


def test_an_error_in_the_source_ends_the_stream_after_what_came_before(database: Database) -> None:
    def frames() -> Iterator[pl.DataFrame]:
        yield _bars(2)
        yield _bars(3)
        raise DataError("the file is torn")

    with pytest.raises(DataError, match="torn"):
        ingest_stream(database, frames(), _DAILY)
    assert _statuses(database) == ["COMPLETED", "COMPLETED"]
    assert len(database.fetch("SELECT FROM candles")) == 2


def test_a_message_names_the_row_of_the_file(database: Database, tmp_path: Path) -> None:
    bars = _bars(*range(2, 12)).with_columns(
        ts=pl.when(pl.col("ts") == "2024-01-09").then(pl.lit("2024-01-09 10:00")).otherwise("ts")
    )
    bars.write_csv(tmp_path / "bars.csv")
    with pytest.raises(DataError, match=r"^row 8 has the time 2024-01-09 10:00"):
        ingest_stream(database, read_batches(tmp_path / "bars.csv", rows=3), _DAILY)
    assert _statuses(database) == ["COMPLETED", "COMPLETED", "FAILED"]


def test_an_error_of_the_server_ends_the_stream_and_fails_what_was_judged_ahead(
    database: Database,
) -> None:
    drawn: list[int] = []

    def frames() -> Iterator[pl.DataFrame]:
        for day in range(2, 7):
            drawn.append(day)
            yield _bars(day)

    with ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        running = pool.submit(ingest_stream, database, frames(), _DAILY)
        (pid,) = _wait_for_blocked(database, 1)
        _wait_until(lambda: len(database.fetch(_STATUSES)) == 2)
        database.fetch("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(ServerUnreachable) as caught:
            running.result()
        holder.rollback()
    assert caught.value.retryable
    assert drawn == [2, 3]
    assert _statuses(database) == ["FAILED", "FAILED"]
    assert database.fetch("SELECT FROM candles") == []


_INTERRUPTED = """
import sys, time
import polars as pl
from hyperfeast.db import Database
from hyperfeast.ingest import Candles, ingest_stream
from hyperfeast.types import Timeframe

frame = pl.read_json(sys.stdin.buffer)

def frames():
    while True:
        yield frame

def progress(done, rows):
    print(done, flush=True)

ingest_stream(
    Database(sys.argv[1]), frames(), Candles(timeframe=Timeframe.D1, source="test"), progress=progress
)
"""


def test_an_interrupt_stops_the_stream_and_leaves_no_batch_running(database: Database) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, database.dsn],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(_bars(2).write_json().encode())
        child.stdin.close()
        assert child.stdout.readline() == b"1\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(120) != 0
        assert child.stderr is not None
        assert b"KeyboardInterrupt" in child.stderr.read()
    assert set(_statuses(database)) == {"COMPLETED", "FAILED"}
    assert database.fetch("SELECT count(*) AS n FROM candles") == [{"n": 1}]


_MEASURED = """
import re, sys
from pathlib import Path
from hyperfeast.db import Database
from hyperfeast.ingest import Candles, ingest_stream, read_batches
from hyperfeast.types import Timeframe

done = ingest_stream(
    Database(sys.argv[1]), read_batches(sys.argv[2]), Candles(timeframe=Timeframe.D1, source="test")
)
# Not getrusage, which begins with what the parent held when it forked.
peak_kb = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(done.inserted, int(peak_kb) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bars.csv", "bars.parquet"])
def test_memory_does_not_grow_with_the_file(database: Database, tmp_path: Path, name: str) -> None:
    symbols = pl.DataFrame({"symbol": [f"S{number:03}" for number in range(150)]})
    days = pl.date_range(pl.date(1990, 1, 1), pl.date(2017, 5, 17), "1d", eager=True).alias("ts")
    bars = symbols.join(days.to_frame(), how="cross").with_row_index("n")
    bars = bars.with_columns(close=10 + pl.col("n") / 1_000_000, low=5.0, volume=pl.col("n") * 1.0)
    bars = bars.with_columns(open="close", high="close").drop("n")
    write = bars.write_csv if name == "bars.csv" else bars.write_parquet
    write(tmp_path / name)
    child = subprocess.run(
        [sys.executable, "-c", _MEASURED, database.dsn, str(tmp_path / name)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    inserted, peak_mb = map(int, child.stdout.split())
    assert inserted == bars.height
    assert peak_mb < 500, f"{peak_mb} MB"


def test_bars_of_whole_days_are_no_shorter_bars(database: Database) -> None:
    hourly = Candles(timeframe=Timeframe.H1, source="test")
    with pytest.raises(DataError, match=r"every bar is at midnight.*--tf 1d fits"):
        ingest_stream(database, [_bars(2, 3)], hourly)
    assert database.fetch("SELECT FROM candles") == []
    with_time = _bars(2, 3).with_columns(ts=pl.Series(["2024-01-02", "2024-01-02 01:00"]))
    frames = [_bars(2), pl.concat([_bars(2), _bars(2, symbol="BBB")]), with_time]
    assert ingest_stream(database, frames, hourly).inserted == 3


def _wait_for_blocked(database: Database, sessions: int) -> list[int]:
    found: list[int] = []

    def blocked() -> bool:
        found[:] = [
            row["pid"]
            for row in database.fetch(
                "SELECT pid FROM pg_stat_activity "
                "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
            )
        ]
        return len(found) == sessions

    _wait_until(blocked)
    return found


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        threading.Event().wait(0.05)
