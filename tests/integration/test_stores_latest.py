"""What materialization reads: newest rows by either way, late rows, every column that PostgreSQL has."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore, FileSource
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
    SavedDatasetPostgreSQLStorage,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feast_repos import Whose, repo
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, ServerUnreachable, UsageError
from hyperfeast.stores.offline import latest
from timescale.fixtures import fresh_community

T0 = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
BY_ENTITY, BY_SCAN = 0, 10**9

Pull = Callable[..., Any]


@pytest.fixture
def source() -> PostgreSQLSource:
    return PostgreSQLSource(
        name="things", table="things", timestamp_field="ts", created_timestamp_column="created"
    )


@pytest.fixture
def pull(empty_database: Database, tmp_path: Path) -> Pull:
    """Ask ours, or Feast's own store, for the newest rows of a source."""
    return pull_from(empty_database, tmp_path)


def pull_from(database: Database, folder: Path) -> Pull:
    @cache
    def store_of(whose: Whose) -> FeatureStore:
        return repo(folder, database.dsn, offline=whose)

    def ask(source: Any, keys: Sequence[str], features: Sequence[str], **asked: Any) -> Any:
        store = store_of(asked.pop("whose", "ours"))
        method = asked.pop("method", "pull_latest_from_table_or_query")
        provider = store._get_provider()
        return getattr(provider.offline_store, method)(
            config=store.config,
            data_source=source,
            join_key_columns=list(keys),
            feature_name_columns=list(features),
            timestamp_field=asked.pop("timestamp", "ts"),
            created_timestamp_column=asked.pop("created", "created"),
            start_date=asked.pop("start", T0),
            end_date=asked.pop("end", T0 + 100 * HOUR),
        )

    return ask


@pytest.fixture
def things(empty_database: Database) -> Callable[[Sequence[tuple[Any, ...]]], None]:
    """The table `things`, with an index; filled anew at each call."""
    empty_database.execute(
        "CREATE TABLE things (k text, n int, ts timestamptz, created timestamptz, v float8)"
    )
    empty_database.execute("CREATE INDEX ON things (n, k, ts DESC)")

    def fill(rows: Sequence[tuple[Any, ...]]) -> None:
        with empty_database.connect() as connection:
            connection.execute("TRUNCATE things")
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO things VALUES (%s, %s, %s, %s, %s)", rows)
            connection.execute("ANALYZE things")

    return fill


def reference(
    rows: Sequence[tuple[Any, ...]], start: datetime, end: datetime, overlap: timedelta
) -> dict[tuple[str, int], tuple[datetime, datetime]]:
    """Entity -> the newest (event, created) of the rows that count, one row after the other."""
    newest: dict[tuple[str, int], tuple[datetime, datetime]] = {}
    for k, n, ts, created, _ in rows:
        if k is None or n is None or ts is None:
            continue
        late = created is not None and start - overlap <= created <= end and ts <= end
        if not (start <= ts <= end or late):
            continue
        order = (ts, created or datetime.min.replace(tzinfo=UTC))
        if (k, n) not in newest or order > newest[k, n]:
            newest[k, n] = order
    return newest


_hours = st.integers(-20, 120).map(lambda hours: T0 + hours * HOUR)
_rows = st.lists(
    st.tuples(
        st.sampled_from(["1", "11", "a", "Ä", None]),
        st.sampled_from([1, 11, 2, None]),
        st.one_of(_hours, st.none()),
        st.one_of(_hours, st.none()),
        st.floats(allow_nan=False),
    ),
    max_size=40,
)


@pytest.mark.parametrize("rows_an_entity", [BY_ENTITY, BY_SCAN])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows)
def test_the_newest_of_each_entity_late_ones_included(
    rows: list[tuple[Any, ...]],
    rows_an_entity: int,
    things: Callable[..., None],
    source: PostgreSQLSource,
    pull: Pull,
) -> None:
    things(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latest, "_ROWS_AN_ENTITY", rows_an_entity)
        job = pull(source, ["k", "n"], ["v"])
        found = job.to_arrow().to_pylist()
        way = "RECURSIVE" if rows_an_entity == BY_ENTITY else "DISTINCT ON"
        assert way in job.to_sql()
    assert {
        (row["k"], row["n"]): (
            row["ts"].replace(tzinfo=UTC),
            (row["created"] or datetime.min.replace(tzinfo=UTC)).replace(tzinfo=UTC),
        )
        for row in found
    } == reference(rows, T0, T0 + 100 * HOUR, timedelta(minutes=5))
    assert len(found) == len({(row["k"], row["n"]) for row in found})


def test_the_servers_estimates_choose_the_way(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    def history(entities: int, rows_each: int) -> list[tuple[Any, ...]]:
        return [
            (f"e{e}", 1, T0 + i * HOUR / 100, T0 + i * HOUR, 1.0)
            for e in range(entities)
            for i in range(rows_each)
        ]

    things(history(5, 400))
    assert "RECURSIVE" in pull(source, ["k", "n"], ["v"]).to_sql()
    things(history(1000, 2))
    assert "DISTINCT ON" in pull(source, ["k", "n"], ["v"]).to_sql()


def test_a_table_in_chunks_is_read_by_listed_entities(
    empty_database: Database, source: PostgreSQLSource, pull: Pull
) -> None:
    """As TimescaleDB keeps its tables: each chunk with an index of its own."""
    empty_database.execute(
        "CREATE TABLE things (k text, n int, ts timestamptz, created timestamptz, v int)"
    )
    empty_database.execute("CREATE INDEX ON things (k, n, ts)")
    for chunk in (1, 2):
        empty_database.execute(f"CREATE TABLE chunk_{chunk} () INHERITS (things)")
        empty_database.execute(f"CREATE INDEX ON chunk_{chunk} (k, n, ts)")
        empty_database.execute(
            f"INSERT INTO chunk_{chunk} SELECT 'e' || e, e, %s + i * {chunk} * interval '1 minute', %s,"
            f" i * {chunk} FROM generate_series(1, 3) e, generate_series(1, 50) i",
            (T0, T0),
        )
    empty_database.execute("ANALYZE things, chunk_1, chunk_2")
    job = pull(source, ["n", "k"], ["v"])
    assert "RECURSIVE" not in job.to_sql()
    assert "LATERAL" in job.to_sql()
    assert sorted(job.to_arrow()["k"].to_pylist()) == ["e1", "e2", "e3"]
    assert job.to_arrow()["v"].to_pylist() == [100, 100, 100]


@pytest.fixture
def own_community() -> Iterator[Database]:
    """TimescaleDB with nothing in it, which no other test counts on to stay so."""
    with fresh_community() as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        yield database


@pytest.mark.slow
def test_a_hypertable_with_compressed_chunks(
    own_community: Database, source: PostgreSQLSource, tmp_path: Path
) -> None:
    community = own_community
    community.execute(
        "CREATE TABLE things (k text, n int, ts timestamptz NOT NULL, created timestamptz NOT NULL, v int)"
    )
    community.execute(
        "SELECT create_hypertable('things', 'ts', chunk_time_interval => interval '1 day')"
    )
    community.execute("CREATE UNIQUE INDEX ON things (k, n, ts, created)")
    community.execute(
        "INSERT INTO things SELECT 'e' || e, e, %s + i * interval '1 hour', %s + i * interval '1 hour', i"
        " FROM generate_series(0, 4) e, generate_series(1, 90) i",
        (T0, T0),
    )
    community.execute(
        "ALTER TABLE things SET (timescaledb.compress, timescaledb.compress_segmentby = 'k, n')"
    )
    community.execute(
        "SELECT compress_chunk(c) FROM show_chunks('things', older_than => %s) c", (T0 + 48 * HOUR,)
    )
    community.execute(
        "INSERT INTO things VALUES ('late', 9, %s, %s, -1)", (T0 + HOUR, T0 + 85 * HOUR)
    )
    community.execute("ANALYZE things")
    pull = pull_from(community, tmp_path)

    everything = pull(source, ["k", "n"], ["v"])
    assert "LATERAL" in everything.to_sql()
    newest = {(f"e{e}", 90) for e in range(5)}
    assert {(row["k"], row["v"]) for row in everything.to_arrow().to_pylist()} == {
        *newest,
        ("late", -1),
    }
    recent = pull(source, ["k", "n"], ["v"], start=T0 + 84 * HOUR)
    assert {(row["k"], row["v"]) for row in recent.to_arrow().to_pylist()} == {
        *newest,
        ("late", -1),
    }


def test_an_index_gives_the_order_so_that_nothing_is_sorted(
    empty_database: Database, source: PostgreSQLSource, pull: Pull
) -> None:
    empty_database.execute(
        "CREATE TABLE things (k text, n int, ts timestamptz, created timestamptz, v int,"
        " PRIMARY KEY (n, k, ts, created))"
    )
    empty_database.execute(
        "INSERT INTO things SELECT 'e' || e, e, %s + i * interval '1 minute', %s, i"
        " FROM generate_series(1, 5000) e, generate_series(1, 3) i",
        (T0, T0),
    )
    empty_database.execute("ANALYZE things")
    query = pull(source, ["k", "n"], ["v"]).to_sql()
    plan = "\n".join(row["QUERY PLAN"] for row in empty_database.fetch("EXPLAIN " + query))
    assert "Index Scan Backward" in plan
    assert "Sort" not in plan


def test_feasts_own_store_loses_a_late_row_and_we_do_not(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    """The row's event lies behind the range, since it was recorded after the run that read that time."""
    things([("a", 1, T0 - HOUR, T0 + HOUR, 7.0), ("b", 1, T0 - HOUR, T0 - HOUR, 8.0)])

    assert pull(source, ["k", "n"], ["v"], whose="stock").to_arrow().num_rows == 0
    assert pull(source, ["k", "n"], ["v"]).to_arrow()["v"].to_pylist() == [7.0]
    everything = pull(source, ["k", "n"], ["v"], method="pull_all_from_table_or_query")
    assert everything.to_arrow()["v"].to_pylist() == [7.0]


def test_a_row_recorded_just_before_the_range_counts_since_it_may_have_committed_after(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    things(
        [
            ("a", 1, T0 - HOUR, T0 - timedelta(seconds=299), 1.0),
            ("b", 1, T0 - HOUR, T0 - timedelta(seconds=301), 2.0),
        ]
    )
    assert pull(source, ["k", "n"], ["v"]).to_arrow()["v"].to_pylist() == [1.0]


@pytest.mark.parametrize(("start", "found"), [(30, 1), (47, 1), (49, 0)])
def test_a_day_of_recording_counts_as_a_whole(
    empty_database: Database, pull: Pull, start: int, found: int
) -> None:
    """Recorded on the second day, at an hour that nobody wrote down: it was late for no run of that day."""
    empty_database.execute("CREATE TABLE dated (k text, ts timestamptz, created date, v float8)")
    empty_database.execute("INSERT INTO dated VALUES ('a', %s, '2024-01-02', 1)", [T0 - HOUR])
    source = PostgreSQLSource(
        name="dated", table="dated", timestamp_field="ts", created_timestamp_column="created"
    )
    for method in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        asked = {"start": T0 + start * HOUR, "end": T0 + 60 * HOUR, "method": method}
        assert pull(source, ["k"], ["v"], **asked).to_arrow().num_rows == found


def test_without_a_created_timestamp_it_is_as_feasts_own(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    things(
        [
            (key, 1, T0 + at * HOUR, None, float(at))
            for key in ("a", "b")
            for at in (-1, 0, 5, 100, 101)
        ]
    )
    asked: dict[str, Any] = {"created": None}
    for method in ("pull_latest_from_table_or_query", "pull_all_from_table_or_query"):
        ours = pull(source, ["k", "n"], ["v"], method=method, **asked).to_arrow()
        stock = pull(source, ["k", "n"], ["v"], method=method, whose="stock", **asked).to_arrow()
        order = [("k", "ascending"), ("ts", "ascending")]
        assert ours.sort_by(order).to_pylist() == stock.sort_by(order).to_pylist()
        assert ours.schema == stock.schema


def test_a_view_without_entities_gets_feasts_dummy_key(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    things([("a", 1, T0, T0, 1.0), ("b", 2, T0 + HOUR, T0, 2.0)])

    newest = pull(source, [], ["v"]).to_arrow().to_pylist()
    assert [(row["v"], row[DUMMY_ENTITY_ID]) for row in newest] == [(2.0, "")]
    everything = pull(source, [], ["v"], method="pull_all_from_table_or_query").to_arrow()
    assert sorted(everything["v"].to_pylist()) == [1.0, 2.0]
    assert DUMMY_ENTITY_ID in everything.column_names
    log = PostgreSQLSource(table="things")
    read = pull(log, [], ["v"], method="pull_all_from_table_or_query", created=None).to_arrow()
    assert read.column_names == ["v", "ts"]


def test_awkward_names_types_and_a_query(empty_database: Database, pull: Pull) -> None:
    empty_database.execute(
        'CREATE TABLE "Odd" ("Key ""1" varchar(5), "B" uuid, "At" timestamp, "J" jsonb, num numeric,'
        " list numeric[], words varchar(3)[], day date, flag bool, raw bytea, span int4range)"
    )
    empty_database.execute('CREATE INDEX ON "Odd" ("Key ""1", "B", "At")')
    one = "11111111-1111-1111-1111-111111111111"
    empty_database.execute(
        "INSERT INTO \"Odd\" SELECT k, %s, %s + i * interval '1 minute', '{\"a\": [1]}', 1.5, '{1.5,NULL}',"
        " '{ab}', '2024-02-29', true, 'x', '[1,3)' FROM generate_series(1, 50) i, unnest('{a,b}'::text[]) k",
        (one, T0.replace(tzinfo=None)),
    )
    empty_database.execute('ANALYZE "Odd"')
    features = ["J", "num", "list", "words", "day", "flag", "raw", "span"]
    asked: dict[str, Any] = {"timestamp": "At", "created": None}
    keys = ['Key "1', "B"]

    job = pull(PostgreSQLSource(table='"Odd"', timestamp_field="At"), keys, features, **asked)
    assert "RECURSIVE" in job.to_sql()
    rows = job.to_arrow().to_pylist()
    query = PostgreSQLSource(
        name="q",
        query="SELECT * FROM \"Odd\" WHERE \"Key \"\"1\" LIKE '%' AND '{}' <> 'x'",
        timestamp_field="At",
    )
    assert pull(query, keys, features, **asked).to_arrow().to_pylist() == rows
    assert len(rows) == 2
    last = T0.replace(tzinfo=None) + timedelta(minutes=50)
    for row in rows:
        assert (row["B"], row["At"], row["J"]) == (one, last, '{"a": [1]}')
        assert (row["num"], row["list"], row["words"]) == (1.5, [1.5, None], ["ab"])
        assert (row["day"], row["flag"]) == (datetime(2024, 2, 29), True)  # noqa: DTZ001 - as read
        assert (row["raw"], row["span"]) == (b"x", "[1,3)")


def test_all_columns_where_no_feature_is_named(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    things([("a", 1, T0, T0, 1.0)])
    assert pull(source, ["k"], []).to_arrow().column_names == ["k", "n", "ts", "created", "v"]


def test_rows_are_streamed(empty_database: Database, source: PostgreSQLSource, pull: Pull) -> None:
    empty_database.execute(
        "CREATE TABLE things AS SELECT i::text AS k, 1 AS n, now() AS ts, now() AS created,"
        " repeat('x', 200) AS v FROM generate_series(1, 200000) i"
    )
    before = pa.total_allocated_bytes()
    rows, most, batches = 0, 0, 0
    asked = {"end": datetime.now(UTC) + HOUR, "method": "pull_all_from_table_or_query"}
    for batch in pull(source, ["k"], ["v"], **asked).to_arrow_reader():
        rows, batches = rows + batch.num_rows, batches + 1
        most = max(most, pa.total_allocated_bytes() - before)
    assert rows == 200_000
    assert batches > 1
    assert most < 3 * 2**24


def test_a_stream_that_is_left_gives_its_connection_back(
    source: PostgreSQLSource, pull: Pull, empty_database: Database
) -> None:
    empty_database.execute(
        "CREATE TABLE things AS SELECT i::text AS k, 1 AS n, now() AS ts, now() AS created,"
        " repeat('x', 200) AS v FROM generate_series(1, 100000) i"
    )
    asked = {"end": datetime.now(UTC) + HOUR, "method": "pull_all_from_table_or_query"}
    reader = pull(source, ["k"], ["v"], **asked).to_arrow_reader()
    assert reader.read_next_batch().num_rows
    assert sessions(empty_database) == 1
    reader.close()
    assert sessions(empty_database) == 0
    with pytest.raises(UsageError, match=r"closed before they were read: ask the job"):
        reader.read_next_batch()


def sessions(database: Database) -> int:
    """How many connections there are besides the one that asks; one that ends takes the server a moment."""
    query = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    found: int = database.fetch(query)[0]["n"]
    deadline = time.monotonic() + 2
    while found and time.monotonic() < deadline:
        time.sleep(0.02)
        found = database.fetch(query)[0]["n"]
    return found


def test_a_job_persists_its_rows(
    things: Callable[..., None],
    source: PostgreSQLSource,
    pull: Pull,
    empty_database: Database,
) -> None:
    things([("a", 1, T0, T0, 1.0)])
    pull(source, ["k"], ["v"]).persist(SavedDatasetPostgreSQLStorage(table_ref="kept"))
    assert [row["v"] for row in empty_database.fetch("SELECT v FROM kept")] == [1.0]


def test_a_column_that_is_not_there_is_named_with_the_remedy(
    things: Callable[..., None], source: PostgreSQLSource, pull: Pull
) -> None:
    things([])
    with pytest.raises(
        FeatureError, match=r"source things: there is no column w, it has k, n, .*apply"
    ):
        pull(source, ["k"], ["w"]).to_arrow()


def test_another_stores_source_is_refused(pull: Pull) -> None:
    with pytest.raises(
        FeatureError, match="is a FileSource: this offline store reads PostgreSQLSource"
    ):
        pull(FileSource(name="f", path="x.parquet", timestamp_field="ts"), ["k"], ["v"])


def test_a_server_that_is_gone_is_said_without_the_password(
    source: PostgreSQLSource, tmp_path: Path
) -> None:
    store = repo(tmp_path, "postgresql://u:p4ssw0rd@127.0.0.1:1/d")
    job = store._get_provider().offline_store.pull_latest_from_table_or_query(
        store.config, source, ["k"], ["v"], "ts", None, T0, T0
    )
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1") as raised:
        job.to_arrow()
    assert "p4ssw0rd" not in str(raised.value)
