"""`hyperfeast up | status | down` and `migrate`, as processes."""

from collections.abc import Callable
from pathlib import Path

from acceptance.shell import Shell
from hyperfeast.servers import EmbeddedServers


def test_up_status_down(make_shell: Callable[..., Shell]) -> None:
    shell = make_shell()
    try:
        up = shell.json("up")
        assert set(up) == {"postgres", "redis"}
        assert shell.json("up") == up, "the second time the same servers answer"
        before = shell.hyperfeast("status")
        assert before.returncode == 1
        assert "run `hyperfeast migrate`" in before.stdout
        assert shell.hyperfeast("migrate", "--dry-run").stdout.count("would be applied") == 9
        assert shell.json("migrate")["current"] == 10
        status = shell.json("status")
        assert status["healthy"]
        assert status["edition"] == "plain PostgreSQL"
        assert {one["table"]: one["rows"] for one in status["tables"]}["candles"] == 0
        printed = shell.hyperfeast("status").stdout
        assert "plain PostgreSQL: no hypertables" in printed
        assert shell.json("migrate", "--to", "2")["rolled_back"][0].startswith("0010")
        assert shell.json("migrate")["current"] == 10
        assert shell.json("down") == {"stopped": ["PostgreSQL", "Redis"]}
        assert "no embedded server was running" in shell.hyperfeast("down").stdout
    finally:
        EmbeddedServers(Path(shell.env["HYPERFEAST_HOME"])).down()


def test_the_worker_refreshes_once_and_stops(on_database: Shell) -> None:
    ran = on_database.hyperfeast("worker", "--once")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_version(make_shell: Callable[..., Shell]) -> None:
    assert make_shell().hyperfeast("--version").stdout.startswith("hyperfeast 0.")
