"""What goes into PostgreSQL through Feast: pushes, logs of what was served, saved datasets, monitoring."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, PushSource, ValueType
from feast.data_source import PushMode
from feast.dqm.errors import ValidationFailed
from feast.dqm.profilers.profiler import (
    Profile,
    Profiler,
    ValidationError,
    ValidationReport,
)
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import FeatureServiceLoggingSource, LoggingConfig
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
    SavedDatasetPostgreSQLStorage,
)
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.monitoring.monitoring_service import MonitoringService
from feast.types import Array, Float64, Int64, Json, String, UnixTimestamp

from feast_repos import repo
from hyperfeast.db import Database
from hyperfeast.errors import (
    DataError,
    FeatureError,
    HyperfeastError,
    QueryFailed,
    ServerUnreachable,
)
from hyperfeast.stores.offline import write
from hyperfeast.stores.offline.stream import RecordBatches
from hyperfeast.stores.offline.write import PostgreSQLLoggingDestination

T0 = datetime(2024, 1, 1, tzinfo=UTC)
LOG = "served.price_log"


@pytest.fixture
def store(empty_database: Database, tmp_path: Path) -> FeatureStore:
    """A view with a pushed source, a mapped column and awkward types; a service that logs."""
    empty_database.execute(
        'CREATE TABLE "Prices" (symbol varchar(8) NOT NULL, event_timestamp timestamptz NOT NULL,'
        " created timestamptz NOT NULL DEFAULT clock_timestamp(), raw_price numeric, n int, tags text[],"
        " about jsonb, seen timestamptz, PRIMARY KEY (symbol, event_timestamp, created))"
    )
    empty_database.execute("CREATE SCHEMA served")
    symbol = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)
    source = PostgreSQLSource(
        name="prices",
        table='"Prices"',
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
        field_mapping={"raw_price": "price"},
    )
    view = FeatureView(
        name="price",
        entities=[symbol],
        ttl=timedelta(days=10),
        source=PushSource(name="pushed_prices", batch_source=source),
        schema=[
            Field(name="symbol", dtype=String),
            Field(name="price", dtype=Float64),
            Field(name="n", dtype=Int64),
            Field(name="tags", dtype=Array(String)),
            Field(name="about", dtype=Json),
            Field(name="seen", dtype=UnixTimestamp),
        ],
    )
    service = FeatureService(
        name="prices_v1",
        features=[view[["price", "n", "tags", "seen"]]],
        logging_config=LoggingConfig(PostgreSQLLoggingDestination(table_name=LOG)),
    )
    made = repo(tmp_path, empty_database.dsn)
    made.apply([symbol, source, view, service])
    return made


def pushed(n: int, **columns: Any) -> pd.DataFrame:
    frame = {
        "symbol": [f"S{i}" for i in range(n)],
        "event_timestamp": [T0 + i * timedelta(hours=1) for i in range(n)],
        "created": pd.Series([pd.NaT] * n, dtype="datetime64[ns, UTC]"),
        "raw_price": [i + 0.5 for i in range(n)],
        "n": list(range(n)),
        "tags": [["a", f"{i}"] for i in range(n)],
        "about": [f'{{"i": {i}}}' for i in range(n)],
        "seen": [T0] * n,
    }
    return pd.DataFrame({**frame, **columns})


def test_a_push_reaches_the_table_of_the_source(
    store: FeatureStore, empty_database: Database
) -> None:
    frame = pushed(3, about=[{"i": [0]}, None, {"i": [2]}])
    store.push("pushed_prices", frame.set_index(pd.Index(["x", "y", "z"])), to=PushMode.OFFLINE)

    rows = empty_database.fetch('SELECT *, now() - created AS age FROM "Prices" ORDER BY symbol')
    assert [(row["symbol"], row["raw_price"], row["n"], row["tags"]) for row in rows] == [
        (f"S{i}", i + 0.5, i, ["a", f"{i}"]) for i in range(3)
    ]
    assert [row["about"] for row in rows] == [{"i": [0]}, None, {"i": [2]}]
    assert all(abs(row["age"]) < timedelta(minutes=1) for row in rows)
    read = store.get_historical_features(
        pd.DataFrame({"symbol": ["S1"], "event_timestamp": [T0 + timedelta(days=1)]}),
        ["price:price"],
    ).to_df()
    assert read["price"].tolist() == [1.5]


def test_all_rows_of_a_push_are_in_or_none(store: FeatureStore, empty_database: Database) -> None:
    frame = pushed(3, about=["{}", "no json", "{}"])
    with pytest.raises(QueryFailed, match="invalid input syntax for type json"):
        store.push("pushed_prices", frame, to=PushMode.OFFLINE)
    assert empty_database.fetch('SELECT FROM "Prices"') == []


def test_the_same_row_may_come_again_and_another_needs_a_later_created_timestamp(
    store: FeatureStore, empty_database: Database
) -> None:
    frame = pushed(1, created=[T0])
    store.write_to_offline_store("price", frame)
    store.write_to_offline_store("price", frame)
    assert len(empty_database.fetch('SELECT FROM "Prices"')) == 1
    with pytest.raises(DataError, match=r"feature view price: .*same key.*later created timestamp"):
        store.write_to_offline_store("price", pushed(1, created=[T0], raw_price=[9.0]))
    store.write_to_offline_store("price", pushed(1, created=[T0 + timedelta(days=1)]))
    assert len(empty_database.fetch('SELECT FROM "Prices"')) == 2


def test_a_column_that_the_table_lacks_is_named(store: FeatureStore) -> None:
    table = pa.table({"symbol": ["a"], "raw_prize": [1.0]})
    view = store.get_feature_view("price")
    with pytest.raises(DataError, match="no column 'raw_prize': did you mean 'raw_price'"):
        write.write_batch(store.config.offline_store, view, table)


def test_rows_without_the_timestamp_column_are_refused(store: FeatureStore) -> None:
    table = pa.table({"symbol": ["a"], "raw_price": [1.0]})
    view = store.get_feature_view("price")
    with pytest.raises(
        DataError, match=r"timestamp column 'event_timestamp' .*found symbol, raw_pr"
    ):
        write.write_batch(store.config.offline_store, view, table)


@pytest.mark.parametrize("column", ["symbol", "event_timestamp"])
def test_rows_without_a_key_or_a_time_are_refused(
    store: FeatureStore, empty_database: Database, column: str
) -> None:
    empty_database.execute('ALTER TABLE "Prices" DROP CONSTRAINT "Prices_pkey"')
    empty_database.execute(f'ALTER TABLE "Prices" ALTER COLUMN {column} DROP NOT NULL')
    frame = pushed(3)
    frame[column] = [None, *frame[column][1:]]
    with pytest.raises(
        DataError, match=f"feature view price: .*column '{column}' in every row, found 1 without"
    ):
        store.write_to_offline_store("price", frame)
    assert empty_database.fetch('SELECT FROM "Prices"') == []


def test_rows_without_a_keys_column_are_refused(store: FeatureStore) -> None:
    table = pa.table({"event_timestamp": [T0], "raw_price": [1.0]})
    view = store.get_feature_view("price")
    with pytest.raises(DataError, match=r"feature view price: .*the join key's column 'symbol'"):
        write.write_batch(store.config.offline_store, view, table)


def test_what_the_table_refuses_is_named_with_the_view(
    store: FeatureStore, empty_database: Database
) -> None:
    with pytest.raises(
        QueryFailed,
        match=r'feature view price: table "Prices" does not take .*"dear"; .*\'raw_price\' \(numeric\)',
    ):
        store.write_to_offline_store("price", pushed(1, raw_price=["dear"]))

    empty_database.execute('ALTER TABLE "Prices" ADD COLUMN venue text NOT NULL')
    view, table = store.get_feature_view("price"), pa.Table.from_pandas(pushed(1))
    with pytest.raises(QueryFailed, match=r'price: table "Prices" .*column "venue".*: correct'):
        write.write_batch(store.config.offline_store, view, table)


def test_a_query_cannot_be_written_to(store: FeatureStore) -> None:
    view = FeatureView(
        name="asked", source=PostgreSQLSource(name="q", query="SELECT 1", timestamp_field="t")
    )
    with pytest.raises(FeatureError, match="feature view asked: its source q is a query"):
        write.write_batch(store.config.offline_store, view, pa.table({"t": [1]}))


def test_a_table_that_is_not_there_is_named(store: FeatureStore) -> None:
    view = FeatureView(name="v", source=PostgreSQLSource(table="nowhere", timestamp_field="t"))
    with pytest.raises(FeatureError, match="feature view v: there is no table nowhere: create it"):
        write.write_batch(store.config.offline_store, view, pa.table({"t": [1]}))


def logged(store: FeatureStore, n: int) -> pa.Table:
    service = store.get_feature_service("prices_v1")
    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    values: dict[str, list[Any]] = {
        "symbol": [f"S{i}" for i in range(n)],
        "price__price": [float(i) for i in range(n)],
        "price__n": [None, *range(1, n)],
        "price__tags": [["x", None]] * n,
        "price__seen": [T0.replace(tzinfo=None)] * n,
        "__log_timestamp": [T0 + i * timedelta(minutes=1) for i in range(n)],
        "__log_date": [T0.date()] * n,
        "__request_id": [f"r{i}" for i in range(n)],
    }
    columns = [pa.array(values.get(field.name, [None] * n), field.type) for field in schema]
    return pa.table(columns, schema=schema)


def test_a_log_is_written_created_and_read_back(
    store: FeatureStore, empty_database: Database, tmp_path: Path
) -> None:
    service = store.get_feature_service("prices_v1")
    assert isinstance(service.logging_config.destination, PostgreSQLLoggingDestination)
    table = logged(store, 5)
    store.write_logged_features(table, service)
    folder = tmp_path / "log"
    folder.mkdir()
    pa.parquet.write_table(table, folder / "1.parquet")
    store.write_logged_features(folder, service)

    rows = empty_database.fetch(f"SELECT * FROM {LOG} ORDER BY __log_timestamp")
    assert [row["symbol"] for row in rows] == [f"S{i}" for i in range(5) for _ in range(2)]
    assert (rows[0]["price__n"], rows[0]["price__tags"]) == (None, ["x", None])
    assert rows[0]["price__seen"] == T0
    read = store._get_provider().retrieve_feature_service_logs(
        service, T0, T0 + timedelta(minutes=2), store.config, store.registry
    )
    assert sorted(read.to_df()["price__price"]) == [0, 0, 1, 1, 2, 2]


def test_a_service_that_gains_a_feature_logs_it_too(
    store: FeatureStore, empty_database: Database
) -> None:
    service = store.get_feature_service("prices_v1")
    store.write_logged_features(logged(store, 1), service)
    empty_database.execute(f"ALTER TABLE {LOG} DROP COLUMN price__tags")
    store.write_logged_features(logged(store, 2), service)
    assert len(empty_database.fetch(f"SELECT price__tags FROM {LOG}")) == 3


@pytest.mark.parametrize("name", ["requests_of_the_recommendation_service_in_europe", "ä" * 30])
def test_logs_whose_names_begin_alike_have_an_index_each(
    store: FeatureStore, empty_database: Database, name: str
) -> None:
    source = FeatureServiceLoggingSource(store.get_feature_service("prices_v1"), store.project)
    tables = [f"served.{name}{end}" for end in ("_1", "_2")]
    for table in tables * 2:
        config = LoggingConfig(PostgreSQLLoggingDestination(table_name=table))
        write.write_log(
            store.config.offline_store, logged(store, 1), source, config, store.registry
        )
    indexes = empty_database.fetch(
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'served'"
    )
    assert sorted(f"served.{row['tablename']}" for row in indexes) == tables
    assert all("(__log_timestamp)" in row["indexdef"] for row in indexes)


def test_a_log_of_another_store_is_refused(store: FeatureStore) -> None:
    source = FeatureServiceLoggingSource(store.get_feature_service("prices_v1"), store.project)
    elsewhere = LoggingConfig(FileLoggingDestination(path="x"))
    with pytest.raises(FeatureError, match="FileLoggingDestination: expected hyperfeast"):
        write.write_log(
            store.config.offline_store, logged(store, 1), source, elsewhere, store.registry
        )


class LowestPrice(Profiler, Profile, ValidationReport):
    """A profile of one rule: no price is below the lowest that the reference had."""

    def __init__(self, lowest: float = 0.0, broken: int = 0) -> None:
        self.lowest, self.broken = lowest, broken

    def analyze_dataset(self, dataset: pd.DataFrame) -> "LowestPrice":
        return LowestPrice(float(dataset["price__price"].min()))

    def validate(self, dataset: pd.DataFrame) -> "LowestPrice":
        return LowestPrice(self.lowest, int((dataset["price__price"] < self.lowest).sum()))

    @property
    def is_success(self) -> bool:
        return self.broken == 0

    @property
    def errors(self) -> list[ValidationError]:
        return [ValidationError("lowest", "price__price", unexpected_count=self.broken)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_saved_dataset_is_kept_read_and_validated_against(
    store: FeatureStore, empty_database: Database
) -> None:
    store.write_to_offline_store("price", pushed(4))
    spine = pd.DataFrame(
        {
            "symbol": [f"S{i}" for i in range(4)],
            "event_timestamp": [T0 + timedelta(days=1)] * 4,
        }
    )

    def joined() -> Any:
        return store.get_historical_features(
            spine, store.get_feature_service("prices_v1"), full_feature_names=True
        )

    storage = SavedDatasetPostgreSQLStorage(table_ref='served."Kept"')
    dataset = store.create_saved_dataset(joined(), "kept", storage)

    frame = store.get_saved_dataset("kept").to_df().sort_values("symbol")
    assert frame["price__price"].tolist() == [0.5, 1.5, 2.5, 3.5]
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        store.create_saved_dataset(joined(), "kept", storage)
    store.create_saved_dataset(joined(), "kept", storage, allow_overwrite=True)
    assert len(empty_database.fetch('SELECT FROM served."Kept"')) == 4

    reference = dataset.as_reference("lowest", profiler=LowestPrice())
    assert joined().to_df(validation_reference=reference) is not None
    store.write_to_offline_store(
        "price", pushed(1, raw_price=[-1.0], created=[datetime.now(UTC) + timedelta(days=1)])
    )
    with pytest.raises(ValidationFailed):
        joined().to_df(validation_reference=reference)


def test_what_stood_there_stays_until_the_new_rows_are_in(
    store: FeatureStore, empty_database: Database
) -> None:
    empty_database.execute("CREATE TABLE kept AS SELECT 1 AS old")

    def breaks() -> Any:
        yield pa.record_batch({"new": [1]})
        raise OSError("the source of the rows is gone")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"new": pa.int64()}), breaks())
    storage = SavedDatasetPostgreSQLStorage(table_ref="kept")
    with pytest.raises(Exception, match="the source of the rows is gone"):
        write.save_dataset(store.config.offline_store, reader, storage, allow_overwrite=True)
    assert empty_database.fetch("SELECT old FROM kept") == [{"old": 1}]
    left = empty_database.fetch("SELECT FROM pg_class WHERE starts_with(relname, 'hyperfeast')")
    assert left == []


@pytest.mark.parametrize("kind", [FeatureError, DataError, ServerUnreachable])
def test_what_the_reading_side_raises_keeps_its_kind(
    store: FeatureStore, kind: type[HyperfeastError]
) -> None:
    def breaks() -> Any:
        yield pa.record_batch({"new": [1]})
        raise kind("the view lacks a column")

    reader = RecordBatches(pa.schema({"new": pa.int64()}), breaks())
    storage = SavedDatasetPostgreSQLStorage(table_ref="kept")
    with pytest.raises(kind, match=r"^the view lacks a column$"):
        write.save_dataset(store.config.offline_store, reader, storage)


def test_every_type_of_arrow_finds_a_place(store: FeatureStore, empty_database: Database) -> None:
    now = np.datetime64("2024-01-01T00:00:00.123456789")
    table = pa.table(
        {
            "a map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "structs": [[{"x": 1}], None],
            "nested": [[[1, 2]], None],
            "word": pa.array(["w", None]).dictionary_encode(),
            "moment": pa.array([now, None], pa.timestamp("ns")),
            "moments": pa.array(
                [[int(now.astype(int))], None], pa.list_(pa.timestamp("ns", "UTC"))
            ),
            "nothing": pa.nulls(2),
            "UPPER": pa.array([1, None], pa.uint32()),
        }
    )
    storage = SavedDatasetPostgreSQLStorage(table_ref="kept")
    write.save_dataset(store.config.offline_store, table.to_reader(), storage)

    row, empty = empty_database.fetch("SELECT * FROM kept")
    assert row["a map"] == {"k": 1}
    assert (row["structs"], row["nested"], row["word"]) == ([{"x": 1}], [[1, 2]], "w")
    assert row["moment"] == datetime(2024, 1, 1, 0, 0, 0, 123456)  # noqa: DTZ001 - as written
    assert row["moments"] == [datetime(2024, 1, 1, 0, 0, 0, 123456, tzinfo=UTC)]
    assert (row["nothing"], row["UPPER"]) == (None, 1)
    assert set(empty.values()) == {None}


def test_no_rows_make_an_empty_table(store: FeatureStore, empty_database: Database) -> None:
    reader = pa.table({"x": pa.array([], pa.int64())}).to_reader()
    storage = SavedDatasetPostgreSQLStorage(table_ref="kept")
    write.save_dataset(store.config.offline_store, reader, storage)
    assert empty_database.fetch("SELECT x FROM kept") == []


def test_a_hostile_table_name_is_a_name(store: FeatureStore, empty_database: Database) -> None:
    storage = SavedDatasetPostgreSQLStorage(table_ref='kept"; DROP TABLE "Prices"; --')
    with pytest.raises(QueryFailed, match="string is not a valid identifier"):
        write.save_dataset(store.config.offline_store, pa.table({"x": [1]}).to_reader(), storage)
    assert empty_database.fetch('SELECT FROM "Prices"') == []


def test_monitoring_runs_over_the_table_and_the_log(store: FeatureStore) -> None:
    store.write_to_offline_store("price", pushed(24))
    store.write_logged_features(logged(store, 24), store.get_feature_service("prices_v1"))
    service = MonitoringService(store)

    batch = service.auto_compute(project=store.project, feature_view_name="price")
    assert (batch["status"], batch["computed_feature_views"]) == ("completed", 1)
    log = service.auto_compute_log_metrics(project=store.project, feature_service_name="prices_v1")
    assert (log["status"], log["computed_feature_services"]) == ("completed", 1)
    metrics = service.get_feature_metrics(project=store.project, feature_view_name="price")
    by_name = {row["feature_name"]: row for row in metrics if row["granularity"] == "daily"}
    assert by_name["price"]["row_count"] == 24
