"""`hyperfeast baselines`: what it prints on 80 columns, what it gives machines, what it refuses."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from baseline_samples import baseline, csv_of_ninety_days
from hyperfeast.baselines import FileBaselineRepository, TimescaleBaselineRepository
from hyperfeast.cli import baselines
from hyperfeast.cli.baselines import sparkline
from hyperfeast.db import Database
from hyperfeast.errors import DataError, HyperfeastError, NoData, UsageError
from hyperfeast.ingest import ingest_metrics

USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
NARROW = 80


@pytest.fixture(autouse=True)
def _setting(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERFEAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", str(NARROW))


@pytest.fixture
def ninety_days(database: Database) -> None:
    """Two metrics of a user, one day of them odd."""
    ingest_metrics(database, pl.read_csv(io.StringIO(csv_of_ninety_days(USER))), source="test")


def call(*arguments: str) -> Result:
    app = typer.Typer()
    baselines.register(app)
    return CliRunner().invoke(app, ["baselines", *arguments])


def printed(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.exception
    widest = max(result.stdout.splitlines(), key=len)
    assert len(widest) <= NARROW or widest.startswith("page: "), widest
    return result.stdout


def given(*arguments: str) -> Any:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def refused(*arguments: str) -> HyperfeastError:
    error = call(*arguments).exception
    assert isinstance(error, HyperfeastError)
    assert "\n" not in str(error)
    return error


@pytest.mark.usefixtures("ninety_days")
def test_extract_show_history(database: Database) -> None:
    assert "baselines extract" in str(refused("show", USER))
    dry = given("extract", USER, "--dry-run")
    assert dry["created_at"] is None
    assert TimescaleBaselineRepository(database).latest(UUID(USER)) is None

    made = printed("extract", USER, "--tz", "Europe/Berlin")
    assert "Europe/Berlin" in made
    assert any(bar in made for bar in "▂▃▄▅▆▇")
    shown = given("show", USER, "--metric", "glucose")
    assert list(shown["baseline"]["metrics"]) == ["glucose"]
    numbers = shown["baseline"]["metrics"]["glucose"]
    assert (numbers["n"], numbers["days_present"], numbers["unit"]) == (240, 30, "mg/dL")
    assert numbers["mean"] == dry["baseline"]["metrics"]["glucose"]["mean"]
    assert "glucose, mg/dL" in printed("show", USER)
    printed("extract", USER, "--day", f"{datetime.now(UTC):%Y-%m-%d}")
    assert len(given("history", USER)) == 2
    assert printed("history", USER).count("heart_rate") == 3
    assert len(given("history", USER, "--limit", "1")) == 1
    assert given("show", USER, "--at", "2100-01-01")["baseline"]["time_zone"] == "UTC"
    assert "saved by 2020-01-01" in str(refused("show", USER, "--at", "2020-01-01"))
    assert "it has glucose, heart_rate" in str(refused("show", USER, "--metric", "steps"))


@pytest.mark.usefixtures("ninety_days")
def test_compare(tmp_path: Path) -> None:
    compared = printed("compare", USER, "--html", "page.html")
    assert "1 of 60 days lie more than 2 deviations off" in compared
    assert "page: page.html" in compared
    page = (tmp_path / "page.html").read_text()
    assert "Heart rate: flagged days" in page
    assert "Glucose: flagged days" not in page
    pulse = given("compare", USER, "--days", "30", "--metric", "heart_rate")[0]["days"]
    odd = datetime.now(UTC).date() - timedelta(days=20)
    assert [one["day"] for one in pulse if one["z_score"] > 2] == [odd.isoformat()]
    assert "known when its day ended" in str(refused("compare", USER, "--as-known"))


@pytest.mark.usefixtures("ninety_days")
def test_refresh() -> None:
    done = {one["metric"]: one for one in given("refresh")}
    assert (done["glucose"]["series"], done["heart_rate"]["series"]) == (1, 2)
    assert "glucose" in printed("refresh", "--user", USER, "--metric", "glucose")


@pytest.mark.usefixtures("ninety_days")
def test_a_folder_and_both_by_the_setting(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileBaselineRepository(tmp_path / "kept")
    table = TimescaleBaselineRepository(database)
    monkeypatch.setenv("HYPERFEAST_BASELINES", "kept")
    given("extract", USER)
    assert len(files.history(UUID(USER))) == 1
    assert table.history(UUID(USER)) == []
    monkeypatch.setenv("HYPERFEAST_BASELINES", "kept, timescale")
    given("extract", USER)
    assert len(table.history(UUID(USER))) == 2
    assert table.history(UUID(USER)) == files.history(UUID(USER))


@pytest.mark.parametrize("bad", ["kept,also,timescale", "kept,", "a,b", "timescale,timescale"])
def test_a_setting_that_is_none(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERFEAST_BASELINES", bad)
    said = str(refused("show", USER))
    assert "HYPERFEAST_BASELINES is not usable: expected timescale, a folder, or both" in said


def test_what_is_shown_from_a_folder_needs_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileBaselineRepository(tmp_path / "kept").save(UUID(USER), baseline())
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", "postgresql://u:p@127.0.0.1:9/db")
    monkeypatch.setenv("HYPERFEAST_BASELINES", "kept")
    assert given("show", USER)["baseline"]["schema"] == 1


def test_migrate(database: Database, tmp_path: Path) -> None:
    files, table = FileBaselineRepository(tmp_path / "kept"), TimescaleBaselineRepository(database)
    for user in range(1, 6):
        files.save(UUID(int=user), baseline(user))
    migrate = ("migrate", "--from", "kept")
    assert "5 users with 5 baselines read, 5 would be added" in printed(*migrate, "--dry-run")
    assert given(*migrate, "--verify") == {
        "users": 5, "baselines": 5, "added": 5, "dry_run": False, "unreadable": [], "differing": [],
    }  # fmt: skip
    table.save(UUID(int=5), baseline(55))
    result = call(*migrate, "--verify")
    assert isinstance(result.exception, DataError)
    assert f"differs: user {UUID(int=5)}: latest" in result.stdout
    files.place(UUID(int=3)).write_text("{")
    assert "1 file or folder cannot be read" in str(refused(*migrate))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["show", "me"], UsageError, "'me' is no user: expected a UUID"),
        (["extract", "../.."], UsageError, "expected a UUID"),
        (["extract", USER], NoData, "has no reading in the 30 days"),
        (["extract", USER, "--day", "2999-01-01"], UsageError, "is yet to come"),
        (["extract", USER, "--tz", "Mars"], UsageError, "no time zone 'Mars'"),
        (["extract", USER, "--unit", "glucose"], UsageError, "--unit takes METRIC=UNIT"),
        (["extract", USER, "--unit", "glucose=stones"], UsageError, "known are mg/dL, mmol/L"),
        (["compare", USER], NoData, "has no reading: take some in"),
        (["history", USER], NoData, "has no baseline"),
        (["migrate", "--from", "nowhere"], UsageError, "expected a folder of baselines"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistaken_call(arguments: list[str], error: type[HyperfeastError], says: str) -> None:
    found = refused(*arguments)
    assert isinstance(found, error)
    assert says in str(found)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None], ""),
        ([5.0, 5.0], "▁▁"),
        ([0.0, None, 7.0], "▁ █"),
        ([float(one) for one in range(8)], "▁▂▃▄▅▆▇█"),
    ],
)
def test_a_sparkline(values: list[float | None], line: str) -> None:
    assert sparkline(values) == line
