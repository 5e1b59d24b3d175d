"""What a job writes counts only while the job is its worker's: every transaction holds the lease."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import psycopg
from psycopg import conninfo
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import Contended
from hyperfeast.sqlfiles import query

# PostgreSQL cuts names of sessions at 63 bytes.
_LONGEST_HOST = 25


@dataclass(frozen=True)
class Lease:
    """One attempt at a job.

    Attributes:
        job: its id.
        attempts: how many attempts there were before.
    """

    job: int
    attempts: int


_lease: ContextVar[Lease | None] = ContextVar("lease", default=None)


@contextmanager
def leased(lease: Lease) -> Iterator[None]:
    """What is called in the block is done for this attempt, threads that it starts left out."""
    token = _lease.set(lease)
    try:
        yield
    finally:
        _lease.reset(token)


def worker_name() -> str:
    """A name for this process that no other one has had: host, process id, and a random part."""
    host = "".join(one for one in socket.gethostname() if one.isascii() and one.isprintable())
    return f"hyperfeast worker {host[:_LONGEST_HOST]}:{os.getpid()}.{secrets.token_hex(3)}"


class LeasedDatabase(Database):
    """A database as a worker uses it.

    Its sessions bear the worker's name, so that they can be ended when it counts as dead: the
    transaction of a frozen process is open, with its locks. A transaction of a job holds the job: who
    takes the job away waits for its end, and once it is taken none begins.

    Args:
        dsn: a libpq connection string or URL.
        name: the worker's, as `worker_name` makes it.
        pool_size: how many connections to keep.
    """

    def __init__(self, dsn: str, *, name: str, pool_size: int = 0) -> None:
        super().__init__(conninfo.make_conninfo(dsn, application_name=name), pool_size=pool_size)
        self.name = name

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[DictRow]]:
        """A connection as `Database.connect` gives it.

        Raises:
            Contended: the job of this context is another worker's by now.
        """
        with super().connect(autocommit=autocommit) as connection:
            lease = _lease.get()
            if lease is None:
                connection.execute(query("jobs", "name_session"), {"name": self.name})
            elif not self._holds(connection, lease):
                raise Contended(
                    f"job {lease.job} was taken from this worker, which did not answer for too long: "
                    "nothing of this was stored, another worker does it"
                )
            yield connection

    def _holds(self, connection: psycopg.Connection[DictRow], lease: Lease) -> bool:
        of_job = {"name": self.name, "job": lease.job, "attempts": lease.attempts}
        return connection.execute(query("jobs", "hold"), of_job).fetchone() is not None
