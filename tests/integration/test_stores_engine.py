"""The engine: what it brings online is what Feast's own engine does, faster, and what that loses besides."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import prometheus_client
import pytest
import redis
from feast import BatchFeatureView, Entity, FeatureStore, FeatureView, Field, ValueType
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from redis.crc import key_slot
from tqdm import tqdm

from feast_repos import PROJECT, repo
from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, HyperfeastError, ServerUnreachable, UsageError
from hyperfeast.stores.markers import Markers
from hyperfeast.stores.online.reading import reader_of

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
KEY = Entity(name="k", join_keys=["k"], value_type=ValueType.STRING)
NUMBER = Entity(name="n", join_keys=["n"], value_type=ValueType.INT64)

# How the log begins to say that a view is read again.
_LOST = "Redis lacks what the registry says"

Make = Callable[..., FeatureStore]


@pytest.fixture
def make(empty_database: Database, redis_url: str, tmp_path: Path) -> Make:
    """A Feast store with our three plugins, or with others where asked."""

    def made(**options: Any) -> FeatureStore:
        return repo(tmp_path, empty_database.dsn, redis_url, **{"engine": "ours", **options})

    return made


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis[bytes]"]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def view(name: str, table: str | None = None, **options: Any) -> FeatureView:
    """A view `name` over a table of its name, with a feature `v`."""
    source = PostgreSQLSource(
        name=f"{name}_source",
        table=table or name,
        timestamp_field="ts",
        created_timestamp_column="created",
    )
    schema = [Field(name="k", dtype=String), Field(name="v", dtype=Float64)]
    given = {"entities": [KEY], "ttl": timedelta(days=100), "source": source, "schema": schema}
    return FeatureView(name=name, **{**given, **options})


def fill(database: Database, table: str, *rows: tuple[str, datetime, datetime, float]) -> None:
    """Rows (key, event, created, value) into a table, which is made if it is not there."""
    database.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (k text, ts timestamptz, created timestamptz, v float8)"
    )
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", rows)


def served(store: FeatureStore, name: str, *keys: str) -> list[float | None]:
    """What the online store answers for the feature `v`."""
    response = store.get_online_features([f"{name}:v"], [{"k": key} for key in keys])
    return list(response.to_dict()["v"])


def watermark(store: FeatureStore, name: str) -> datetime | None:
    end: datetime | None = store.get_feature_view(name).most_recent_end_time
    return end


def contents(url: str) -> dict[bytes, dict[bytes, bytes]]:
    """All hashes in Redis but our own markers, without the field that only we write."""
    with redis.Redis.from_url(url) as client:
        return {
            key: {f: v for f, v in client.hgetall(key).items() if not f.startswith(b"_rec:")}
            for key in client.scan_iter()
            if not key.startswith(b"hyperfeast:")
        }


def test_redis_holds_byte_for_byte_what_feasts_own_engine_and_stores_bring(
    make: Make, empty_database: Database, redis_url: str, tmp_path: Path
) -> None:
    empty_database.execute(
        'CREATE TABLE wide (k text, n bigint, ts timestamptz, "A" int, b bigint, c real, d float8,'
        " raw boolean, f text, g timestamptz, h float8[], i text[], j int[])"
    )
    empty_database.execute(
        "INSERT INTO wide SELECT 'k' || mod(i, 7), mod(i, 11), %s - i * interval '1 minute', i,"
        " i::bigint << 33, i / 3.0, nullif(i, 5) / 7.0, mod(i, 2) = 0, nullif('t' || i, 't9'), %s,"
        " ARRAY[i, 0.5], ARRAY['x', i::text], '{1,2}'"
        " FROM generate_series(0, 299) i",
        (NOW, NOW),
    )
    wide = FeatureView(
        name="wide",
        entities=[KEY, NUMBER],
        ttl=timedelta(days=10),
        source=PostgreSQLSource(
            name="w", table="wide", timestamp_field="ts", field_mapping={"raw": "flag"}
        ),
        schema=[
            Field(name="k", dtype=String),
            Field(name="n", dtype=Int64),
            Field(name="A", dtype=Int32),
            Field(name="b", dtype=Int64),
            Field(name="c", dtype=Float32),
            Field(name="d", dtype=Float64),
            Field(name="flag", dtype=Bool),
            Field(name="f", dtype=String),
            Field(name="g", dtype=UnixTimestamp),
            Field(name="h", dtype=Array(Float64)),
            Field(name="i", dtype=Array(String)),
            Field(name="j", dtype=Array(Int32)),
        ],
    )
    other_url = redis_url.removesuffix("/0") + "/1"
    with cache.connect(other_url) as other:
        other.flushdb()
    (tmp_path / "stock").mkdir()
    stock = repo(tmp_path / "stock", empty_database.dsn, other_url, offline="stock", online="stock")
    ours = make()
    for store in (stock, ours):
        store.apply([KEY, NUMBER, wide])
        store.materialize(NOW - HOUR * 24, NOW + HOUR)

    assert contents(redis_url) == contents(other_url)
    assert len(contents(redis_url)) == 77
    assert watermark(ours, "wide") == watermark(stock, "wide")


def test_a_late_row_behind_the_watermark_is_served_after_materialize_incremental(
    make: Make, empty_database: Database
) -> None:
    """Feast's own store never reads it: its event lies before the run that began at the watermark."""
    fill(empty_database, "late", ("a", NOW - 3 * HOUR, NOW - 3 * HOUR, 1.0))
    store = make()
    store.apply([KEY, view("late")])
    store.materialize_incremental(NOW - HOUR)
    assert served(store, "late", "a", "b") == [1.0, None]

    # Both events lie behind the watermark; b has none newer, and a's is a correction of the same event.
    fill(
        empty_database,
        "late",
        ("b", NOW - 2 * HOUR, NOW, 2.0),
        ("a", NOW - 3 * HOUR, NOW, 1.5),
    )
    stock = make(offline="stock", engine="stock")
    stock.materialize_incremental(NOW - HOUR / 2)
    assert served(store, "late", "a", "b") == [1.0, None]
    store.refresh_registry()
    store.materialize_incremental(NOW + HOUR / 2)
    assert served(store, "late", "a", "b") == [1.5, 2.0]


def test_feasts_own_engine_reads_late_rows_from_our_store_too(
    make: Make, empty_database: Database
) -> None:
    fill(empty_database, "late", ("a", NOW - 3 * HOUR, NOW - 3 * HOUR, 1.0))
    store = make(engine="stock")
    store.apply([KEY, view("late")])
    store.materialize_incremental(NOW - HOUR)
    fill(empty_database, "late", ("b", NOW - 2 * HOUR, NOW, 2.0))
    store.materialize_incremental(NOW + HOUR)
    assert served(store, "late", "a", "b") == [1.0, 2.0]


def test_rows_are_not_written_back_to_the_table_that_they_come_from(
    make: Make, empty_database: Database
) -> None:
    """Feast's engine does, for a view with offline=True: each run would double the history."""
    fill(empty_database, "things", ("a", NOW - HOUR, NOW, 1.0))
    store = make()
    store.apply([KEY, view("things", offline=True)])
    store.materialize_incremental(NOW)
    assert served(store, "things", "a") == [1.0]
    assert len(empty_database.fetch("SELECT FROM things")) == 1


def test_a_view_that_fails_stops_no_other_and_is_named_with_its_remedy(
    make: Make, empty_database: Database
) -> None:
    fill(empty_database, "good", ("a", NOW - HOUR, NOW - HOUR, 1.0))
    fill(empty_database, "other", ("a", NOW - HOUR, NOW - HOUR, 2.0))
    fill(empty_database, "bad", ("a", NOW - HOUR, NOW - HOUR, 3.0))
    store = make()
    store.apply([KEY, view("bad"), view("good"), view("other")])
    empty_database.execute("ALTER TABLE bad RENAME COLUMN v TO w")

    with pytest.raises(
        FeatureError,
        match=r"feature view bad was not brought .*no column v.*apply.*Correct that, then run it again",
    ):
        store.materialize_incremental(NOW)
    store.refresh_registry()
    assert [watermark(store, name) for name in ("good", "other", "bad")] == [NOW, NOW, None]
    assert served(store, "good", "a") == [1.0]

    empty_database.execute("ALTER TABLE other RENAME COLUMN v TO w")
    with pytest.raises(FeatureError, match=r"2 of 3 feature views failed: .*bad.*; .*other"):
        store.materialize_incremental(NOW + HOUR)
    for table in ("bad", "other"):
        empty_database.execute(f"ALTER TABLE {table} RENAME COLUMN w TO v")
    store.materialize_incremental(NOW + 2 * HOUR)
    store.refresh_registry()
    assert served(store, "bad", "a") == [3.0]
    # What had been finished is not repeated: the failed run was not part of it.
    ranges = {
        name: store.get_feature_view(name).materialization_intervals for name in ("good", "other")
    }
    assert ranges["good"][-1] == (NOW + HOUR, NOW + 2 * HOUR)
    assert ranges["other"][-1] == (NOW, NOW + 2 * HOUR)


def test_times_that_are_texts_are_named_with_their_remedy(
    make: Make, empty_database: Database
) -> None:
    fill(empty_database, "things", ("a", NOW - HOUR, NOW - HOUR, 1.0))
    store = make()
    store.apply([KEY, view("things")])
    empty_database.execute("ALTER TABLE things ALTER COLUMN ts TYPE text")
    with pytest.raises(
        FeatureError, match=r"feature view things .*a time in its column 'ts' .*found text: make it"
    ):
        store.materialize_incremental(NOW)


def test_a_redis_that_came_back_empty_is_noticed_and_refilled(
    make: Make,
    empty_database: Database,
    redis_client: "redis.Redis[bytes]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(empty_database, "things", ("a", NOW - 9 * HOUR, NOW - 9 * HOUR, 1.0))
    store = make()
    store.apply([KEY, view("things"), view("idle", "things")])
    store.materialize(NOW - 10 * HOUR, NOW - 5 * HOUR, feature_views=["things"])
    assert served(store, "things", "a") == [1.0]
    assert _LOST not in caplog.text

    redis_client.flushall()
    assert served(store, "things", "a") == [None]
    store.materialize_incremental(NOW)
    assert served(store, "things", "a") == [1.0]
    assert caplog.text.count(_LOST) == 1
    assert f"feature view things: {_LOST}" in caplog.text
    store.materialize_incremental(NOW + HOUR)
    assert caplog.text.count(_LOST) == 1


def test_a_redis_that_came_back_from_an_older_copy_is_noticed_and_caught_up(
    make: Make,
    empty_database: Database,
    redis_client: "redis.Redis[bytes]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(empty_database, "things", ("a", NOW - 9 * HOUR, NOW - 9 * HOUR, 1.0))
    store = make()
    store.apply([KEY, view("things")])
    store.materialize(NOW - 10 * HOUR, NOW - 5 * HOUR)
    copy = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
    fill(empty_database, "things", ("a", NOW - 4 * HOUR, NOW - 4 * HOUR, 2.0))
    store.materialize_incremental(NOW - 3 * HOUR)
    redis_client.flushall()
    for key, value in copy.items():
        redis_client.restore(key, 0, value)

    assert served(store, "things", "a") == [1.0]
    store.refresh_registry()
    store.materialize_incremental(NOW)
    assert served(store, "things", "a") == [2.0]
    assert _LOST in caplog.text


def test_a_run_that_failed_leaves_nothing_in_redis(
    make: Make, empty_database: Database, redis_client: "redis.Redis[bytes]"
) -> None:
    store = make()
    store.apply([KEY, view("things")])
    with pytest.raises(FeatureError):
        store.materialize_incremental(NOW)
    assert redis_client.keys() == []


def test_the_loss_of_a_runs_last_rows_is_noticed(redis_client: "redis.Redis[bytes]") -> None:
    """As of a Redis that was killed, and came back at once with all that it had synced."""
    markers = Markers(redis_client, PROJECT)
    with markers.run("things") as run:
        run.step()
        synced = redis_client.get(run.key)
        run.step()
        redis_client.set(run.key, synced)
        with pytest.raises(ServerUnreachable, match="with older rows: do it again"):
            run.finish(NOW, NOW)
    assert markers.of("things") is None

    with markers.run("things") as run:
        run.step()
        # The answer was lost, and the client asks once more.
        redis_client.set(run.key, run.steps + 1)
        assert run.finish(NOW, NOW).end == NOW
    assert redis_client.keys("*:run:*") == []


def test_a_loss_during_a_runs_last_step_leaves_no_marker(
    redis_client: "redis.Redis[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    markers = Markers(redis_client, PROJECT)
    known = Markers.of

    def emptied(self: Markers, view: str) -> Any:
        found = known(self, view)
        redis_client.flushdb()
        return found

    with markers.run("things") as run:
        run.step()
        monkeypatch.setattr(Markers, "of", emptied)
        with pytest.raises(ServerUnreachable, match="Redis was emptied"):
            run.finish(NOW, NOW)
    monkeypatch.undo()
    assert markers.of("things") is None


def test_a_run_and_its_marker_are_in_one_slot_of_a_cluster(
    redis_client: "redis.Redis[bytes]",
) -> None:
    with Markers(redis_client, PROJECT).run("things") as run:
        run.finish(NOW, NOW)
        marker, own = sorted(redis_client.keys("hyperfeast:online:*"), key=len)
        assert own.decode() == run.key
        assert key_slot(marker) == key_slot(own)


def test_one_exchange_serves_all_that_ask_for_it(make: Make) -> None:
    store = make()
    online = reader_of(store)
    assert online.exchange(store.config) is online.exchange(store.config)


def test_the_rows_of_a_deleted_view_are_not_missed(
    make: Make, empty_database: Database, redis_client: "redis.Redis[bytes]"
) -> None:
    fill(empty_database, "things", ("a", NOW - HOUR, NOW - HOUR, 1.0))
    store = make()
    store.apply([KEY, view("things")])
    store.materialize_incremental(NOW)
    assert len(redis_client.keys("hyperfeast:*")) == 1
    store.apply([], objects_to_delete=[store.get_feature_view("things")], partial=False)
    assert redis_client.keys("hyperfeast:*") == []
    store.apply([KEY, view("things")])
    store.materialize_incremental(NOW)
    store.teardown()
    assert redis_client.keys() == []


def test_a_view_without_entities_and_one_without_rows(make: Make, empty_database: Database) -> None:
    """Feast's own store gives no dummy key, and its engine fails."""
    fill(empty_database, "whole", *[("x", NOW - i * HOUR, NOW, float(i)) for i in (3, 1, 2)])
    fill(empty_database, "empty")
    store = make()
    whole = view("whole", entities=[], schema=[Field(name="v", dtype=Float64)])
    store.apply([KEY, whole, view("empty")])
    store.materialize_incremental(NOW)

    response = store.get_online_features(
        ["whole:v", "empty:v"], [{"k": "a"}], full_feature_names=True
    ).to_dict()
    assert (response["whole__v"], response["empty__v"]) == ([1.0], [None])
    assert watermark(store, "empty") == NOW


def test_many_views_in_parallel(make: Make, empty_database: Database) -> None:
    names = [f"v{number}" for number in range(8)]
    for number, name in enumerate(names):
        rows = [(f"k{i}", NOW - HOUR, NOW, number + i / 1000) for i in range(500)]
        fill(empty_database, name, *rows)
    store = make(engine_options={"workers": 3})
    store.apply([KEY, *map(view, names)])
    store.materialize_incremental(NOW)
    for number, name in enumerate(names):
        assert served(store, name, "k0", "k499") == [number, number + 0.499]


@pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning")
def test_a_view_that_python_transforms_is_left_to_feasts_engine(
    make: Make, empty_database: Database
) -> None:
    fill(empty_database, "raw", ("a", NOW - HOUR, NOW, 2.0), ("b", NOW - HOUR, NOW, 3.0))

    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(v=frame["v"] * 2)

    transformed = BatchFeatureView(
        name="twice",
        entities=[KEY],
        mode="pandas",
        udf=doubled,
        udf_string="def doubled(frame):\n    return frame.assign(v=frame['v'] * 2)",
        source=view("raw").batch_source,
        schema=[Field(name="k", dtype=String), Field(name="v", dtype=Float64)],
        ttl=timedelta(days=1),
        online=True,
    )
    store = make()
    store.apply([KEY, view("raw"), transformed])
    store.materialize_incremental(NOW)
    assert served(store, "raw", "a", "b") == [2.0, 3.0]
    assert served(store, "twice", "a", "b") == [4.0, 6.0]


def test_other_stores_are_left_to_feasts_engine(make: Make, empty_database: Database) -> None:
    fill(empty_database, "things", ("a", NOW - HOUR, NOW, 2.0))
    store = make(offline="stock", online="stock")
    store.apply([KEY, view("things")])
    store.materialize_incremental(NOW)
    assert served(store, "things", "a") == [2.0]
    assert watermark(store, "things") == NOW


def test_one_view_alone_as_feasts_provider_asks(make: Make, empty_database: Database) -> None:
    fill(empty_database, "things", ("a", NOW - HOUR, NOW, 2.0))
    store = make()
    store.apply([KEY, view("things")])
    store._get_provider().materialize_single_feature_view(
        store.config, store.get_feature_view("things"), NOW - 2 * HOUR, NOW, store.registry,
        store.project, lambda total: tqdm(total=total, disable=True),
    )  # fmt: skip
    assert served(store, "things", "a") == [2.0]
    # The watermark is the caller's to move.
    assert watermark(store, "things") is None


def test_the_lag_is_measured(make: Make, empty_database: Database) -> None:
    fill(empty_database, "things", ("a", NOW - 2 * HOUR, NOW, 2.0), ("b", NOW - 3 * HOUR, NOW, 2.0))
    store = make()
    store.apply([KEY, view("things")])

    def measured(name: str, **labels: str) -> float:
        labels = {"project": PROJECT, "feature_view": "things", **labels}
        return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0

    before = measured("hyperfeast_materialization_rows_total", outcome="written")
    store.materialize_incremental(NOW)
    lag = (datetime.now(UTC) - (NOW - 2 * HOUR)).total_seconds()
    assert measured("hyperfeast_materialization_lag_seconds") == pytest.approx(lag, abs=5)
    assert measured("hyperfeast_materialization_rows_total", outcome="written") == before + 2
    # A run without rows serves the same event as before.
    store.materialize_incremental(NOW + HOUR)
    assert measured("hyperfeast_materialization_lag_seconds") == pytest.approx(lag, abs=10)


def test_an_end_in_the_future_does_not_hide_what_comes(
    make: Make, empty_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    fill(empty_database, "things", ("a", NOW - 2 * HOUR, NOW - 2 * HOUR, 1.0))
    store = make()
    store.apply([KEY, view("things")])
    store.materialize(NOW - timedelta(days=1), datetime(2099, 1, 1, tzinfo=UTC))
    assert served(store, "things", "a") == [1.0]
    for value in (2.0, 3.0):
        now = datetime.now(UTC)
        fill(empty_database, "things", ("a", now, now, value))
        store.materialize_incremental(datetime.now(UTC))
        assert served(store, "things", "a") == [value]
    assert "an earlier run's end lies in the future" in caplog.text
    assert _LOST not in caplog.text


def test_progress_is_shown_by_view(
    make: Make, empty_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(empty_database, "things", *[(f"k{i}", NOW - HOUR, NOW, 1.0) for i in range(50)])
    empty_database.execute("ANALYZE things")
    store = make()
    store.apply([KEY, view("things")])
    store.materialize_incremental(NOW)
    assert "things: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (
            {"worker": 2},
            "batch_engine of feature_store.yaml: there is no key 'worker': did you mean 'workers'",
        ),
        (
            {"workers": 0},
            "batch_engine of feature_store.yaml: workers: Input should be greater than 0",
        ),
    ],
)
def test_a_wrong_key_is_refused(make: Make, section: dict[str, Any], said: str) -> None:
    store = make(engine_options=section)
    with pytest.raises(UsageError, match=said):
        store.apply([KEY])


def test_feasts_engine_is_what_the_fallback_is(make: Make) -> None:
    engine = make()._get_provider().batch_engine
    assert isinstance(engine._feasts, LocalComputeEngine)
    assert issubclass(FeatureError, HyperfeastError)
