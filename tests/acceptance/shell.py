"""Commands as processes, in an environment of their own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.forked import Nursery
from hyperfeast.db import Database
from hyperfeast.servers import in_use

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TIMEOUT_S = 500


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
        """Run `hyperfeast` to its end, as a process that has loaded already what it needs."""
        return NURSERY.run(arguments, folder=self.folder, env=self.env, timeout_s=TIMEOUT_S)

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
    return Shell(
        _without_settings() | {f"HYPERFEAST_{name.upper()}": value for name, value in env.items()},
        folder,
    )


def _without_settings() -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("HYPERFEAST_")
    }
    return clean | {"HYPERFEAST_FEATURE_REPO": str(ROOT / "feature_repo"), "COLUMNS": "160"}


NURSERY = Nursery(_without_settings())


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
