"""A disk that is full: a clear refusal, nothing acknowledged is lost, and once there is room all goes on."""

import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest

from faults.disks import MB, ballast, small_disk
from hyperfeast.db import Database
from hyperfeast.errors import HyperfeastError, ServerError, ServerStartFailed, ServerUnreachable
from hyperfeast.ingest import Candles, IngestSummary, ingest_candles, ingest_stream
from hyperfeast.migrate import migrate
from hyperfeast.servers import PostgresServer
from hyperfeast.types import Timeframe

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="small disks are made by Linux's tmpfs and /dev/full"
)

_ROWS = 20_000
_MOST_BATCHES = 60
_NO_ROOM = os.strerror(28)


def _bars(number: int) -> pl.DataFrame:
    """Two weeks of minutes of one symbol."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.datetime_range(
        first, first + timedelta(minutes=_ROWS - 1), "1m", eager=True, time_unit="us"
    )
    return pl.DataFrame({"ts": times}).with_columns(
        symbol=pl.lit(f"S{number}"), open=10.0, high=20.0, low=5.0, close=11.0, volume=100.0
    )


def _ingest(database: Database, number: int) -> IngestSummary:
    return ingest_candles(database, _bars(number), timeframe=Timeframe.M1, source="test")


def _stored(database: Database) -> dict[str, int]:
    rows = database.fetch("SELECT symbol, count(*) AS n FROM candles GROUP BY symbol")
    return {row["symbol"]: row["n"] for row in rows}


def _completed(database: Database) -> dict[UUID, int]:
    rows = database.fetch(
        "SELECT batch_id, inserted FROM ingest_batches WHERE status = 'COMPLETED'"
    )
    return {row["batch_id"]: row["inserted"] for row in rows}


def _fill(database: Database) -> tuple[dict[UUID, int], HyperfeastError]:
    """Batches until the server says no: those it has acknowledged, and what it said."""
    ledger: dict[UUID, int] = {}
    for number in range(_MOST_BATCHES):
        try:
            summary = _ingest(database, number)
        except HyperfeastError as error:
            return ledger, error
        ledger[summary.batch_id] = summary.inserted
    raise AssertionError("the disk never filled up")


def _check_refusal(error: HyperfeastError) -> None:
    """One line that says what is wrong, where, and what to do."""
    said = str(error)
    assert isinstance(error, ServerError)
    assert "\n" not in said
    assert _NO_ROOM in said
    assert "has no room left on its disk" in said
    assert "free some" in said


def _log(server: PostgresServer) -> str:
    return (server.folder / "server.log").read_text(encoding="utf-8")


def _moved(folder: Path, to: Path) -> None:
    """Put a folder on another disk."""
    shutil.copytree(folder, to)
    shutil.rmtree(folder)
    folder.symlink_to(to)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server for one test alone, on a disk with room."""
    one = PostgresServer(tmp_path / "postgres")
    yield one
    one.down()


def test_a_data_folder_without_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256) as disk:
        server = PostgresServer(disk / "postgres")
        try:
            database = _with_log_elsewhere(server, tmp_path / "wal")
            filler = ballast(disk, leaving=10 * MB)
            ledger, error = _fill(database)
            _check_refusal(error)
            assert _NO_ROOM in _log(server)
            failed = f"S{len(ledger)}"
            # The server lives, what it acknowledged is there, and of the batch it refused there is nothing.
            assert ledger, "the first batch found no room"
            assert _completed(database) == ledger
            kept = {f"S{number}": _ROWS for number in range(len(ledger))}
            assert _stored(database) == kept
            assert not database.fetch("SELECT FROM instruments WHERE symbol = %s", (failed,))
            # As long as there is no room, it says so again, and stays whole.
            with pytest.raises(ServerError):
                _ingest(database, len(ledger))
            assert _stored(database) == kept

            filler.unlink()
            again = _ingest(database, len(ledger))
            assert (again.inserted, again.unchanged) == (_ROWS, 0)
            assert _stored(database) == {**kept, failed: _ROWS}
            statuses = database.fetch("SELECT status FROM ingest_batches WHERE status = 'RUNNING'")
            assert statuses == []
        finally:
            server.down()


def _with_log_elsewhere(server: PostgresServer, place: Path) -> Database:
    """A migrated database whose write-ahead log lies on another disk than its data."""
    server.up()
    server.down()
    _moved(server.folder / "data" / "pg_wal", place)
    database = Database(server.up())
    migrate(database)
    return database


@pytest.mark.slow
def test_a_write_ahead_log_without_room(server: PostgresServer, tmp_path: Path) -> None:
    """PostgreSQL ends itself when it cannot write its log; whoever needs it next brings it back."""
    frames = [_bars(number) for number in range(8)]
    minutes = Candles(timeframe=Timeframe.M1, source="test")
    with small_disk(tmp_path / "disk", 192) as disk:
        database = _with_log_elsewhere(server, disk / "wal")
        filler = ballast(disk, leaving=20 * MB)
        acknowledged = 0

        def note(done: int, _total: int) -> None:
            nonlocal acknowledged
            acknowledged = done

        with pytest.raises(HyperfeastError) as caught:
            ingest_stream(database, frames, minutes, progress=note)
        assert isinstance(caught.value, ServerError)
        assert "\n" not in str(caught.value)
        if not isinstance(caught.value, ServerUnreachable):
            _check_refusal(caught.value)
        log = _log(server)
        assert "PANIC" in log
        assert _NO_ROOM in log
        _starts_or_says_why(server)

        filler.unlink()
        database = Database(server.up())
        whole = _stored(database)
        assert set(whole.values()) <= {_ROWS}
        assert sum(whole.values()) == sum(_completed(database).values()) >= acknowledged
        # More than was acknowledged is one batch at most: the one whose reply was lost.
        assert sum(whole.values()) - acknowledged in (0, _ROWS)
        again = ingest_stream(database, frames, minutes)
        assert again.inserted + again.unchanged == len(frames) * _ROWS
        assert again.unchanged == sum(whole.values())
        assert _stored(database) == {f"S{number}": _ROWS for number in range(len(frames))}
        server.down()


def _starts_or_says_why(server: PostgresServer) -> None:
    """On the full disk a start may fail; then the reason is in the message."""
    try:
        server.up()
    except ServerStartFailed as error:
        assert _NO_ROOM in str(error)  # noqa: PT017 - it may also start


def test_a_table_that_cannot_grow(database: Database, server_home: Path) -> None:
    """What needs no right to mount: the file that a growing table opens next is a device that is full."""
    first = ingest_candles(database, _bars(0).head(1), timeframe=Timeframe.M1, source="test")
    (row,) = database.fetch("SELECT pg_relation_filepath('candles') AS path")
    free_space_map = server_home / "postgres" / "data" / f"{row['path']}_fsm"
    assert not free_space_map.exists()
    free_space_map.symlink_to("/dev/full")
    try:
        with pytest.raises(HyperfeastError) as caught:
            _ingest(database, 1)
    finally:
        free_space_map.unlink()
    _check_refusal(caught.value)
    assert _stored(database) == {"S0": 1}
    assert _completed(database) == {first.batch_id: 1}
    failed = database.fetch("SELECT error FROM ingest_batches WHERE status = 'FAILED'")
    assert [_NO_ROOM in one["error"] for one in failed] == [True]
    assert _ingest(database, 1).inserted == _ROWS
    assert _stored(database) == {"S0": 1, "S1": _ROWS}
