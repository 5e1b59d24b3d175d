"""`hyperfeast up | status | down` and `migrate`, as processes."""

from collections.abc import Callable
from pathlib import Path

from acceptance.shell import Shell
from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles
from hyperfeast.migrate import files
from hyperfeast.servers import EmbeddedServers
from hyperfeast.types import Edition, Timeframe
from market import bars

NEWEST = files.newest_number()


def test_up_status_down(make_shell: Callable[..., Shell]) -> None:
    shell = make_shell()
    try:
        up = shell.json("up")
        assert set(up) == {"postgres", "redis"}
        assert shell.json("up") == up, "the second time the same servers answer"
        printed = shell.hyperfeast("up", "--redis-url").stdout
        assert printed.startswith("redis://")
        assert printed.count("\n") == 1
        before = shell.hyperfeast("status")
        assert before.returncode == 1
        assert "run `hyperfeast migrate`" in before.stdout
        planned = shell.hyperfeast("migrate", "--dry-run").stdout
        assert planned.count("would be applied") == len(files.of_edition(Edition.PLAIN))
        assert shell.json("migrate")["current"] == NEWEST
        status = shell.json("status")
        assert status["healthy"]
        assert status["edition"] == "plain PostgreSQL"
        assert {one["table"]: one["rows"] for one in status["tables"]}["candles"] == 0
        printed = shell.hyperfeast("status").stdout
        assert "plain PostgreSQL: no hypertables" in printed
        back = shell.json("migrate", "--to", "2")
        assert back["rolled_back"][0].startswith(f"{NEWEST:04}")
        assert shell.json("migrate")["current"] == NEWEST
        assert shell.json("down") == {"stopped": ["PostgreSQL", "Redis"]}
        assert "no embedded server was running" in shell.hyperfeast("down").stdout
    finally:
        EmbeddedServers(Path(shell.env["HYPERFEAST_HOME"])).down()


def test_the_worker_refreshes_once_and_stops(on_database: Shell, database: Database) -> None:
    candles = bars(60).drop("event_timestamp", "split_factor")
    ingest_candles(database, candles, timeframe=Timeframe.D1, source="test")
    count = "SELECT count(*) AS rows FROM features_market_technical_v1"
    assert database.fetch(count)[0]["rows"] == 0
    ran = on_database.hyperfeast("worker", "--once")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert database.fetch(count)[0]["rows"] == candles.height


def test_a_worker_whose_refresh_fails_says_so(on_database: Shell, database: Database) -> None:
    database.execute("ALTER TABLE features_market_technical_v1 RENAME rsi_14 TO rsi")
    ran = on_database.hyperfeast("worker", "--once")
    assert ran.returncode == 1
    assert "rsi_14" in ran.stderr.splitlines()[-1]


def test_the_version(make_shell: Callable[..., Shell]) -> None:
    assert make_shell().run("hyperfeast", "--version").stdout.startswith("hyperfeast 0.")
