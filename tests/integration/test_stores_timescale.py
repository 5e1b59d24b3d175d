"""Point-in-time joins over a hypertable of TimescaleDB Community, some of its chunks compressed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, Int64

from feast_repos import repo
from hyperfeast.db import Database
from timescale.fixtures import fresh_community

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAYS, KEYS = 40, 5
TTL = timedelta(days=3)
_DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def readings() -> Iterator[Database]:
    """A row a key and day, but for every fourth day of key 2; the even days were corrected once."""
    with fresh_community() as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        database.execute(
            "CREATE TABLE readings (k bigint NOT NULL, ts timestamptz NOT NULL, at timestamptz NOT NULL, "
            "value double precision)"
        )
        database.execute("SELECT create_hypertable('readings', by_range('ts', interval '7 days'))")
        database.execute("CREATE INDEX ON readings (k, ts DESC, at DESC)")
        database.execute(
            "INSERT INTO readings SELECT k, %(first)s + day * interval '1 day', "
            "%(first)s + (day + revision) * interval '1 day', 100 * k + day + revision / 2.0 "
            "FROM generate_series(0, %(keys)s - 1) AS k, generate_series(0, %(days)s - 1) AS day, "
            "generate_series(0, 1) AS revision "
            "WHERE NOT (k = 2 AND day %% 4 = 0) AND (revision = 0 OR day %% 2 = 0)",
            {"first": FIRST, "keys": KEYS, "days": DAYS},
        )
        database.execute(
            "ALTER TABLE readings SET (timescaledb.compress, timescaledb.compress_segmentby = 'k', "
            "timescaledb.compress_orderby = 'ts DESC')"
        )
        database.execute(
            "SELECT compress_chunk(show_chunks('readings', older_than => '2024-01-20'::timestamptz))"
        )
        yield database


@pytest.mark.parametrize("strategy", ["lookup", "merge"])
def test_a_hypertable_with_compressed_chunks(
    readings: Database, tmp_path: Path, strategy: str
) -> None:
    store = repo(tmp_path, readings.dsn, offline_options={"strategy": strategy})
    store.apply([KEY, VIEW])
    spine = pl.DataFrame(
        [
            {"k": key, "event_timestamp": FIRST + day * _DAY + timedelta(hours=12)}
            for day in range(-1, DAYS + 5)
            for key in range(KEYS + 1)
        ]
    )
    job = store.get_historical_features(spine, ["readings:value"])
    found = pl.DataFrame(pl.from_arrow(job.to_arrow()))

    assert f"{strategy}" in job.explain()
    assert found["value"].to_list() == [
        _value(key, at) for key, at in spine.select("k", "event_timestamp").iter_rows()
    ]


KEY = Entity(name="k", join_keys=["k"], value_type=ValueType.INT64)
VIEW = FeatureView(
    name="readings",
    entities=[KEY],
    ttl=TTL,
    schema=[Field(name="k", dtype=Int64), Field(name="value", dtype=Float64)],
    source=PostgreSQLSource(
        name="readings", table="readings", timestamp_field="ts", created_timestamp_column="at"
    ),
)


def _value(key: int, at: datetime) -> float | None:
    """The newest revision of the newest day within the TTL, by hand."""
    for day in range((at - FIRST) // _DAY, -1, -1):
        if FIRST + day * _DAY < at - TTL or key >= KEYS:
            return None
        if day < DAYS and not (key == 2 and day % 4 == 0):
            return 100 * key + day + (0.5 if day % 2 == 0 else 0)
    return None
