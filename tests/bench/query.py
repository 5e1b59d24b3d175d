"""How long one symbol's year takes to read from five million daily candles."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from psycopg import Connection
from psycopg.rows import DictRow

from bench import market
from bench.harness import Figure, Task, must_equal, percentile, stopwatch
from bench.servers import describe, migrated
from hyperfeast.db import Database, copy_frame

_ROWS, _DAYS = 5_150_000, 5000
_YEAR = timedelta(days=365)
_FIRST = datetime(2010, 1, 4, tzinfo=UTC)
_RECORDED_AT = datetime(2024, 1, 1, tzinfo=UTC)
_ROWS_A_LOAD = 500_000
_QUERIES, _WARM_UP = 500, 20

_RELATIONS = {
    "year": "candles",
    "year-as-known": "candles_as_known_at(now())",
}

Ask = Callable[[str, datetime], list[DictRow]]


def run(task: Task) -> Iterator[Figure]:
    """The cases year and year-as-known, each as p50 and p99."""
    days = min(_DAYS, task.rows or _DAYS)
    symbols = max(1, round((task.rows or _ROWS) / days))
    with migrated() as database:
        task.say(f"{describe(database)}: {symbols * days:,} daily candles of {symbols:,} symbols")
        load(database, market.daily(symbols, days, first=_FIRST.date()), tf="1d")
        names = [f"S{number:04d}" for number in range(symbols)]
        starts = [_FIRST + timedelta(days=day) for day in range(max(1, days - _YEAR.days))]
        with database.connect() as connection:
            for case, relation in _RELATIONS.items():
                ask = _asking(connection, relation)
                expected = min(_YEAR.days, days)
                must_equal(len(ask(names[0], starts[0])), expected, f"bars in a year of {relation}")
                yield from latencies("query", case, ask, names, starts, rows=symbols * days)


def load(database: Database, frames: Iterator[pl.DataFrame], *, tf: str) -> None:
    """Copy bars into `candles`, and let the planner know of them.

    On TimescaleDB they go in by time: a copy that leaps from chunk to chunk takes many times as long.
    """
    rows = market.stored(pl.concat(frames), tf=tf, source="bench", recorded_at=_RECORDED_AT)
    rows = rows.sort("ts", "symbol") if database.edition().hypertables else rows
    for part in rows.iter_slices(_ROWS_A_LOAD):
        with database.connect() as connection:
            copy_frame(connection, "candles", part)
    with database.connect(autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE candles")


def latencies(
    bench: str, case: str, ask: Ask, names: list[str], starts: list[datetime], *, rows: int
) -> Iterator[Figure]:
    """The median and the 99th percentile of many random queries on one connection."""
    random = np.random.default_rng(1)
    seconds = []
    for number in range(_WARM_UP + _QUERIES):
        name, start = names[random.integers(len(names))], starts[random.integers(len(starts))]
        taken = stopwatch(partial(ask, name, start))
        if number >= _WARM_UP:
            seconds.append(taken)
    for label, part in (("p50", 0.5), ("p99", 0.99)):
        found = percentile(seconds, part)
        yield Figure(
            bench=bench,
            case=f"{case}-{label}",
            rows=rows,
            ours_s=found,
            note=f"{found * 1e3:.2f} ms; {_QUERIES} queries",
        )


def _asking(connection: Connection[Any], relation: str) -> Ask:
    statement = (
        f"SELECT ts, o, h, l, c, v FROM {relation} AS bar "
        "WHERE symbol = %s AND tf = '1d' AND ts >= %s AND ts < %s ORDER BY ts"
    )

    def ask(symbol: str, since: datetime) -> list[DictRow]:
        return connection.execute(statement, (symbol, since, since + _YEAR)).fetchall()

    return ask
