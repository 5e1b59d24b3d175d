"""Ctrl-C while the server works: the process ends at once, and so does the statement."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyperfeast.db import Database

_SCRIPT = """
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource
from feast.types import Float64, Int64

sys.path.insert(0, "{tests}")
from feast_repos import repo

# Whoever was started by a shell's & ignores it, and his children do.
signal.signal(signal.SIGINT, signal.default_int_handler)
at = datetime(2024, 3, 1, tzinfo=UTC)
entity = Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)
slow = PostgreSQLSource(
    name="slow",
    query="SELECT * FROM things WHERE pg_sleep(60) IS NOT NULL",
    timestamp_field="ts",
)
view = FeatureView(
    name="slow",
    entities=[entity],
    schema=[Field(name="k", dtype=Int64), Field(name="v", dtype=Float64)],
    source=slow,
)
way = "{way}"
store = repo(
    Path("{folder}"), "{dsn}", offline_options={{"strategy": way}} if way != "latest" else None
)
store.apply([entity, view])
spine = pd.DataFrame({{"k": [1], "event_timestamp": [at]}})
try:
    if way == "latest":
        offline = store._get_provider().offline_store
        offline.pull_latest_from_table_or_query(
            store.config, slow, ["k"], ["v"], "ts", None, at, at
        ).to_arrow()
    else:
        store.get_historical_features(spine, ["slow:v"]).to_arrow()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["lookup", "merge", "latest"])
def test_an_interrupt_ends_a_slow_read(empty_database: Database, tmp_path: Path, way: str) -> None:
    empty_database.execute(
        "CREATE TABLE things AS SELECT 1::int8 AS k, '2024-03-01'::timestamptz AS ts, 1::float8 AS v"
    )
    script = tmp_path / "slow.py"
    script.write_text(
        _SCRIPT.format(
            tests=Path(__file__).parents[1], folder=tmp_path, dsn=empty_database.dsn, way=way
        ),
        encoding="utf-8",
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _wait(lambda: _sleeping(empty_database) == 1, 60)
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            said, complaint = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - started < 10
    assert said.splitlines() == ["interrupted"], complaint
    _wait(lambda: _sleeping(empty_database) == 0, 2)


def _sleeping(database: Database) -> int:
    """How many connections wait for the slow source."""
    return len(
        database.fetch(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND wait_event = 'PgSleep'"
        )
    )


def _wait(happened: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
