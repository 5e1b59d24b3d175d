"""Redis: one way to connect, and its errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.exceptions import AuthenticationError, ClusterError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hyperfeast.errors import AccessDenied, QueryFailed, ServerUnreachable

_TIMEOUT_S = 5
_UNREACHABLE = (RedisConnectionError, RedisTimeoutError, ClusterError)


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
def translated(
    url: str,
    *,
    setting: str = "HYPERFEAST_REDIS_URL",
    remedy: str = "`hyperfeast up` starts the embedded one",
) -> Iterator[None]:
    """Errors of redis-py in our words.

    Args:
        url: whose address is for the message.
        setting: where the user has written it.
        remedy: what to do if nobody answers.

    Raises:
        AccessDenied: the password is refused.
        ServerUnreachable: nobody answers in time.
        QueryFailed: it answers, and refuses a command: no memory is left, a key holds something else.
    """
    try:
        yield
    except AuthenticationError as error:
        raise AccessDenied(
            f"Redis at {address(url)} refused the password: check {setting}"
        ) from error
    except _UNREACHABLE as error:
        raise ServerUnreachable(
            f"Redis at {address(url)} does not answer: {_said(error)}. Does it run? {remedy}"
        ) from error
    except RedisError as error:
        raise QueryFailed(f"Redis at {address(url)} refused a command: {error}") from error


def _said(error: Exception) -> str:
    """What redis-py says, which ends with a full stop at times."""
    return str(error).rstrip(". ")


def address(url: str) -> str:
    """Where it is, without the password: for messages."""
    parts = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}/{parts.get('db', 0)}"
