"""What the processes of the soak do, each until it is told to stop: write, refresh, expire, read.

A bar's numbers follow from its revision's number, and so does the moment at which it was published: a bar
as it is read back says which revision it is, and whether it is whole. No two batches share a revision.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from random import Random
from typing import IO, Any

import polars as pl

from hyperfeast.aggregates import refresh, verify
from hyperfeast.db import Database
from hyperfeast.errors import DataError
from hyperfeast.ingest import IngestSummary, ingest_candles
from hyperfeast.lifecycle import Enforced, Interval, TableLifecycle, enforce, load
from hyperfeast.types import Timeframe

WRITERS = 8
SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
WEEKS, EXPIRING_WEEKS = 6, 3
BARS = 120
KEPT = timedelta(days=28)

_WEEK = timedelta(weeks=1)
_WEEK_MINUTES = 7 * 24 * 60
_PUBLISHED_SINCE = datetime(2025, 1, 1, tzinfo=UTC)
_PAUSE_S = 0.1

WRONG_BARS = """
SELECT symbol, ts FROM candles
WHERE tf = '1m' AND (
    v <> extract(epoch FROM published_at - %(since)s)
    OR o <> 50 + (v::bigint %% 1000) / 8.0 OR c <> o OR h <> o + 1 OR l <> o - 1
)
"""


@dataclass(frozen=True)
class Soak:
    """What a process has to know: the database, the folder of the ledgers, and the seed."""

    dsn: str
    ledgers: Path
    seed: int
    compress: bool


@dataclass(frozen=True)
class Signals:
    """What the processes share: all are ready, it is over."""

    ready: Barrier
    over: Event


def bars(symbols: list[str], minute: int, revision: int, *, n: int = BARS) -> pl.DataFrame:
    """`n` bars of each symbol from the given minute on, all of one revision."""
    start = FIRST + timedelta(minutes=minute)
    times = pl.datetime_range(
        start, start + timedelta(minutes=n - 1), "1m", eager=True, time_unit="us"
    )
    price = 50 + revision % 1000 / 8
    one = pl.DataFrame({"ts": times}).with_columns(
        open=price, high=price + 1, low=price - 1, close=price, volume=float(revision),
        published_at=_PUBLISHED_SINCE + timedelta(seconds=revision),
    )  # fmt: skip
    return pl.concat(one.with_columns(symbol=pl.lit(symbol)) for symbol in symbols)


def ingest(database: Database, frame: pl.DataFrame, key: str) -> IngestSummary:
    """One batch under a key."""
    return ingest_candles(
        database, frame, timeframe=Timeframe.M1, source="soak", idempotency_key=key
    )


def wrong_bars(database: Database) -> list[dict[str, Any]]:
    """Bars that are of no revision, or of two."""
    return database.fetch(WRONG_BARS, {"since": _PUBLISHED_SINCE})


def lifecycle() -> dict[str, TableLifecycle]:
    """What is declared, with 1m bars that are kept for four weeks."""
    tables = load()
    candles = tables["candles"]
    kept = {**candles.keep_for, "1m": Interval(days=KEPT.days)}
    return tables | {"candles": replace(candles, keep_for=kept)}


def expire(
    database: Database, tables: dict[str, TableLifecycle], week: int, *, compress: bool
) -> list[Enforced]:
    """Enforce with the clock at which the weeks before `week` have just expired."""
    return enforce(
        database,
        tables,
        refresh=lambda: refresh(database),
        now=FIRST + KEPT + week * _WEEK,
        compress_now=compress,
    )


def write(soak: Soak, signals: Signals, number: int) -> None:
    """Insert, come late, correct, and now and then send the same again."""
    random = Random(f"{soak.seed}/{number}")
    database = Database(soak.dsn, pool_size=2)
    with _ledger(soak, f"writer-{number}") as ledger, closing(database):
        # What is there already, once: what is loaded on first use is loaded before the clock starts.
        ingest(database, bars(["AAA"], EXPIRING_WEEKS * _WEEK_MINUTES, 0), f"warm-up-{number}")
        for batch in _rounds(signals):
            revision = 1 + batch * WRITERS + number
            symbols = random.sample(SYMBOLS, random.randint(1, 2))
            minute = _minute(random, number, _first_week(database))
            entry = {"revision": revision, "symbols": symbols, "minute": minute}
            _note(ledger, entry | {"kind": "sent"})
            frame, key = bars(symbols, minute, revision), f"{soak.seed}-{revision}"
            done = ingest(database, frame, key)
            _note(ledger, entry | {"kind": "acknowledged"} | _counts(done))
            if random.random() < 0.1:
                again = ingest(database, frame, key)
                assert again.replayed
                assert again.batch_id == done.batch_id


def _first_week(database: Database) -> int:
    """The first week that has not expired: what lies before is refused, which is not what is tested here."""
    (row,) = database.fetch(
        "SELECT dropped_before FROM lifecycle_in_force WHERE relation = 'candles' AND tf = '1m'"
    )
    return (row["dropped_before"] - FIRST) // _WEEK if row["dropped_before"] else 0


def _minute(random: Random, number: int, first_week: int) -> int:
    """Where a batch begins, on the half hour: two writers also write to the weeks that expire."""
    late = number < 2 and first_week < EXPIRING_WEEKS and random.random() < 0.1
    week = random.randrange(*((first_week, EXPIRING_WEEKS) if late else (EXPIRING_WEEKS, WEEKS)))
    # The last days of a week are left alone, so that batches meet often enough.
    return week * _WEEK_MINUTES + random.randrange(0, 3 * 24 * 60, 30)


def keep_fresh(soak: Soak, signals: Signals) -> None:
    """Refresh what is dirty, again and again."""
    database = Database(soak.dsn)
    with _ledger(soak, "refresher") as ledger:
        for _ in _rounds(signals):
            done = refresh(database)
            _note(ledger, {"days": done.days, "retries": done.retries})
            time.sleep(_PAUSE_S)


def keep_short(soak: Soak, signals: Signals) -> None:
    """Let one week after the other expire, and enforce that."""
    database, tables, week = Database(soak.dsn), lifecycle(), 1
    with _ledger(soak, "enforcer") as ledger:
        for _ in _rounds(signals):
            try:
                done = expire(database, tables, week, compress=soak.compress)
            except DataError as error:
                # A writer was faster than the refresh before it: nothing was dropped, the next run may.
                _note(ledger, {"refused": str(error)})
                continue
            (candles,) = (one for one in done if one.relation == "candles")
            found = {"dropped": candles.rows_dropped, "compressed": candles.chunks_compressed}
            _note(ledger, {"week": week} | found)
            week = min(week + 1, EXPIRING_WEEKS)
            time.sleep(_PAUSE_S)


def keep_reading(soak: Soak, signals: Signals) -> None:
    """See at any moment: whole bars, and aggregates that equal raw or are marked stale."""
    database = Database(soak.dsn)
    always_right = not database.edition().continuous_aggregates
    with _ledger(soak, "reader") as ledger:
        for _ in _rounds(signals):
            wrong = [str(one) for one in wrong_bars(database)]
            found = verify(database, relation="candles")
            differing = [str(one) for one in found if always_right or not one.stale]
            _note(ledger, {"wrong": wrong[:3], "differing": differing[:3], "stale": len(found)})
            time.sleep(_PAUSE_S)


Role = Callable[..., None]


def run(role: Role, soak: Soak, signals: Signals, *args: int) -> None:
    """Be one of the processes; an error goes to its standard error and makes its exit code."""
    role(soak, signals, *args)


def _rounds(signals: Signals) -> Iterator[int]:
    signals.ready.wait()
    for number in count():
        if signals.over.is_set():
            return
        yield number


@contextmanager
def _ledger(soak: Soak, name: str) -> Iterator[IO[str]]:
    with (soak.ledgers / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        yield file


def _note(ledger: IO[str], entry: dict[str, Any]) -> None:
    ledger.write(json.dumps(entry | {"at": time.time()}) + "\n")
    ledger.flush()


def _counts(done: IngestSummary) -> dict[str, Any]:
    return {
        "batch_id": str(done.batch_id), "inserted": done.inserted, "corrected": done.corrected,
        "unchanged": done.unchanged, "quarantined": done.quarantined,
    }  # fmt: skip
