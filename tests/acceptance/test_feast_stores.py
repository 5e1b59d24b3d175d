"""Feast's own command line on a repository of a user of ours, who changed three lines of `feature_store.yaml`."""

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from feast import FeatureStore
from feast.data_source import PushMode
from psycopg import conninfo, sql

from acceptance.shell import BIN, Shell, shell
from acceptance.test_feast_commands import ASKED_TOGETHER, _free_port, _wait_for
from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.servers import Endpoints
from hyperfeast.stores.connection import postgres_config, redis_config

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)

# As one writes it for Feast's own stores: nothing here knows of ours.
DEFINITIONS = """
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, PushSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64, Int64

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
source = PostgreSQLSource(
    name="trips", table="driver_trips", timestamp_field="event_timestamp", created_timestamp_column="created"
)
trips = FeatureView(
    name="trips",
    entities=[driver],
    ttl=timedelta(days=30),
    source=PushSource(name="pushed_trips", batch_source=source),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="trips_today", dtype=Int64),
        Field(name="rating", dtype=Float64),
    ],
)
service = FeatureService(name="trips_v1", features=[trips])
"""


@dataclass(frozen=True)
class Repository:
    """The repository, its servers, and what the commands that built it said."""

    folder: Path
    shell: Shell
    database: Database
    redis_url: str
    applied: str = ""
    materialized: str = ""

    def feast(self, *command: str) -> str:
        """Run Feast's command to its end; what it said."""
        ran = self.shell.run("feast", *command, folder=self.folder)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout + ran.stderr

    def asked(self, *commands: list[str]) -> list[str]:
        """What several commands print, from one process: Feast takes seconds to load."""
        asked = ["-c", ASKED_TOGETHER, json.dumps(commands)]
        ran = self.shell.run("python", *asked, folder=self.folder)
        assert ran.returncode == 0, ran.stderr
        said: list[str] = json.loads(ran.stdout.splitlines()[-1])
        return said

    def add(self, *rows: tuple[int, datetime, datetime, int]) -> None:
        """Rows (driver, event, created, trips) into the table behind the view."""
        with self.database.connect() as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO driver_trips VALUES (%s, %s, %s, %s, 4.5)", rows)


@pytest.fixture(scope="module")
def repository(
    endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Repository]:
    """Applied and materialized, up to an hour ago."""
    folder = tmp_path_factory.mktemp("feature_repo")
    admin = Database(endpoints.postgres_dsn)
    name = sql.Identifier("feast_stores")
    with admin.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    database = Database(conninfo.make_conninfo(admin.dsn, dbname="feast_stores"))
    database.execute(
        "CREATE TABLE driver_trips (driver_id bigint, event_timestamp timestamptz, created timestamptz,"
        " trips_today bigint, rating float8, PRIMARY KEY (driver_id, event_timestamp, created))"
    )
    redis_url = endpoints.redis_url.removesuffix("/0") + "/3"
    with cache.connect(redis_url) as client:
        client.flushdb()
    written = {
        "project": "drivers",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {
            "type": "hyperfeast.stores.TimescaleOfflineStore",
            **postgres_config(database.dsn),
        },
        "online_store": {
            "type": "hyperfeast.stores.FastRedisOnlineStore",
            **redis_config(redis_url),
        },
        "batch_engine": {"type": "hyperfeast.stores.ArrowComputeEngine", "workers": 2},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(written))
    (folder / "definitions.py").write_text(DEFINITIONS)
    made = Repository(folder, shell(folder), database, redis_url)
    made.add(*[(driver, NOW - 3 * HOUR, NOW - 3 * HOUR, driver) for driver in range(1, 6)])
    applied = made.feast("apply")
    materialized = made.feast("materialize", *map(_iso, (NOW - 24 * HOUR, NOW - HOUR)))
    yield replace(made, applied=applied, materialized=materialized)
    with admin.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _iso(moment: datetime) -> str:
    return moment.isoformat()


def test_apply_and_materialize_say_what_they_did(repository: Repository) -> None:
    assert "Deploying infrastructure for trips" in repository.applied
    assert "trips: 100%" in repository.materialized


def test_reading_commands(repository: Repository) -> None:
    spine = [{"event_timestamp": _iso(NOW), "driver_id": driver} for driver in (2, 9)]
    features = ["-f", "trips:trips_today", "-f", "trips:rating"]
    plan, online, historical, ranged = repository.asked(
        ["plan"],
        ["get-online-features", "-e", "driver_id=1", "-e", "driver_id=9", *features],
        ["get-historical-features", "-d", json.dumps(spine), *features],
        [
            "get-historical-features",
            "-s",
            f"{NOW - 4 * HOUR:%F %T}",
            "-e",
            f"{NOW:%F %T}",
            *features,
        ],
    )

    assert "No changes" in plan
    assert json.loads(online[online.index("{") :])["trips_today"] == [1, None]
    joined = json.loads(historical[historical.index("[") :])
    assert [(row["driver_id"], row["trips_today"]) for row in joined] == [(2, 2.0), (9, None)]
    assert len(json.loads(ranged[ranged.index("[") :])) == 5


def test_materialize_incremental_brings_late_rows_too(repository: Repository) -> None:
    # Behind the watermark, and recorded after the run that set it.
    repository.add((77, NOW - 2 * HOUR, NOW - HOUR / 2, 770), (3, NOW - HOUR / 4, NOW, 30))
    said = repository.feast("materialize-incremental", _iso(NOW))

    assert "trips" in said
    store = FeatureStore(str(repository.folder))
    answer = store.get_online_features(
        ["trips:trips_today"], [{"driver_id": 77}, {"driver_id": 3}]
    ).to_dict()
    assert answer["trips_today"] == [770, 30]


def test_push_to_both_stores(repository: Repository) -> None:
    store = FeatureStore(str(repository.folder))
    store.push("pushed_trips", pd.DataFrame(_pushed(5, 500)), to=PushMode.ONLINE_AND_OFFLINE)

    answer = store.get_online_features(store.get_feature_service("trips_v1"), [{"driver_id": 5}])
    assert answer.to_dict()["trips_today"] == [500]
    rows = repository.database.fetch("SELECT FROM driver_trips WHERE trips_today = 500")
    assert len(rows) == 1


def test_serve_answers_and_takes_pushes(repository: Repository) -> None:
    port = _free_port()
    with _running(repository, "serve", "--host", "127.0.0.1", "--port", str(port)):
        _wait_for(f"http://127.0.0.1:{port}/health")
        frame = _pushed(4, 400)
        frame |= {name: [_iso(frame[name][0])] for name in ("event_timestamp", "created")}
        body = {"push_source_name": "pushed_trips", "df": frame, "to": "online_and_offline"}
        _post(port, "push", body)
        asked = {"feature_service": "trips_v1", "entities": {"driver_id": [4, 1]}}
        answer = _post(port, "get-online-features", asked)

    names = answer["metadata"]["feature_names"]
    assert answer["results"][names.index("trips_today")]["values"] == [400, 1]
    assert repository.database.fetch("SELECT FROM driver_trips WHERE trips_today = 400")


def test_the_ui_shows_the_project(repository: Repository) -> None:
    port = _free_port()
    with _running(repository, "ui", "--host", "127.0.0.1", "--port", str(port)):
        listed = _wait_for(f"http://127.0.0.1:{port}/projects-list.json")
    assert "drivers" in listed


def test_a_wrong_key_is_said_in_a_line_without_a_secret(
    repository: Repository, tmp_path: Path
) -> None:
    text = (repository.folder / "feature_store.yaml").read_text()
    password = yaml.safe_load(text)["offline_store"]["password"]
    (tmp_path / "feature_store.yaml").write_text(text.replace("workers:", "wrokers:"))
    ran = repository.shell.run("feast", "apply", folder=tmp_path)
    assert ran.returncode != 0
    assert (
        ran.stderr.strip()
        .splitlines()[-1]
        .endswith(
            "batch_engine of feature_store.yaml: there is no key 'wrokers': did you mean 'workers'? "
            "The keys are type, workers"
        )
    )
    assert password not in ran.stdout + ran.stderr


def test_monitor_and_at_last_teardown(repository: Repository) -> None:
    """Last in this file: nothing is left after it."""
    monitored, _ = repository.asked(["monitor", "run"], ["teardown"])
    assert "Status: completed" in monitored
    assert "Feature views computed: 1" in monitored
    with cache.connect(repository.redis_url) as client:
        assert client.dbsize() == 0


def _pushed(driver: int, trips: int) -> dict[str, list[Any]]:
    return {
        "driver_id": [driver],
        "event_timestamp": [NOW + timedelta(minutes=1)],
        "created": [NOW + timedelta(minutes=1)],
        "trips_today": [trips],
        "rating": [5.0],
    }


def _post(port: int, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        said = response.read()
    return json.loads(said) if said else None


@contextmanager
def _running(repository: Repository, *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        [str(BIN / "feast"), *command],
        cwd=repository.folder,
        env=repository.shell.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)
