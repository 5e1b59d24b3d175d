"""What materialization reads: the newest row of each entity in a range of time, or all rows of it.

Rows that arrived late count: where the source has a created timestamp, a row behind the range that
was recorded within it is read too, since the run whose range it falls in was over by then. Feast's
own store never reads it, and its `materialize-incremental` loses it. Late rows are found by an index
on the created timestamp where there is one, and else by reading the table.

How the newest rows are found is chosen by the server's own estimates: by one pass over the rows of
the range where an entity has few of them, and else from entity to entity by the index.
"""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, LiteralString, cast

import psycopg
import pyarrow as pa
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from feast import OnDemandFeatureView
from feast.data_source import DataSource
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import make_tzaware
from psycopg import sql
from psycopg.rows import DictRow

from hyperfeast import sqlfiles
from hyperfeast.errors import FeatureError
from hyperfeast.stores.offline import write
from hyperfeast.stores.offline.ahead import ahead
from hyperfeast.stores.offline.columns import Column, conformed, described
from hyperfeast.stores.offline.connection import arrow_connection, canceling, connection
from hyperfeast.stores.offline.stream import RecordBatches

_log = logging.getLogger(__name__)

# Above so many rows an entity it is cheaper to go from entity to entity, at 12 us each, than to read them
# all, at 1 us each in the order of an index and at 1.7 us sorted (20 float columns).
_ROWS_AN_ENTITY = 10
# Small enough that reading, encoding and writing go on side by side.
_BATCH_BYTES = 2**21
_AHEAD = 2
_BATCH_OPTION = "adbc.postgresql.batch_size_hint_bytes"


@dataclass(frozen=True)
class Wanted:
    """The rows and columns that Feast asks for, in names of the source.

    Attributes:
        source: a `PostgreSQLSource`: a table, or a query.
        keys: the columns of join keys; none for a view without entities, and for logs.
        features: the columns besides; none for all that there are.
        timestamp: the column of event times.
        created: the column of recorded times; None where there is none.
        start: the first event time, included; naive is UTC; None for no bound.
        end: the last event time, included; naive is UTC; None for no bound.
        overlap: how much earlier than `start` a late row may say that it was recorded.
    """

    source: DataSource
    keys: Sequence[str]
    features: Sequence[str]
    timestamp: str
    created: str | None
    start: datetime | None
    end: datetime | None
    overlap: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        if not isinstance(self.source, PostgreSQLSource):
            raise FeatureError(
                f"source {self.source.name} is a {type(self.source).__name__}: this offline store reads "
                "PostgreSQLSource; change the source, or the offline_store in feature_store.yaml"
            )

    @property
    def table(self) -> str | None:
        """The table's name as the repository writes it; None for a query."""
        return self.source._postgres_options._table or None  # noqa: SLF001 - no public way to it

    @property
    def relation(self) -> sql.Composable:
        """The table, or the query in parentheses. The repository's own text, as trusted as it is."""
        return _sql(self.source.get_table_query_string())

    @property
    def has_dummy_key(self) -> bool:
        """Whether Feast expects the key of the one entity that a view without entities has.

        What is read without a time column of its own is no view's source: a log, a saved dataset.
        """
        return not self.keys and bool(self.source.timestamp_field)


@dataclass(frozen=True)
class Query:
    """What to run, and what its columns are to be read as.

    Attributes:
        text: SQL without parameters.
        schema: the columns that come back.
        expected_rows: how many rows the server's statistics promise; None where nobody asked.
    """

    text: str
    schema: pa.Schema
    expected_rows: int | None = None


class QueryJob(RetrievalJob):
    """The result of one query, run and streamed when it is asked for.

    Args:
        config: how to reach PostgreSQL.
        compose: called once, when the query is needed.
    """

    def __init__(self, config: PostgreSQLOfflineStoreConfig, compose: Callable[[], Query]) -> None:
        self._config = config
        self._compose = compose

    @cached_property
    def _query(self) -> Query:
        return self._compose()

    def to_arrow_reader(self) -> RecordBatches:
        """The rows as Arrow record batches, in bounded memory. Read it to its end, or close it."""
        return _stream(self._config, self._query)

    @property
    def expected_rows(self) -> int | None:
        """How many rows the server's statistics promise; None where nobody asked. For a progress bar."""
        return self._query.expected_rows

    def to_sql(self) -> str:
        """The query, as the server's statistics make it best now."""
        return self._query.text

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with _stream(self._config, self._query, timeout_s=timeout) as reader:
            return reader.read_all()

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        """False: the columns bear the source's names."""
        return False

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """None: nothing is computed from the source's columns."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """None: there was no spine."""
        return None

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,  # noqa: ARG002
    ) -> None:
        """Write the rows into a table of their own, as `write.save_dataset` does."""
        with self.to_arrow_reader() as reader:
            write.save_dataset(self._config, reader, storage, allow_overwrite=allow_overwrite)


def pull_latest(config: PostgreSQLOfflineStoreConfig, wanted: Wanted) -> QueryJob:
    """The newest row, by (event time, created time), of each entity that has one in the range.

    Of rows equal in both any one is taken; a created time that is NULL is the oldest. Rows without
    an event time or with a NULL join key are left out: nothing could ask for them.

    Returns:
        A job whose rows have the keys, the features, the times, and Feast's dummy key for a view
        without entities. It raises FeatureError where the source is of another kind or lacks a column.
    """

    def compose() -> Query:
        with connection(config) as database:
            known = _described(database, wanted)
            columns, schema = _columns(wanted, known)
            query, rows = _newest(database, wanted, columns, _window(wanted, known))
        return Query(query.as_string(None), schema, rows)

    return QueryJob(config, compose)


def pull_all(config: PostgreSQLOfflineStoreConfig, wanted: Wanted) -> QueryJob:
    """All rows of the range; the same columns as `pull_latest` has, and the same errors.

    A view without entities gets Feast's dummy key, which Feast's own store forgets here.
    """

    def compose() -> Query:
        with connection(config) as database:
            known = _described(database, wanted)
        columns, schema = _columns(wanted, known)
        query = _named("all_rows").format(
            columns=columns, relation=wanted.relation, window=_window(wanted, known)
        )
        return Query(query.as_string(None), schema)

    return QueryJob(config, compose)


def _stream(
    config: PostgreSQLOfflineStoreConfig, query: Query, *, timeout_s: float | None = None
) -> RecordBatches:
    """The rows of a query. The connection opens with the first of them, and closes with the last, or before."""

    def fetched(database: ArrowConnection) -> Generator[pa.RecordBatch, None, None]:
        with database.cursor() as cursor:
            cursor.adbc_statement.set_options(**{_BATCH_OPTION: str(_BATCH_BYTES)})
            cursor.execute(query.text)
            yield from cursor.fetch_record_batch()

    def batches() -> Generator[pa.RecordBatch, None, None]:
        with (
            arrow_connection(config, timeout_s=timeout_s) as database,
            contextlib.closing(ahead(fetched(database), _AHEAD, canceling(database))) as rows,
        ):
            for batch in rows:
                columns = map(conformed, batch.columns, query.schema.types)
                yield pa.record_batch(list(columns), schema=query.schema)

    return RecordBatches(query.schema, batches())


@dataclass(frozen=True)
class _Order:
    """The order in which an index has a table's rows.

    Attributes:
        keys: the join keys, as they stand in it.
        descending: whether they descend when event times do.
    """

    keys: Sequence[str]
    descending: bool


def _newest(
    database: psycopg.Connection[DictRow],
    wanted: Wanted,
    columns: sql.Composable,
    window: sql.Composable,
) -> tuple[sql.Composable, int]:
    """The query for the newest rows, and how many the server expects."""
    parts = {
        "columns": columns,
        "relation": wanted.relation,
        "window": window,
        "newest": _newest_first(database, wanted),
    }
    if not wanted.keys:
        return _named("newest_of_all").format(**parts), 1
    order = _indexed_order(database, wanted)
    parts |= _of_entities(order or _Order(wanted.keys, descending=False))
    rows = _estimate(database, _named("rows_in_window").format(**parts))
    entities = _estimate(database, _named("entities").format(**parts))
    by_entity = order is not None and rows > _ROWS_AN_ENTITY * entities
    way = _by_entity(database, wanted) if by_entity else "newest_by_scan"
    _log.info("%s: about %d rows of %d entities: %s", wanted.source.name, rows, entities, way)
    return _named(way).format(**parts), min(rows, entities)


def _of_entities(order: _Order) -> dict[str, sql.Composable]:
    """The parts of a query that name the join keys."""
    keys = [_column("source", key) for key in order.keys]
    known = [_column("e", key) for key in order.keys]
    direction = sql.SQL("{} DESC" if order.descending else "{}")
    return {
        "keys": _list(keys),
        "entities": _list(direction.format(key) for key in keys),
        "entity_keys": _list(known),
        "known": _and(sql.SQL("{} IS NOT NULL").format(key) for key in keys),
        "same_entity": _and(
            sql.SQL("{} = {}").format(*pair) for pair in zip(keys, known, strict=True)
        ),
    }


def _indexed_order(database: psycopg.Connection[DictRow], wanted: Wanted) -> _Order | None:
    """The order of an index that begins with the join keys, in any order, and then has the event time."""
    if wanted.table is None:
        return None
    depth = len(wanted.keys)
    indexes = database.execute(sqlfiles.query("latest", "indexes"), {"table": wanted.table})
    for row in indexes:
        columns, descending = row["columns"], row["descending"]
        if {*columns[:depth]} == {*wanted.keys} and columns[depth:][:1] == [wanted.timestamp]:
            return _Order(columns[:depth], descending=descending[0] == descending[depth])
    return None


def _by_entity(database: psycopg.Connection[DictRow], wanted: Wanted) -> LiteralString:
    row = database.execute(
        sqlfiles.query("latest", "is_chunked"), {"table": wanted.table}
    ).fetchone()
    return "newest_by_listed_entity" if row and row["chunked"] else "newest_by_entity"


def _estimate(database: psycopg.Connection[DictRow], query: sql.Composable) -> int:
    row = database.execute(_named("estimate").format(query=query)).fetchone()
    return int(cast("DictRow", row)["QUERY PLAN"][0]["Plan"]["Plan Rows"])


def _described(database: psycopg.Connection[DictRow], wanted: Wanted) -> dict[str, Column]:
    """The source's columns, among which are all that are asked for."""
    known = described(database, wanted.relation)
    missing = [name for name in _names(wanted) if name not in known]
    if missing:
        raise FeatureError(
            f"source {wanted.source.name}: there is no column {', '.join(missing)}, it has "
            f"{', '.join(known)}: correct the feature view's schema or the source's field_mapping, "
            "and `feast apply`"
        )
    timestamp = known[wanted.timestamp]
    if not timestamp.is_instant:
        raise FeatureError(
            f"source {wanted.source.name}: expected a time in its column {timestamp.name!r} (timestamp_field), "
            f"found {timestamp.type_name}: make it timestamptz, or convert it in the source's query"
        )
    return known


def _names(wanted: Wanted) -> list[str]:
    created = [wanted.created] if wanted.created else []
    return list(dict.fromkeys([*wanted.keys, *wanted.features, wanted.timestamp, *created]))


def _columns(wanted: Wanted, known: Mapping[str, Column]) -> tuple[sql.Composable, pa.Schema]:
    """The columns that are asked for, and Feast's dummy key; and what they are to be read as."""
    chosen = [known[name] for name in (_names(wanted) if wanted.features else known)]
    columns = [sql.SQL("{} AS {}").format(c.value, sql.Identifier(c.name)) for c in chosen]
    fields = [pa.field(c.name, c.arrow) for c in chosen]
    if wanted.has_dummy_key:
        dummy = sql.Literal(DUMMY_ENTITY_VAL), sql.Identifier(DUMMY_ENTITY_ID)
        columns.append(sql.SQL("{}::text AS {}").format(*dummy))
        fields.append(pa.field(DUMMY_ENTITY_ID, pa.string()))
    return _list(columns), pa.schema(fields)


def _window(wanted: Wanted, known: Mapping[str, Column]) -> sql.Composable:
    timestamp = _column("source", wanted.timestamp)
    if wanted.start is None or wanted.end is None:
        bounds = [(sql.SQL("{} >= {}"), wanted.start), (sql.SQL("{} <= {}"), wanted.end)]
        held = [part.format(timestamp, _moment(at)) for part, at in bounds if at is not None]
        return _and([sql.SQL("{} IS NOT NULL").format(timestamp), *held])
    parts = {"timestamp": timestamp, "start": _moment(wanted.start), "end": _moment(wanted.end)}
    if not wanted.created:
        return _named("within").format(**parts)
    recorded_from = _moment(wanted.start, wanted.overlap)
    if known[wanted.created].type_name == "date":
        # All that is known of it is the day: the whole of the first one counts.
        recorded_from = sql.SQL("{}::timestamptz::date").format(recorded_from)
    return _named("within_or_late").format(
        **parts, created=_column("source", wanted.created), recorded_from=recorded_from
    )


def _moment(at: datetime, before: timedelta = timedelta(0)) -> sql.Composable:
    """A literal: ADBC streams only what has no parameters. It stops at the first year there is."""
    zoned = make_tzaware(at).astimezone(UTC)
    earliest = datetime.min.replace(tzinfo=UTC)
    return sql.Literal(zoned - before if zoned - earliest > before else earliest)


def _newest_first(database: psycopg.Connection[DictRow], wanted: Wanted) -> sql.Composable:
    order = [sql.SQL("{} DESC").format(_column("source", wanted.timestamp))]
    if wanted.created:
        asked = {"table": wanted.table, "column": wanted.created}
        never_null = database.execute(sqlfiles.query("latest", "is_never_null"), asked).fetchone()
        direction = sql.SQL("{} DESC" if never_null is not None else "{} DESC NULLS LAST")
        order.append(direction.format(_column("source", wanted.created)))
    return _list(order)


def _column(relation: LiteralString, name: str) -> sql.Composable:
    return sql.Identifier(relation, name)


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _and(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(" AND ").join(parts)


def _named(name: LiteralString) -> sql.SQL:
    return sql.SQL(sqlfiles.query("latest", name))


def _sql(text: str) -> sql.SQL:
    trusted: LiteralString = text
    return sql.SQL(trusted)
