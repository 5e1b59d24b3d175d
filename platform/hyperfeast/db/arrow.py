"""Connections of ADBC, which fetches rows as Arrow."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from adbc_driver_manager import AdbcDatabase
    from adbc_driver_manager.dbapi import Connection

_SERVERS = 16


@contextmanager
def connected(dsn: str) -> Iterator["Connection"]:
    """A connection of its own. What the driver asks a server about its types it asks once a process.

    Raises:
        adbc_driver_manager.Error: the server does not answer, or refuses.
    """
    from adbc_driver_manager import AdbcConnection
    from adbc_driver_manager.dbapi import Connection

    with Connection(cast("AdbcDatabase", _NotClosed()), AdbcConnection(_driver(dsn))) as connection:
        yield connection


class _NotClosed:
    """What a connection takes for its database and closes with itself: ours outlives it."""

    def close(self) -> None:
        """Leave it open."""


@lru_cache(_SERVERS)
def _driver(dsn: str) -> "AdbcDatabase":
    """Takes ten times as long to make as a connection, and holds none."""
    from adbc_driver_postgresql import connect

    return cast("AdbcDatabase", connect(dsn))
