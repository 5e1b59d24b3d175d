"""A batch under an idempotency key: sent again, at once by many, with its answer lost, by a sender that died."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, Self

import polars as pl
import pytest
from psycopg import conninfo

from hyperfeast.db import Database
from hyperfeast.errors import DataError, IdempotencyConflict, ServerUnreachable, UsageError
from hyperfeast.ingest import IngestSummary, ingest_candles, ingest_metrics
from hyperfeast.ingest.idempotency import digest
from hyperfeast.types import Timeframe

_BATCHES = "SELECT status, inserted, rows_in, idempotency_key AS key FROM ingest_batches ORDER BY started_at"
_COMPLETED = {"status": "COMPLETED", "inserted": 2, "rows_in": 3, "key": "one"}


def _bars(close: float = 11.0) -> pl.DataFrame:
    """Two good bars and one that has no open."""
    return pl.DataFrame(
        {
            "symbol": "AAA", "ts": ["2024-01-02", "2024-01-03", "2024-01-04"], "open": ["10", "10", "nil"],
            "high": 20.0, "low": 5.0, "close": close, "volume": 100.0,
        }
    )  # fmt: skip


def _ingest(database: Database, frame: pl.DataFrame | None = None, **options: Any) -> IngestSummary:
    options = {"timeframe": Timeframe.D1, "source": "test", "idempotency_key": "one"} | options
    return ingest_candles(database, _bars() if frame is None else frame, **options)


def _stored(database: Database) -> tuple[int, int, int]:
    row = database.fetch(
        "SELECT (SELECT count(*) FROM candles) AS candles, (SELECT count(*) FROM quarantine) AS refused,"
        " (SELECT count(*) FROM candle_revisions) AS revisions"
    )[0]
    return row["candles"], row["refused"], row["revisions"]


def test_the_same_batch_again_returns_what_came_of_the_first(database: Database) -> None:
    first = _ingest(database)
    assert (first.inserted, first.refused, first.replayed) == (2, {"number_missing": 1}, False)
    database.execute("UPDATE candles SET c = 12")
    again = _ingest(database)
    assert again == replace(first, seconds=again.seconds, replayed=True)
    assert again.seconds > 0
    assert database.fetch("SELECT DISTINCT c FROM candles") == [{"c": 12}]
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_other_content_under_the_same_key_is_refused(database: Database) -> None:
    _ingest(database)
    others: list[tuple[pl.DataFrame, dict[str, Any]]] = [
        (_bars(12.0), {}),
        (_bars(), {"timeframe": Timeframe.W1}),
        (_bars(), {"body_sha256": "0" * 64}),
    ]
    for frame, options in others:
        with pytest.raises(IdempotencyConflict, match="'one' was used for other content"):
            _ingest(database, frame, **options)
    assert database.fetch("SELECT DISTINCT c FROM candles") == [{"c": 11}]
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_the_caller_s_digest_decides_where_it_is_given(database: Database) -> None:
    _ingest(database, body_sha256="1" * 64)
    assert _ingest(database, _bars(12.0), body_sha256="1" * 64).replayed
    assert not _ingest(database, body_sha256="1" * 64, idempotency_key="two").replayed


@pytest.mark.parametrize("key", ["", "a b", "a\0", "é", "x" * 256])
def test_a_key_that_is_none(database: Database, key: str) -> None:
    with pytest.raises(UsageError, match="no idempotency key"):
        _ingest(database, idempotency_key=key)
    with pytest.raises(UsageError, match="no SHA-256"):
        _ingest(database, body_sha256="abc")
    assert database.fetch(_BATCHES) == []


def test_a_batch_that_failed_may_be_tried_again(database: Database) -> None:
    with pytest.raises(DataError, match="every bar is at midnight"):
        _ingest(database, timeframe=Timeframe.H1)
    assert [row["status"] for row in database.fetch(_BATCHES)] == ["FAILED"]
    assert not _ingest(database).replayed
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_fifty_at_once_have_one_effect(database: Database) -> None:
    with ThreadPoolExecutor(50) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        sent = [pool.submit(_ingest, database) for _ in range(50)]
        _wait_for_blocked(database, 50)
        holder.rollback()
        summaries = [one.result() for one in sent]
    assert sorted(summary.replayed for summary in summaries) == [False] + [True] * 49
    assert {summary.batch_id for summary in summaries} == {summaries[0].batch_id}
    assert {(summary.inserted, summary.quarantined) for summary in summaries} == {(2, 1)}
    assert _stored(database) == (2, 1, 0)
    assert database.fetch(_BATCHES) == [_COMPLETED]


_KILLED = """
import os, signal, sys
import polars as pl
from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles
from hyperfeast.types import Timeframe

def killed(done, rows):
    os.kill(os.getpid(), signal.SIGKILL)

ingest_candles(
    Database(sys.argv[1]), pl.read_json(sys.stdin.buffer), timeframe=Timeframe.D1, source="test",
    idempotency_key="one", progress=killed,
)
"""


def test_a_sender_that_died_is_taken_over(database: Database) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, database.dsn],
        input=_bars().write_json().encode(),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert [row["status"] for row in database.fetch(_BATCHES)] == ["RUNNING"]
    assert not _ingest(database).replayed
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_a_sender_that_is_taken_for_dead_has_no_effect_beside_its_successor(
    database: Database,
) -> None:
    with ThreadPoolExecutor(2) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        first = pool.submit(_ingest, database)
        _wait_for_blocked(database, 1)
        database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks "
            "WHERE locktype = 'advisory' AND granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        second = pool.submit(_ingest, database)
        _wait_for_blocked(database, 2)
        holder.rollback()
        with pytest.raises(ServerUnreachable):
            first.result()
        assert not second.result().replayed
    assert _stored(database) == (2, 1, 0)
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_a_lost_answer_to_the_commit(database: Database) -> None:
    with _Losing(database.dsn) as through:
        with pytest.raises(ServerUnreachable) as caught:
            _ingest(Database(through.dsn))
        assert caught.value.retryable
        assert through.lost == 1
    assert _stored(database) == (2, 1, 0)
    again = _ingest(database)
    assert (again.replayed, again.inserted) == (True, 2)
    assert _stored(database) == (2, 1, 0)
    assert database.fetch(_BATCHES) == [_COMPLETED]


def test_readings_have_keys_too(database: Database) -> None:
    frame = pl.DataFrame({"ts": ["2024-01-02 10:00"], "value": [60]})
    options: dict[str, Any] = {
        "source": "test", "metric": "heart_rate", "idempotency_key": "one",
        "user": "0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47",
    }  # fmt: skip
    assert not ingest_metrics(database, frame, **options).replayed
    assert ingest_metrics(database, frame, **options).replayed
    with pytest.raises(IdempotencyConflict):
        ingest_metrics(database, frame, **(options | {"metric": "glucose"}))


def test_a_digest_is_of_the_content_and_not_of_its_layout() -> None:
    frame = pl.concat([_bars(), _bars(12.0)])
    same = [
        pl.concat([_bars(), _bars(12.0)], rechunk=True),
        pl.concat([_bars(9.0), _bars(), _bars(12.0)]).slice(3),
        pl.DataFrame(frame.to_dict(as_series=False)),
    ]
    assert {digest(one, {}) for one in same} == {digest(frame, {})}
    others = [frame.reverse(), frame.rename({"close": "c"}), frame.cast({"volume": pl.Int64})]
    assert len({digest(one, {}) for one in [frame, *others]} | {digest(frame, {"tz": "UTC"})}) == 5


class _Losing:
    """A way to the server on which the answer to one COMMIT is lost: that of the batch's rows."""

    def __init__(self, dsn: str) -> None:
        server = conninfo.conninfo_to_dict(dsn)
        self._server = (str(server["host"]), int(str(server["port"])))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = conninfo.make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable")
        self.lost = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # Only a shutdown wakes the thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Any, *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with closing(client), closing(socket.create_connection(self._server)) as server:
            self._start(self._back, server, client)
            wrote = False
            for piece in _pieces(client):
                wrote |= b"data_quality_results" in piece
                if wrote and b"COMMIT" in piece:
                    # The server answers to nobody: nothing of it is passed on from here.
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(piece)
                    self.lost += 1
                    time.sleep(1)
                    return
                server.sendall(piece)

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            for piece in _pieces(server):
                client.sendall(piece)


def _pieces(connection: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while piece := connection.recv(1 << 16):
            yield piece


def _wait_for_blocked(database: Database, sessions: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        blocked = database.fetch(
            "SELECT FROM pg_stat_activity "
            "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        if len(blocked) == sessions:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"no {sessions} sessions wait for a lock")
