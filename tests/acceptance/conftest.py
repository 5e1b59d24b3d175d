"""A shell for every test, and one demo run that many tests look at."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acceptance.shell import NURSERY, DemoRun, Shell, shell
from hyperfeast.db import Database
from hyperfeast.servers import EmbeddedServers


@pytest.fixture(scope="session", autouse=True)
def _nursery() -> Iterator[None]:
    """What commands are forked from ends with the session."""
    yield
    NURSERY.stop()


@pytest.fixture
def make_shell(tmp_path: Path) -> Callable[..., Shell]:
    """A shell in an empty folder: `make_shell(postgres_dsn=…)`."""
    return lambda **env: shell(tmp_path, home=str(tmp_path / "home"), **env)


@pytest.fixture
def on_database(make_shell: Callable[..., Shell], database: Database, redis_url: str) -> Shell:
    """A shell on a fresh, migrated database and an empty Redis."""
    return make_shell(postgres_dsn=database.dsn, redis_url=redis_url)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """The demo, run once on embedded servers of its own."""
    folder = tmp_path_factory.mktemp("demo")
    home = folder / "home"
    in_demo = shell(folder, home=str(home))
    ran = in_demo.run("hyperfeast", "demo", "--report", "report.html", "--json")
    assert ran.returncode == 0, ran.stderr
    yield DemoRun(in_demo, home, json.loads(ran.stdout), folder / "report.html")
    EmbeddedServers(home).down()
