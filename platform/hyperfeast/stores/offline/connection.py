"""Connections out of Feast's PostgreSQL configuration: rows by psycopg, Arrow by ADBC.

Also the one boundary where the errors of both become ours.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import adbc_driver_postgresql
import psycopg
from adbc_driver_manager import AdbcConnection
from adbc_driver_manager import Error as ArrowError
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from psycopg import conninfo, errors
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import AccessDenied, FeatureError, SchemaError

_CONNECT_TIMEOUT_S = 5
_SETTING = (
    "offline_store in feature_store.yaml (or HYPERFEAST_POSTGRES_DSN, where that names no host): "
    "its sslmode, host and database"
)
_PRIMARY = re.compile(r"(?P<severity>ERROR|FATAL):\s+(?P<message>[^\n]+)")
_DRIVER = "[libpq]"


def dsn(config: PostgreSQLOfflineStoreConfig) -> str:
    """Feast's configuration as a libpq connection string, whose sessions are in UTC and do not compile queries.

    A point-in-time query is many small lookups: PostgreSQL takes its estimate for a reason to compile
    it, which costs more than to run it.
    """
    path = (config.db_schema or config.user).strip()
    path = path if path == "public" else f"{path},public"
    path = path.replace("\\", "\\\\").replace(" ", "\\ ")
    parts = {
        "host": config.host,
        "port": config.port,
        "user": config.user,
        "password": config.password,
        "dbname": config.database,
        "sslmode": config.sslmode,
        "sslkey": config.sslkey_path,
        "sslcert": config.sslcert_path,
        "sslrootcert": config.sslrootcert_path,
        "keepalives_idle": config.keepalives_idle,
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "application_name": "hyperfeast",
        "options": f"-c search_path={path} -c timezone=UTC -c jit=off",
    }
    return conninfo.make_conninfo(
        **{key: value for key, value in parts.items() if value is not None}
    )


@contextmanager
def connection(
    config: PostgreSQLOfflineStoreConfig, *, autocommit: bool = False
) -> Iterator[psycopg.Connection[DictRow]]:
    """A psycopg connection in UTC with rows as dictionaries; commits on success, else rolls back.

    Args:
        config: Feast's `offline_store` section.
        autocommit: whether every statement is a transaction of its own.

    Raises:
        ServerError: what `translated` makes of psycopg's errors.
    """
    with (
        translated(config),
        Database(dsn(config), setting=_SETTING).connect(autocommit=autocommit) as opened,
    ):
        yield opened


@contextmanager
def arrow_connection(
    config: PostgreSQLOfflineStoreConfig, *, timeout_s: float | None = None
) -> Iterator[ArrowConnection]:
    """An ADBC (DB-API) connection in UTC.

    `with connection.cursor() as cursor: cursor.execute(text)`, and then `cursor.fetch_record_batch()`
    or `cursor.fetch_arrow_table()`. Its transaction is rolled back at the end: call `commit` on it to
    keep what was written. Pass no parameters with a query: the driver would give up COPY, and hold the
    whole result twice.

    Args:
        config: Feast's `offline_store` section.
        timeout_s: how long the server may work on a statement.

    Raises:
        ServerError: what `translated` makes of the driver's errors.
    """
    with translated(config):
        try:
            with _connect(dsn(config)) as opened:
                if timeout_s is not None:
                    with opened.cursor() as cursor:
                        cursor.execute(f"SET statement_timeout = {max(1, round(1000 * timeout_s))}")
                yield opened
        except (ArrowError, OSError) as error:
            raise _as_psycopg(error) from error


def canceling(connection: ArrowConnection) -> Callable[[], None]:
    """What makes the statement fail that another thread waits for; a connection that is broken has none."""

    def cancel() -> None:
        with suppress(ArrowError):
            connection.adbc_cancel()

    return cancel


def _connect(address: str) -> ArrowConnection:
    kept = _database(address)
    return ArrowConnection(kept, AdbcConnection(kept.database))


class _Kept:
    """What the driver knows of a database; a connection that closes leaves it open for the next one."""

    def __init__(self, address: str) -> None:
        self.database = adbc_driver_postgresql.connect(address)

    def close(self) -> None:
        """Not yet."""


@lru_cache(maxsize=8)
def _database(address: str) -> Any:
    """Kept, since the driver reads the whole catalog of types for it: longer than a small training set takes.

    A type that is created later is not known to it, and is none that we read without a cast.
    """
    return _Kept(address)


@contextmanager
def translated(config: PostgreSQLOfflineStoreConfig) -> Iterator[None]:
    """Errors of psycopg and of ADBC in our words, for whoever wrote a feature repository.

    Raises:
        ServerUnreachable: nobody answers, or the connection breaks (retryable).
        AccessDenied: the user or the password is refused.
        FeatureError: a table or a column that a source names is not there.
        QueryFailed: any other refusal by the server, or no connection can be made as configured.
    """
    try:
        with Database(dsn(config), setting=_SETTING).translated():
            try:
                yield
            except (ArrowError, OSError) as error:
                raise _as_psycopg(error) from error
    except AccessDenied as error:
        raise AccessDenied(
            f"PostgreSQL at {config.host}:{config.port}/{config.database} refused the user {config.user!r} or "
            "the password: check `user` and `password` under offline_store in feature_store.yaml"
        ) from error
    except SchemaError as error:
        raise FeatureError(
            f"PostgreSQL at {config.host}:{config.port}/{config.database}: {_cause(error)}: correct the source "
            "in the feature repository, or `db_schema` under offline_store in feature_store.yaml"
        ) from error


def _as_psycopg(error: ArrowError | OSError) -> Exception:
    """The same error as psycopg would raise it: then one translation serves both.

    What breaks while batches are read comes as an OSError with libpq's text, and no SQLSTATE.
    """
    if isinstance(error, OSError) and _DRIVER not in str(error):
        return error
    found = _PRIMARY.search(str(error))
    text = found["message"] if found else str(error).splitlines()[0]
    state = None if isinstance(error, OSError) else error.sqlstate
    if state is None:
        refused = found is not None and found["severity"] == "ERROR"
        return (psycopg.DatabaseError if refused else psycopg.OperationalError)(text)
    try:
        return errors.lookup(state)(text)
    except KeyError:
        return psycopg.DatabaseError(text)


def _cause(error: BaseException) -> Any:
    cause = error.__cause__
    if isinstance(cause, psycopg.Error):
        return (cause.diag.message_primary or str(cause)).split("\n", 1)[0]
    return error
