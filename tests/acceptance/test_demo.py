"""The main job as a newcomer runs it."""

import math
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo
from pydantic import SecretStr

from acceptance.shell import ROOT, DemoRun, shell
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.demo import STAGES
from hyperfeast.servers import EmbeddedServers
from hyperfeast.settings import Settings

SYMBOLS = ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
COUNTED = (
    "candles",
    "candle_revisions",
    "corporate_actions",
    "user_baseline_raw",
    "features_market_technical_v1",
    "features_personal_baseline_v1",
    "model_registry",
)


# Runs the demo and dies a tenth of a second into the stage that is named: in the midst of what it does.
_KILLED_IN = """
import os, signal, sys, threading
from pathlib import Path
from hyperfeast.app import App
from hyperfeast.demo import run

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def on_stage(title, stage):
    if title == sys.argv[1] and stage is None:
        print(title, flush=True)
        threading.Timer(0.1, die).start()
    elif title == sys.argv[1]:
        die()

run(App(), Path("report.html"), on_stage=on_stage)
"""


def counts(demo: DemoRun) -> dict[str, int]:
    """Rows a table."""
    return {
        name: demo.database.fetch(f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in COUNTED
    }


Copier = Callable[..., App]


@pytest.fixture
def make_copy(demo: DemoRun) -> Iterator[Copier]:
    """The platform on a copy of the demo's database, which a test may spoil."""
    made: list[App] = []

    def copy(redis_url: str | None = None) -> App:
        with _maintenance(demo) as connection:
            connection.execute("CREATE DATABASE spoiled TEMPLATE hyperfeast")
        dsn = conninfo.make_conninfo(demo.database.dsn, dbname="spoiled")
        settings = Settings(
            home=demo.home,
            postgres_dsn=SecretStr(dsn),
            redis_url=SecretStr(redis_url) if redis_url else None,
            feature_repo=ROOT / "feature_repo",
        )
        made.append(App(settings))
        return made[-1]

    yield copy
    for app in made:
        app.close()
    with _maintenance(demo) as connection:
        connection.execute("DROP DATABASE IF EXISTS spoiled WITH (FORCE)")


def _maintenance(demo: DemoRun) -> AbstractContextManager[psycopg.Connection[Any]]:
    admin = Database(conninfo.make_conninfo(demo.database.dsn, dbname="postgres"))
    return admin.connect(autocommit=True)


def test_every_stage_ran_on_all_the_data(demo: DemoRun) -> None:
    rows = {stage["title"]: stage["rows"] for stage in demo.result["stages"]}
    assert list(rows) == list(STAGES)
    assert rows["daily candles"] == 12_154
    assert rows["glucose readings"] == 52_281
    assert rows["corporate actions"] == 3


def test_the_score_stands_beside_both_baselines(demo: DemoRun) -> None:
    pooled = demo.result["metrics"]["pooled"]
    assert set(pooled) == {"model", "always_up", "yesterday_sign"}
    assert 0.45 < pooled["model"]["accuracy"] < 0.65
    assert 0.4 < pooled["model"]["auc"] < 0.65, "better than this on daily stocks is a leak"


def test_every_symbol_is_predicted_and_logged_with_its_vector(demo: DemoRun) -> None:
    predictions = {one["symbol"]: one for one in demo.result["predictions"]}
    assert sorted(predictions) == SYMBOLS
    assert all(one["stale"] for one in predictions.values()), "features of 2013 are old"
    request_id = predictions["AAPL"]["request_id"]
    logged = demo.database.fetch("SELECT * FROM signals WHERE request_id = %s", [request_id])
    assert {row["symbol"]: row["features"] for row in logged} == {
        symbol: one["features"] for symbol, one in predictions.items()
    }
    assert {row["symbol"]: row["proba"] for row in logged} == {
        symbol: one["proba"] for symbol, one in predictions.items()
    }
    assert all(row["latency_ms"] > 0 and row["feature_ages"] for row in logged)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_served_vector_is_the_offline_row_bit_for_bit(demo: DemoRun, symbol: str) -> None:
    served = next(one for one in demo.result["predictions"] if one["symbol"] == symbol)["features"]
    offline = _newest(demo.database, symbol)
    assert len(served) == 9
    assert {name: _bits(value) for name, value in served.items()} == {
        name: _bits(offline[name]) for name in served
    }


def test_no_return_jumps_at_a_split_and_the_real_crash_stays(demo: DemoRun) -> None:
    falls = demo.database.fetch(
        "SELECT symbol, event_timestamp::date AS day FROM features_market_technical_v1 "
        "WHERE log_return_1 < -0.4"
    )
    assert [(row["symbol"], str(row["day"])) for row in falls] == [("AAPL", "2000-09-29")]


def test_features_are_known_at_the_close_and_never_at_the_open(demo: DemoRun) -> None:
    # 2012-11-23 was a half day: New York closed at 13:00, 18:00 UTC. In July 16:00 is 20:00 UTC.
    rows = demo.database.fetch(
        "SELECT event_timestamp FROM features_market_technical_v1 WHERE symbol = 'IBM' "
        "AND event_timestamp::date IN ('2012-11-23', '2012-07-10', '2012-12-10') ORDER BY 1"
    )
    closes = [f"{row['event_timestamp']:%m-%d %H:%M}" for row in rows]
    assert closes == ["07-10 20:00", "11-23 18:00", "12-10 21:00"]


def test_adjusted_close_is_no_feature_and_no_price(demo: DemoRun) -> None:
    first = demo.database.fetch("SELECT c FROM candles WHERE symbol = 'AAPL' ORDER BY ts LIMIT 1")
    assert first[0]["c"] == 130.31


def test_conflicting_readings_are_in_quarantine(demo: DemoRun) -> None:
    refused = demo.database.fetch("SELECT rule, count(*) AS n FROM quarantine GROUP BY rule")
    assert refused == [{"rule": "duplicate_key", "n": 6}]


def test_the_last_z_scores_are_numbers(demo: DemoRun) -> None:
    scores = [one["z_score"] for one in demo.result["z_scores"]]
    assert len(scores) == 5
    assert all(math.isfinite(score) and abs(score) < 10 for score in scores)


@pytest.mark.slow
def test_run_twice_same_rows_same_metrics(demo: DemoRun) -> None:
    before = counts(demo)
    again = demo.shell.json("demo", "--report", "again.html")
    assert counts(demo) == before
    assert again["metrics"] == demo.result["metrics"]
    assert again["model_version"] == demo.result["model_version"]
    assert [one["proba"] for one in again["predictions"]] == [
        one["proba"] for one in demo.result["predictions"]
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_stage_and_run_again_it_finishes(tmp_path: Path, demo: DemoRun) -> None:
    home = tmp_path / "home"
    in_demo = shell(tmp_path, home=str(home))
    try:
        for stage in STAGES:
            killed = in_demo.run("python", "-c", _KILLED_IN, stage)
            assert killed.returncode == -signal.SIGKILL, killed.stderr
            assert killed.stdout.split("\n")[-2] == stage
        result = in_demo.json("demo")
        again = DemoRun(in_demo, home, result, tmp_path / "report.html")
        assert result["metrics"] == demo.result["metrics"]
        assert counts(again) == counts(demo)
    finally:
        EmbeddedServers(home).down()


def test_training_rows_do_not_know_later_candles(make_copy: Copier) -> None:
    known = date(2001, 6, 1) + timedelta(days=random.randrange(11 * 365))
    print("known until", known)  # noqa: T201 - to repeat a failure
    app = make_copy()
    rows = app.database.frame(
        "SELECT symbol, event_timestamp FROM features_market_technical_v1 "
        "WHERE event_timestamp < $1 ORDER BY 1, 2",
        (datetime.combine(known, datetime.min.time(), UTC),),
    )
    before = app.feast.historical(rows, "market_direction_v1")
    app.database.execute(
        "UPDATE candles SET o = o * 1.5, h = h * 1.5, l = l * 1.5, c = c * 1.5 WHERE ts >= %s",
        [known],
    )
    assert app.compute_features("market_technical")[0].written > 0
    after = app.feast.historical(rows, "market_direction_v1")
    assert before.height > 500
    assert before.equals(after)


def test_a_corrected_bar_is_served(make_copy: Copier, redis_url: str) -> None:
    app = make_copy(redis_url)
    app.materialize()
    before = app.predictor("market_direction").predict(["IBM"])[0].features
    app.database.execute(
        "UPDATE candles SET c = l, recorded_at = clock_timestamp() "
        "WHERE symbol = 'IBM' AND ts = (SELECT max(ts) FROM candles WHERE symbol = 'IBM')"
    )
    assert app.compute_features("market_technical")[0].written == 1
    app.materialize()
    served = app.predictor("market_direction").predict(["IBM"])[0].features
    offline = _newest(app.database, "IBM")
    assert served != before
    assert served == {name: offline[name] for name in served}
    app.materialize(end=datetime(2012, 1, 1, tzinfo=UTC))
    assert app.predictor("market_direction").predict(["IBM"])[0].features == served, "an older row"


def _newest(database: Database, symbol: str) -> dict[str, Any]:
    return database.fetch(
        "SELECT * FROM features_market_technical_v1 WHERE symbol = %s "
        "ORDER BY event_timestamp DESC, recorded_at DESC LIMIT 1",
        [symbol],
    )[0]


def _bits(value: float | None) -> str | None:
    return None if value is None else float(value).hex()
