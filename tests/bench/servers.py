"""Where a bench runs: a database of its own, dropped behind it, on the server that is asked for."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

from psycopg import conninfo, sql

from hyperfeast.db import Database
from hyperfeast.migrate import migrate
from hyperfeast.servers import PostgresServer, RedisServer
from timescale.server import community_server


@contextmanager
def migrated(*, timescaledb: bool = False) -> Iterator[Database]:
    """A fresh database with the newest schema, and no background jobs to disturb it.

    It is on the server that `HYPERFEAST_TEST_DSN` names. Without that it is on an embedded PostgreSQL
    in a temporary folder, or, where TimescaleDB is wanted, on the tests' community lane.
    """
    with _server(timescaledb=timescaledb) as server:
        name = f"hyperfeast_bench_{secrets.token_hex(6)}"
        with server.connect(autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            database = Database(conninfo.make_conninfo(server.dsn, dbname=name))
            migrate(database)
            _quiet(database)
            yield database
        finally:
            with server.connect(autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _server(*, timescaledb: bool) -> Iterator[Database]:
    dsn = os.environ.get("HYPERFEAST_TEST_DSN")
    if dsn:
        yield Database(dsn)
        return
    if timescaledb:
        with community_server() as lane:
            yield Database(lane)
        return
    with tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as home:
        server = PostgresServer(Path(home) / "postgres")
        try:
            yield Database(server.up())
        finally:
            server.down()


@contextmanager
def redis() -> Iterator[str]:
    """The URL of an empty Redis of the bench's own, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as home:
        server = RedisServer(Path(home) / "redis")
        try:
            yield server.up()
        finally:
            server.down()


def _quiet(database: Database) -> None:
    if database.edition().hypertables:
        database.fetch("SELECT _timescaledb_functions.stop_background_workers()")


def describe(database: Database) -> str:
    """The edition and its versions, in a line."""
    version = _one(database, "SELECT current_setting('server_version') AS answer").split()[0]
    if not database.edition().hypertables:
        return f"plain PostgreSQL {version}"
    extension = _one(
        database, "SELECT extversion AS answer FROM pg_extension WHERE extname = 'timescaledb'"
    )
    return f"{database.edition()} {extension} on PostgreSQL {version}"


def _one(database: Database, question: LiteralString) -> str:
    return str(database.fetch(question)[0]["answer"])


def settle(database: Database) -> None:
    """Write out what earlier work left behind, so that no one pays for another's."""
    with database.connect(autocommit=True) as connection:
        connection.execute("CHECKPOINT")
