"""The quality of what was computed, in a real database: measured, kept, printed and put on a page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

import market
from hyperfeast.app import App
from hyperfeast.cli import feature_reports
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key, table
from hyperfeast.features.bars import read_bars
from hyperfeast.features.compute import refresh
from hyperfeast.indicators import cross_rank, log_return, sequence
from hyperfeast.ingest import ingest_candles
from hyperfeast.quality import FeatureRules, Label, check_features, measure
from hyperfeast.quality.feature_results import results
from hyperfeast.training import train
from hyperfeast.training.labels import direction
from hyperfeast.types import Timeframe
from market_direction import market_direction
from market_technical import market_technical
from personal_baseline import personal_baseline

SYMBOLS = ("AAA", "BBB", "CCC")
SESSIONS = 400
LONGEST = max(rule.lookback for rule in market_technical.rules.values())
CANDLES = market.bars(SESSIONS, symbols=SYMBOLS).drop("event_timestamp", "split_factor")
TABLE = "features_market_technical_v1"


@pytest.fixture
def computed(database: Database) -> Database:
    """Three symbols with all their features."""
    ingest_candles(database, CANDLES, source="test", timeframe=Timeframe.D1)
    refresh(database, market_technical)
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
    feature_reports.register(app)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def labels(database: Database, horizon: int = 5) -> list[Label]:
    bars = read_bars(database, Timeframe.D1)
    return [Label("market_direction", horizon, direction(bars, horizon))]


def broken(database: Database, **more: object) -> dict[str, dict[str, object]]:
    """The checks that failed, with what was found."""
    found = check_features(database, [market_technical], **more)  # type: ignore[arg-type]
    return {one.check: dict(one.observed["examples"]) for one in found if not one.passed}


# Measuring


def test_clean_rows_pass_and_are_counted(computed: Database) -> None:
    found = measure(computed, market_technical, labels(computed))
    rows = len(SYMBOLS) * SESSIONS
    assert (found.rows, found.seen) == (rows, rows)
    assert found.warm == len(SYMBOLS) * (SESSIONS - LONGEST)
    assert [one.feature for one in found.profiles] == market_technical.feature_names
    assert all(one.nulls == one.violations == one.not_finite == 0 for one in found.profiles)
    assert [one.entity for one in found.staleness] == list(SYMBOLS)
    assert all(one.behind == timedelta(0) for one in found.staleness)
    assert found.suspects == []
    assert sum(cell.rows for cell in found.months if cell.feature == "rsi_14") == found.warm
    assert all(one.passed for one in results(found))
    assert {one.rows for one in found.associations} == {found.warm - 5 * len(SYMBOLS)}
    assert {one.sessions for one in found.associations} == {SESSIONS - LONGEST - 5}


def test_statistics_are_those_of_the_rows_that_are_warm(computed: Database) -> None:
    found = measure(computed, market_technical)
    warm = (
        table.newest(computed, market_technical)
        .sort("symbol", "event_timestamp")
        .filter(pl.int_range(pl.len()).over("symbol") >= LONGEST)
    )
    for one in found.profiles:
        values = warm[one.feature].to_numpy()
        assert one.mean == pytest.approx(np.mean(values))
        assert one.std == pytest.approx(np.std(values, ddof=1))
        assert one.quantiles == pytest.approx(np.percentile(values, [5, 25, 50, 75, 95]))
    place = {name: number for number, name in enumerate(found.correlated)}
    slow, fast = (warm[name].rank().to_numpy() for name in ("ema_26", "ema_12"))
    assert found.correlations[place["ema_26"]][place["ema_12"]] == pytest.approx(
        np.corrcoef(slow, fast)[0, 1]
    )
    assert {"ema_12", "ema_26"} in [{pair.first, pair.second} for pair in found.pairs]


def test_only_the_newest_revision_counts(computed: Database) -> None:
    names = ", ".join(market_technical.feature_names)
    copied = names.replace("rsi_14", "rsi_14 + 1000")
    computed.execute(
        f"INSERT INTO {TABLE} (symbol, event_timestamp, {names}) "  # type: ignore[arg-type]
        f"SELECT symbol, event_timestamp, {copied} FROM {TABLE}"
    )
    found = measure(computed, market_technical)
    rows = len(SYMBOLS) * SESSIONS
    assert (found.rows, found.seen) == (2 * rows, rows)
    assert found.warm == len(SYMBOLS) * (SESSIONS - LONGEST)
    (strength,) = [one for one in found.profiles if one.feature == "rsi_14"]
    assert strength.least is not None
    assert strength.least > 1000


def test_a_long_table_is_sampled_evenly_and_the_same_each_time(computed: Database) -> None:
    rules = FeatureRules(rows=300)
    found = measure(computed, market_technical, labels(computed), rules=rules)
    assert 150 < found.seen < 450
    assert found == measure(computed, market_technical, labels(computed), rules=rules)
    months = {cell.month for cell in found.months}
    assert len(months) == len({cell.month for cell in measure(computed, market_technical).months})


def test_what_is_missing_stale_or_out_of_bounds_fails_its_check(computed: Database) -> None:
    computed.execute(f"UPDATE {TABLE} SET rsi_14 = NULL WHERE symbol = 'AAA'")  # type: ignore[arg-type]
    assert set(broken(computed)) == {"null_rate"}
    assert list(broken(computed)["null_rate"]) == ["rsi_14"]
    computed.execute(f"UPDATE {TABLE} SET rsi_14 = 50")  # type: ignore[arg-type]

    bounded = replace(
        market_technical,
        features=tuple(
            replace(one, bounds=(0.0, 100.0)) if one.name == "rsi_14" else one
            for one in market_technical.features
        ),
    )
    computed.execute(
        f"UPDATE {TABLE} SET rsi_14 = 101 WHERE event_timestamp = (SELECT max(event_timestamp) FROM {TABLE})"  # type: ignore[arg-type]
    )
    (failed,) = [one for one in check_features(computed, [bounded]) if not one.passed]
    assert (failed.check, failed.scope) == ("range", "market_technical v1")
    assert failed.observed["violations"] == {"rsi_14": 3}
    computed.execute(f"UPDATE {TABLE} SET rsi_14 = 50")  # type: ignore[arg-type]

    computed.execute(
        f"DELETE FROM {TABLE} WHERE symbol = 'BBB' AND event_timestamp > now() - interval '100 years' "  # type: ignore[arg-type]
        f"AND event_timestamp > (SELECT max(event_timestamp) FROM {TABLE}) - interval '9 days'"
    )
    assert list(broken(computed)["staleness"]) == ["BBB"]
    computed.execute("UPDATE instruments SET delisted_at = '2021-01-29' WHERE symbol = 'BBB'")
    assert broken(computed) == {}


def test_a_leak_is_found_and_an_honest_feature_is_not(computed: Database) -> None:
    bars = read_bars(computed, Timeframe.D1)
    known = direction(bars, 5)
    with computed.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {TABLE} SET volume_z_score_20 = %s WHERE symbol = %s AND event_timestamp = %s",
            [
                (row["forward_return"], row["symbol"], row["event_timestamp"])
                for row in known.to_dicts()
            ],
        )
    found = measure(computed, market_technical, labels(computed))
    # 148 sessions of labels over five are some thirty observations: enough for a perfect one.
    assert [one.feature for one in found.suspects] == ["volume_z_score_20"]
    assert found.suspects[0].correlation == pytest.approx(1)
    assert list(broken(computed, labels=labels(computed))) == ["leakage"]
    assert broken(computed) == {}


def test_results_are_kept_under_the_set_s_scope(computed: Database) -> None:
    found = check_features(computed, [market_technical, personal_baseline], labels(computed))
    kept = computed.fetch(
        'SELECT "check", scope, passed, observed, expectation, ts FROM data_quality_results '
        "WHERE scope = 'market_technical v1'"
    )
    checks = {"null_rate", "range", "staleness", "distribution", "correlation", "leakage"}
    assert {row["check"] for row in kept} == checks == {one.check for one in found}
    assert len({row["ts"] for row in kept}) == 1
    (spread,) = [row for row in kept if row["check"] == "distribution"]
    assert set(spread["observed"]["features"]) == set(market_technical.feature_names)


def test_sets_without_a_table_or_rows_are_measured_as_nothing(database: Database) -> None:
    absent = replace(market_technical, version=99)
    for one in (absent, market_technical, personal_baseline):
        found = measure(database, one)
        assert (found.rows, found.seen, found.newest, found.stale) == (0, 0, None, [])
        assert results(found) == []
    assert check_features(database, [absent, personal_baseline]) == []


def test_lists_and_integers_are_measured_too(database: Database) -> None:
    shapes = FeatureSet(
        name="shapes",
        version=1,
        keys=(Key("symbol", "symbol"),),
        source=Bars(Timeframe.D1),
        freshness=timedelta(days=7),
        features=(
            Feature("past", "Four returns.", sequence(log_return(1), 4), FeatureType.FLOAT64_LIST),
            Feature("place", "Rank.", cross_rank(log_return(1)), bounds=(0, 1)),
        ),
    )
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE features_shapes_v1 (symbol text, event_timestamp timestamptz, "
            "recorded_at timestamptz DEFAULT clock_timestamp(), past double precision[], place double precision)"
        )
        for day in range(1, 11):
            connection.execute(
                "INSERT INTO features_shapes_v1 VALUES ('AAA', %s, now(), %s, %s)",
                (datetime(2024, 1, day, tzinfo=UTC), [0.1, 0.2, 0.3, day / 10], day / 9),
            )
    found = measure(database, shapes)
    past, place = found.profiles
    assert past.rows == 10 - 4
    assert past.greatest == 1
    assert place.violations == 1
    assert found.correlated == ("place",)


# Commands


def features_of(database: Database) -> Callable[[pl.DataFrame, str], pl.DataFrame]:
    known = table.newest(database, market_technical)
    names = ["rsi_14", "log_return_1", "log_return_5", "realized_volatility_20", "bollinger_width"]

    def join(spine: pl.DataFrame, _: str) -> pl.DataFrame:
        return spine.join(
            known.select("symbol", "event_timestamp", *names),
            on=["symbol", "event_timestamp"],
            how="left",
        )

    return join


def trained(database: Database, folder: Path, rounds: int) -> None:
    spec = replace(market_direction, rounds=rounds, folds=2, horizon=2)
    train(
        database,
        spec,
        read_bars(database, Timeframe.D1),
        features_of(database),
        folder,
        definition_hashes={},
    )


def test_check_prints_a_verdict_a_set(
    hyperfeast: Callable[..., Result], computed: Database
) -> None:
    ran = hyperfeast("check", "--moments", "1")
    assert ran.exit_code == 0, ran.output
    assert "market_technical v1" in ran.output
    assert "personal_baseline v1" in ran.output
    found = json.loads(
        hyperfeast("check", "market_technical", "--moments", "1", "--no-database", "--json").output
    )
    assert [(one["feature_set"], one["passed"], one["findings"]) for one in found] == [
        ("market_technical v1", True, [])
    ]


_CHEAT = """
from datetime import timedelta
import polars as pl
from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import expression
from hyperfeast.types import Timeframe

foresight = FeatureSet(
    name="foresight", version=4, keys=(Key("symbol", "symbol"),), source=Bars(Timeframe.D1),
    freshness=timedelta(days=7),
    features=(
        Feature("tomorrow", "The next close.", expression(pl.col("close").shift(-1), lookback=0)),
        Feature("best", "Of the best.", expression(pl.col("close") / pl.col("close").max(), lookback=0)),
    ),
)
"""


def test_check_fails_by_name_on_a_cheat(
    hyperfeast: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "feature_store.yaml").write_text("project: test\n")
    (repo / "sets_with_a_cheat.py").write_text(_CHEAT)
    monkeypatch.setenv("HYPERFEAST_FEATURE_REPO", str(repo))
    ran = hyperfeast("check", "--moments", "2", "--no-database")
    assert isinstance(ran.exception, FeatureError)
    message = str(ran.exception)
    assert message.startswith(
        "feature set foresight v4: feature tomorrow looks ahead: changing the close of every symbol after "
    )
    assert "more; --json shows all)" in message
    assert "best looks ahead" in ran.output
    as_json = hyperfeast("check", "foresight", "--moments", "2", "--no-database", "--json")
    assert isinstance(as_json.exception, FeatureError)
    (verdict,) = json.loads(as_json.output)
    assert verdict["passed"] is False
    assert {one["feature"] for one in verdict["findings"]} == {"tomorrow", "best"}
    assert isinstance(hyperfeast("check", "hindsight").exception, UsageError)


def test_report_of_an_empty_platform_says_what_to_do(
    hyperfeast: Callable[..., Result], database: Database, tmp_path: Path
) -> None:
    ran = hyperfeast("report", "--html", "page.html")
    assert ran.exit_code == 0, ran.output
    assert (
        "market_technical v1 has no rows yet: `hyperfeast features compute market_technical_v1`"
        in (ran.output)
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "hyperfeast features compute market_technical_v1" in page
    assert "hyperfeast train market_direction" in page
    assert 'class="chart"' not in page


def test_report_prints_and_writes_a_page(
    hyperfeast: Callable[..., Result], computed: Database, tmp_path: Path
) -> None:
    for rounds in (4, 8):
        trained(computed, tmp_path / "models", rounds)
    ran = hyperfeast("report", "market_technical", "--html", "page.html")
    assert ran.exit_code == 0, ran.output
    assert "Alike" in ran.output
    assert "Importance in market_direction v2, by rank" in ran.output
    page = (tmp_path / "page.html").read_text("utf-8")
    charts = set(re.findall(r'id="chart-([^"]*)"', page))
    assert {"set-0-correlation", "set-0-label-0"} <= charts
    measured = {re.sub(r"model-\d+-", "", name) for name in charts if name.startswith("model")}
    assert measured == {"gain", "permutation", "shap"}
    assert "personal_baseline" not in page
    found = json.loads(hyperfeast("report", "market_technical_v1", "--json").output)
    assert found["sets"][0]["warm"] == len(SYMBOLS) * (SESSIONS - LONGEST)
    assert {one["method"] for one in found["importance"]} == {"gain", "permutation", "shap"}
    assert {one["version"] for one in found["importance"]} == {1, 2}
    assert isinstance(hyperfeast("report", "nothing").exception, UsageError)
    assert isinstance(hyperfeast("report", "--html", "nowhere/page.html").exception, UsageError)


def test_the_nightly_check_looks_at_features_too(
    hyperfeast: Callable[..., Result], computed: Database
) -> None:
    computed.execute(f"UPDATE {TABLE} SET rsi_14 = NULL")  # type: ignore[arg-type]
    app = App()
    found = app.check_features()
    assert "null_rate" in {one.check for one in found if not one.passed}
    # A bar of no session: labels cannot be had, the rest can.
    computed.execute("UPDATE instruments SET calendar = 'XNYS'")
    assert "null_rate" in {one.check for one in app.check_features() if not one.passed}
