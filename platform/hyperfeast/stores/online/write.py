"""Rows into Redis, so that of an entity's rows the newest (event, recorded) stays, in whatever order they come.

Two ways, both free of races with any other writer, Feast's own store included:

- a transaction for some hundred rows: WATCH their keys, read their times, and MULTI, HSET …, EXEC for those
  that are newer; if somebody else wrote to one of the keys meanwhile, Redis does nothing of it. HSET runs
  at its full speed, and while Redis works on some slices, the next is checked over another connection;
- a script for each row, which compares and writes in one step. It needs one key at a time, so that it
  works in a cluster, and it cannot lose a race: slices that lost one go this way, and few rows do from
  the start, being there in one round trip.

Measured against plain HSETs of 20 features: transactions 0.8 to 0.95 of their speed, the script 0.45 to 0.6;
one script call for many rows, and a function, are no faster than the script.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import redis
from numpy.typing import NDArray
from redis.exceptions import AuthenticationError, ClusterError, NoScriptError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError

from hyperfeast.stores.online import resp
from hyperfeast.stores.online.encode import ArrayOfBytes
from hyperfeast.stores.online.layouts import Layout
from hyperfeast.stores.online.resp import Channel
from hyperfeast.stores.online.rows import NEVER, Rows

Client: TypeAlias = "redis.Redis | redis.RedisCluster"
# Where some rows go, and their places in a piece.
_Share: TypeAlias = tuple[Channel, NDArray[np.intp]]
_T = TypeVar("_T")

# WATCH compares each key with all that are watched already: a thousand of them cost more than their writes.
_TRANSACTION_ROWS = 256
# Transactions under way at once: one is being checked, while Redis still has others to write.
_CHANNELS = 4
_SCRIPT_ROWS = 512
# Below, one round trip with the script is sooner back than a transaction's two.
_FEW = 32
_PIECE_ROWS = 8192
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5
# What the same call may do away with: the connection broke, a replica took over, a slot moved.
_PASSING = (RedisConnectionError, ReadOnlyError, ClusterError, NoScriptError)


@dataclass(frozen=True)
class Written:
    """What became of the rows.

    Attributes:
        rows: that were written.
        kept: older than what was stored, or than another row of the same entity.
        refused: whose event time lies in the future.
        latest_refused: the latest of those, microseconds since 1970, UTC.
    """

    rows: int = 0
    kept: int = 0
    refused: int = 0
    latest_refused: int = NEVER

    def __add__(self, other: "Written") -> "Written":
        return Written(
            self.rows + other.rows,
            self.kept + other.kept,
            self.refused + other.refused,
            max(self.latest_refused, other.latest_refused),
        )


@dataclass(frozen=True)
class Destination:
    """Where a view's rows go, and how.

    Attributes:
        client: of the store.
        layout: of the view's rows.
        tolerance_s: how many seconds after Redis's clock an event time may be.
        retries: how often a piece is tried again if its connection broke.
    """

    client: Client
    layout: Layout
    tolerance_s: float
    retries: int


def write(
    destination: Destination,
    batches: Iterable[Rows],
    progress: Callable[[int], Any] | None = None,
) -> Written:
    """Write each row that is newer than what is stored, and not from the future.

    The clock is Redis's: one for all writers, whose own may be wrong together with their event times.

    Args:
        destination: where they go.
        batches: the rows, in any order.
        progress: called with a number of rows as soon as they are dealt with.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or refuses. Each entity's row is whole, new or old.
    """
    total = Written()
    for piece, superseded in _ahead(_pieces(destination.layout, batches)):
        written = _persistently(destination, piece)
        total += replace(written, kept=written.kept + superseded)
        if progress:
            progress(len(piece) + superseded)
    return total


class _Piece:
    """Rows of distinct entities, and the commands that write them."""

    def __init__(self, layout: Layout, rows: Rows) -> None:
        self.layout = layout
        self.rows = rows
        self.keys = layout.keys(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def watches(self) -> ArrayOfBytes:
        """WATCH's arguments."""
        return resp.arguments(self.keys)

    @cached_property
    def reads(self) -> ArrayOfBytes:
        return self.layout.reads(self.keys)

    @cached_property
    def puts(self) -> ArrayOfBytes:
        return self.layout.puts(self.keys, self.rows)

    @cached_property
    def scripts(self) -> ArrayOfBytes:
        return self.layout.scripts(self.keys, self.rows)

    def prepare(self) -> None:
        """Make now what a transaction needs, which would else be made while Redis waits."""
        _ = self.watches, self.reads, self.puts

    def is_newer(self, places: NDArray[np.intp], replies: Sequence[Any]) -> NDArray[np.bool_]:
        """Whether each row is newer than what is stored, or corrects it."""
        event, recorded = self.rows.event[places], self.rows.recorded[places]
        stored_event, stored_recorded = self.layout.times(replies)
        newer: NDArray[np.bool_] = (stored_event < event) | (
            (stored_event == event) & (stored_recorded <= recorded)
        )
        return newer


def _pieces(layout: Layout, batches: Iterable[Rows]) -> Iterator[tuple[_Piece, int]]:
    """Pieces, and of how many rows each took the place: older ones of the same entities."""
    for batch in batches:
        newest = batch.newest()
        superseded = len(batch) - len(newest)
        for rows in newest.pieces(_PIECE_ROWS):
            piece = _Piece(layout, rows)
            if len(piece) > _FEW:
                piece.prepare()
            yield piece, superseded
            superseded = 0


def _ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The items, each made by another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _persistently(destination: Destination, piece: _Piece) -> Written:
    """Write a piece, again if its connection broke: what it wrote already is equal, and is written again."""
    failures = 0
    while True:
        try:
            return _write_piece(destination, piece)
        except AuthenticationError:
            # For the client a connection that broke; but a password that is refused is refused again.
            raise
        except _PASSING:
            failures += 1
            if failures > destination.retries:
                raise
            time.sleep(min(_FIRST_PAUSE_S * 2**failures, _LONGEST_PAUSE_S))
            if isinstance(destination.client, redis.RedisCluster):
                destination.client.nodes_manager.initialize()


def _write_piece(destination: Destination, piece: _Piece) -> Written:
    """One try."""
    client, event = destination.client, piece.rows.event
    if isinstance(client, redis.RedisCluster):
        allowed = np.flatnonzero(event <= _latest(_any_node(client), destination.tolerance_s))
        rows = _write_cluster(client, piece, allowed)
    else:
        allowed = np.flatnonzero(event <= _latest(client, destination.tolerance_s))
        rows = _write_node(client, piece, allowed)
    refused = len(piece) - len(allowed)
    latest = int(event.max()) if refused else NEVER
    return Written(rows, len(allowed) - rows, refused, latest)


def _latest(client: "redis.Redis", tolerance_s: float) -> float:
    """The latest event time that is taken, microseconds since 1970."""
    found: Any = client.time()
    seconds, micros = found
    return float((seconds + tolerance_s) * 1e6 + micros)


def _write_node(client: "redis.Redis", piece: _Piece, places: NDArray[np.intp]) -> int:
    """How many of the rows at these places were written."""
    if len(places) <= _FEW:
        with resp.channels(client, 1) as (channel,):
            return _write_by_script(channel, piece, places)
    slices = -(-len(places) // _TRANSACTION_ROWS)
    with resp.channels(client, min(slices, _CHANNELS)) as several:
        return _write_by_transactions(several, piece, places)


def _write_cluster(client: Any, piece: _Piece, places: NDArray[np.intp]) -> int:
    """The same on a cluster: its nodes work at once."""
    by_node: dict[Any, list[int]] = {}
    for place in places.tolist():
        slot = client.keyslot(piece.keys[place].as_py())
        by_node.setdefault(client.nodes_manager.get_node_from_slot(slot), []).append(place)
    with ExitStack() as connections:
        shares = []
        for node, mine in by_node.items():
            one = resp.channels(client.get_redis_connection(node), 1)
            (channel,) = connections.enter_context(one)
            shares.append((channel, np.array(mine, np.intp)))
        return _write_by_scripts(shares, piece)


def _any_node(client: Any) -> Any:
    return client.get_redis_connection(client.get_random_primary_node())


def _write_by_script(channel: Channel, piece: _Piece, places: NDArray[np.intp]) -> int:
    """How many of the rows at these places the script wrote."""
    return _write_by_scripts([(channel, places)], piece) if len(places) else 0


def _write_by_scripts(shares: Sequence[_Share], piece: _Piece) -> int:
    """The same for rows of several servers, all of which are sent theirs before any is waited for."""
    for channel, _ in shares:
        channel.send(resp.command(b"SCRIPT", b"LOAD", piece.layout.script))
    for channel, _ in shares:
        channel.replies(1)
    written = 0
    for start in range(0, max((len(mine) for _, mine in shares), default=0), _SCRIPT_ROWS):
        turn = [(channel, mine[start : start + _SCRIPT_ROWS]) for channel, mine in shares]
        for channel, some in turn:
            channel.send(_of(piece.scripts, some))
        written += sum(sum(channel.replies(len(some))) for channel, some in turn)
    return written


def _write_by_transactions(
    several: Sequence[Channel], piece: _Piece, places: NDArray[np.intp]
) -> int:
    """How many of the rows at these places were written: by transactions, of which several are under way."""
    written = 0
    starts = range(0, len(places), _TRANSACTION_ROWS)
    under_way: list[_Transaction] = []
    for number, start in enumerate(starts):
        if len(under_way) == len(several):
            written += under_way.pop(0).finish()
        transaction = _Transaction(
            several[number % len(several)], piece, places[start : start + _TRANSACTION_ROWS]
        )
        transaction.check()
        if under_way:
            under_way[-1].commit()
        under_way.append(transaction)
    if under_way:
        under_way[-1].commit()
    return written + sum(transaction.finish() for transaction in under_way)


class _Transaction:
    """Some rows of a piece on their way through a channel: check, commit, finish."""

    def __init__(self, channel: Channel, piece: _Piece, places: NDArray[np.intp]) -> None:
        self._channel = channel
        self._piece = piece
        self._places = places
        self._newer = places

    def check(self) -> None:
        """Watch the keys, and ask for their stored times."""
        self._channel.send(
            b"*%d\r\n$5\r\nWATCH\r\n" % (1 + len(self._places)),
            _of(self._piece.watches, self._places),
            _of(self._piece.reads, self._places),
        )

    def commit(self) -> None:
        """Write those that are newer, if nobody wrote to any of the keys since."""
        replies = self._channel.replies(1 + len(self._places))
        self._newer = self._places[self._piece.is_newer(self._places, replies[1:])]
        self._channel.send(
            resp.command(b"MULTI"), _of(self._piece.puts, self._newer), resp.command(b"EXEC")
        )

    def finish(self) -> int:
        """How many rows were written. If somebody else wrote to one of the keys, the script does it."""
        puts = len(self._newer) * self._piece.layout.puts_a_row
        replies = self._channel.replies(2 + puts)
        if replies[-1] is None:
            return _write_by_script(self._channel, self._piece, self._places)
        return len(self._newer)


def _of(rows: ArrayOfBytes, places: NDArray[np.intp]) -> memoryview:
    """The commands of the rows at these places, without a copy where they stand together."""
    if not len(places):
        return memoryview(b"")
    first, last = int(places[0]), int(places[-1])
    if last - first == len(places) - 1:
        return resp.section(rows, first, last + 1)
    chosen = rows.take(pa.array(places, pa.int64()))
    return resp.section(chosen, 0, len(chosen))
