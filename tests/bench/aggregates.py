"""Bars that are aggregated already against a GROUP BY, and a refresh of what changed against one of all."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from psycopg.rows import DictRow

from bench import market
from bench.harness import Figure, Task, Turns, alternate, must_equal, stopwatch, turns
from bench.query import latencies, load
from bench.servers import describe, migrated, settle
from hyperfeast.aggregates import refresh, verify
from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles
from hyperfeast.types import Edition, Timeframe

_ROWS, _MOST_SYMBOLS, _LEAST_DAYS = 5_256_000, 10, 28
_FIRST = date(2024, 1, 1)
_DAY = timedelta(days=1)
_LEVELS = ("5m", "15m", "1h", "4h", "1d", "1w")

_KEPT = """
SELECT symbol, ts, o, h, l, c, v, n FROM candles_1d
WHERE {of_symbol} AND ts >= %(since)s AND ts < %(until)s ORDER BY symbol, ts
"""
# Each edition's fastest way to say it.
_RAW = {
    True: """
SELECT symbol, time_bucket('1 day', ts) AS ts, first(o, ts) AS o, max(h) AS h, min(l) AS l,
    last(c, ts) AS c, sum(v) AS v, count(*) AS n
FROM candles
WHERE tf = '1m' AND {of_symbol} AND ts >= %(since)s AND ts < %(until)s
GROUP BY 1, 2 ORDER BY 1, 2
""",
    False: """
SELECT symbol, date_bin('1 day', ts, timestamptz '2000-01-03 00:00+00') AS ts,
    (array_agg(o ORDER BY ts))[1] AS o, max(h) AS h, min(l) AS l,
    (array_agg(c ORDER BY ts DESC))[1] AS c, sum(v) AS v, count(*) AS n
FROM candles
WHERE tf = '1m' AND {of_symbol} AND ts >= %(since)s AND ts < %(until)s
GROUP BY 1, 2 ORDER BY 1, 2
""",
}
_ONE, _ALL = "symbol = %(symbol)s", "true"


@dataclass
class _Bench:
    """The database, and what bars it has."""

    database: Database
    edition: Edition
    symbols: int
    days: int
    rows: int
    rounds: int

    @property
    def until(self) -> date:
        """The day after the last one."""
        return _FIRST + self.days * _DAY


def run(task: Task) -> Iterator[Figure]:
    """The cases query, query-all-symbols, latency, correction and refresh-day."""
    symbols, days = market.in_days(task.rows or _ROWS, _MOST_SYMBOLS, _LEAST_DAYS)
    with migrated() as database:
        rows = symbols * days * 1440
        task.say(f"{describe(database)}: {rows:,} 1m bars of {symbols} symbols")
        bench = _Bench(database, database.edition(), symbols, days, rows, task.rounds)
        load(database, market.minutes(symbols, days, first=_FIRST), tf="1m")
        task.say("loaded")
        task.say(f"all refreshed in {stopwatch(lambda: refresh(database)):.1f} s")
        _analyze(database)
        yield _query(bench, "query", _ONE)
        yield _query(bench, "query-all-symbols", _ALL)
        yield from _latency(bench)
        yield _correction(bench)
        yield _refresh_day(bench)


def _query(bench: _Bench, case: str, of_symbol: str) -> Figure:
    """A year of daily bars; both sides answer the same before either is timed."""
    until = min(bench.until, _FIRST + 365 * _DAY)
    parameters = {"symbol": "S0000", "since": _FIRST, "until": until}
    kept = _KEPT.format(of_symbol=of_symbol)
    raw = _RAW[bench.edition.continuous_aggregates].format(of_symbol=of_symbol)
    with bench.database.connect() as connection:

        def answer(statement: str) -> list[DictRow]:
            return connection.execute(statement.encode(), parameters).fetchall()

        must_equal(answer(kept), answer(raw), "the daily bars")
        both = alternate(
            lambda: stopwatch(lambda: answer(kept)),
            lambda: stopwatch(lambda: answer(raw)),
            rounds=bench.rounds,
        )
    return _figure(bench, case, both)


def _latency(bench: _Bench) -> Iterator[Figure]:
    """One symbol's year of daily bars, many times."""
    names = [f"S{number:04d}" for number in range(bench.symbols)]
    first = datetime(_FIRST.year, _FIRST.month, _FIRST.day, tzinfo=UTC)
    starts = [first + number * _DAY for number in range(max(1, bench.days - 365))]
    statement = _KEPT.format(of_symbol=_ONE).encode()
    with bench.database.connect() as connection:

        def ask(symbol: str, since: datetime) -> list[DictRow]:
            parameters = {"symbol": symbol, "since": since, "until": since + 365 * _DAY}
            return connection.execute(statement, parameters).fetchall()

        must_equal(len(ask(names[0], starts[0])), min(365, bench.days), "daily bars in a year")
        yield from latencies("aggregates", "latency", ask, names, starts, rows=bench.rows)


def _correction(bench: _Bench) -> Figure:
    """From one bar that is corrected to its new volume in every aggregate."""
    random = np.random.default_rng(2)
    seconds = [
        _correct(bench, _FIRST + int(random.integers(bench.days)) * _DAY)
        for _ in range(turns(bench.rounds))
    ][-bench.rounds :]
    ingested, refreshed, read = (float(np.median(part)) for part in zip(*seconds, strict=True))
    return Figure(
        bench="aggregates",
        case="correction",
        rows=bench.rows,
        ours_s=float(np.median([sum(parts) for parts in seconds])),
        note=f"ingest {ingested:.3f} s, refresh {refreshed:.3f} s, six reads {read:.3f} s",
    )


def _correct(bench: _Bench, day: date) -> tuple[float, float, float]:
    """Seconds of the ingestion, of the refresh, and of reading every level."""
    ts = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    bar = bench.database.frame(
        "SELECT symbol, ts, o, h, l, c, v + 1 AS v FROM candles "
        "WHERE symbol = 'S0000' AND tf = '1m' AND ts = $1",
        (ts,),
    )
    before, after = _volumes(bench.database, ts), list[float]()
    ingested = stopwatch(
        lambda: ingest_candles(bench.database, bar, timeframe=Timeframe.M1, source="correction")
    )
    refreshed = stopwatch(lambda: refresh(bench.database))
    read = stopwatch(lambda: after.extend(_volumes(bench.database, ts)))
    must_equal(after, [volume + 1 for volume in before], "the volume of each level")
    return ingested, refreshed, read


def _volumes(database: Database, ts: datetime) -> list[float]:
    """Of the bucket of each level that `ts` lies in."""
    with database.connect() as connection:
        return [
            connection.execute(
                f"SELECT v FROM candles_{level} WHERE symbol = 'S0000' AND ts <= %s "
                "ORDER BY ts DESC LIMIT 1".encode(),
                (ts,),
            ).fetchall()[0]["v"]
            for level in _LEVELS
        ]


def _refresh_day(bench: _Bench) -> Figure:
    """A refresh after one more day of every symbol, against one of all days."""

    def one_day() -> float:
        load(bench.database, market.minutes(bench.symbols, 1, first=bench.until), tf="1m")
        bench.days += 1
        settle(bench.database)
        return stopwatch(lambda: refresh(bench.database))

    def all_days() -> float:
        settle(bench.database)
        return stopwatch(lambda: refresh(bench.database, since=_FIRST, until=bench.until))

    def check(what: str) -> None:
        wrong = verify(bench.database, since=bench.until - 7 * _DAY)
        must_equal(wrong, [], what)

    one_day()
    check("what differs from a recomputation")
    both = alternate(one_day, all_days, rounds=bench.rounds)
    check("what differs from a recomputation after all refreshes")
    return _figure(bench, "refresh-day", both)


def _figure(bench: _Bench, case: str, both: Turns) -> Figure:
    return Figure(
        bench="aggregates",
        case=case,
        rows=bench.rows,
        ours_s=both.ours_s,
        peer_s=both.peer_s,
        ratio=both.ratio,
        note=both.note,
    )


def _analyze(database: Database) -> None:
    """What autovacuum does on its own some time after a large refresh."""
    kept = database.fetch(
        "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables "
        r"WHERE tablename LIKE 'candles\_%%\_kept' OR tablename LIKE '\_materialized\_hypertable%%'"
    )
    with database.connect(autocommit=True) as connection:
        for row in kept:
            connection.execute(f"VACUUM ANALYZE {row['name']}".encode())
