"""Commands as processes, in an environment of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperfeast.db import Database
from hyperfeast.servers import in_use

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TIMEOUT_S = 170


# A process costs a second and more before it does anything: many calls take turns in one.
_IN_TURN = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from hyperfeast.cli import main

said = []
for arguments in json.load(sys.stdin):
    sys.argv = ["hyperfeast", *arguments]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    said.append([code, out.getvalue(), err.getvalue()])
json.dump(said, sys.stdout)
"""


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

    def in_turn(self, calls: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
        """What `hyperfeast` answers to each of many calls, made through its entry point in one process."""
        ran = subprocess.run(
            [sys.executable, "-c", _IN_TURN],
            input=json.dumps([list(one) for one in calls]),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        return [
            subprocess.CompletedProcess(list(arguments), *answer)
            for arguments, answer in zip(calls, json.loads(ran.stdout), strict=True)
        ]

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
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("HYPERFEAST_")
    }
    clean |= {"HYPERFEAST_FEATURE_REPO": str(ROOT / "feature_repo"), "COLUMNS": "160"}
    return Shell(
        clean | {f"HYPERFEAST_{name.upper()}": value for name, value in env.items()}, folder
    )


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
