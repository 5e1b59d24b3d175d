"""Redis' protocol in bulk: the commands of all rows as one buffer, and a socket to send slices of it through.

The socket is that of a redis-py connection, which has done TLS, AUTH, SELECT and the timeouts; only the
bytes that go through it are ours.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import hiredis
import numpy as np
import pyarrow as pa
import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hyperfeast.stores.online.encode import ArrayOfBytes, joined, offsets_of, sizes

_READ_BYTES = 1 << 16
_ERRORS: dict[str, type[RedisError]] = {
    "OOM": OutOfMemoryError,
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "LOADING": BusyLoadingError,
    "NOAUTH": AuthenticationError,
    "WRONGPASS": AuthenticationError,
    # The slot is elsewhere, or on its way there.
    **dict.fromkeys(("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"), ClusterError),
}


def command(*arguments: bytes) -> bytes:
    """One command."""
    return b"".join([b"*%d\r\n" % len(arguments), *map(_bulk, arguments)])


def commands(*arguments: bytes | ArrayOfBytes) -> ArrayOfBytes:
    """A command a row.

    Args:
        arguments: bytes are the same in every row; at least one is a column.
    """
    pieces: list[bytes | ArrayOfBytes] = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        pieces += [_bulk(argument)] if isinstance(argument, bytes) else _bulks(argument)
    return joined(list(_merged(pieces)))


def arguments(column: ArrayOfBytes) -> ArrayOfBytes:
    """An argument a row, for a command that takes any number of them."""
    return joined(_bulks(column))


def section(rows: ArrayOfBytes, start: int, stop: int) -> memoryview:
    """The bytes of some rows' commands, without a copy."""
    bounds = offsets_of(rows)
    return memoryview(rows.buffers()[2] or b"")[bounds[start] : bounds[stop]]


class Channel:
    """A redis-py connection's socket, for many commands at once.

    Raises:
        redis.exceptions.RedisError: what redis-py itself would raise, from every method.
    """

    def __init__(self, connection: "redis.Connection") -> None:
        self.connection: Any = connection
        self._buffer = bytearray(_READ_BYTES)
        self._begin()

    def _begin(self) -> None:
        self._socket = self.connection._sock  # noqa: SLF001 - redis-py has no other way to it
        self._reader: Any = hiredis.Reader(replyError=self._refused)
        self._first_error: RedisError | None = None

    def connect_again(self) -> None:
        """Forget the connection as it was, and what was on its way."""
        self.connection.disconnect()
        self.connection.connect()
        self._begin()

    def send(self, *buffers: bytes | memoryview) -> None:
        """Send whole commands; their replies are to be fetched."""
        with self._named_errors():
            for buffer in buffers:
                self._socket.sendall(buffer)

    def replies(self, count: int) -> list[Any]:
        """The next replies. The first error among all so far is raised, also one within a transaction's reply."""
        found: list[Any] = []
        with self._named_errors():
            while len(found) < count:
                reply = self._reader.gets()
                if reply is False:
                    self._feed()
                else:
                    found.append(reply)
        if self._first_error:
            raise self._first_error
        return found

    def exchange(self, payload: bytes, count: int) -> list[Any]:
        """Send whole commands and fetch their replies. After an error the connection is closed."""
        try:
            self.send(payload)
            return self.replies(count)
        except BaseException:
            self.connection.disconnect()
            raise

    def _refused(self, message: str) -> RedisError:
        """Called for each error in a reply, wherever it stands."""
        kind = _ERRORS.get(message.partition(" ")[0], ResponseError)
        error = kind(message)
        self._first_error = self._first_error or error
        return error

    def _feed(self) -> None:
        received = self._socket.recv_into(self._buffer)
        if not received:
            raise RedisConnectionError("the server closed the connection")
        self._reader.feed(self._buffer, 0, received)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise RedisTimeoutError("no answer within the socket timeout") from error
        except (OSError, hiredis.ProtocolError) as error:
            raise RedisConnectionError(str(error)) from error


@contextmanager
def channels(client: "redis.Redis", count: int) -> Iterator[list[Channel]]:
    """Connections out of the client's pool; after an error they are closed, since replies may be on their way."""
    pool = client.connection_pool
    connections: list[Any] = []
    try:
        connections += (pool.get_connection() for _ in range(count))
        yield [Channel(connection) for connection in connections]
    except BaseException:
        for connection in connections:
            connection.disconnect()
        raise
    finally:
        for connection in connections:
            pool.release(connection)


def _bulk(argument: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(argument), argument)


def _bulks(column: ArrayOfBytes) -> list[bytes | ArrayOfBytes]:
    """The pieces of an argument that differs by row: its length, which often does not, and itself."""
    lengths = sizes(column)
    distinct, places = np.unique(lengths, return_inverse=True)
    if len(distinct) == 1:
        return [b"$%d\r\n" % distinct[0], column, b"\r\n"]
    heads = pa.array([b"$%d\r\n" % length for length in distinct], pa.large_binary())
    return [heads.take(pa.array(places.astype(np.int64), pa.int64())), column, b"\r\n"]


def _merged(pieces: Sequence[bytes | ArrayOfBytes]) -> Iterator[bytes | ArrayOfBytes]:
    """Neighbors that are the same in every row, as one."""
    for same, group in groupby(pieces, lambda piece: isinstance(piece, bytes)):
        if same:
            yield b"".join(piece for piece in group if isinstance(piece, bytes))
        else:
            yield from group
