"""Redis: one way to connect, and its errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import AuthenticationError, RedisError

from hyperfeast.errors import AccessDenied, ServerUnreachable

_TIMEOUT_S = 5


@contextmanager
def connect(url: str) -> Iterator["redis.Redis"]:
    """A Redis client that gives up after 5 seconds instead of hanging.

    Raises:
        AccessDenied: the password is refused.
        ServerUnreachable: nobody answers in time.
    """
    client = redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, decode_responses=True
    )
    try:
        with translated(url):
            yield client
    finally:
        client.close()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Errors of redis-py in our words; the address is for the message."""
    try:
        yield
    except AuthenticationError as error:
        raise AccessDenied(
            f"Redis at {address(url)} refused the password: check HYPERFEAST_REDIS_URL"
        ) from error
    except RedisError as error:
        raise ServerUnreachable(
            f"Redis at {address(url)} does not answer: {error} Does it run? "
            "`hyperfeast up` starts the embedded one"
        ) from error


def address(url: str) -> str:
    """Where it is, without the password: for messages."""
    parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"
