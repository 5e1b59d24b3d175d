"""Daily candles from a Parquet file into `candles`, against a raw binary COPY of the same rows.

The peer's rows are encoded before the clock runs, sorted as suits it best, and go in one COPY into a table
like `candles`: same constraints, same unique index, a hypertable where that is one. It has no triggers:
those that mark dirty days are part of what ours costs.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from bench import market
from bench.harness import Figure, Task, Turns, must_equal, stopwatch, turns
from bench.servers import describe, migrated, settle
from hyperfeast.db import Database, binary

_SYMBOLS, _DAYS = 1030, 5000
_ONE_IN = 100
_RECORDED_AT = datetime(2024, 1, 1, tzinfo=UTC)
_TYPES = {
    "symbol": "text", "ts": "timestamptz", "o": "float8", "h": "float8", "l": "float8", "c": "float8",
    "v": "float8", "tf": "text", "source": "text", "recorded_at": "timestamptz",
}  # fmt: skip
_COPY = f"COPY peer ({', '.join(_TYPES)}) FROM STDIN (FORMAT binary)"
_TESTS = Path(__file__).resolve().parent.parent


@dataclass
class _Seconds:
    """What was measured, round by round."""

    copy: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    peak_mb: dict[str, float] = field(default_factory=dict)


def run(task: Task) -> Iterator[Figure]:
    """The cases vs-copy, unchanged, unchanged-vs-first and changed."""
    days = min(_DAYS, task.rows or _DAYS)
    symbols = max(1, round(task.rows / days)) if task.rows else _SYMBOLS
    rows = symbols * days
    with tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as folder, migrated() as database:
        task.say(f"{describe(database)}: {rows:,} daily candles of {symbols:,} symbols")
        bars = pl.concat(market.daily(symbols, days))
        first = market.write_parquet(bars, Path(folder) / "first.parquet")
        second = market.write_parquet(
            market.corrected(bars, every=_ONE_IN), Path(folder) / "second.parquet"
        )
        messages = _encoded(bars, by_time=_create_peer(database))
        del bars
        seconds = _Seconds()
        for number in range(turns(task.rounds)):
            _round(database, first, second, messages, rows, seconds)
            task.say(f"round {number}: {_last(seconds)}")
    yield from _figures(seconds, rows, task.rounds)


def _create_peer(database: Database) -> bool:
    """Make the table; whether it is in chunks."""
    database.execute("CREATE TABLE peer (LIKE candles INCLUDING ALL)")
    if not database.edition().hypertables:
        return False
    database.fetch(
        "SELECT create_hypertable('peer', 'ts', create_default_indexes => false, "
        "chunk_time_interval => (SELECT time_interval FROM timescaledb_information.dimensions "
        "WHERE hypertable_name = 'candles'))"
    )
    return True


def _encoded(bars: pl.DataFrame, *, by_time: bool) -> list[bytes | memoryview]:
    """Chunk by chunk where there are chunks, otherwise in the order of the index."""
    rows = market.stored(bars, tf="1d", source="bench", recorded_at=_RECORDED_AT)
    order, descending = (
        (["ts", "symbol"], [False, False]) if by_time else (["symbol", "ts"], [False, True])
    )
    return list(
        binary.encoded(rows.sort(order, descending=descending).select(list(_TYPES)), _TYPES)
    )


def _round(
    database: Database,
    first: Path,
    second: Path,
    messages: list[bytes | memoryview],
    rows: int,
    seconds: _Seconds,
) -> None:
    database.execute("TRUNCATE candles, candle_revisions, peer")
    new = _ingest(database, first)
    seconds.new.append(new["seconds"])
    seconds.copy.append(_copy(database, messages))
    must_equal(new["inserted"], rows, "rows inserted")
    must_equal(_digest(database, "candles"), _digest(database, "peer"), "the rows of both tables")
    again = _ingest(database, first)
    seconds.unchanged.append(again["seconds"])
    must_equal(again["unchanged"], rows, "rows left alone")
    other = _ingest(database, second)
    seconds.changed.append(other["seconds"])
    must_equal(other["corrected"], -(-rows // _ONE_IN), "rows corrected")
    must_equal(other["unchanged"], rows - other["corrected"], "rows left alone beside corrections")
    for case, result in {"new": new, "unchanged": again, "changed": other}.items():
        seconds.peak_mb[case] = max(seconds.peak_mb.get(case, 0), result["peak_mb"])


def _ingest(database: Database, file: Path) -> dict[str, Any]:
    settle(database)
    answer = subprocess.run(
        [sys.executable, "-m", "bench.child", str(file)],
        input=database.dsn,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    result: dict[str, Any] = json.loads(answer)
    return result


def _copy(database: Database, messages: list[bytes | memoryview]) -> float:
    def copy() -> None:
        with database.connect() as connection, connection.cursor().copy(_COPY) as stream:
            for message in messages:
                stream.write(message)

    settle(database)
    return stopwatch(copy)


def _digest(database: Database, table: str) -> dict[str, Any]:
    """A sum over all rows that any difference changes."""
    with database.connect() as connection:
        return connection.execute(
            "SELECT count(*) AS rows, sum(hash_record_extended(ROW(symbol, tf, ts, o, h, l, c, v, source), 0)) "
            f"AS hash FROM {table}"
        ).fetchall()[0]


def _last(seconds: _Seconds) -> str:
    each = {name: getattr(seconds, name)[-1] for name in ("new", "copy", "unchanged", "changed")}
    return ", ".join(f"{name} {value:.2f} s" for name, value in each.items())


def _figures(seconds: _Seconds, rows: int, rounds: int) -> Iterator[Figure]:
    compared = {
        "vs-copy": ("new", seconds.copy),
        "unchanged": ("unchanged", seconds.copy),
        "unchanged-vs-first": ("unchanged", seconds.new),
        "changed": ("changed", seconds.copy),
    }
    for case, (ours, peer) in compared.items():
        both = Turns(getattr(seconds, ours)[-rounds:], peer[-rounds:])
        yield Figure(
            bench="ingest",
            case=case,
            rows=rows,
            ours_s=both.ours_s,
            peer_s=both.peer_s,
            ratio=both.ratio,
            peak_mb=seconds.peak_mb[ours],
            note=f"{rows / both.ours_s:,.0f} rows/s; {both.note}",
        )
