"""What does not fit into memory goes through files, and gives the same answer."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from feast_repos import repo
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import ServerError
from hyperfeast.stores.offline import blocks, connection, parts, reading
from hyperfeast.stores.offline.answers import Held

_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_FEATURES = ["a", "b", "c", "d"]
_ENTITY = Entity(name="symbol", value_type=ValueType.STRING)


@pytest.fixture
def rows(empty_database: Database) -> Database:
    """200,000 rows of 100 entities, four features each, the last a text."""
    count = 150_000
    random = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "symbol": [f"S{number % 100}" for number in range(count)],
            "ts": [_FIRST + timedelta(minutes=number // 100) for number in range(count)],
            "recorded": [_FIRST + timedelta(minutes=number // 100) for number in range(count)],
            **{name: random.random(count) for name in _FEATURES[:3]},
            "d": [f"text {number}" for number in range(count)],
        }
    )
    with empty_database.connect() as opened:
        opened.execute(
            "CREATE TABLE rows (symbol text, ts timestamptz, recorded timestamptz,"
            " a float8, b float8, c float8, d text)"
        )
        copy_frame(opened, "rows", frame)
    return empty_database


def _views() -> list[FeatureView]:
    source = PostgreSQLSource(
        name="rows", table="rows", timestamp_field="ts", created_timestamp_column="recorded"
    )
    types = {**dict.fromkeys(_FEATURES, Float64), "d": String}
    return [
        FeatureView(
            name=name,
            entities=[_ENTITY],
            ttl=ttl,
            schema=[Field(name="symbol", dtype=String)]
            + [Field(name=feature, dtype=types[feature]) for feature in _FEATURES],
            source=source,
        )
        for name, ttl in (("with_ttl", timedelta(minutes=3)), ("for_ever", timedelta(0)))
    ]


def _spine(count: int = 150_000) -> pa.Table:
    """Out of order: some of no entity, some of an unknown one, some without a moment, some before all rows."""
    random = np.random.default_rng(11)
    number = random.integers(-2, 102, count)
    symbols = [None if own < 0 else f"S{own}" for own in number]
    moments = _FIRST.timestamp() * 1e6 + random.integers(-(10**8), 13 * 10**10, count)
    return pa.table(
        {
            "number": np.arange(count),
            "symbol": symbols,
            "event_timestamp": pa.array(
                moments.astype(np.int64),
                pa.timestamp("us", "UTC"),
                mask=random.random(count) < 0.01,
            ),
        }
    )


def _ask(folder: Path, database: Database, spine: object, **options: object) -> pa.Table:
    store = repo(folder, database.dsn, offline_options=options)
    store.apply([_ENTITY, *_views()])
    features = [f"{view.name}:{feature}" for view in _views() for feature in _FEATURES]
    job = store.get_historical_features(spine, features, full_feature_names=True)
    return job.to_arrow_reader().read_all()


def test_files_give_what_memory_gives(
    rows: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spine = _spine()
    whole = _ask(tmp_path / "1", rows, spine, strategy="merge")
    spilled: list[int] = []
    original = parts.spilled

    def noted(*arguments: Any, **options: Any) -> object:
        spilled.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(parts, "spilled", noted)
    assert _ask(tmp_path / "2", rows, spine, strategy="merge", memory_limit_mb=16).equals(whole)
    assert spilled
    assert whole.num_rows == 150_000
    assert 0 < whole.column("with_ttl__a").null_count < whole.num_rows


@pytest.mark.slow
def test_a_spine_in_blocks_gives_what_a_whole_one_gives(
    rows: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spine = _spine(5_000)
    whole = _ask(tmp_path / "1", rows, spine, strategy="merge")
    monkeypatch.setattr(reading, "BATCH_ROWS", 700)
    monkeypatch.setattr(blocks, "BATCH_ROWS", 700)
    monkeypatch.setattr(blocks, "_ROW_BYTES", 16 * 2**20 // 4 // 700)
    in_blocks = _ask(tmp_path / "2", rows, spine, strategy="merge", memory_limit_mb=16)
    assert in_blocks.equals(whole)
    lookups = _ask(tmp_path / "3", rows, spine.slice(0, 900), strategy="lookup", memory_limit_mb=16)
    assert lookups.equals(whole.slice(0, 900))


def test_the_result_of_a_spines_query_waits_in_a_file(rows: Database, tmp_path: Path) -> None:
    query = "SELECT symbol, ts + interval '30 seconds' AS event_timestamp, d AS label FROM rows ORDER BY d"
    whole = _ask(tmp_path / "1", rows, query)
    small = _ask(tmp_path / "2", rows, query, memory_limit_mb=16)
    assert small.equals(whole)
    assert whole.num_rows == 150_000
    assert whole.column("label").to_pylist() == whole.column("with_ttl__d").to_pylist()


def test_lookups_wait_in_a_file(
    rows: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rows.connect() as opened:
        opened.execute("CREATE INDEX ON rows (symbol, ts DESC)")
    spine = _spine(4_000)
    whole = _ask(tmp_path / "1", rows, spine, strategy="lookup")
    monkeypatch.setattr(reading.Reading, "_limit", property(lambda _: 1_000))
    assert _ask(tmp_path / "2", rows, spine, strategy="lookup").equals(whole)


def test_many_views_that_are_small_each_stay_within_the_memory(
    empty_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty answers of about 12,000 bytes, each less than a sixteenth of the limit."""
    empty_database.execute("CREATE TABLE few (symbol text, ts timestamptz, a float8)")
    empty_database.execute(
        "INSERT INTO few SELECT 'S' || i, %s, i FROM generate_series(1, 300) i", (_FIRST,)
    )
    views = [
        FeatureView(
            name=f"view_{number}",
            entities=[_ENTITY],
            ttl=timedelta(0),
            schema=[Field(name="symbol", dtype=String), Field(name="a", dtype=Float64)],
            source=PostgreSQLSource(name=f"few_{number}", table="few", timestamp_field="ts"),
        )
        for number in range(20)
    ]
    store = repo(tmp_path, empty_database.dsn, offline_options={"strategy": "merge"})
    store.apply([_ENTITY, *views])
    spine = pa.table(
        {
            "symbol": [f"S{number % 310}" for number in range(1_000)],
            "event_timestamp": pa.array([_FIRST] * 1_000, pa.timestamp("us", "UTC")),
        }
    )
    job = store.get_historical_features(
        spine, [f"{view.name}:a" for view in views], full_feature_names=True
    )
    limit = 240_000
    monkeypatch.setattr(reading.Reading, "_limit", property(lambda _: limit))
    with reading.Reading(store.config.offline_store, job._request) as run, ExitStack() as files:
        (block,) = run._spine.blocks()
        found = [answer for _, answer in run._answers(block, files, keep=True)]
        held = [answer.held_bytes for answer in found if isinstance(answer, Held)]
        assert 5 < len(held) < 20
        assert max(held) < limit / 16
        assert sum(held) <= limit / 2
    expected = [float(number % 310) if 0 < number % 310 <= 300 else None for number in range(1_000)]
    answer = job.to_arrow_reader().read_all()
    for view in views:
        assert answer.column(f"{view.name}__a").to_pylist() == expected


def test_a_stream_can_be_left_early(rows: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, rows.dsn, offline_options={"strategy": "merge"})
    store.apply([_ENTITY, *_views()])
    with store.get_historical_features(_spine(), ["with_ttl:a"]).to_arrow_reader() as reader:
        assert reader.schema.names == ["number", "symbol", "event_timestamp", "a"]
        assert reader.read_next_batch().num_rows == reading.BATCH_ROWS


@pytest.fixture
def no_files_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("no_files_left")
def test_a_server_that_is_gone_leaves_no_files(rows: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, rows.dsn, offline_options={"strategy": "merge", "memory_limit_mb": 16})
    store.apply([_ENTITY, *_views()])
    job = store.get_historical_features(_spine(), [f"for_ever:{name}" for name in _FEATURES])
    with reading.Reading(store.config.offline_store, job._request) as run:
        with connection.connection(store.config.offline_store) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        with pytest.raises(ServerError):
            list(run.batches())
