"""Keeps a feature set over bars current: of what changed it computes what that touches, and no more.

Why the end is that of a computation from scratch, to the last bit, whoever writes and computes meanwhile:

- A change and its mark commit at one moment (`changes`). Marks are looked at first, and bars are read
  afterwards: so all bars of the marks are seen. What is committed later has a mark of its own.
- A value depends on the bars of its block up to its own, and on those of the warm-up before the block
  (`indicators.blocks`). These are read, whatever the change: the same array goes into the same function.
- Rows are written in the transaction that deletes the marks. Of two processes that computed the same, the
  second finds the marks gone, writes nothing, and looks anew. Between a look and the deletion nobody else
  can have written rows of these symbols: who computes a symbol takes all of its marks.
- Nothing is locked and no transaction is open while bars are read and rules are evaluated. A process that
  is killed leaves the marks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import polars as pl

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.features import changes, table
from hyperfeast.features.bars import Stretch, read_stretches
from hyperfeast.features.changes import BEGINNING, END, Change
from hyperfeast.features.computation import Computation, over_bars
from hyperfeast.features.declaration import FeatureSet
from hyperfeast.indicators import block_start, touched_until
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

# Some 100 MB of 50 features. How many symbols that are is seen from the symbols before; few at first, unless each
# has a change within a block or two, as when all have a new bar.
_ROWS_AT_ONCE = 250_000
_FIRST_SYMBOLS, _FIRST_OF_SMALL, _GROWTH, _MOST_SYMBOLS = 4, 64, 8, 512
_LONGEST_BLOCK_DAYS = 8_000
_TICK = timedelta(microseconds=1)
# Daily bars of one moment may bear different dates: so many days apart at most.
_DATES_APART = timedelta(days=3)
_ROW = ["symbol", "event_timestamp"]


@dataclass(frozen=True)
class _Part:
    """What to compute of one symbol.

    Attributes:
        symbol: whose rows.
        since: from the bar on that opens at or after it; BEGINNING for the first one.
        until: to before the bar that opens at or after it; END for all.
    """

    symbol: str
    since: datetime
    until: datetime


def pending(database: Database, feature_set: FeatureSet) -> dict[str, datetime]:
    """The symbols with something to compute, and the open of the first bar that changed (UTC).

    It may be a moment before that bar; the year 1000 stands for all bars.
    """
    return {one.symbol: one.first for one in changes.collect(database, feature_set)}


def refresh_symbols(
    database: Database,
    feature_set: FeatureSet,
    symbols: Sequence[str] | None = None,
    *,
    full: bool = False,
    progress: Progress | None = None,
) -> Computation:
    """Bring rows up to date with every change of bars that was committed before.

    The unit of work: any number of processes may call it at once, for the same symbols or others; each
    chunk of symbols is a transaction, and what was not finished is still to be done. Memory is bounded.

    Args:
        database: where bars and rows are.
        feature_set: a set over bars.
        symbols: whose rows; None for all. A set that compares symbols is done for all of them.
        full: compute all rows again, not those only that a change touches.
        progress: told (symbols done, symbols in all).

    Raises:
        FeatureError: the set is over a relation, or a bar is of no session of its calendar.
    """
    timeframe = changes.timeframe_of(feature_set)
    found = changes.collect(database, feature_set, symbols, full=full)
    if feature_set.compares_symbols and symbols is not None:
        found = changes.waiting(database, feature_set)
    work = _Work(database, feature_set, timeframe)
    done = _Done(feature_set)
    if feature_set.compares_symbols:
        for _ in _moment_by_moment(work, found, done):
            pass
        if progress:
            progress(len(found), len(found))
        return done.computation
    for count in _chunk_by_chunk(work, found, done):
        if progress:
            progress(count, len(found))
    return done.computation


class _Done:
    """What was done so far."""

    def __init__(self, feature_set: FeatureSet) -> None:
        self._set = feature_set
        self._rows = 0
        self._written = 0
        self._newest: list[pl.DataFrame] = []

    def add(self, rows: int, written: pl.DataFrame) -> None:
        """Count a chunk; of what it wrote the newest row of each entity is kept."""
        self._rows += rows
        self._written += written.height
        if written.height:
            self._newest.append(self._newest_of(written))

    @property
    def computation(self) -> Computation:
        """All of it."""
        newest = self._newest_of(pl.concat(self._newest)) if self._newest else pl.DataFrame()
        return Computation(self._set.name, self._rows, self._written, newest)

    def _newest_of(self, rows: pl.DataFrame) -> pl.DataFrame:
        ordered = rows.sort("event_timestamp", "recorded_at")
        return ordered.unique(self._set.key_columns, keep="last", maintain_order=True)


def _chunk_by_chunk(work: "_Work", found: Sequence[Change], done: _Done) -> Iterator[int]:
    """Chunks of as many symbols as fit; yields how many are done."""
    begin, size = 0, _FIRST_SYMBOLS
    if all(one.last <= next_block(work.timeframe, one.first) for one in found):
        size = _FIRST_OF_SMALL
    while begin < len(found):
        chunk = found[begin : begin + size]
        most = work.symbols(chunk, done)
        begin += len(chunk)
        fitting = _ROWS_AT_ONCE * len(chunk) // max(1, most)
        size = max(1, min(fitting, size * _GROWTH, _MOST_SYMBOLS))
        yield begin


def _moment_by_moment(work: "_Work", found: Sequence[Change], done: _Done) -> Iterator[None]:
    """One stretch of time after the other, of as many blocks as fit, for all symbols together."""
    blocks = 1
    while found:
        most = work.moments(found, blocks, done)
        blocks = max(1, min(_ROWS_AT_ONCE * blocks // max(1, most), blocks * _GROWTH))
        found = changes.waiting(work.database, work.feature_set)
        yield


@dataclass(frozen=True)
class _Work:
    """The work on one set."""

    database: Database
    feature_set: FeatureSet
    timeframe: Timeframe

    def symbols(self, found: Sequence[Change], done: _Done) -> int:
        """Compute what waits of some symbols; how many bars that took."""
        symbols = [one.symbol for one in found]
        while found:
            parts = self._parts(found)
            bars = self._read(parts, timedelta(0))
            if self._write(found, bars, self._exact(found, parts, bars), done):
                return bars.height
            found = changes.waiting(self.database, self.feature_set, symbols)
        return 0

    def moments(self, found: Sequence[Change], blocks: int, done: _Done) -> int:
        """Compute the first blocks of time that wait, of all symbols; how many bars that took.

        Who changed is compared with all others: their rows of the same moments change with it.
        """
        since, until, left = self._stretch(found, blocks)
        apart = _DATES_APART if self.timeframe is Timeframe.D1 else timedelta(0)
        parts = [
            _Part(symbol, max(BEGINNING, since - apart), min(END, until + apart))
            for symbol in self._instruments(found)
        ]
        bars = self._read(parts, apart)
        self._write(found, bars, parts, done, left=left)
        return bars.height

    def _parts(self, found: Sequence[Change]) -> list[_Part]:
        """From the first bar that changed to where no window reaches back to the last."""
        reach = self._reach(found)
        return [_Part(one.symbol, one.first, reach.get(one.symbol, END)) for one in found]

    def _reach(self, found: Sequence[Change]) -> dict[str, datetime]:
        """By symbol, where a block begins that no change touches any more, if there is one."""
        now = clock.now()
        ended = [
            one for one in found if one.last < END and next_block(self.timeframe, one.last) < now
        ]
        if not ended:
            return {}
        rows = self.database.fetch(
            query("features", "reach"),
            {
                "symbols": [one.symbol for one in ended],
                "moments": [one.last for one in ended],
                "tf": self.timeframe.value,
                "warm_up": self.feature_set.warm_up,
            },
        )
        return {row["symbol"]: next_block(self.timeframe, row["ts"]) for row in rows}

    def _read(self, parts: Sequence[_Part], apart: timedelta) -> pl.DataFrame:
        """The bars of the parts, of their blocks before them, and of the warm-up before those."""
        stretches = [
            Stretch(
                one.symbol,
                block_start(self.timeframe, max(BEGINNING, one.since - apart)),
                min(END, one.until + apart),
            )
            for one in parts
        ]
        return read_stretches(
            self.database, self.timeframe, stretches, before=max(1, self.feature_set.warm_up)
        )

    def _exact(
        self, found: Sequence[Change], parts: Sequence[_Part], bars: pl.DataFrame
    ) -> list[_Part]:
        """The parts, each ended where its bars say that nothing is touched any more."""
        bounded = {one.symbol for one in parts if one.until < END}
        if not bounded:
            return list(parts)
        opens = {
            str(symbol): part["ts"]
            for (symbol,), part in bars.filter(pl.col("symbol").is_in(bounded)).group_by(
                "symbol", maintain_order=True
            )
        }
        exact = []
        for change, part in zip(found, parts, strict=True):
            until = part.until
            if part.symbol in opens:
                own = opens[part.symbol]
                until = (
                    touched_until(own, self.timeframe, self.feature_set.warm_up, change.last)
                    or until
                )
            exact.append(replace(part, until=until))
        return exact

    def _stretch(
        self, found: Sequence[Change], blocks: int
    ) -> tuple[datetime, datetime, list[Change]]:
        """The first blocks of what changed: from where to where, and what is left behind them."""
        parts = self._parts(found)
        since, until = min(one.since for one in parts), max(one.until for one in parts)
        first, last = self._extent(since)
        if first is None or last is None:
            return since, until, []
        behind = next_block(self.timeframe, first)
        for _ in range(blocks - 1):
            if behind < min(until, last):
                behind = next_block(self.timeframe, behind)
        if behind >= until or behind > last:
            return since, until, []
        left = [
            replace(change, first=max(change.first, behind))
            for change, part in zip(found, parts, strict=True)
            if part.until > behind
        ]
        return since, behind, left

    def _extent(self, since: datetime) -> tuple[datetime | None, datetime | None]:
        """The opens of the first bar from a moment on and of the last bar, of any symbol."""
        asked = {"tf": self.timeframe.value, "since": since}
        row = self.database.fetch(query("features", "extent"), asked)[0]
        return row["first"], row["last"]

    def _instruments(self, found: Sequence[Change]) -> list[str]:
        """All of them, and those that are none any more."""
        rows = self.database.fetch(query("features", "instruments"))
        return sorted({row["symbol"] for row in rows} | {one.symbol for one in found})

    def _write(
        self,
        found: Sequence[Change],
        bars: pl.DataFrame,
        parts: Sequence[_Part],
        done: _Done,
        *,
        left: Sequence[Change] = (),
    ) -> bool:
        """Compute, and write what differs from what is served; False if somebody else did meanwhile."""
        rows = over_bars(
            self.feature_set,
            bars,
            since={one.symbol: one.since for one in parts},
            until={one.symbol: one.until for one in parts if one.until < END},
        )
        edges = _edges(parts, bars)
        served = table.served(self.database, self.feature_set, self._spans(edges))
        lost = self._behind_the_horizon(edges, bars, served)
        differing = table.revisions(
            self.feature_set,
            rows.join(lost, on=_ROW, how="anti", maintain_order="left"),
            served.join(lost, on=_ROW, how="anti", maintain_order="left"),
        )
        with self.database.connect() as connection:
            if not changes.settle(connection, found):
                connection.rollback()
                return False
            changes.leave(connection, self.feature_set, left)
            written = table.append(connection, self.feature_set, differing)
        done.add(rows.height, written)
        return True

    def _spans(self, edges: Mapping[str, "_Edge"]) -> list[table.Span]:
        """The served rows that belong to the parts: also of bars that are not there any more.

        They lie between the bar before a part and the one behind it. Rows of bars that retention has
        dropped are left as they are.
        """
        at_the_beginning = any(one.after is None for one in edges.values())
        kept_since = self._kept_since() if at_the_beginning else BEGINNING
        return [
            table.Span((symbol,), one.after or kept_since, one.before or END)
            for symbol, one in edges.items()
        ]

    def _behind_the_horizon(
        self, edges: Mapping[str, "_Edge"], bars: pl.DataFrame, served: pl.DataFrame
    ) -> pl.DataFrame:
        """The served rows that stay as they are: retention has dropped bars that they were computed of.

        They are those of the first bars that are left, as many as the warm-up, of symbols that had rows
        before: computed anew they would have no value, or another one.
        """
        warm_up = self.feature_set.warm_up
        near = [symbol for symbol, one in edges.items() if one.bars_before < warm_up]
        if not near or not served.height or (kept_since := self._kept_since()) == BEGINNING:
            return served.clear().select(_ROW)
        spans = [table.Span((symbol,), BEGINNING, kept_since + _TICK) for symbol in near]
        had_rows = table.served(self.database, self.feature_set, spans)["symbol"].unique()
        return (
            bars.filter(pl.col("symbol").is_in(had_rows.to_list()))
            .filter(pl.int_range(pl.len()).over("symbol") < warm_up)
            .join(served.select(_ROW), on=_ROW, how="semi")
            .select(_ROW)
        )

    def _kept_since(self) -> datetime:
        rows = self.database.fetch(query("features", "kept_since"), {"tf": self.timeframe.value})
        moment: datetime = rows[0]["kept_since"]
        return moment


def next_block(timeframe: Timeframe, moment: datetime) -> datetime:
    """Where the block behind the one of a moment begins (UTC)."""
    own = block_start(timeframe, moment)
    low, high = 0, _LONGEST_BLOCK_DAYS
    while high - low > 1:
        middle = (low + high) // 2
        if block_start(timeframe, own + timedelta(days=middle)) == own:
            low = middle
        else:
            high = middle
    return block_start(timeframe, own + timedelta(days=high))


@dataclass(frozen=True)
class _Edge:
    """What lies around a part.

    Attributes:
        after: when the bar before it was known (UTC); None where there is none.
        before: when the bar behind it was known; None where there is none.
        bars_before: how many bars before it were read.
    """

    after: datetime | None
    before: datetime | None
    bars_before: int


def _edges(parts: Sequence[_Part], bars: pl.DataFrame) -> dict[str, _Edge]:
    """What lies around each part, by symbol."""
    moment = pl.Datetime("us", "UTC")
    bounds = pl.DataFrame(
        [(one.symbol, one.since, one.until) for one in parts],
        schema={"symbol": pl.String, "since": moment, "until": moment},
        orient="row",
    )
    known, opened = pl.col("event_timestamp"), pl.col("ts")
    edges = (
        bounds.join(bars.select("symbol", "ts", "event_timestamp"), on="symbol", how="left")
        .group_by("symbol", maintain_order=True)
        .agg(
            known.filter(opened < pl.col("since")).max().alias("after"),
            known.filter(opened >= pl.col("until")).min().alias("before"),
            (opened < pl.col("since")).sum().alias("bars_before"),
        )
    )
    return {
        row["symbol"]: _Edge(row["after"], row["before"], row["bars_before"])
        for row in edges.iter_rows(named=True)
    }
