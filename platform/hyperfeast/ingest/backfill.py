"""The history of many instruments from a source, in pieces: several at once, and each of them once.

A piece is one instrument's bars over one stretch of a fixed calendar grid. It is one batch under an
idempotency key that names it, so that `ingest_batches` says which pieces are done: after a kill the same
call goes on with the others. Where a source can tell that its content is another one by now, the key says
so, too: a folder that has grown is read again.
"""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import HyperfeastError, ServerError, UsageError
from hyperfeast.ingest.batches import Ingested, IngestSummary
from hyperfeast.ingest.candles import ingest_candles
from hyperfeast.ingest.mirror import Mirror
from hyperfeast.sources import Source
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

# Months a piece: a thousand bars at least, to be worth a batch, and not more than fit in memory.
_MONTHS = {
    Timeframe.M1: 1,
    Timeframe.M5: 3,
    Timeframe.M15: 12,
    Timeframe.H1: 60,
    Timeframe.H4: 60,
    Timeframe.D1: 60,
    Timeframe.W1: 60,
}
_COLUMNS = ("symbol", "ts", "open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Piece:
    """One instrument's bars in [start, end), by the bar's open, UTC."""

    symbol: str
    timeframe: Timeframe
    start: datetime
    end: datetime

    def key(self, source: str, version: str = "") -> str:
        """The idempotency key of its batch; what would not fit in one is hashed.

        Args:
            source: the name of the source.
            version: of the source's content, if it has one.
        """
        named = f"backfill/{source}/{self.symbol}/{self.timeframe}/{self.start:%Y%m%dT%H%M}/{self.end:%Y%m%dT%H%M}"
        named += f"/{version}" if version else ""
        return f"backfill/{_sha256(named)}"


@dataclass(frozen=True)
class Failure:
    """A piece that is not done, and why; the later pieces of its instrument were not tried."""

    piece: Piece
    error: HyperfeastError


@dataclass(frozen=True)
class Backfilled:
    """What came of a backfill.

    Attributes:
        pieces: how many there are in the range.
        done_before: how many of them an earlier call had done.
        ingested: the sums over the pieces that this call did.
        failures: what went wrong, one an instrument.
    """

    pieces: int
    done_before: int
    ingested: Ingested
    failures: tuple[Failure, ...]


def pieces(
    symbols: Sequence[str], timeframe: Timeframe, start: datetime, end: datetime
) -> list[Piece]:
    """The pieces of a range, by instrument and then by time.

    They lie on a grid of calendar months from 1970, so that another range has the same pieces but for its ends.

    Args:
        symbols: the instruments; a repeated one counts once.
        timeframe: the width of the bars.
        start: zoned; of the first bar's open.
        end: zoned; exclusive.

    Raises:
        UsageError: a time without a zone, or an empty range.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise UsageError(f"{start} to {end} has no time zone: give zoned times, in UTC say")
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    if start >= end:
        raise UsageError(
            f"the range from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} is empty: "
            "expected a start before its end, which is exclusive"
        )
    cuts = [start, *_grid(start, end, _MONTHS[timeframe]), end]
    return [
        Piece(symbol, timeframe, first, last)
        for symbol in dict.fromkeys(symbols)
        for first, last in itertools.pairwise(cuts)
    ]


def backfill_candles(
    database: Database,
    source: Source,
    symbols: Sequence[str],
    *,
    timeframe: Timeframe,
    start: datetime,
    end: datetime,
    workers: int = 1,
    calendar: str | None = None,
    again: bool = False,
    mirror: Mirror | None = None,
    progress: Progress | None = None,
) -> Backfilled:
    """Take in the bars of many instruments from a source.

    What fails for one instrument (an unknown symbol, a source that gave no answer within its retries) is
    reported and leaves the others alone; what fails for all (the database) ends the backfill.

    Args:
        database: where to.
        source: where from; its rate limit holds for all workers together.
        symbols: as the source calls them.
        timeframe: the width of the bars.
        start: zoned; of the first bar's open.
        end: zoned; exclusive.
        workers: how many instruments at once. One instrument's pieces go in one after the other.
        calendar: of instruments that are not known yet; see `ingest_candles`.
        again: also fetch the pieces that an earlier call has done: to get what the source has corrected. Files
            and tables that have changed since are read again without it.
        mirror: where to write what is taken in a second time.
        progress: told (pieces done, pieces in all).

    Raises:
        UsageError: an empty range, or a timeframe that the source lacks.
        ServerError: the database fails; what is in stays, and the same call goes on from there.
    """
    if timeframe not in source.timeframes:
        known = ", ".join(tf for tf in Timeframe if tf in source.timeframes)
        raise UsageError(f"{source.name} has no bars of {timeframe}: expected one of {known}")
    begun = time.perf_counter()
    wanted = pieces(symbols, timeframe, start, end)
    # Asked for before anything is read: what changes from now on is read again the next time.
    versions = source.versions(list({piece.symbol: None for piece in wanted}), timeframe)
    keys = {piece: piece.key(source.name, versions.get(piece.symbol, "")) for piece in wanted}
    done = set() if again else _done(database, list(keys.values()))
    todo = [piece for piece, key in keys.items() if key not in done]
    run = _Run(
        database,
        source,
        keys,
        calendar,
        again,
        mirror,
        _Count(len(wanted) - len(todo), len(wanted), progress),
    )
    run.count.tell()
    summaries, failures = run.all(todo, workers)
    return Backfilled(
        pieces=len(wanted),
        done_before=len(wanted) - len(todo),
        ingested=Ingested.sum(summaries, seconds=time.perf_counter() - begun),
        failures=tuple(failures),
    )


def newest_sources(
    database: Database, series: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """(symbol, timeframe) -> where the newest bar of that series came from; without those that have none."""
    pairs = sorted(series)
    wanted = {"symbols": [one for one, _ in pairs], "timeframes": [tf for _, tf in pairs]}
    rows = database.fetch(query("ingestion", "newest_sources"), wanted)
    return {(row["symbol"], row["tf"]): row["source"] for row in rows}


class _Count:
    """How many pieces are done, told to whoever watches; from any thread."""

    def __init__(self, done: int, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = done, total, progress
        self._lock = threading.Lock()

    def tell(self, more: int = 0) -> None:
        with self._lock:
            self._done += more
            if self._progress:
                self._progress(self._done, self._total)


@dataclass(frozen=True)
class _Run:
    database: Database
    source: Source
    keys: Mapping[Piece, str]
    calendar: str | None
    again: bool
    mirror: Mirror | None
    count: _Count
    stopped: threading.Event = field(default_factory=threading.Event)

    def all(self, todo: Sequence[Piece], workers: int) -> tuple[list[IngestSummary], list[Failure]]:
        """Every instrument's pieces, so many instruments at once."""
        by_symbol: dict[str, list[Piece]] = {}
        for piece in todo:
            by_symbol.setdefault(piece.symbol, []).append(piece)
        summaries: list[IngestSummary] = []
        failures: list[Failure] = []
        with ThreadPoolExecutor(workers, thread_name_prefix="backfill") as pool:
            coming = [pool.submit(self._instrument, one) for one in by_symbol.values()]
            try:
                for future in as_completed(coming):
                    stored, failure = future.result()
                    summaries += stored
                    failures += [failure] if failure else []
            except BaseException:
                # What runs finishes its piece; what waits does not begin.
                self.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return summaries, sorted(failures, key=lambda one: one.piece.symbol)

    def _instrument(self, todo: Sequence[Piece]) -> tuple[list[IngestSummary], Failure | None]:
        summaries = []
        for position, piece in enumerate(todo):
            if self.stopped.is_set():
                break
            try:
                summaries.append(self._one(piece))
            except ServerError:
                raise
            except HyperfeastError as error:
                self.count.tell(len(todo) - position)
                return summaries, Failure(piece, error)
            self.count.tell(1)
        return summaries, None

    def _one(self, piece: Piece) -> IngestSummary:
        """A source that has nothing there makes an empty batch: it is done, too.

        A piece that has not ended yet is never done: it gets no key.
        """
        frames = list(self.source.fetch(piece.symbol, piece.timeframe, piece.start, piece.end))
        empty = pl.DataFrame(schema=dict.fromkeys(_COLUMNS, pl.String))
        key = self.keys[piece]
        return ingest_candles(
            self.database,
            pl.concat(frames, how="diagonal_relaxed") if frames else empty,
            timeframe=piece.timeframe,
            source=self.source.name,
            calendar=self.calendar,
            tz=self.source.tz,
            idempotency_key=None if self.again or piece.end > clock.now() else key,
            # The key names what was asked for. What a source answers may differ the second time.
            body_sha256=_sha256(key),
            mirror=self.mirror,
        )


def _grid(start: datetime, end: datetime, months: int) -> list[datetime]:
    """The multiples of so many months since 1970 that lie within (start, end)."""
    number = ((start.year - 1970) * 12 + start.month - 1) // months + 1
    cuts: list[datetime] = []
    while True:
        year, month = divmod(number * months, 12)
        cut = datetime(1970 + year, month + 1, 1, tzinfo=UTC)
        if cut >= end:
            return cuts
        cuts.append(cut)
        number += 1


def _done(database: Database, keys: Sequence[str]) -> set[str]:
    rows = database.fetch(query("ingestion", "completed_keys"), {"keys": list(keys)})
    return {row["idempotency_key"] for row in rows}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
