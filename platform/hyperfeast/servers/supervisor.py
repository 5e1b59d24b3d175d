"""Starts a server once for any number of processes, finds it again, and stops it.

In the server's folder lie:

- `start.lock`: held by whoever starts or stops the server, so that one process does it at a time;
- `server.lock`: held by the server itself. It inherits the open file, so the kernel keeps the lock
  exactly as long as a process of the server lives, and frees it also for a zombie. Whoever gets
  the lock knows that no server runs on this folder;
- `state.json`: port, password, pid;
- `server.log`: what the server printed.

A server is up if a connection with our password succeeds and it says that it keeps its data in
this folder. A pid proves nothing.
"""

import errno
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, ClassVar

from hyperfeast.errors import ServerError, ServerStartFailed
from hyperfeast.servers.identity import Identity
from hyperfeast.servers.ports import free_port, is_free
from hyperfeast.servers.state import State, new_password

if sys.platform != "win32":
    import fcntl

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.03
_PORT_ATTEMPTS = 5
_LOG_TAIL_LINES = 12
_LOG_LIMIT_BYTES = 10 * 1024 * 1024

_ADVICE = {
    errno.ENOSPC: "free some space on that disk, or set HYPERFEAST_HOME to a folder on another",
    errno.EDQUOT: "free some space in your quota, or set HYPERFEAST_HOME to a folder elsewhere",
}
_DEFAULT_ADVICE = "set HYPERFEAST_HOME to a folder that this user can write to"


class EmbeddedServer(ABC):
    """One server and its folder. Cheap to make: nothing happens before `up()`.

    Args:
        folder: where its data, its log and its password lie; made if absent.
    """

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser().absolute()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.folder)!r})"

    def up(self) -> str:
        """Start the server unless it runs.

        Safe from any number of processes and threads at once: one of them starts it, and all
        get the same address. The server outlives this process.

        Returns:
            Its address, with the password.

        Raises:
            ServerStartFailed: it does not come up; says why, with the end of the server's log.
        """
        _refuse_windows()
        with self._translated():
            living = self._living()
            if living is None:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._refuse_the_folder_of_another()
                with self._start_lock():
                    living = self._living() or self._start()
        return self._address(living)

    def running(self) -> str | None:
        """Its address if it answers, else None. Starts nothing.

        Raises:
            ServerStartFailed: the folder belongs to another user.
        """
        with self._translated():
            living = self._living()
        return self._address(living) if living else None

    def down(self) -> bool:
        """Stop the server cleanly and wait until it is gone.

        Returns:
            False if it was not running.

        Raises:
            ServerError: it does not stop, or a server is there that cannot be proved to be ours.
        """
        _refuse_windows()
        with self._translated():
            return self._state_file.exists() and self._end()

    @abstractmethod
    def _address(self, state: State) -> str:
        """The URL of the server, with the password."""

    @abstractmethod
    def _answers(self, state: State) -> bool:
        """Whether a server there takes our password and keeps its data in our folder."""

    @abstractmethod
    def _identity(self) -> Identity:
        """Whom the server runs as."""

    @abstractmethod
    def _prepare(self, password: str, *, is_new: bool) -> None:
        """Make the data folder ready for a start; no server runs on it now.

        Args:
            password: the one that the server shall take.
            is_new: the password was made just now; data that exist already do not know it.
        """

    @abstractmethod
    def _command(self, state: State) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def _stop(self, state: State) -> None:
        """Tell the server, which answers, to shut down."""

    def _environment(self) -> dict[str, str]:
        """The environment variables that the server gets."""
        return dict(os.environ)

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"

    @property
    def _log_file(self) -> Path:
        return self.folder / "server.log"

    def _living(self) -> State | None:
        state = State.read(self._state_file)
        return state if state and self._answers(state) else None

    def _start(self) -> State:
        """Start the server; the caller holds the start lock, and it did not answer."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        with self._open_server_lock() as lock:
            living = self._await_lock(lock, deadline)
            if living is not None:
                return living
            self._shorten_log()
            known = State.read(self._state_file)
            password = known.password if known else new_password()
            self._prepare(password, is_new=known is None)
        port = known.port if known else None
        for _ in range(_PORT_ATTEMPTS):
            # Written first: a server whose starter is killed the next moment can still be found.
            state = State(port=free_port(port), password=password)
            state.write(self._state_file)
            log_start = self._log_size()
            state = replace(state, pid=self._launch(state))
            if self._comes_up(state, log_start, deadline):
                state.write(self._state_file)
                return state
            port = None
        raise ServerStartFailed(
            f"{self.name} found {_PORT_ATTEMPTS} ports in a row taken by other programs in the "
            "moment of its start: try again"
        )

    def _refuse_the_folder_of_another(self) -> None:
        """Root could start a server there, and its files would lock the owner out afterwards."""
        owner = self.folder.stat().st_uid
        if owner != os.geteuid():
            raise ServerStartFailed(
                f"{self.name} was not started: {self.folder} belongs to user id {owner}, and this "
                f"is user id {os.geteuid()}. Run hyperfeast as its owner, or set HYPERFEAST_HOME "
                "to a folder of your own"
            )

    def _end(self) -> bool:
        with self._start_lock():
            living = self._living()
            if living is None:
                # One that is starting up, or is frozen, holds the lock but does not answer yet.
                with self._open_server_lock() as lock:
                    living = self._await_lock(lock, time.monotonic() + _STOP_TIMEOUT_S)
            if living is None:
                return False
            self._stop(living)
            self._await_end(living)
        return True

    def _launch(self, state: State) -> int:
        """Start the server's process, which inherits the server lock; its pid."""
        with self._open_server_lock() as lock, self._open_private(self._log_file, "ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            launched = subprocess.run(
                self._identity().launch("detached", self._command(state)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env=self._environment(),
                start_new_session=True,
                pass_fds=(lock.fileno(),),
                check=False,
            )
        # No pid: the launcher itself failed, and the log, which is read next, says why.
        return int(launched.stdout or 0)

    def _comes_up(self, state: State, log_start: int, deadline: float) -> bool:
        """Wait for the server; False if it ended because somebody took the port."""
        while not self._answers(state):
            if self._is_unlocked():
                if not is_free(state.port):
                    return False
                raise self._failure("ended instead of coming up", state.password, log_start)
            if time.monotonic() > deadline:
                raise self._failure(
                    f"runs, but does not answer after {_START_TIMEOUT_S:.0f} s; if it recovers "
                    "from a crash, try again later",
                    state.password,
                    log_start,
                )
            time.sleep(_POLL_S)
        return True

    def _await_lock(self, lock: IO[bytes], deadline: float) -> State | None:
        """Take the server lock and return None; or the server that holds it, once it answers."""
        while not _try_lock(lock):
            living = self._living()
            if living is not None:
                return living
            if time.monotonic() > deadline:
                raise ServerStartFailed(
                    f"{self.name} already runs in {self.folder}, but does not answer, so nothing "
                    "was started or stopped. Try again later; if it does not recover, end its "
                    f"process. Its log: {self._log_file}"
                )
            time.sleep(_POLL_S)
        return None

    def _await_end(self, state: State) -> None:
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not self._is_unlocked():
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.name} (pid {state.pid}) was told to stop but still runs after "
                    f"{_STOP_TIMEOUT_S:.0f} s: see {self._log_file}"
                )
            time.sleep(_POLL_S)

    def _is_unlocked(self) -> bool:
        with self._open_server_lock() as lock:
            return _try_lock(lock)

    def _open_server_lock(self) -> IO[bytes]:
        return self._open_private(self.folder / "server.lock", "ab")

    @contextmanager
    def _start_lock(self) -> Iterator[None]:
        with self._open_private(self.folder / "start.lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _open_private(path: Path, mode: str) -> IO[bytes]:
        # Path.open takes no opener, and a mode set afterwards would come too late.
        return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))

    def _log_size(self) -> int:
        return self._log_file.stat().st_size if self._log_file.exists() else 0

    def _shorten_log(self) -> None:
        if self._log_size() > _LOG_LIMIT_BYTES:
            self._log_file.replace(self.folder / "server.log.old")

    def _failure(self, what: str, password: str, log_start: int) -> ServerStartFailed:
        """An error with the last lines that the server logged after its first `log_start` bytes."""
        lines: list[str] = []
        with suppress(OSError):
            text = self._log_file.read_bytes()[log_start:].decode("utf-8", "replace")
            lines = text.splitlines()[-_LOG_TAIL_LINES:]
        tail = "\n  ".join(lines) or "(it logged nothing)"
        message = f"{self.name} {what}. The end of {self._log_file}:\n  {tail}"
        return ServerStartFailed(message.replace(password, "***"))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, _DEFAULT_ADVICE)
            where = error.filename or self.folder
            raise ServerStartFailed(
                f"{self.name} cannot use its folder {self.folder}: {error.strerror or error} "
                f"({where}): {advice}"
            ) from error


def _try_lock(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise ServerStartFailed(
            "The embedded servers run on Linux and macOS, and this is Windows: use WSL, or "
            "`docker compose up`, or set HYPERFEAST_POSTGRES_DSN and HYPERFEAST_REDIS_URL to "
            "servers of your own"
        )
