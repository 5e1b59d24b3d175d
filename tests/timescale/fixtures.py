"""The fixture `community`: a database on TimescaleDB Community, always a real one."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import conninfo, sql

from hyperfeast.db import Database
from hyperfeast.migrate import migrate
from timescale.server import CommunityServer, community_server, running


@pytest.fixture(scope="session")
def _community_server() -> Iterator[CommunityServer | None]:
    """The session's own server in memory, unless `HYPERFEAST_TEST_DSN` names one."""
    if os.environ.get("HYPERFEAST_TEST_DSN"):
        yield None
        return
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def community(_community_server: CommunityServer | None) -> Iterator[Database]:
    """A database on TimescaleDB Community in whatever state, shared by the session's tests.

    It is on the server that `HYPERFEAST_TEST_DSN` names if that is set, otherwise in memory.
    """
    if _community_server:
        yield Database(_community_server.dsn)
        return
    with fresh_community() as database:
        yield database


@pytest.fixture(scope="session")
def _newest_schema(
    _community_server: CommunityServer | None, community: Database
) -> Callable[[], None]:
    """Brings the newest schema and no rows: from a copy where the server can keep one."""

    def migrated() -> None:
        migrate(community, to=0)
        migrate(community)

    if _community_server is None:
        return migrated
    migrated()
    _community_server.keep("newest")
    return lambda: _community_server.restore("newest")


@pytest.fixture
def migrated_community(community: Database, _newest_schema: Callable[[], None]) -> Database:
    """TimescaleDB Community with the newest schema and no rows."""
    _newest_schema()
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
