"""The fixture `community`: a database on TimescaleDB Community, always a real one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import conninfo, sql

from hyperfeast.db import Database
from hyperfeast.migrate import migrate
from timescale.server import community_server


@pytest.fixture(scope="session")
def community() -> Iterator[Database]:
    """An unmigrated database on TimescaleDB Community, shared by the session's tests.

    It is on the server that `HYPERFEAST_TEST_DSN` names if that is set, otherwise in memory.
    """
    with fresh_community() as database:
        yield database


@pytest.fixture
def migrated_community(community: Database) -> Database:
    """TimescaleDB Community with the newest schema and no rows."""
    migrate(community, to=0)
    migrate(community)
    return community


@contextmanager
def fresh_community() -> Iterator[Database]:
    """One more of these, of one's own."""
    dsn = os.environ.get("HYPERFEAST_TEST_DSN")
    with _created_on(dsn) if dsn else community_server() as database_dsn:
        yield Database(database_dsn)


@contextmanager
def _created_on(server_dsn: str) -> Iterator[str]:
    name = f"hyperfeast_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_dsn, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield conninfo.make_conninfo(server_dsn, dbname=name)
        finally:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
