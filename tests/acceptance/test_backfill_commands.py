"""History from the shell: backfills, gaps that are healed by a worker, and the second copy."""

import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from acceptance.shell import Shell
from hyperfeast.db import Database

DAYS = [f"2024-01-{day:02d}" for day in range(1, 11)]


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    """A folder with two instruments that trade every day."""
    folder = tmp_path / "bars"
    folder.mkdir()
    for symbol in ("A", "B"):
        _write(folder / f"{symbol}.csv", DAYS)
    return folder


def test_a_backfill_and_the_same_again(on_database: Shell, bars: Path) -> None:
    command = ["backfill", "candles", "--source", str(bars), "--tf", "1d", "--from", "2024-01-01"]
    done = on_database.json(*command)
    assert (done["ingested"]["inserted"], done["failures"]) == (20, [])
    again = on_database.hyperfeast(*command)
    assert "--again fetches it anew" in again.stdout
    assert on_database.json(*command, "--again")["ingested"]["unchanged"] == 20


def test_symbols_from_a_file_and_one_that_is_not_there(on_database: Shell, bars: Path) -> None:
    wanted = bars.parent / "symbols.txt"
    wanted.write_text("symbol\nA  # the first\n\nNONE\n")
    ran = on_database.hyperfeast(
        "backfill", "candles", "--source", str(bars), "--tf", "1d", "--from", "2024-01-01",
        "--symbols", str(wanted),
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: instruments not done: 1: NONE: ")
    assert ran.stderr.count("\n") == 1
    assert "10 inserted" in ran.stdout


@pytest.mark.slow
def test_a_gap_is_healed_by_a_worker(on_database: Shell, database: Database, bars: Path) -> None:
    gappy = bars.parent / "gappy"
    gappy.mkdir()
    _write(gappy / "A.csv", [day for day in DAYS if day not in DAYS[3:6]])
    on_database.json(
        "backfill", "candles", "--source", str(gappy), "--tf", "1d", "--from", "2024-01-01"
    )
    unasked = on_database.hyperfeast("completeness", "--heal")
    assert unasked.returncode == 2
    assert "say where to heal from with --source" in unasked.stderr

    # Relative to where one stands, which is not where the worker stands.
    found = on_database.json("completeness", "--heal", "--source", "./bars")
    assert (found["series"][0]["expected"], found["series"][0]["present"]) == (10, 7)
    assert found["enqueued_ranges"] == 1
    worker = on_database.start("worker")
    try:
        end = time.monotonic() + 120
        while database.fetch("SELECT count(*) AS n FROM candles") != [{"n": 10}]:
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
        worker.communicate()
    assert on_database.json("completeness")["series"][0]["present"] == 10


def test_the_second_copy_is_compared(on_database: Shell, bars: Path) -> None:
    on_database.env["HYPERFEAST_DUAL_WRITE"] = str(bars.parent / "copy")
    on_database.json(
        "backfill", "candles", "--source", str(bars), "--tf", "1d", "--from", "2024-01-01"
    )
    assert on_database.json("verify", "dual-write")["mismatched"] == 0
    Database(on_database.env["HYPERFEAST_POSTGRES_DSN"]).execute(
        "DELETE FROM candles WHERE symbol = 'A' AND ts < '2024-01-03'"
    )
    ran = on_database.hyperfeast("verify", "dual-write")
    assert ran.returncode == 1
    assert "2 of 20 rows are not the same" in ran.stderr


def test_the_address_of_the_database(on_database: Shell, database: Database) -> None:
    ran = on_database.hyperfeast("up", "--dsn")
    assert ran.stdout.strip() == database.dsn


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--source", "nowhere", "--tf", "1d", "--from", "2024-01-01"],
            "there is no source 'nowhere'",
        ),
        (["--source", "bars", "--tf", "2d", "--from", "2024-01-01"], "no timeframe '2d'"),
        (
            ["--source", "bars", "--tf", "1d", "--from", "2024-01-01", "--to", "2023-01-01"],
            "is empty",
        ),
        (
            ["--source", "bars", "--tf", "1d", "--from", "2024-01-01", "--symbols", "none.txt"],
            "none.txt",
        ),
    ],
)
def test_a_mistaken_call(on_database: Shell, bars: Path, options: list[str], said: str) -> None:
    assert bars.exists()
    ran: subprocess.CompletedProcess[str] = on_database.hyperfeast("backfill", "candles", *options)
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.startswith("error: ")
    assert said in ran.stderr


def _write(path: Path, days: list[str]) -> None:
    prices = dict.fromkeys(("Open", "High", "Low", "Close"), 10.0)
    pl.DataFrame({"Date": days}).with_columns(Volume=1, **prices).write_csv(path)
