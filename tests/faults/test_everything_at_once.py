"""Ingestion, refresh, compression and retention at once, in processes of their own.

`HYPERFEAST_SOAK_S` says for how long; `HYPERFEAST_TEST_DSN` names a TimescaleDB server to do it on as well.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from faults import soak as work
from faults.soak import BARS, EXPIRING_WEEKS, FIRST, SYMBOLS, WEEKS, WRITERS, Role, Signals, Soak
from hyperfeast.aggregates import refresh, verify
from hyperfeast.db import Database
from hyperfeast.lifecycle import apply, plan
from hyperfeast.migrate import migrate
from timescale.fixtures import fresh_community

_SECONDS = float(os.environ.get("HYPERFEAST_SOAK_S", "8"))
_SEED = int(os.environ.get("HYPERFEAST_SOAK_SEED", "20240101"))
_LONGEST_S = _SECONDS + 150
_SERVERS = ["plain", *(["timescale"] if os.environ.get("HYPERFEAST_TEST_DSN") else [])]
_LEAST_BATCHES = 40
_KEY = ["symbol", "ts"]

# One process imports what all need; the others are forked from it, not from this one with its threads.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["faults.soak"])


@dataclass(frozen=True)
class Ledgers:
    """What the processes have written down."""

    sent: list[dict[str, Any]]
    acknowledged: list[dict[str, Any]]
    refreshes: list[dict[str, Any]]
    enforced: list[dict[str, Any]]
    readings: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Ledgers":
        """What they have written so far."""
        written = [line for number in range(WRITERS) for line in _lines(folder, f"writer-{number}")]
        return cls(
            [line for line in written if line["kind"] == "sent"],
            [line for line in written if line["kind"] == "acknowledged"],
            _lines(folder, "refresher"),
            _lines(folder, "enforcer"),
            _lines(folder, "reader"),
        )

    @property
    def busy(self) -> bool:
        """Whether everything has happened at least once: the soak is worth something."""
        return all(
            (
                len(self.acknowledged) >= _LEAST_BATCHES,
                sum(one["corrected"] for one in self.acknowledged) > 0,
                sum(one["inserted"] for one in self.acknowledged) > 0,
                sum(one["days"] for one in self.refreshes) > 0,
                sum(one.get("dropped", 0) for one in self.enforced) > 0,
                len(self.readings) > 1,
            )
        )


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    file = folder / f"{name}.jsonl"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture(params=_SERVERS)
def busy_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty schema on a server with real concurrency."""
    if request.param == "plain":
        yield request.getfixturevalue("database")
        return
    with fresh_community() as database:
        migrate(database)
        yield database


@pytest.mark.slow
@pytest.mark.timeout(_LONGEST_S + 240)
def test_everything_at_once(
    busy_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server of forks does not take over this process's path, and would preload nothing.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    database, tables = busy_database, work.lifecycle()
    _fill(database)
    apply(database, plan(database, tables), confirmed=True)
    compression = database.edition().compression
    soak = Soak(database.dsn, tmp_path, _SEED, compress=compression)
    deadlocks = _deadlocks(database)
    seconds = _run(soak)
    ledgers = Ledgers.read(tmp_path)
    _say(ledgers, seconds, _deadlocks(database) - deadlocks)
    assert ledgers.busy, "not everything was going on"
    assert not compression or _compressed_chunks(database) > 0
    assert len(ledgers.sent) == len(ledgers.acknowledged)
    assert [one for one in ledgers.readings if one["wrong"] or one["differing"]] == []

    # The control: with nobody else there, everything that is due gets done.
    work.expire(database, tables, EXPIRING_WEEKS, compress=compression)
    refresh(database)
    assert database.fetch("SELECT FROM stale_days") == []
    assert verify(database) == []
    assert work.wrong_bars(database) == []
    _check_ledger(database, ledgers)


def _fill(database: Database) -> None:
    """Some bars in every week, as revision 0, aggregated: what is corrected, and what expires."""
    for week in range(WEEKS):
        minute = week * 7 * 24 * 60
        work.ingest(database, work.bars(list(SYMBOLS), minute, 0, n=1440), f"fill-{week}")
    refresh(database)
    assert verify(database) == []


def _run(soak: Soak) -> float:
    """Have all of them work for the time that is asked for, and until each has done its part."""
    roles: list[tuple[Role, tuple[int, ...]]] = [
        *((work.write, (number,)) for number in range(WRITERS)),
        (work.keep_fresh, ()),
        (work.keep_short, ()),
        (work.keep_reading, ()),
    ]
    signals = Signals(_CONTEXT.Barrier(len(roles) + 1), _CONTEXT.Event())
    processes = [
        _CONTEXT.Process(target=work.run, args=(role, soak, signals, *args), daemon=True)
        for role, args in roles
    ]
    with _started(processes):
        signals.ready.wait(timeout=120)
        begun = time.monotonic()
        while not _enough(soak, time.monotonic() - begun):
            assert all(process.is_alive() for process in processes), "a process has died"
            time.sleep(0.5)
        signals.over.set()
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0] * len(processes)
    return time.monotonic() - begun


def _enough(soak: Soak, seconds: float) -> bool:
    if seconds < _SECONDS:
        return False
    return seconds > _LONGEST_S or Ledgers.read(soak.ledgers).busy


@contextmanager
def _started(processes: Sequence[BaseProcess]) -> Iterator[None]:
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _deadlocks(database: Database) -> int:
    (row,) = database.fetch(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(row["deadlocks"])


def _compressed_chunks(database: Database) -> int:
    """By the enforcement or by the database's own schedule, which is faster at times."""
    (row,) = database.fetch(
        "SELECT count(*) AS n FROM timescaledb_information.chunks "
        "WHERE hypertable_name = 'candles' AND is_compressed"
    )
    return int(row["n"])


def _say(ledgers: Ledgers, seconds: float, deadlocks: int) -> None:
    done = {
        name: sum(one[name] for one in ledgers.acknowledged)
        for name in ("inserted", "corrected", "unchanged", "quarantined")
    }
    print(  # noqa: T201 - shown with -s, and where it fails
        f"seed {_SEED}, {seconds:.1f} s: {len(ledgers.acknowledged)} batches {done}, "
        f"{len(ledgers.refreshes)} refreshes of {sum(one['days'] for one in ledgers.refreshes)} days "
        f"({sum(one['retries'] for one in ledgers.refreshes)} retried), "
        f"{sum('week' in one for one in ledgers.enforced)} enforcements, "
        f"{sum('refused' in one for one in ledgers.enforced)} put off, "
        f"{sum(one.get('dropped', 0) for one in ledgers.enforced)} rows dropped, "
        f"{sum(one.get('compressed', 0) for one in ledgers.enforced)} chunks compressed, "
        f"{len(ledgers.readings)} readings, {deadlocks} deadlocks"
    )


def _check_ledger(database: Database, ledgers: Ledgers) -> None:
    """Every acknowledged revision is served, or kept as one that was replaced; the newest is served."""
    horizon = _horizon(database)
    assert horizon == FIRST + EXPIRING_WEEKS * timedelta(weeks=1)
    owed = _owed(ledgers.acknowledged, horizon)
    served = _revisions(database, "candles", horizon)
    kept = pl.concat([served, _revisions(database, "candle_revisions", horizon)])
    newest = owed.group_by(_KEY).agg(pl.col("revision").max())
    assert newest.height > 0
    assert _sorted(served.join(newest, on=_KEY, how="semi")).equals(_sorted(newest))
    # Nothing beyond what was sent, nothing twice, and nothing of it is lost.
    of_the_soak = kept.filter(pl.col("revision") > 0)
    assert _sorted(of_the_soak).equals(_sorted(owed))
    batches = database.fetch("SELECT batch_id FROM ingest_batches WHERE status = 'COMPLETED'")
    assert {str(row["batch_id"]) for row in batches} >= {
        one["batch_id"] for one in ledgers.acknowledged
    }
    assert len(batches) == len(ledgers.acknowledged) + WEEKS + WRITERS


def _horizon(database: Database) -> datetime:
    (row,) = database.fetch(
        "SELECT dropped_before FROM lifecycle_in_force WHERE relation = 'candles' AND tf = '1m'"
    )
    return row["dropped_before"]  # type: ignore[no-any-return]


def _owed(acknowledged: list[dict[str, Any]], horizon: datetime) -> pl.DataFrame:
    """symbol, ts, revision: each acknowledged bar that has not expired."""
    batches = pl.DataFrame(acknowledged).select("symbols", "minute", "revision")
    offsets = pl.DataFrame({"offset": range(BARS)})
    return (
        batches.explode("symbols", empty_as_null=False, keep_nulls=False)
        .join(offsets, how="cross")
        .select(
            symbol="symbols",
            ts=pl.lit(FIRST) + pl.duration(minutes=pl.col("minute") + pl.col("offset")),
            revision=pl.col("revision").cast(pl.Int64),
        )
        .filter(pl.col("ts") >= horizon)
    )


def _revisions(database: Database, relation: str, horizon: datetime) -> pl.DataFrame:
    """symbol, ts, revision: what is in the table."""
    frame = database.frame(
        f"SELECT symbol, ts, v::bigint AS revision FROM {relation} WHERE tf = '1m' AND ts >= $1",
        [horizon],
    )
    return frame.with_columns(pl.col("ts").dt.convert_time_zone("UTC"))


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(*_KEY, "revision").sort(*_KEY, "revision")
