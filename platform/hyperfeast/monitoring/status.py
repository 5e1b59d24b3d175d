"""One look at everything: what `hyperfeast status` prints."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import sql

from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.errors import ServerError
from hyperfeast.features import FeatureSet
from hyperfeast.migrate import SchemaState, state
from hyperfeast.sqlfiles import query
from hyperfeast.types import Edition

_NOT_RUNNING = "not running: `hyperfeast up` starts it"
# Tables with more rows, as the planner thinks, are not counted.
_COUNTED = 100_000


@dataclass(frozen=True)
class _Table:
    """A table, the column that says how new its rows are, and by which key an index leads to it."""

    name: str
    newest: str | None = None
    series: tuple[str, ...] = ()


_TABLES = (
    _Table("instruments"),
    _Table("corporate_actions", "recorded_at"),
    _Table("candles", "ts", ("symbol", "tf")),
    _Table("candle_revisions", "replaced_at"),
    _Table("user_baseline_raw", "ts", ("user_id", "metric", "source")),
    _Table("quarantine", "recorded_at"),
    _Table("ingest_batches", "started_at"),
    _Table("training_runs", "start_time"),
    _Table("model_registry", "created_at"),
    _Table("signals", "ts", ("symbol",)),
)


@dataclass(frozen=True)
class ServerStatus:
    """One server: where it is, what it is, and what is wrong with it if anything."""

    name: str
    address: str
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class TableStatus:
    """How many rows a table holds, and the newest time in it (UTC).

    Attributes:
        table: its name.
        rows: how many.
        newest: the newest time in its rows; None if there are none, or if they have no time.
        estimated: whether `rows` is what the planner thinks.
    """

    table: str
    rows: int
    newest: datetime | None
    estimated: bool = False


@dataclass(frozen=True)
class PlatformStatus:
    """The whole picture. Schema and tables are empty where the database does not answer."""

    servers: tuple[ServerStatus, ...]
    edition: Edition | None
    schema: SchemaState | None
    tables: tuple[TableStatus, ...]

    @property
    def healthy(self) -> bool:
        """Whether every server answers and no migration is pending."""
        answers = all(server.error is None for server in self.servers)
        return answers and self.schema is not None and not self.schema.pending


def status(
    database: Database | None, redis_url: str | None, feature_sets: dict[str, FeatureSet]
) -> PlatformStatus:
    """Look at both servers, the schema and the tables. It changes nothing; an error is part of the answer.

    Tables with over a hundred thousand rows are not counted: the planner's estimate is given, see `exact`.

    Args:
        database: None for an embedded server that does not run.
        redis_url: likewise.
        feature_sets: whose tables to look at.
    """
    redis = (
        _redis(redis_url) if redis_url else ServerStatus("Redis", "embedded", error=_NOT_RUNNING)
    )
    if database is None:
        return PlatformStatus(
            (ServerStatus("PostgreSQL", "embedded", error=_NOT_RUNNING), redis), None, None, ()
        )
    try:
        server = database.fetch(query("status", "server"))[0]
        edition, schema = database.edition(), state(database)
    except ServerError as error:
        postgres = ServerStatus("PostgreSQL", database.address, error=str(error))
        return PlatformStatus((postgres, redis), None, None, ())
    version = server["version"].split(" ")[0]
    if server["timescaledb"]:
        version += f" + TimescaleDB {server['timescaledb']}"
    postgres = ServerStatus("PostgreSQL", database.address, version)
    of_features = (
        _Table(one.table, "event_timestamp", tuple(one.key_columns))
        for one in feature_sets.values()
    )
    looked_at = (_look(database, edition, table) for table in (*_TABLES, *of_features))
    return PlatformStatus(
        (postgres, redis), edition, schema, tuple(one for one in looked_at if one is not None)
    )


def exact(database: Database, found: PlatformStatus) -> PlatformStatus:
    """The same, with every table counted, which reads all rows of the large ones."""
    tables = tuple(
        replace(one, rows=_count(database, one.table, None)["rows"], estimated=False)
        if one.estimated
        else one
        for one in found.tables
    )
    return replace(found, tables=tables)


def _redis(url: str) -> ServerStatus:
    where = cache.address(url)
    try:
        with cache.connect(url) as client:
            info: dict[str, Any] = client.info("server")  # type: ignore[assignment]
            keys = client.dbsize()
    except ServerError as error:
        return ServerStatus("Redis", where, error=str(error))
    version = info.get("valkey_version")
    name = f"Valkey {version}" if version else info["redis_version"]
    return ServerStatus("Redis", where, f"{name}, {keys} keys")


def _look(database: Database, edition: Edition, table: _Table) -> TableStatus | None:
    """None for a table that is not there yet: what is pending is the schema's line to say."""
    if database.fetch(query("status", "relation"), [table.name])[0]["found"] is None:
        return None
    rows = _estimate(database, table.name)
    if rows > _COUNTED:
        return TableStatus(table.name, rows, _newest(database, edition, table), estimated=True)
    row = _count(database, table.name, table.newest)
    return TableStatus(table.name, row["rows"], row["newest"])


def _estimate(database: Database, table: str) -> int:
    """How many rows the planner expects, by the table's size and its last statistics."""
    statement = sql.SQL(query("status", "estimate")).format(table=sql.Identifier(table))
    plan = database.fetch(statement)[0]["QUERY PLAN"]
    return int(plan[0]["Plan"]["Plan Rows"])


def _count(database: Database, table: str, newest: str | None) -> dict[str, Any]:
    statement = sql.SQL(query("status", "table")).format(
        table=sql.Identifier(table),
        newest=sql.Identifier(newest) if newest else sql.SQL("NULL::timestamptz"),
    )
    return database.fetch(statement)[0]


def _newest(database: Database, edition: Edition, table: _Table) -> datetime | None:
    """Without reading all rows: in the newest chunk, or by the index, one leap a series."""
    if table.newest is None:
        return None
    names = {"table": sql.Identifier(table.name), "newest": sql.Identifier(table.newest)}
    if edition.hypertables:
        parameters = {"table": table.name, "newest": table.newest}
        chunk = database.fetch(query("status", "newest_chunk"), parameters)
        since = chunk[0]["since"] if chunk else None
        statement = sql.SQL(query("status", "newest_since")).format(**names)
        if since and (newest := database.fetch(statement, {"since": since})[0]["newest"]):
            return newest  # type: ignore[no-any-return]
    elif table.series:
        statement = sql.SQL(query("status", "newest_of_series")).format(
            series=sql.SQL(", ").join(map(sql.Identifier, table.series)),
            of_series=sql.SQL(", ").join(sql.Identifier("one", name) for name in table.series),
            **names,
        )
        return database.fetch(statement)[0]["newest"]  # type: ignore[no-any-return]
    return database.fetch(sql.SQL(query("status", "newest")).format(**names))[0]["newest"]  # type: ignore[no-any-return]
