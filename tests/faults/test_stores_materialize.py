"""Bringing views online while Redis is frozen, killed, emptied or full, and while we are killed ourselves.

After each fault the same command again leaves Redis with the newest row of every entity, no more and
no less, and until then nobody is told that it is there: the watermark stays, a missing value is none.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, ValueType
from feast.infra.common.materialization_job import MaterializationJob, MaterializationTask
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, Int64, String
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as NotThere
from redis.retry import Retry
from tqdm import tqdm

from feast_repos import repo
from hyperfeast.db import Database
from hyperfeast.errors import ServerError, ServerUnreachable
from hyperfeast.servers.binaries import valkey_binary
from hyperfeast.servers.ports import free_port

ENTITIES = 20_000
TIMEOUT_S = 1
NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
KEY = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
VIEW = FeatureView(
    name="things",
    entities=[KEY],
    ttl=timedelta(days=365),
    source=PostgreSQLSource(
        table="things", timestamp_field="ts", created_timestamp_column="created"
    ),
    schema=[
        Field(name="k", dtype=String),
        Field(name="v", dtype=Float64),
        Field(name="n", dtype=Int64),
    ],
)


class OwnRedis:
    """A Redis that keeps nothing when it dies, and may be done anything to."""

    def __init__(self) -> None:
        self.port = free_port(None)
        # While it starts it is asked anew at once, and not after a second and more.
        self.client: redis.Redis[bytes] = redis.Redis(
            port=self.port, socket_timeout=60, retry=Retry(ConstantBackoff(0.02), 3)
        )
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            str(valkey_binary()),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(600):
            try:
                self.client.ping()
            except NotThere:
                time.sleep(0.05)
            else:
                return
        raise AssertionError("Redis does not come up")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis() -> Iterator[OwnRedis]:
    server = OwnRedis()
    yield server
    server.client.close()
    server.kill()


@pytest.fixture
def store(empty_database: Database, own_redis: OwnRedis, tmp_path: Path) -> FeatureStore:
    """A view of many entities, with three events each, on a Redis of its own."""
    empty_database.execute(
        "CREATE TABLE things (k text, ts timestamptz, created timestamptz, v float8, n bigint)"
    )
    empty_database.execute(
        "INSERT INTO things SELECT 'e' || e, %s - h * interval '1 hour', %s - h * interval '1 hour',"
        " e + h / 10.0, nullif(e, 7) FROM generate_series(1, %s) AS e, generate_series(1, 3) AS h",
        (NOW, NOW, ENTITIES),
    )
    made = connected(tmp_path, empty_database.dsn, own_redis.url)
    made.apply([KEY, VIEW])
    return made


def connected(folder: Path, dsn: str, url: str) -> FeatureStore:
    options = {"socket_timeout": TIMEOUT_S, "retries": 1}
    return repo(folder, dsn, url, engine="ours", online_options=options)


def bring(store: FeatureStore, on_progress: Callable[[], Any] | None = None) -> MaterializationJob:
    """One run of the engine up to now, with something done as soon as the first rows are dealt with."""

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            nonlocal on_progress
            if on_progress:
                fault, on_progress = on_progress, None
                fault()
            return super().update(n)

    view = store.get_feature_view("things")
    task = MaterializationTask(
        project=store.project,
        feature_view=view,
        start_time=view.most_recent_end_time or NOW - 100 * HOUR,
        end_time=NOW,
        tqdm_builder=lambda total: Bar(total=total, file=StringIO()),
    )
    (job,) = store._get_provider().batch_engine.materialize(store.registry, [task])
    return job


def watermark(store: FeatureStore) -> datetime | None:
    store.refresh_registry()
    end: datetime | None = store.get_feature_view("things").most_recent_end_time
    return end


def served(store: FeatureStore) -> dict[str, tuple[float | None, int | None]]:
    """What every entity is answered."""
    keys = [f"e{number}" for number in range(1, ENTITIES + 1)]
    rows: dict[str, tuple[float | None, int | None]] = {}
    for start in range(0, ENTITIES, 5000):
        some = keys[start : start + 5000]
        answer = store.get_online_features(
            ["things:v", "things:n"], [{"k": key} for key in some]
        ).to_dict()
        rows |= dict(zip(some, zip(answer["v"], answer["n"], strict=True), strict=True))
    return rows


def truth(database: Database) -> dict[str, tuple[float, int | None]]:
    newest = database.fetch(
        "SELECT DISTINCT ON (k) k, v, n FROM things ORDER BY k, ts DESC, created DESC"
    )
    return {row["k"]: (row["v"], row["n"]) for row in newest}


def test_the_control_no_fault_and_all_is_there(
    store: FeatureStore, empty_database: Database
) -> None:
    assert bring(store).error() is None
    assert watermark(store) == NOW
    assert served(store) == truth(empty_database)


@pytest.mark.parametrize("under_way", [False, True], ids=["before", "half-way"])
def test_m1_redis_is_frozen(
    store: FeatureStore, own_redis: OwnRedis, empty_database: Database, *, under_way: bool
) -> None:
    started = time.monotonic()
    if under_way:
        job = bring(store, own_redis.freeze)
    else:
        own_redis.freeze()
        job = bring(store)
    took = time.monotonic() - started
    own_redis.thaw()

    assert isinstance(job.error(), ServerUnreachable)
    assert job.should_be_retried()
    assert "feature view things was not brought online" in str(job.error())
    assert took < 30 * TIMEOUT_S
    assert watermark(store) is None
    assert bring(store).error() is None
    assert served(store) == truth(empty_database)


def test_m2_redis_is_killed_and_back_empty(
    store: FeatureStore,
    own_redis: OwnRedis,
    empty_database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert bring(store).error() is None
    own_redis.kill()
    own_redis.start()

    assert own_redis.client.dbsize() == 0
    assert set(served(store).values()) == {(None, None)}
    # The registry says that all is there: Feast asks for nothing older than its watermark.
    store.materialize_incremental(NOW + HOUR)
    assert served(store) == truth(empty_database)
    assert "feature view things: Redis lacks what the registry says" in caplog.text


def test_m2_redis_is_emptied_while_it_is_written_to(
    store: FeatureStore, own_redis: OwnRedis, empty_database: Database
) -> None:
    job = bring(store, own_redis.client.flushall)

    assert "Redis was emptied while it was written to" in str(job.error())
    assert 0 < own_redis.client.dbsize() < ENTITIES
    assert watermark(store) is None
    assert bring(store).error() is None
    assert served(store) == truth(empty_database)


def test_m2_redis_is_killed_half_way_and_back_empty_at_once(
    store: FeatureStore, own_redis: OwnRedis, empty_database: Database
) -> None:
    def kill_and_start() -> None:
        own_redis.kill()
        own_redis.start()

    job = bring(store, kill_and_start)
    assert isinstance(job.error(), ServerUnreachable)
    assert watermark(store) is None
    assert bring(store).error() is None
    assert served(store) == truth(empty_database)


def test_m3_redis_is_full_half_way(
    store: FeatureStore, own_redis: OwnRedis, empty_database: Database
) -> None:
    # What is there already is older: no entity may be left between the two.
    older = NOW - 2 * HOUR
    store.materialize(NOW - 100 * HOUR, older)
    before = served(store)
    client = own_redis.client
    client.config_set("maxmemory-policy", "noeviction")

    def fill() -> None:
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 1)

    job = bring(store, fill)

    assert isinstance(job.error(), ServerError)
    assert "Redis is full" in str(job.error())
    assert watermark(store) == older
    client.config_set("maxmemory", 0)
    now, newest = served(store), truth(empty_database)
    assert all(now[key] in (before[key], newest[key]) for key in newest)
    assert now != newest
    assert bring(store).error() is None
    assert served(store) == newest


_KILLED_BEFORE_THE_WATERMARK = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from faults.test_stores_materialize import bring, connected
store = connected(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
store.registry.apply_materialization = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
bring(store)
"""


def test_m7_killed_after_the_rows_and_before_the_watermark(
    store: FeatureStore, own_redis: OwnRedis, empty_database: Database, tmp_path: Path
) -> None:
    arguments = [str(Path(__file__).parents[1]), str(tmp_path), empty_database.dsn, own_redis.url]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_BEFORE_THE_WATERMARK, *arguments], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert served(store) == truth(empty_database)
    assert watermark(store) is None

    assert bring(store).error() is None
    assert watermark(store) == NOW
    assert served(store) == truth(empty_database)


def test_late_rows_and_corrections_behind_the_watermark(
    store: FeatureStore, empty_database: Database
) -> None:
    assert bring(store).error() is None
    empty_database.execute(
        "INSERT INTO things SELECT k, ts, %s, v + 1000, n FROM things WHERE ts = %s - interval '1 hour'"
        " AND hashtext(k) > 0 UNION ALL SELECT 'e' || e, %s - interval '30 minutes', %s, -1, 0"
        " FROM generate_series(1, 50) AS e",
        (NOW + HOUR / 2, NOW, NOW, NOW + HOUR / 2),
    )
    assert served(store) != truth(empty_database)
    store.materialize_incremental(NOW + HOUR)
    assert served(store) == truth(empty_database)
