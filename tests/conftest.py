"""Real servers for every test that asks for one: started once a session, a fresh database each test."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

# Before any test imports Feast, whose import makes counters of one name one counter of the whole process.
import prometheus_client  # noqa: F401
import pytest
from hypothesis import settings
from psycopg import conninfo, sql

from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.migrate import migrate
from hyperfeast.servers import EmbeddedServers, Endpoints, PostgresServer, in_use
from hyperfeast.servers.state import State
from timescale.fixtures import (  # noqa: F401 - fixtures for every test below
    _community_server,
    _newest_schema,
    community,
    migrated_community,
)

settings.register_profile("hyperfeast", deadline=None, print_blob=True)
settings.load_profile("hyperfeast")

_TEMPLATE = "template_hyperfeast"
_numbers = count()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files in the order of their folders, those that start processes first: none is left for the end.

    What looks at the demo counts as one file, so that one worker runs the demo, once.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    folder = Path(__file__).parent / "acceptance"
    of_demo = {
        path.name for path in folder.glob("test_*.py") if "DemoRun" in path.read_text("utf-8")
    }

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            scope = super()._split_scope(nodeid)
            return "the demo" if Path(scope).name in of_demo else scope

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def server_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of this session's own PostgreSQL and Redis."""
    home = tmp_path_factory.mktemp("servers")
    yield home
    EmbeddedServers(home).down()


class _UnsyncedPostgres(PostgresServer):
    """It trusts the machine to stay up, which it must for a test; a killed server loses nothing either way."""

    def _command(self, state: State) -> list[str]:
        return [*super()._command(state), "-c", "fsync=off", "-c", "full_page_writes=off"]


@pytest.fixture(scope="session")
def endpoints(server_home: Path) -> Endpoints:
    """This session's PostgreSQL and Redis."""
    dsn = _UnsyncedPostgres(server_home / "postgres").up()
    return in_use(server_home, postgres_dsn=dsn, redis_url=None)


@pytest.fixture(scope="session")
def _template(endpoints: Endpoints) -> Database:
    """A migrated database that the others are copied from; the superuser's is returned."""
    admin = Database(endpoints.postgres_dsn)
    _create(admin, _TEMPLATE, "template0")
    migrate(_named(admin, _TEMPLATE))
    return admin


@pytest.fixture
def empty_database(endpoints: Endpoints) -> Iterator[Database]:
    """A fresh database with nothing in it."""
    yield from _fresh(Database(endpoints.postgres_dsn), "template0")


@pytest.fixture
def database(_template: Database) -> Iterator[Database]:
    """A fresh, migrated database."""
    yield from _fresh(_template, _TEMPLATE)


@pytest.fixture
def redis_url(endpoints: Endpoints) -> str:
    """The session's Redis, emptied."""
    with cache.connect(endpoints.redis_url) as redis:
        redis.flushdb()
    return endpoints.redis_url


def _fresh(admin: Database, template: str) -> Iterator[Database]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    _create(admin, name, template)
    yield _named(admin, name)
    with admin.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(admin: Database, name: str, template: str) -> None:
    with admin.connect(autocommit=True) as connection:
        connection.execute(
            # Files as they are, for without syncs a checkpoint is cheaper than to log what is in them.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )


def _named(admin: Database, name: str) -> Database:
    return Database(conninfo.make_conninfo(admin.dsn, dbname=name))
