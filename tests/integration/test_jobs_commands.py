"""`hyperfeast jobs` and `hyperfeast worker`: what they print on 80 columns, give machines, and refuse."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import typer
from typer.testing import CliRunner, Result

from hyperfeast.app import App
from hyperfeast.cli import jobs, worker
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.ingest import Candles, ingest_candles
from hyperfeast.jobs.listing import job
from hyperfeast.types import Timeframe
from queue_worker import until

NARROW = 80
SYMBOLS = [f"S{number:02}" for number in range(40)]
SET = "market_technical"
# To start a process that loads Feast, on a busy machine.
LONG_S = 180


@pytest.fixture(autouse=True)
def _setting(
    database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERFEAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", str(NARROW))


def bars(days: int = 5, since: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> pl.DataFrame:
    rows = [
        (symbol, since + timedelta(days=day), 10.0 + day, 12.0 + day, 9.0, 11.0 + day, 1_000)
        for symbol in SYMBOLS
        for day in range(days)
    ]
    names = ["symbol", "ts", "open", "high", "low", "close", "volume"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture
def market(database: Database) -> None:
    ingest_candles(database, bars(), timeframe=Timeframe.D1, source="test")


def call(*arguments: str) -> Result:
    app = typer.Typer()
    jobs.register(app)
    worker.register(app)
    return CliRunner().invoke(app, list(arguments))


def printed(*arguments: str) -> str:
    result = call("jobs", *arguments)
    assert result.exit_code == 0, result.exception
    assert max(map(len, result.stdout.splitlines())) <= NARROW, result.stdout
    return result.stdout


def given(*arguments: str) -> Any:
    result = call("jobs", *arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


@pytest.mark.usefixtures("market")
def test_asks_the_workers_in_partitions(database: Database) -> None:
    assert printed("submit", SET, "--priority", "7").startswith("jobs 1 to 2: 2 new\n")
    assert printed("submit", SET).startswith("jobs 1 to 2: 0 new, 2 waited already\n")
    first, second = given("submit", SET)
    assert (first["job_id"], first["is_new"], first["keys"]) == (1, False, SYMBOLS[:32])
    assert second["keys"] == SYMBOLS[32:]
    listed = printed("list")
    assert "market_technical v1" in listed
    assert listed.count("todo") == 2
    shown = printed("show", "1")
    assert "S31" in shown
    assert "compute" in shown
    (found, _) = given("list", "--status", "todo", "--set", SET)
    assert (found["status"], found["priority"], found["queue"]) == ("todo", 7, "compute")
    assert given("show", "2")["tries"] == []

    assert printed("cancel", "1") == "job 1 (market_technical) is canceled\n"
    assert printed("retry", "1") == "job 1 (market_technical) waits again\n"
    assert given("cancel", "1")["status"] == "cancelled"


def test_some_symbols_alone(tmp_path: Path, database: Database, market: None) -> None:
    file = tmp_path / "symbols.txt"
    file.write_text("# two of them\nS03\n\nS04\n")
    asked = given("submit", SET, "--symbols", str(file), "--symbol", "S09", "--queue", "nightly")
    assert [one["keys"] for one in asked] == [["S03", "S04", "S09"]]
    assert job(database, asked[0]["job_id"]).queue == "nightly"


@pytest.mark.usefixtures("market")
def test_computes_at_once() -> None:
    (done,) = given("submit", SET, "--local")
    assert done == {"feature_set": SET, "rows": 200, "written": 200}
    assert printed("submit", SET, "--local").startswith("nothing has changed since")
    assert printed("submit", SET).startswith("nothing has changed since")
    (done,) = given("submit", SET, "--engine", "local", "--full", "--symbol", "S01")
    assert done == {"feature_set": SET, "rows": 5, "written": 0}
    assert printed("list") == "no jobs\n"


MISTAKES = [
    (["submit", "nope"], "no feature set 'nope' in .*market_technical"),
    (["submit", SET, "--symbol", "NOPE"], "has no symbol 'NOPE': take in"),
    (["submit", SET, "--symbols", "nowhere.txt"], "nowhere.txt cannot be read"),
    (["submit", SET, "--symbol", "A", "--user", "B"], "give one kind"),
    (["submit", SET, "--priority", "-1"], r"--priority -1: expected 0 \(the default\) to 100"),
    (["submit", SET, "--priority", "101"], "--priority 101: expected 0"),
    (["submit", SET, "--queue", ""], "--queue '': expected a name"),
    (
        ["submit", SET, "--engine", "dask"],
        "no engine 'dask': --engine takes local, processes or ray",
    ),
    (["submit", SET, "--local", "--engine", "ray"], "--local and --engine ray contradict"),
    (
        ["submit", SET, "--local", "--priority", "3"],
        "--priority and --queue are for jobs that wait",
    ),
    (["submit", SET, "--workers", "3"], "--workers needs --engine processes"),
    (
        ["submit", SET, "--engine", "processes", "--workers", "0"],
        "--workers 0: expected 1 or more",
    ),
    (["list", "--status", "pending"], "no status 'pending': --status takes one of todo, doing"),
    (["show", "99"], "no job 99: `hyperfeast jobs list` shows"),
    (["retry", "99"], "no job 99"),
    (["cancel", "99"], "no job 99"),
    (["watch", "99"], "no job 99"),
]


@pytest.mark.usefixtures("market")
def test_mistakes() -> None:
    for arguments, said in MISTAKES:
        result = call("jobs", *arguments)
        assert isinstance(result.exception, UsageError), arguments
        assert re.search(said, str(result.exception)), (arguments, result.exception)


def test_nothing_to_watch() -> None:
    assert printed("watch") == "nothing waits or runs\n"
    assert given("watch") == []


@pytest.mark.parametrize("option", [["--processes", "2"], ["--queue", "q"]])
def test_once_is_for_one_process(option: list[str]) -> None:
    result = call("worker", "--once", *option)
    assert isinstance(result.exception, UsageError)


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_worker() -> Iterator[Start]:
    """Starts `hyperfeast worker` with options, from here."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from hyperfeast.cli import main; main()",
                    "worker",
                    *options,
                ],
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    """What it has said, once it has ended by itself."""
    process.terminate()
    _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, said
    return said


def children(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes; not what watches over their resources, and not the dead."""
    living = [
        one
        for one in psutil.Process(process.pid).children()
        if one.status() != psutil.STATUS_ZOMBIE
    ]
    return [one.pid for one in living if "spawn_main" in " ".join(one.cmdline())]


def worker_sessions(database: Database) -> set[str]:
    rows = database.fetch(
        "SELECT DISTINCT application_name AS name FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'hyperfeast worker %%'"
    )
    return {row["name"] for row in rows}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("market")
def test_worker_processes_do_the_jobs_and_are_kept_alive(
    database: Database, start_worker: Start
) -> None:
    """One is killed and started again; all end with the command."""
    process = start_worker("--processes", "2", "--queue", "compute", "--concurrency", "1")
    until(lambda: len(worker_sessions(database)) == 2, LONG_S)
    first = children(process)
    given("submit", SET)
    until(lambda: len(given("list", "--status", "succeeded")) == 2, LONG_S)
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(set(children(process)) - {first[0]}) == 2)
    assert first[1] in children(process)
    given("submit", SET, "--full")
    assert call("jobs", "watch").exit_code == 0
    assert len(given("list", "--status", "succeeded")) == 4
    rows = database.fetch("SELECT count(*) AS n FROM features_market_technical_v1")
    assert rows == [{"n": 5 * len(SYMBOLS)}]
    until(lambda: len(worker_sessions(database)) == 2, LONG_S)
    assert "started again" in stopped(process)
    until(lambda: not worker_sessions(database))


@pytest.mark.slow
def test_worker_processes_end_with_one_that_was_killed(
    database: Database, start_worker: Start
) -> None:
    process = start_worker("--processes", "2", "--queue", "compute")
    until(lambda: len(worker_sessions(database)) == 2, LONG_S)
    process.kill()
    until(lambda: not worker_sessions(database))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("market")
def test_a_job_that_fails_says_why(database: Database, start_worker: Start) -> None:
    """The repository of the worker does not have what was asked for."""
    (asked, _) = given("submit", SET)
    database.execute(
        "UPDATE procrastinate_jobs SET args = args || '{\"version\": 9}' WHERE id = %s",
        [asked["job_id"]],
    )
    process = start_worker("--queue", "compute")
    result = call("jobs", "watch")
    assert isinstance(result.exception, FeatureError)
    assert "1 of 2 jobs failed; job 1: FeatureError: no feature set" in str(result.exception)
    assert "failed" in printed("show", "1")
    with pytest.raises(UsageError, match=r"job 2 has succeeded on .*: only what waits or runs"):
        App().cancel_job(2)
    stopped(process)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("market")
def test_what_is_taken_in_is_computed_at_once(database: Database, start_worker: Start) -> None:
    """Without waiting for the tick; and many who take in ask for it once."""
    process = start_worker()
    ticked = (
        "SELECT FROM computation_jobs WHERE task = 'hyperfeast.refresh' AND status = 'succeeded'"
    )
    until(lambda: database.fetch(ticked), 2 * LONG_S)
    app = App()
    new = bars(1, datetime(2024, 2, 1, tzinfo=UTC))
    app.ingest([new], Candles(timeframe=Timeframe.D1, source="test"))
    rows = (
        "SELECT FROM features_market_technical_v1 "
        "WHERE event_timestamp = '2024-02-02Z' AND recorded_at < %s::timestamptz + interval '1 minute'"
    )
    now = database.fetch("SELECT now()")[0]["now"]
    until(lambda: len(database.fetch(rows, [now])) == len(SYMBOLS), LONG_S)
    until(lambda: not given("list", "--set", "hyperfeast.arrivals"), LONG_S)
    known = app.feast.online("market_direction_v1", [{"symbol": "S00"}]).event_timestamps
    assert "2024-02-02" in repr(known)
    stopped(process)
    for _ in range(3):
        app.announce()
    assert [one["task"] for one in given("list", "--status", "todo")] == ["hyperfeast.arrivals"]


TIMED = """
from datetime import timedelta
from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import log_return
from hyperfeast.types import Timeframe

timed = FeatureSet(
    name="timed", version=1, keys=(Key("symbol", "symbol"),), source=Bars(Timeframe.D1),
    features=(Feature("r", "Log return over 1 session.", log_return(1)),),
    freshness=timedelta(days=7), cron="* * * * *",
)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("market")
def test_a_set_is_computed_when_its_own_time_has_come(
    database: Database, tmp_path: Path, start_worker: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: timed\n")
    (tmp_path / "repo" / "timed.py").write_text(TIMED)
    monkeypatch.setenv("HYPERFEAST_FEATURE_REPO", str(tmp_path / "repo"))
    process = start_worker()
    done = "SELECT FROM computation_jobs WHERE task = 'hyperfeast.compute.timed_v1' AND status = 'succeeded'"
    until(lambda: database.fetch(done), LONG_S)
    rows = "SELECT count(*) AS n FROM features_timed_v1"
    until(lambda: database.fetch(rows) == [{"n": 5 * len(SYMBOLS)}], LONG_S)
    stopped(process)
