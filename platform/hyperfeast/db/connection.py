"""A PostgreSQL database by its DSN, and the one boundary where psycopg's errors become ours."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString, cast

import polars as pl
import psycopg
from psycopg import conninfo, errors, sql
from psycopg.rows import DictRow, dict_row

from hyperfeast import sqlfiles
from hyperfeast.db import arrow
from hyperfeast.errors import (
    AccessDenied,
    Contended,
    HyperfeastError,
    QueryFailed,
    SchemaError,
    ServerUnreachable,
)
from hyperfeast.types import Edition

if TYPE_CHECKING:
    import adbc_driver_manager
    from psycopg_pool import ConnectionPool

_MISSING = (errors.UndefinedTable, errors.UndefinedColumn)
_DENIED = (errors.InvalidPassword, errors.InvalidAuthorizationSpecification)
# Connections that broke, too many of them, servers that go down or come up. Any other state is an answer.
_GONE_STATES = ("08", "53300", "57P")
_CONTENDED = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)
# What libpq says, without a SQLSTATE, of connections that no later try can make.
_MISCONFIGURED = re.compile(
    r"invalid \w+ value|SSL was required|certificate|private key|no pg_hba\.conf entry"
    r'|(database|role) ".*" does not exist|unrecognized configuration parameter'
)
_CONNECTING = re.compile(
    r"^(connection failed: |connection is bad: )?(connection to server .*? failed: )?(FATAL: +)?"
)
_MISSING_STATES = {error.sqlstate for error in _MISSING}
Query = LiteralString | sql.Composed
Parameters = Sequence[Any] | Mapping[str, Any]

_CONNECT_TIMEOUT_S = 5


class Database:
    """One PostgreSQL database. Cheap to make: it connects when it is used.

    Args:
        dsn: a libpq connection string or URL.
        pool_size: how many connections to keep for a process that serves; 0 for a new one each time.
        setting: where the DSN is written, for messages.
    """

    def __init__(
        self, dsn: str, *, pool_size: int = 0, setting: str = "HYPERFEAST_POSTGRES_DSN"
    ) -> None:
        self.dsn = dsn
        self._setting = setting
        self._pool_size = pool_size

    def __repr__(self) -> str:
        return f"Database({self.address})"

    @property
    def address(self) -> str:
        """Where it is, without the password: for messages."""
        parts = conninfo.conninfo_to_dict(self.dsn)
        host, port = parts.get("host", "localhost"), parts.get("port", 5432)
        return f"{host}:{port}/{parts.get('dbname', parts.get('user', ''))}"

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[DictRow]]:
        """A connection in UTC with rows as dictionaries; commits on success, else rolls back.

        Raises:
            ServerUnreachable: nobody answers within 5 seconds, or the connection breaks.
            AccessDenied: the user or the password is refused.
            SchemaError: a relation or a column is not there.
            QueryFailed: any other refusal by the server, such as for want of room on its disk; or no connection
                can be made as the DSN says, such as to a database that is not there.
        """
        with self.translated():
            if self._pool_size and not autocommit:
                with self._pooled() as connection:
                    yield connection
            else:
                with psycopg.connect(
                    self.dsn, autocommit=autocommit, row_factory=dict_row, **self._options
                ) as connection:
                    yield connection

    @contextmanager
    def _pooled(self) -> Iterator[psycopg.Connection[DictRow]]:
        from psycopg_pool import PoolTimeout

        try:
            with self._pool.connection() as connection:
                yield connection
        except PoolTimeout:
            # The pool says only that it got none: what the server says is the better answer.
            psycopg.connect(self.dsn, **self._options).close()
            raise

    def close(self) -> None:
        """Give the pooled connections back, if there are any."""
        if "_pool" in vars(self):
            self._pool.close()
            del self._pool

    @cached_property
    def _pool(self) -> "ConnectionPool[psycopg.Connection[DictRow]]":
        from psycopg_pool import ConnectionPool

        return ConnectionPool(
            self.dsn,
            connection_class=psycopg.Connection[DictRow],
            kwargs={"row_factory": dict_row, **self._options},
            min_size=1,
            max_size=self._pool_size,
            timeout=_CONNECT_TIMEOUT_S,
            check=ConnectionPool.check_connection,
            open=True,
        )

    @cached_property
    def _options(self) -> dict[str, Any]:
        written = str(conninfo.conninfo_to_dict(self.dsn).get("options", ""))
        return {
            "options": f"{written} -c timezone=UTC".strip(),
            "application_name": "hyperfeast",
            "connect_timeout": _CONNECT_TIMEOUT_S,
            # A peer that is gone without a word is noticed, and not after the kernel's quarter of an hour.
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 10,
        }

    def fetch(self, query: Query, parameters: Parameters = ()) -> list[DictRow]:
        """All rows of one query, as dictionaries."""
        with self.connect() as connection:
            return connection.execute(query, parameters).fetchall()

    def execute(self, query: Query, parameters: Parameters = ()) -> int:
        """Run one statement in a transaction of its own; the number of rows it touched."""
        with self.connect() as connection:
            return connection.execute(query, parameters).rowcount

    def frame(self, query: LiteralString, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """The rows of one query as a Polars frame, fetched as Arrow. Parameters are $1, $2, and so on.

        Raises:
            The same as `connect`.
        """
        from adbc_driver_manager import Error

        try:
            with arrow.connected(self.dsn) as connection, connection.cursor() as cursor:
                cursor.execute(query, tuple(parameters))
                table = cursor.fetch_arrow_table()
        except Error as error:
            raise self._arrow_error(error) from error
        return cast("pl.DataFrame", pl.from_arrow(table))

    def edition(self) -> Edition:
        """What this database can do beyond PostgreSQL."""
        with self.connect() as connection:
            return edition_of(connection)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of psycopg in our words: the ones that `connect` lists."""
        try:
            yield
        except _DENIED as error:
            raise self._denied() from error
        except _MISSING as error:
            raise SchemaError(
                f"{self.address} lacks what this version needs ({_first_line(error)}): "
                "run `hyperfeast migrate`"
            ) from error
        except errors.DiskFull as error:
            # For psycopg an operational error, like a server that is gone; but this one answers.
            raise QueryFailed(
                f"PostgreSQL at {self.address} has no room left on its disk ({_first_line(error)}): "
                "nothing of this was stored; free some there, then do it again"
            ) from error
        except _CONTENDED as error:
            raise Contended(
                f"PostgreSQL at {self.address} undid this for another transaction "
                f"({_first_line(error)}): do it again"
            ) from error
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise self._denied() from error
            if error.sqlstate is None and (why := _misconfigured(error)):
                raise QueryFailed(
                    f"PostgreSQL at {self.address} cannot be used as configured: {why}: "
                    f"correct {self._setting}"
                ) from error
            if error.sqlstate and not error.sqlstate.startswith(_GONE_STATES):
                raise QueryFailed(f"PostgreSQL at {self.address}: {_first_line(error)}") from error
            raise ServerUnreachable(
                f"PostgreSQL at {self.address} does not answer: {_first_line(error)}"
            ) from error
        except psycopg.Error as error:
            raise QueryFailed(f"PostgreSQL at {self.address}: {_first_line(error)}") from error

    def _arrow_error(self, error: "adbc_driver_manager.Error") -> HyperfeastError:
        """What an error of ADBC means. It calls a wrong password what it calls no server: ask again."""
        if error.sqlstate in _MISSING_STATES:
            return SchemaError(
                f"{self.address} lacks a table or a column that this version needs: run `hyperfeast migrate`"
            )
        if error.sqlstate is not None:
            return QueryFailed(f"PostgreSQL at {self.address}: {str(error).splitlines()[0]}")
        with self.connect():
            return ServerUnreachable(f"PostgreSQL at {self.address} broke the connection off")

    def _denied(self) -> AccessDenied:
        return AccessDenied(
            f"PostgreSQL at {self.address} refused the user or the password: check {self._setting}"
        )


def edition_of(connection: psycopg.Connection[DictRow]) -> Edition:
    """What the connected database can do beyond PostgreSQL.

    TimescaleDB counts where it is created in the database, not where the server merely has it: only
    then are its functions there, and its license is known.
    """
    rows = connection.execute(sqlfiles.query("status", "edition")).fetchall()
    if not rows:
        return Edition.PLAIN
    return Edition.COMMUNITY if rows[0]["license"] == "timescale" else Edition.APACHE


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().split("\n", 1)[0]


def _misconfigured(error: psycopg.OperationalError) -> str | None:
    """What is wrong with how one connects; None where it is not that. Each address tried has a line."""
    for line in str(error).splitlines():
        if _MISCONFIGURED.search(line):
            return _CONNECTING.sub("", line.strip())
    return None
