"""What the aggregates of 1m bars must say: the plainest computation that there is, in Python's own floats."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import groupby
from operator import add
from typing import NamedTuple

from psycopg import sql

from hyperfeast.aggregates.levels import CANDLES
from hyperfeast.db import Database

ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)


class Bar(NamedTuple):
    """A raw 1m bar's numbers."""

    o: float
    h: float
    low: float
    c: float
    v: float
    vwap: float | None


class Rolled(NamedTuple):
    """A bucket's numbers, in the order of the relations' columns."""

    o: float
    h: float
    low: float
    c: float
    v: float
    vwap: float | None
    n: int
    notional: float


Key = tuple[str, datetime]

_STORED = {
    name: sql.SQL(
        "SELECT symbol, ts, o, h, l, c, v, vwap, n, notional FROM {} "
        "WHERE %(symbols)s::text[] IS NULL OR symbol = ANY(%(symbols)s)"
    ).format(sql.Identifier(name))
    for name in CANDLES.names
}


def expected(rows: dict[Key, Bar]) -> dict[str, dict[Key, Rolled]]:
    """Every level by its relation, each made from the next finer one."""
    finer = {
        key: Rolled(*bar, 1, (_typical(bar) if bar.vwap is None else bar.vwap) * bar.v)
        for key, bar in rows.items()
    }
    levels: dict[str, dict[Key, Rolled]] = {}
    for level in CANDLES.levels:
        finer = levels[level.name] = _rolled(finer, level.width)
    return levels


def stored(database: Database, symbols: list[str] | None = None) -> dict[str, dict[Key, Rolled]]:
    """What the relations say, as `expected` gives it."""
    with database.connect() as connection:
        return {
            name: {
                (symbol, ts): Rolled(*numbers)
                for symbol, ts, *numbers in map(
                    dict.values, connection.execute(_STORED[name], {"symbols": symbols})
                )
            }
            for name in CANDLES.names
        }


def _typical(bar: Bar) -> float:
    return (bar.h + bar.low + bar.c) / 3


def _rolled(finer: dict[Key, Rolled], width: timedelta) -> dict[Key, Rolled]:
    buckets = defaultdict(list)
    for (symbol, _), bars in groupby(
        sorted(finer.items()), key=lambda item: (item[0][0], _start(item[0][1], width))
    ):
        for (_, ts), bar in bars:
            buckets[symbol, _start(ts, width)].append(bar)
    return {key: _one(bars) for key, bars in buckets.items()}


def _start(ts: datetime, width: timedelta) -> datetime:
    return ts - (ts - ORIGIN) % width


def _one(bars: list[Rolled]) -> Rolled:
    # Not sum() and not fsum(): one addition after the other, as the database does it.
    volume = reduce(add, (bar.v for bar in bars))
    notional = reduce(add, (bar.notional for bar in bars))
    return Rolled(
        o=bars[0].o,
        h=max(bar.h for bar in bars),
        low=min(bar.low for bar in bars),
        c=bars[-1].c,
        v=volume,
        vwap=notional / volume if volume else None,
        n=sum(bar.n for bar in bars),
        notional=notional,
    )
