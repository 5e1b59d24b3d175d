"""The command line as a process, and one demo run that many tests look at."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hyperfeast.db import Database
from hyperfeast.servers import EmbeddedServers, in_use

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TIMEOUT_S = 170


@dataclass(frozen=True)
class Shell:
    """Runs commands with an environment of its own."""

    env: dict[str, str] = field(repr=False)
    folder: Path

    def run(self, *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command of the virtual environment to its end."""
        program, *arguments = command
        return subprocess.run(
            [str(BIN / program), *arguments],
            cwd=folder or self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def hyperfeast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `hyperfeast` to its end."""
        return self.run("hyperfeast", *arguments)

    def json(self, *arguments: str) -> Any:
        """What `hyperfeast … --json` printed."""
        ran = self.hyperfeast(*arguments, "--json")
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `hyperfeast` and leave it running."""
        return subprocess.Popen(
            [str(BIN / "hyperfeast"), *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )


def shell(folder: Path, **env: str) -> Shell:
    """A shell whose HYPERFEAST_ settings are the given ones and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HYPERFEAST_")}
    clean |= {"HYPERFEAST_FEATURE_REPO": str(ROOT / "feature_repo"), "COLUMNS": "160"}
    return Shell(clean | {f"HYPERFEAST_{name.upper()}": value for name, value in env.items()}, folder)


@pytest.fixture
def make_shell(tmp_path: Path) -> Callable[..., Shell]:
    """A shell in an empty folder: `make_shell(postgres_dsn=…)`."""
    return lambda **env: shell(tmp_path, home=str(tmp_path / "home"), **env)


@pytest.fixture
def on_database(make_shell: Callable[..., Shell], database: Database, redis_url: str) -> Shell:
    """A shell on a fresh, migrated database and an empty Redis."""
    return make_shell(postgres_dsn=database.dsn, redis_url=redis_url)


@dataclass(frozen=True)
class DemoRun:
    """A finished demo: its shell, its home, what it printed, its report."""

    shell: Shell
    home: Path
    result: dict[str, Any]
    report: Path

    @property
    def database(self) -> Database:
        """The demo's own embedded database."""
        return Database(in_use(self.home, postgres_dsn=None, redis_url="unused").postgres_dsn)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """The demo, run once on embedded servers of its own."""
    folder = tmp_path_factory.mktemp("demo")
    home = folder / "home"
    in_demo = shell(folder, home=str(home))
    result = in_demo.json("demo", "--report", "report.html")
    yield DemoRun(in_demo, home, result, folder / "report.html")
    EmbeddedServers(home).down()
