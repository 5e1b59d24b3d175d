"""What goes into PostgreSQL through Feast: pushed rows, the log of what was served, saved datasets.

Rows come as Arrow, are staged by binary COPY in the types that Arrow has, and are cast by the server
to those of the table. All rows of a call are written, or none.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, LiteralString, cast
from uuid import uuid4

import psycopg
import pyarrow as pa
import pyarrow.dataset
from adbc_driver_manager import dbapi
from feast import FeatureView
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import (
    LOG_TIMESTAMP_FIELD,
    LoggingConfig,
    LoggingDestination,
    LoggingSource,
)
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
    SavedDatasetPostgreSQLStorage,
)
from feast.infra.registry.base_registry import BaseRegistry
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.saved_dataset import SavedDatasetStorage
from psycopg import sql

from hyperfeast import sqlfiles
from hyperfeast.errors import DataError, FeatureError, QueryFailed
from hyperfeast.stores.offline.connection import arrow_connection, connection
from hyperfeast.stores.offline.stream import RecordBatches

# A value that does not fit, one that is missing or is there already, a type that cannot become the table's.
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.CannotCoerce)
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
# Pandas keeps an index that is no range as such a column.
_PANDAS_INDEX = "__index_level_"


class PostgreSQLLoggingDestination(LoggingDestination):
    """A table for the log of a feature service: `LoggingConfig(PostgreSQLLoggingDestination(table_name=…))`.

    Args:
        table_name: where to, with its schema if need be. It is created with the first log.
    """

    _proto_kind = "hyperfeast.postgres"

    def __init__(self, *, table_name: str) -> None:
        self.table_name = table_name

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> "PostgreSQLLoggingDestination":
        """The destination that Feast's registry holds."""
        return cls(table_name=config_proto.custom_destination.config["table_name"])

    def to_proto(self) -> LoggingConfigProto:
        """What Feast's registry is to hold."""
        return LoggingConfigProto(
            custom_destination=LoggingConfigProto.CustomDestination(
                kind=self._proto_kind, config={"table_name": self.table_name}
            )
        )

    def to_data_source(self) -> DataSource:
        """The log as a source, for `validate_logged_features` and `feast monitor`."""
        return PostgreSQLSource(table=self.table_name)


def write_batch(
    config: PostgreSQLOfflineStoreConfig,
    view: FeatureView,
    table: pa.Table,
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Append rows to the table of a view's source.

    Columns bear the names of the source or of the view. A created timestamp that is null in every
    row is left to the table's default.

    Args:
        config: how to reach PostgreSQL.
        view: whose batch source is a table.
        table: the rows.
        progress: called with the number of rows once they are in.

    Raises:
        FeatureError: the source is a query, or its table is not there.
        DataError: a column that the table lacks, no column of the timestamp or a join key, a row without one
            of these, or a row whose key is in the table with other values.
        QueryFailed: a value that does not fit its column's type, or that is missing in a required column.
    """
    source = view.batch_source
    name = source._postgres_options._table  # noqa: SLF001 - no public way to it
    if not name:
        raise FeatureError(
            f"feature view {view.name}: its source {source.name} is a query, and rows can only be "
            "written to a table: write them where the query reads, or give the view a table"
        )
    left_out = {column for column in table.column_names if column.startswith(_PANDAS_INDEX)}
    created = source.created_timestamp_column
    if created in table.column_names and table[created].null_count == table.num_rows:
        left_out.add(created)
    source_names = {feature: column for column, feature in (source.field_mapping or {}).items()}
    rows = table.drop_columns(list(left_out))
    rows = rows.rename_columns([source_names.get(c, c) for c in rows.column_names])
    keys = [
        source_names.get(entity.name, entity.name)
        for entity in view.entity_columns
        if entity.name != DUMMY_ENTITY_ID
    ]
    what = f"feature view {view.name}"
    _refuse_nulls(what, rows, [*keys, source.timestamp_field])
    _append(config, what, name, source.timestamp_field, rows.to_reader(), keys)
    if progress:
        progress(table.num_rows)


def write_log(
    config: PostgreSQLOfflineStoreConfig,
    data: pa.Table | Path,
    source: LoggingSource,
    logging_config: LoggingConfig,
    registry: BaseRegistry,
) -> None:
    """Append the log of a feature service to its destination, which is created or widened as need be.

    Args:
        config: how to reach PostgreSQL.
        data: rows as `source.get_schema` describes them, or a folder of Parquet files with such rows.
        source: the feature service.
        logging_config: whose destination is a `PostgreSQLLoggingDestination`.
        registry: where the service's views are described.

    Raises:
        FeatureError: the destination is another store's.
        DataError: a column that the service does not have, or no timestamp column.
    """
    destination = logging_config.destination
    if not isinstance(destination, PostgreSQLLoggingDestination):
        raise FeatureError(
            f"the log goes to a {type(destination).__name__}: expected "
            "hyperfeast.stores.PostgreSQLLoggingDestination; change the feature service's logging_config"
        )
    _ensure_log(config, destination.table_name, source.get_schema(registry))
    rows = (
        pyarrow.dataset.dataset(data, format="parquet").scanner().to_reader()
        if isinstance(data, Path)
        else data.to_reader()
    )
    log = destination.table_name
    _append(config, f"the log {log}", log, LOG_TIMESTAMP_FIELD, rows)


def save_dataset(
    config: PostgreSQLOfflineStoreConfig,
    reader: RecordBatches,
    storage: SavedDatasetStorage,
    *,
    allow_overwrite: bool = False,
) -> None:
    """Write rows into a table of their own. What stood there stays until all of them are in.

    Args:
        config: how to reach PostgreSQL.
        reader: the rows.
        storage: the table; with its schema if need be.
        allow_overwrite: whether a table of that name may be replaced.

    Raises:
        SavedDatasetLocationAlreadyExists: the table is there, and must not be replaced.
        FeatureError: the storage is another store's.
    """
    if not isinstance(storage, SavedDatasetPostgreSQLStorage):
        raise FeatureError(
            f"the dataset is to go to a {type(storage).__name__}: expected a SavedDatasetPostgreSQLStorage"
        )
    name = storage.postgres_options._table  # noqa: SLF001 - no public way to it
    parts, found = _locate(config, name)
    if found and not allow_overwrite:
        raise SavedDatasetLocationAlreadyExists(name)
    schema = parts[0] if len(parts) > 1 else None
    filling = f"hyperfeast_{uuid4().hex}"
    new = sql.Identifier(*parts[:-1], filling)
    with arrow_connection(config) as database, database.cursor() as cursor:
        _ingest(cursor, filling, reader, schema=schema)
        structured = [field.name for field in reader.schema if _is_structured(field.type)]
        if structured:
            _run(cursor, "as_json", table=new, columns=_as_json(structured))
        if found:
            _run(cursor, "drop", table=_sql(found))
        _run(cursor, "rename", table=new, name=sql.Identifier(parts[-1]))
        database.commit()


def _append(
    config: PostgreSQLOfflineStoreConfig,
    what: str,
    name: str,
    timestamp: str,
    reader: pa.RecordBatchReader,
    keys: Sequence[str] = (),
) -> None:
    """Rows into a table by the names of their columns; those that are there already are left as they are."""
    table, types = _target(config, what, name)
    columns = reader.schema.names
    _refuse_unknown(what, name, columns, types)
    if timestamp not in columns:
        raise DataError(
            f"{what}: expected rows with the timestamp column {timestamp!r} of table {name}, found "
            f"{', '.join(columns)}: add the column"
        )
    for key in keys:
        if key not in columns:
            raise DataError(
                f"{what}: expected rows with the join key's column {key!r} of table {name}, found "
                f"{', '.join(columns)}: add the column"
            )
    staged = f"staged_{uuid4().hex}"
    typed = [sql.SQL("staged.{}::{}").format(sql.Identifier(c), _sql(types[c])) for c in columns]
    parts = {
        "table": table,
        "columns": _list(map(sql.Identifier, columns)),
        "values": _list(typed),
        "staged": sql.Identifier(staged),
    }
    with (
        _refusals(what, name, types, reader.schema),
        arrow_connection(config) as database,
        database.cursor() as cursor,
    ):
        _ingest(cursor, staged, reader, temporary=True)
        _run(cursor, "append", **parts)
        added, given = cast("tuple[int, int]", cursor.fetchone())
        if added < given:
            at = columns.index(timestamp)
            _run(
                cursor, "differing", timestamp=sql.Identifier(timestamp), moments=typed[at], **parts
            )
            if cursor.fetchone() is not None:
                raise DataError(
                    f"{what}: {name} has another row of the same key already, and nothing of this was written: "
                    "leave such rows out, or give a correction a later created timestamp"
                )
        database.commit()


@contextmanager
def _refusals(what: str, name: str, types: Mapping[str, str], schema: pa.Schema) -> Iterator[None]:
    """What the table does not take, with what the server does not know: whose rows they are."""
    try:
        yield
    except QueryFailed as error:
        if not isinstance(error.__cause__, _REFUSALS):
            raise
        texts = [
            f"{field.name!r} ({types[field.name]})"
            for field in schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            if not types[field.name].startswith(("text", "character"))
        ]
        hint = f"; text came for {', '.join(texts)}" if texts else ""
        raise QueryFailed(
            f"{what}: table {name} does not take these rows, and none was written ({error}{hint}): "
            "correct the values, or add the column that is missing"
        ) from error


def _target(
    config: PostgreSQLOfflineStoreConfig, what: str, name: str
) -> tuple[sql.Composable, dict[str, str]]:
    _, found = _locate(config, name)
    if found is None:
        raise FeatureError(f"{what}: there is no table {name}: create it, or correct its name")
    with connection(config) as database:
        rows = database.execute(_query("columns"), {"name": name}).fetchall()
    return _sql(found), {row["name"]: row["type"] for row in rows}


def _locate(config: PostgreSQLOfflineStoreConfig, name: str) -> tuple[list[str], str | None]:
    """The parts of a table's name, and the name as SQL writes it if the table is there."""
    with connection(config) as database:
        row = database.execute(_query("locate"), {"name": name}).fetchone()
    located = cast("dict[str, Any]", row)
    return located["parts"], located["found"]


def _refuse_nulls(what: str, rows: pa.Table, columns: Iterable[str]) -> None:
    for column in columns:
        if column in rows.column_names and (nulls := rows[column].null_count):
            raise DataError(
                f"{what}: expected a value in its column {column!r} in every row, found {nulls:,} without one, "
                "and nothing of this was written: a row is found by its join keys and its event time, so "
                "fill them in, or leave such rows out"
            )


def _refuse_unknown(what: str, name: str, columns: Iterable[str], known: Mapping[str, str]) -> None:
    for column in columns:
        if column not in known:
            close = get_close_matches(column, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "leave it out;"
            raise DataError(
                f"{what}: table {name} has no column {column!r}: {hint} it has {', '.join(known)}"
            )


def _ensure_log(config: PostgreSQLOfflineStoreConfig, name: str, schema: pa.Schema) -> None:
    parts, _ = _locate(config, name)
    table = sql.Identifier(*parts)
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_pg_type(field.type)))
        for field in schema
    ]
    with connection(config) as database:
        database.execute(_query("lock_table"), {"name": name})
        database.execute(_named("create_log").format(table=table, columns=_list(columns)))
        additions = _list(sql.SQL("ADD COLUMN IF NOT EXISTS {}").format(c) for c in columns)
        database.execute(_named("widen_log").format(table=table, additions=additions))
        asked = {"name": name, "column": LOG_TIMESTAMP_FIELD}
        if database.execute(_query("index_by"), asked).fetchone() is None:
            timestamp = sql.Identifier(LOG_TIMESTAMP_FIELD)
            database.execute(_named("index_log").format(table=table, timestamp=timestamp))


def _pg_type(arrow: pa.DataType) -> LiteralString:
    """The column type of a log for each type that Feast's features have there."""
    if isinstance(arrow, pa.ListType):
        return f"{_pg_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "timestamptz"
    names: dict[pa.DataType, LiteralString] = {
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.float32(): "real",
        pa.float64(): "double precision",
        pa.bool_(): "boolean",
        pa.binary(): "bytea",
        pa.date32(): "date",
    }
    return names.get(arrow, "text")


def _ingest(
    cursor: "dbapi.Cursor",
    name: str,
    reader: pa.RecordBatchReader | RecordBatches,
    *,
    schema: str | None = None,
    temporary: bool = False,
) -> None:
    """Rows into a new table, in the types of PostgreSQL that are nearest to Arrow's.

    Raises:
        What the reader raises, as it is: of an error that passes the driver only the text would be left.
    """
    flat = pa.schema([pa.field(f.name, _flat_type(f.type)) for f in reader.schema])
    failures: list[BaseException] = []
    batches = pa.RecordBatchReader.from_batches(flat, _flat(_noting(reader, failures), flat))
    try:
        cursor.adbc_ingest(name, batches, mode="create", db_schema_name=schema, temporary=temporary)
    except Exception:
        if failures:
            raise failures[0] from failures[0].__cause__
        raise


def _noting(
    reader: Iterable[pa.RecordBatch], failures: list[BaseException]
) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (Exception, KeyboardInterrupt) as error:
        failures.append(error)
        raise


def _flat(reader: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        columns = [
            _json(column) if _is_structured(column.type) else column.cast(field.type, safe=False)
            for column, field in zip(batch.columns, schema, strict=True)
        ]
        yield pa.record_batch(columns, schema=schema)


def _flat_type(arrow: pa.DataType) -> pa.DataType:
    if _is_structured(arrow):
        return pa.string()
    if isinstance(arrow, pa.TimestampType):
        return pa.timestamp("us", arrow.tz)
    if isinstance(arrow, _LISTS):
        return pa.list_(_flat_type(arrow.value_type))
    return arrow.value_type if isinstance(arrow, pa.DictionaryType) else arrow


def _is_structured(arrow: pa.DataType) -> bool:
    """Whether PostgreSQL has no type for it but JSON."""
    return pa.types.is_nested(arrow.value_type if isinstance(arrow, _LISTS) else arrow)


def _json(column: "pa.Array[Any]") -> "pa.Array[Any]":
    values = (
        [None if value is None else dict(value) for value in column.to_pylist()]
        if pa.types.is_map(column.type)
        else column.to_pylist()
    )
    return pa.array(
        [None if value is None else json.dumps(value, default=str) for value in values], pa.string()
    )


def _as_json(columns: Iterable[str]) -> sql.Composable:
    return _list(
        sql.SQL("ALTER COLUMN {0} TYPE jsonb USING {0}::jsonb").format(sql.Identifier(c))
        for c in columns
    )


def _run(cursor: "dbapi.Cursor", statement: LiteralString, **parts: sql.Composable) -> None:
    cursor.execute(_named(statement).format(**parts).as_string(None))


def _list(parts: Iterable[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


def _query(name: LiteralString) -> LiteralString:
    return sqlfiles.query("offline_writes", name)


def _named(name: LiteralString) -> sql.SQL:
    return sql.SQL(_query(name))


def _sql(text: str) -> sql.SQL:
    """Text of the server's own catalog, which it has quoted."""
    trusted: LiteralString = text
    return sql.SQL(trusted)
