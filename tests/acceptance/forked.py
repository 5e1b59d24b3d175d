"""Commands as forks of a process that has loaded what they need: processes all the same, without the seconds.

A command spends most of its time on imports, those of Feast above all. The process here imports once, and
each command is a child of it with an environment, a folder and an output of its own.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

_LOADED = (
    "hyperfeast.cli",
    "hyperfeast.app",
    "hyperfeast.stores.feast_store",
    "great_expectations.expectations",
)
_MOST_BYTES = 1 << 17
_BOTH_OUTPUTS = 2


@dataclass
class Nursery:
    """The process that forks, started when it is first asked.

    Attributes:
        env: what it is started with. A command's own may differ in what is read as it runs.
    """

    env: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None
    _connection: socket.socket | None = None

    def run(
        self, arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `hyperfeast` with these arguments to its end.

        Raises:
            TimeoutExpired: it takes longer; it is killed, and the process that forks as well.
        """
        connection = self._connected()
        connection.settimeout(timeout_s)
        asked = json.dumps([list(arguments), str(folder), dict(env)]).encode()
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                socket.send_fds(connection, [asked], [out.fileno(), err.fileno()])
                answer = connection.recv(_MOST_BYTES)
            except TimeoutError as error:
                self._kill()
                raise subprocess.TimeoutExpired(list(arguments), timeout_s) from error
            assert answer, "the process that forks has died"
            return subprocess.CompletedProcess(
                list(arguments), json.loads(answer), _text(out), _text(err)
            )

    def stop(self) -> None:
        """Let it end."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.wait()
        self._process = self._connection = None

    def _kill(self) -> None:
        """End it with the command that runs."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self.stop()

    def _connected(self) -> socket.socket:
        if self._connection is None:
            self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", __file__, str(theirs.fileno())],
                    env=dict(self.env),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self._connection


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _serve(connection: socket.socket) -> None:
    """Fork for each command that is asked for, until nobody asks any more."""
    before = dict(os.environ)
    for name in _LOADED:
        importlib.import_module(name)
    added = {name: value for name, value in os.environ.items() if name not in before}
    # What is there now is never looked at for garbage, so that the children need no copy of it.
    gc.freeze()
    while True:
        asked, outputs, *_ = socket.recv_fds(connection, _MOST_BYTES, _BOTH_OUTPUTS)
        if not asked:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            arguments, folder, env = json.loads(asked)
            _become(arguments, folder, added | env, *outputs)
        for output in outputs:
            os.close(output)
        connection.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _become(arguments: list[str], folder: str, env: dict[str, str], out: int, err: int) -> NoReturn:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["hyperfeast", *arguments]
    status = 0
    try:
        status = importlib.import_module("hyperfeast.cli").main() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - what ends a script that way
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    # To take every module apart would copy all the memory that is shared so far.
    os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
