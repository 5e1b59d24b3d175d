"""`hyperfeast features`: from an empty module to a served version, and to the next one without a gap."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest

from acceptance.shell import ROOT, Shell, shell
from hyperfeast.db import Database, copy_frame
from hyperfeast.features.definitions import recorded
from hyperfeast.stores.feast_store import FeastStore
from market import bars

PRICES = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
DEFINITIONS = """
from feast import FeatureService, Project

from hyperfeast.features.views import entity, feature_view
from pace import pace
{imports}

hyperfeast = Project(name="hyperfeast")
symbol = entity(pace.keys[0])
{views}
pace_service = FeatureService(name="pace_service", features=[{served}])
"""
SECOND = """
from dataclasses import replace

from hyperfeast.features import Feature
from hyperfeast.indicators import ta
from pace import pace

rsi = Feature("rsi_14", "Strength over 21 bars.", ta("RSI", timeperiod=21), bounds=(0, 100))
pace_2 = replace(pace, version=2, features=(rsi, *pace.features[1:]))
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A feature repository with nothing in it."""
    folder = tmp_path / "repo"
    folder.mkdir()
    shutil.copy(ROOT / "feature_repo" / "feature_store.yaml", folder)
    return folder


@pytest.fixture
def command(repo: Path, database: Database, redis_url: str, tmp_path: Path) -> Shell:
    """Commands on that repository and a database with 60 bars of two symbols."""
    prices = bars(60).select("symbol", "ts", *PRICES).rename(PRICES)
    with database.connect() as connection:
        connection.execute("INSERT INTO instruments (symbol) VALUES ('AAA'), ('BBB')")
        copy_frame(connection, "candles", prices.with_columns(tf=pl.lit("1d")))
    found = shell(
        tmp_path,
        postgres_dsn=database.dsn,
        redis_url=redis_url,
        home=str(tmp_path / "home"),
        feature_repo=str(repo),
    )
    return Shell(found.env | {"COLUMNS": "80"}, tmp_path)


@pytest.fixture
def online(command: Shell, repo: Path) -> Iterator[Callable[[], list[float]]]:
    """What is online of the service, as somebody has it who comes anew: one number a symbol."""
    stores: list[FeastStore] = []

    def read() -> list[float]:
        # All are kept to the end: Feast remembers a registry by its place in memory.
        dsn, url = command.env["HYPERFEAST_POSTGRES_DSN"], command.env["HYPERFEAST_REDIS_URL"]
        stores.append(FeastStore(repo, postgres_dsn=dsn, redis_url=url))
        found = stores[-1].online("pace_service", [{"symbol": "AAA"}, {"symbol": "BBB"}])
        values: list[float] = found.values[:, found.features.index("rsi_14")].tolist()
        return values

    yield read
    for one in stores:
        one.close()


def said(answer: "CompletedProcess[str]") -> Any:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def define(repo: Path, *versions: int, served: int) -> None:
    names = {1: "pace", 2: "pace_2"}
    views = [f"pace_v{one} = feature_view({names[one]}, [symbol])" for one in versions]
    (repo / "definitions.py").write_text(
        DEFINITIONS.format(
            imports="from pace_second import pace_2" if 2 in versions else "",
            views="\n".join(views),
            served=f"pace_v{served}",
        )
    )


def test_a_new_set_works_as_it_is_written(
    command: Shell, repo: Path, database: Database, subtests: pytest.Subtests
) -> None:
    (repo / "definitions.py").write_text(
        'from feast import Project\np = Project(name="hyperfeast")\n'
    )
    calls = {
        "nothing": "list --json",
        "new": "new fresh --json",
        "again": "new fresh",
        "taken": "new calendar",
        "tf": "new other --tf 2h",
        "plan": "plan --json",
        "planned": "plan",
        "apply": "apply --json",
        "compute": "compute fresh --json",
        "second": "compute fresh_v1 --json",
        "full": "compute --full --json",
        "list": "list",
        "listed": "list --json",
        "show": "show fresh",
        "shown": "show fresh --json",
        "page": "show fresh --markdown",
        "after": "plan --json",
        "diff": "diff fresh 1 2",
        "equal": "diff fresh 1 1",
        "unknown": "show nothing",
    }
    found = {name: command.hyperfeast("features", *call.split()) for name, call in calls.items()}

    with subtests.test("nothing is there"):
        assert said(found["nothing"]) == []
    with subtests.test("it is written, and not over another one"):
        assert Path(said(found["new"])["path"]) == repo / "fresh.py"
        assert found["again"].returncode == 2
        assert "fresh.py is there already" in found["again"].stderr
        assert "no module can be called 'calendar'" in found["taken"].stderr
        assert "no timeframe '2h'" in found["tf"].stderr
        assert {one.name for one in repo.glob("*.py")} == {"definitions.py", "fresh.py"}
    with subtests.test("the plan says what apply would do"):
        (step,) = said(found["plan"])["feature_sets"]
        assert (step["state"], step["creates_table"], step["rows_to_backfill"]) == (
            "new",
            True,
            120,
        )
        assert "definitions.py has no view of it" in found["planned"].stdout
    with subtests.test("apply does it"):
        assert said(found["apply"])["created"] == ["features_fresh_v1"]
        assert recorded(database)["fresh_v1"].active
    with subtests.test("it is computed, once"):
        rows = {"feature_set": "fresh", "version": 1}
        assert said(found["compute"]) == [rows | {"rows": 120, "written": 120}]
        assert said(found["second"])[0]["written"] == 0
        assert said(found["full"]) == [rows | {"rows": 120, "written": 0}]
    with subtests.test("it is shown"):
        shown = said(found["shown"])
        assert (shown["rows"], shown["on_record"], shown["warm_up"]) == (120, True, 387)
        assert shown["features"][0]["bounds"] == "0 to 100"
        assert said(found["listed"])[0]["state"] == "unchanged"
        assert found["page"].stdout.startswith("# fresh v1\n\nFresh of 1d bars")
    with subtests.test("nothing is left to do"):
        assert [one["state"] for one in said(found["after"])["feature_sets"]] == ["unchanged"]
        assert said(found["after"])["feast"]["changes"] == []
        assert "no feature set fresh v2, declared or on record: there is v1" in found["diff"].stderr
        assert found["equal"].stdout == "fresh v1 and v1 compute the same\n"
        assert found["unknown"].returncode == 2
        assert "it declares fresh_v1" in found["unknown"].stderr
    for name in ("planned", "list", "show"):
        with subtests.test(f"{name} keeps to 80 columns"):
            tables = [one for one in found[name].stdout.splitlines() if one.startswith(" ")]
            assert max(map(len, tables)) <= 80


@pytest.mark.slow
def test_the_next_version_takes_over_without_a_gap(
    command: Shell,
    repo: Path,
    database: Database,
    online: Callable[[], list[float]],
    subtests: pytest.Subtests,
) -> None:
    said(command.hyperfeast("features", "new", "pace", "--json"))
    define(repo, 1, served=1)
    for one in ("features apply", "features compute", "materialize"):
        answer = command.hyperfeast(*one.split())
        assert answer.returncode == 0, answer.stderr
    before = online()

    with subtests.test("a rule that changed under its version is refused, and nothing is computed"):
        text = (repo / "pace.py").read_text()
        (repo / "pace.py").write_text(text.replace("timeperiod=14", "timeperiod=21"))
        for one in ("apply", "compute pace"):
            answer = command.hyperfeast("features", *one.split())
            assert answer.returncode == 1
            told = answer.stdout + answer.stderr
            assert "timeperiod=14), and declared as RSI(close, timeperiod=21)" in told
        worker = command.hyperfeast("worker", "--once")
        assert worker.returncode == 1
        assert "and declared as RSI(close, timeperiod=21)" in worker.stderr
        (repo / "pace.py").write_text(text)

    (repo / "pace_second.py").write_text(SECOND)
    define(repo, 2, served=2)
    with subtests.test("a service is not cut off from what it reads"):
        refused = command.hyperfeast("features", "apply")
        assert refused.returncode == 1
        assert "pace_service reads pace_v1 until another view takes its place" in refused.stderr
        assert online() == before

    define(repo, 1, 2, served=2)
    with subtests.test("it is online before it is served"):
        plan, applied, diff = (
            command.hyperfeast("features", *one.split(), "--json")
            for one in ("plan", "apply", "diff pace 1 2")
        )
        assert said(plan)["feast"]["awaited"] == ["pace_v2"]
        assert said(applied)["backfilled"] == ["pace_v2"]
        assert said(diff) == [
            {
                "what": "rsi_14",
                "before": "RSI(close, timeperiod=14), float64",
                "after": "RSI(close, timeperiod=21), float64",
            }
        ]
        now = online()
        assert not any(map(math.isnan, now))
        assert now != before

    with subtests.test("the old one retires, and its rows stay"):
        (repo / "pace_second.py").unlink()
        (repo / "pace.py").write_text(
            text.replace("timeperiod=14", "timeperiod=21").replace("version=1", "version=2")
        )
        (repo / "definitions.py").write_text(
            DEFINITIONS.format(
                imports="", views="pace_v2 = feature_view(pace, [symbol])", served="pace_v2"
            )
        )
        applied = command.hyperfeast("features", "apply", "--json")
        assert said(applied)["retired"] == ["pace_v1"]
        assert said(applied)["applied"] == ["pace_v2", "pace_service"]
        count = "SELECT count(*) AS n FROM features_pace_v1"
        assert database.fetch(count) == [{"n": 120}]
        assert not recorded(database)["pace_v1"].active
        assert online() == now
