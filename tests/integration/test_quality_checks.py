"""The scheduled check and its commands: clean data pass, each fault fails its own check, bad calls are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from hyperfeast.cli import quality as commands
from hyperfeast.db import Database
from hyperfeast.errors import DataError, HyperfeastError, UsageError
from hyperfeast.features.compute import refresh
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.quality import check
from hyperfeast.types import Timeframe
from market import bars
from market_technical import market_technical
from migration.test_pipeline import READINGS, USER
from personal_baseline import personal_baseline

SETS = (market_technical, personal_baseline)
CANDLES = bars(300).drop("event_timestamp", "split_factor")
FAULTS = {
    "a bar of the future": (
        "UPDATE candles SET ts = '2090-01-02' WHERE (symbol, ts) = ('AAA', '2020-01-01')",
        {"candles/1d time", "candles/1d time_whole"},
    ),
    "a bar off the grid": (
        "UPDATE candles SET ts = ts + interval '1 hour' WHERE ts = (SELECT max(ts) FROM candles)",
        {"candles/1d grid", "candles/1d grid_whole"},
    ),
    "a price too high": (
        "UPDATE candles SET h = 1e13 WHERE ts = (SELECT max(ts) FROM candles)",
        {"candles/1d prices"},
    ),
    "a bar on a holiday": (
        "UPDATE instruments SET calendar = 'XNYS' WHERE symbol = 'AAA'",
        {"candles/1d sessions", "candles/1d sessions_whole"},
    ),
    "a bar of no instrument": (
        "DELETE FROM instruments WHERE symbol = 'BBB'",
        {"candles instruments"},
    ),
    "a reading of the future": (
        "UPDATE user_baseline_raw SET ts = '2090-01-02' WHERE ts = (SELECT max(ts) FROM user_baseline_raw)",
        {"user_baseline_raw time", "user_baseline_raw time_whole"},
    ),
    "a split that divides by ten thousand and one": (
        "INSERT INTO corporate_actions VALUES ('AAA', '2020-02-03', 'split', 10001, NULL, 'test')",
        {"corporate_actions terms"},
    ),
    "a feature that is infinite": (
        "UPDATE features_market_technical_v1 SET ema_12 = 'Infinity'",
        {"market_technical v1 finite"},
    ),
    "a feature out of its bounds": (
        "UPDATE features_market_technical_v1 SET rsi_14 = 101",
        {"market_technical v1 bounds"},
    ),
    "a feature that is missing once warm": (
        "UPDATE features_market_technical_v1 SET rsi_14 = NULL",
        {"market_technical v1 present_once_warm"},
    ),
    "a row recorded before it could be known": (
        "UPDATE features_personal_baseline_v1 SET recorded_at = event_timestamp - interval '1 hour'",
        {"personal_baseline v1 time_whole"},
    ),
    "a column of another type": (
        (
            "DO $$ BEGIN DROP VIEW IF EXISTS feature_store, feature_values CASCADE; "
            "ALTER TABLE features_personal_baseline_v1 ALTER n_30d TYPE integer; END $$"
        ),
        {"personal_baseline v1 types"},
    ),
}

# Faults that stand in each other's way nowhere, so that one run shows them.
TOGETHER = [
    ("a bar of the future", "a reading of the future", "a feature that is infinite"),
    (
        "a bar off the grid",
        "a row recorded before it could be known",
        "a feature out of its bounds",
    ),
    ("a price too high", "a split that divides by ten thousand and one"),
    ("a bar on a holiday", "a feature that is missing once warm"),
    ("a bar of no instrument", "a column of another type"),
]


@pytest.fixture
def filled(database: Database) -> Database:
    ingest_candles(database, CANDLES, timeframe=Timeframe.D1, source="test")
    ingest_metrics(database, READINGS, user=USER, metric="glucose", source="test")
    for one in SETS:
        refresh(database, one)
    return database


@pytest.fixture
def hyperfeast(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command on the database."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERFEAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", "redis://127.0.0.1:9")
    monkeypatch.setenv("HYPERFEAST_FEATURE_REPO", str(root / "feature_repo"))
    app = typer.Typer()
    commands.register(app)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def failed(results: list[Any]) -> set[str]:
    return {f"{one.scope} {one.check}" for one in results if not one.passed}


@pytest.mark.slow
def test_clean_data_pass_and_every_result_is_kept(filled: Database) -> None:
    told: list[tuple[int, int]] = []
    results = check(filled, SETS, progress=lambda done, all_: told.append((done, all_)))
    assert failed(results) == set()
    assert told[-1][0] == told[-1][1] == len(told) - 1
    scopes = {(one.check, one.scope) for one in results}
    assert {("ohlc", "candles/1d"), ("finite", "market_technical v1")} <= scopes
    assert ("present_once_warm", "market_technical v1") in scopes
    kept = filled.fetch(
        'SELECT "check", scope, ts, passed, observed, expectation FROM data_quality_results '
        "WHERE \"check\" <> 'gate'"
    )
    assert {(row["check"], row["scope"]) for row in kept} == scopes
    assert len({row["ts"] for row in kept}) == 1
    ohlc = next(row for row in kept if row["check"] == "ohlc")
    assert ohlc["observed"] == {"rows": 600, "broken": 0}
    assert ohlc["expectation"]["engine"] == "great_expectations"
    assert {"column_A": "h", "column_B": "o", "or_equal": True}.items() <= (
        ohlc["expectation"]["expectations"][0].items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("names", TOGETHER)
def test_a_fault_fails_its_own_check_and_no_other(filled: Database, names: tuple[str, ...]) -> None:
    filled.execute("ALTER TABLE corporate_actions DROP CONSTRAINT corporate_actions_symbol_fkey")
    expected: set[str] = set()
    for name in names:
        statement, checks = FAULTS[name]
        filled.execute(statement)  # type: ignore[arg-type]
        expected |= checks
    results = check(filled, SETS)
    assert failed(results) == expected
    for one in results:
        assert bool(one.observed["broken"]) is not one.passed


def test_an_empty_database_passes_what_it_can_be_asked(database: Database) -> None:
    assert failed(check(database, SETS)) == set()


def test_a_sample_needs_a_row(database: Database) -> None:
    with pytest.raises(UsageError, match="a sample of 1 row or more"):
        check(database, SETS, sample_rows=0)


def test_commands_print_and_report(
    filled: Database, hyperfeast: Callable[..., Result], tmp_path: Path
) -> None:
    filled.execute("UPDATE instruments SET calendar = 'XNYS' WHERE symbol = 'AAA'")
    filled.execute("DELETE FROM candles WHERE ts BETWEEN '2020-02-04' AND '2020-02-06'")
    filled.execute(
        "INSERT INTO quarantine (batch_id, target, rule, row) "
        "VALUES (gen_random_uuid(), 'candles', '<script>alert(1)</script>', '{}')"
    )
    filled.execute(
        "UPDATE candles SET c = 90 * c, h = 90 * h WHERE (symbol, ts) = ('BBB', '2020-06-01')"
    )
    ran = hyperfeast("quality", "check", "--json")
    assert isinstance(ran.exception, DataError)
    assert "candles/1d sessions" in str(ran.exception)
    assert len(json.loads(ran.stdout)) > 20
    judged = json.loads(hyperfeast("quality", "outliers", "--json").stdout)
    assert judged["flagged"] == 3
    missing = json.loads(hyperfeast("completeness", "--symbol", "AAA", "--json").stdout)
    (series,) = missing["series"]
    assert series["missing"] == [
        {"since": "2020-02-04T00:00:00+00:00", "until": "2020-02-07T00:00:00+00:00"}
    ]
    shown = hyperfeast(
        "completeness", "--tf", "1d", "--since", "2020-02-01", "--until", "2020-03-01"
    )
    assert shown.exit_code == 0
    assert "Missing: 2 ranges" in shown.stdout
    page = tmp_path / "quality.html"
    report = json.loads(hyperfeast("quality", "report", "--html", str(page), "--json").stdout)
    assert report["outliers"]["counts"] == {"neighbor_jump": 1, "robust_z": 2}
    assert [one["rows"] for one in report["quarantine"]] == [1]
    assert {one["key"] for one in report["months"]} == {"AAA", "BBB"}
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert hyperfeast("quality", "report").exit_code == 0


def test_a_report_of_nothing_is_a_page_too(
    hyperfeast: Callable[..., Result], tmp_path: Path
) -> None:
    page = tmp_path / "quality.html"
    assert hyperfeast("quality", "report", "--html", str(page)).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "Nothing was checked yet" in text
    assert "No row was refused" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["completeness", "--symbol", "x'); DROP TABLE signals; --"], "no instrument"),
        (["completeness", "--tf", "2d"], "--tf takes one of 1m"),
        (
            ["completeness", "--since", "2024-01-02", "--until", "2024-01-01"],
            "nothing lies between",
        ),
        (["quality", "outliers", "--tf", "day"], "--tf takes one of 1m"),
        (["quality", "outliers", "--symbol", "NONE"], "no instrument"),
        (["quality", "outliers", "--threshold", "-1"], "a threshold"),
        (["quality", "outliers", "--threshold", "nan"], "a threshold"),
        (["quality", "outliers", "--window", "1"], "a window"),
        (["quality", "report", "--html", "no/such/folder/a.html"], "a folder that exists"),
    ],
)
def test_a_bad_call_is_refused_in_one_line(
    hyperfeast: Callable[..., Result], arguments: list[str], said: str
) -> None:
    ran = hyperfeast(*arguments)
    assert isinstance(ran.exception, HyperfeastError)
    assert said in str(ran.exception)
    assert "\n" not in str(ran.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["completeness", "--since", "yesterday"],
        ["quality", "check", "--sample", "0"],
        ["quality", "outliers", "--threshold", "high"],
        ["quality", "nothing"],
    ],
)
def test_a_call_that_cannot_be_read_is_a_mistake_of_usage(
    hyperfeast: Callable[..., Result], arguments: list[str]
) -> None:
    assert hyperfeast(*arguments).exit_code == 2


def test_findings_are_put_in_words() -> None:
    observed = {"rows": 10, "broken": 2, "failures": [{"examples": [1.5, None]}]}
    assert commands.finding(observed) == "2 of 10 broken, such as 1.5; None"
    assert commands.finding({"broken": 1, "examples": {"n": None}}) == "1 broken, such as n: absent"
    assert commands.finding({"broken": 0, "rows": 5}) == ""
