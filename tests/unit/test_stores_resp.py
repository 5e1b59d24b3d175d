"""Commands made in bulk are what a Redis client would send; replies that are errors are found."""

import socket
from collections.abc import Iterator
from typing import Any

import hiredis
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, ClusterError, OutOfMemoryError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hyperfeast.stores.online import resp

_ROWS = st.lists(
    st.tuples(st.binary(), st.binary(), st.binary(max_size=1)), min_size=1, max_size=20
)


def _packed(*arguments: bytes) -> bytes:
    return bytes(hiredis.pack_command(arguments))


@given(rows=_ROWS, name=st.binary(min_size=1, max_size=8))
def test_commands_are_a_clients(rows: list[tuple[bytes, bytes, bytes]], name: bytes) -> None:
    key, value, other = (pa.array(list(one), pa.large_binary()) for one in zip(*rows, strict=True))

    found = resp.commands(name, key, b"field", value, other)

    expected = [_packed(name, row[0], b"field", row[1], row[2]) for row in rows]
    assert found.to_pylist() == expected
    assert bytes(resp.section(found, 1, len(rows))) == b"".join(expected[1:])


@given(arguments=st.lists(st.binary(), min_size=1))
def test_one_command_is_a_clients(arguments: list[bytes]) -> None:
    assert resp.command(*arguments) == _packed(*arguments)


class _Connection:
    """What a channel needs of redis-py's connection: its socket."""

    def __init__(self, mine: socket.socket) -> None:
        self._sock = mine


@pytest.fixture
def ends() -> Iterator[tuple[resp.Channel, socket.socket]]:
    """A channel, and the server's end of its socket."""
    mine, servers = socket.socketpair()
    mine.settimeout(0.2)
    connection: Any = _Connection(mine)
    with mine, servers:
        yield resp.Channel(connection), servers


def test_replies_are_read_however_they_are_cut(ends: tuple[resp.Channel, socket.socket]) -> None:
    channel, server = ends
    server.sendall(b":1\r\n$3\r\na\r")
    server.sendall(b"b\r\n*2\r\n$-1\r\n:2\r\n")

    assert channel.replies(3) == [1, b"a\rb", [None, 2]]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"-OOM command not allowed\r\n", OutOfMemoryError),
        (b"-NOAUTH Authentication required.\r\n", AuthenticationError),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", ClusterError),
        (b"-ERR what\r\n", ResponseError),
        (b"*2\r\n:1\r\n-WRONGTYPE no hash\r\n", ResponseError),
    ],
)
def test_an_error_is_raised_wherever_it_stands(
    ends: tuple[resp.Channel, socket.socket], reply: bytes, error: type[Exception]
) -> None:
    channel, server = ends
    server.sendall(b"+OK\r\n" + reply + b":1\r\n")

    with pytest.raises(error):
        channel.replies(3)


def test_silence_is_a_timeout(ends: tuple[resp.Channel, socket.socket]) -> None:
    channel, _ = ends

    with pytest.raises(RedisTimeoutError):
        channel.replies(1)


def test_the_end_is_a_lost_connection(ends: tuple[resp.Channel, socket.socket]) -> None:
    channel, server = ends
    server.close()

    with pytest.raises(RedisConnectionError, match="closed"):
        channel.replies(1)


def test_what_is_no_reply_is_a_lost_connection(ends: tuple[resp.Channel, socket.socket]) -> None:
    channel, server = ends
    server.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(RedisConnectionError):
        channel.replies(1)
