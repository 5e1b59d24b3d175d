"""One look at everything: what `hyperfeast status` prints."""

from dataclasses import dataclass
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
# Table -> the column that says how new its rows are.
_TABLES = {
    "instruments": None,
    "corporate_actions": "recorded_at",
    "candles": "ts",
    "candle_revisions": "replaced_at",
    "user_baseline_raw": "ts",
    "quarantine": "recorded_at",
    "ingest_batches": "started_at",
    "training_runs": "start_time",
    "model_registry": "created_at",
    "signals": "ts",
}


@dataclass(frozen=True)
class ServerStatus:
    """One server: where it is, what it is, and what is wrong with it if anything."""

    name: str
    address: str
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class TableStatus:
    """How many rows a table holds, and the newest time in it (UTC)."""

    table: str
    rows: int
    newest: datetime | None


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
    tables = _TABLES | {one.table: "event_timestamp" for one in feature_sets.values()}
    counted = tuple(_table(database, name, newest) for name, newest in tables.items())
    return PlatformStatus(
        (postgres, redis), edition, schema, tuple(one for one in counted if one is not None)
    )


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


def _table(database: Database, name: str, newest: str | None) -> TableStatus | None:
    """None for a table that is not there yet: what is pending is the schema's line to say."""
    if database.fetch(query("status", "relation"), [name])[0]["found"] is None:
        return None
    statement = sql.SQL(query("status", "table")).format(
        table=sql.Identifier(name),
        newest=sql.Identifier(newest) if newest else sql.SQL("NULL::timestamptz"),
    )
    row = database.fetch(statement)[0]
    return TableStatus(name, row["rows"], row["newest"])
