"""What candles take on disk, compressed as sql/lifecycle.toml declares it, and uncompressed with indexes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from bench import market
from bench.harness import Figure, Task, must_equal
from bench.query import load
from bench.servers import describe, migrated
from hyperfeast.db import Database
from hyperfeast.lifecycle import apply, enforce, plan

# The lane is one process in memory; a server takes as many as anyone likes.
_ROWS = 300_000
_DAYS_OF_DAILY = 5000
_MOST_SYMBOLS, _LEAST_DAYS = 20, 14
_MOST_DAYS = 147  # the declaration keeps 1m bars for longer
_THURSDAY = 3  # where chunks of a week begin
_DIGEST = """
SELECT count(*) AS rows,
    sum(hash_record_extended(ROW(symbol, tf, ts, o, h, l, c, v, source, recorded_at), 0)) AS hash
FROM candles
"""


@dataclass(frozen=True)
class _Case:
    name: str
    tf: str
    bars: Callable[[int], Iterator[pl.DataFrame]]


def run(task: Task) -> Iterator[Figure]:
    """The cases compression (1m bars on a cent tick), compression-floats and compression-daily."""
    with migrated(timescaledb=True) as database:
        task.say(describe(database))
        apply(database, plan(database), confirmed=True)
        for case in (
            _Case("compression", "1m", _minutes),
            _Case("compression-floats", "1m", lambda rows: _minutes(rows, tick=False)),
            _Case("compression-daily", "1d", _daily),
        ):
            yield _compression(database, case, task.rows or _ROWS)


def _compression(database: Database, case: _Case, rows: int) -> Figure:
    database.execute("TRUNCATE candles")
    load(database, case.bars(rows), tf=case.tf)
    before, plain = _digest(database), _bytes(database)
    enforce(database, refresh=_nothing, compress_now=True)
    must_equal(_digest(database), before, "the rows, read back")
    compressed, count = _bytes(database), int(before["rows"])
    chunks = database.fetch(
        "SELECT count(*) AS all, count(*) FILTER (WHERE is_compressed) AS compressed "
        "FROM timescaledb_information.chunks WHERE hypertable_name = 'candles'"
    )[0]
    return Figure(
        bench="storage",
        case=case.name,
        rows=count,
        ratio=plain / compressed,
        note=(
            f"{plain / 1e6:.1f} MB, {plain / count:.1f} bytes a row -> {compressed / 1e6:.1f} MB, "
            f"{compressed / count:.1f}; {chunks['compressed']} of {chunks['all']} chunks"
        ),
    )


def _minutes(rows: int, *, tick: bool = True) -> Iterator[pl.DataFrame]:
    """Whole weeks of bars that are old enough to be compressed, and young enough to be kept."""
    symbols = max(1, min(_MOST_SYMBOLS, rows // (1440 * _LEAST_DAYS)))
    days = max(7, min(_MOST_DAYS, rows // symbols // 1440 // 7 * 7))
    first = _today() - timedelta(days=days + 22)
    first += timedelta(days=(_THURSDAY - first.weekday()) % 7)
    return market.minutes(symbols, days, first=first, tick=tick)


def _daily(rows: int) -> Iterator[pl.DataFrame]:
    days = min(_DAYS_OF_DAILY, max(28, rows // 20))
    first = _today() - timedelta(days=days + 30)
    return market.daily(max(1, rows // days), days, first=first)


def _nothing() -> None:
    """Nothing expires here: no aggregate has to be brought up to date for it."""


def _today() -> date:
    return datetime.now(UTC).date()


def _digest(database: Database) -> dict[str, int]:
    return database.fetch(_DIGEST)[0]


def _bytes(database: Database) -> int:
    """Of all chunks with their indexes and TOAST, compressed or not."""
    row = database.fetch("SELECT sum(total_bytes) AS bytes FROM chunks_detailed_size('candles')")[0]
    return int(row["bytes"])
