"""A PostgreSQL database by its DSN, and the one boundary where psycopg's errors become ours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import conninfo, errors, sql
from psycopg.rows import DictRow, dict_row

from hyperfeast.errors import AccessDenied, QueryFailed, SchemaError, ServerUnreachable
from hyperfeast.types import Edition

_MISSING = (errors.UndefinedTable, errors.UndefinedColumn)
Query = LiteralString | sql.Composed
Parameters = Sequence[Any] | Mapping[str, Any]

_CONNECT_TIMEOUT_S = 5


class Database:
    """One PostgreSQL database. Cheap to make: it connects when it is used.

    Args:
        dsn: a libpq connection string or URL.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

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
            QueryFailed: any other refusal by the server.
        """
        with self._translated():
            connection = psycopg.connect(
                self.dsn,
                autocommit=autocommit,
                connect_timeout=_CONNECT_TIMEOUT_S,
                row_factory=dict_row,
                options="-c timezone=UTC",
                application_name="hyperfeast",
            )
            with connection:
                yield connection

    def fetch(self, query: Query, parameters: Parameters = ()) -> list[DictRow]:
        """All rows of one query, as dictionaries."""
        with self.connect() as connection:
            return connection.execute(query, parameters).fetchall()

    def execute(self, query: Query, parameters: Parameters = ()) -> int:
        """Run one statement in a transaction of its own; the number of rows it touched."""
        with self.connect() as connection:
            return connection.execute(query, parameters).rowcount

    def edition(self) -> Edition:
        """What this server can do beyond PostgreSQL."""
        with self.connect() as connection:
            return edition_of(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except errors.InvalidPassword as error:
            raise self._denied() from error
        except errors.InvalidAuthorizationSpecification as error:
            raise self._denied() from error
        except _MISSING as error:
            raise SchemaError(
                f"{self.address} lacks what this version needs ({_first_line(error)}): "
                "run `hyperfeast migrate`"
            ) from error
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise self._denied() from error
            raise ServerUnreachable(
                f"PostgreSQL at {self.address} does not answer: {_first_line(error)}"
            ) from error
        except psycopg.Error as error:
            raise QueryFailed(f"PostgreSQL at {self.address}: {_first_line(error)}") from error

    def _denied(self) -> AccessDenied:
        return AccessDenied(
            f"PostgreSQL at {self.address} refused the user or the password: "
            "check HYPERFEAST_POSTGRES_DSN"
        )


def edition_of(connection: psycopg.Connection[DictRow]) -> Edition:
    """What the connected server can do beyond PostgreSQL."""
    rows = connection.execute(
        "SELECT current_setting('timescaledb.license', true) AS license "
        "FROM pg_available_extensions WHERE name = 'timescaledb'"
    ).fetchall()
    if not rows or rows[0]["license"] is None:
        return Edition.PLAIN
    return Edition.COMMUNITY if rows[0]["license"] == "timescale" else Edition.APACHE


def _first_line(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error)).strip().split("\n", 1)[0]
