"""What the database says of its tables: chunks, sizes, settings, policies, and what was put in force."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db.connection import edition_of
from hyperfeast.errors import SchemaError
from hyperfeast.lifecycle.declaration import TableLifecycle
from hyperfeast.lifecycle.intervals import Interval
from hyperfeast.sqlfiles import query
from hyperfeast.types import Edition

FILE = "lifecycle"
COMPRESSION = "policy_compression"
RETENTION = "policy_retention"
REFRESH = "policy_refresh_continuous_aggregate"


@dataclass(frozen=True)
class Policy:
    """One entry of the database's own schedule."""

    job_id: int
    kind: str
    next_start: datetime | None
    after: str | None


@dataclass(frozen=True)
class Chunk:
    """One chunk of a hypertable: rows in [start, end)."""

    schema: str
    name: str
    start: datetime
    end: datetime
    compressed: bool
    bytes: int

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(self.schema, self.name)


@dataclass(frozen=True)
class Relation:
    """One table as it stands. What it has on TimescaleDB alone is empty elsewhere."""

    name: str
    columns: frozenset[str]
    primary_key: tuple[str, ...]
    rows: int
    bytes: int
    time_column: str | None = None
    chunk_interval: Interval | None = None
    segment_by: tuple[str, ...] = ()
    order_by: tuple[str, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)

    @property
    def hypertable(self) -> bool:
        """Whether it is partitioned by time."""
        return self.time_column is not None


@dataclass(frozen=True)
class InForce:
    """What `lifecycle_in_force` holds for a table or one of its timeframes."""

    keep_for: Interval | None
    dropped_before: datetime | None


@dataclass(frozen=True)
class Catalog:
    """The database's side."""

    edition: Edition
    relations: Mapping[str, Relation]
    in_force: Mapping[tuple[str, str], InForce]
    refreshes: Mapping[str, Policy]


def read(connection: Connection[DictRow]) -> Catalog:
    """Everything but chunks, which are read by relation."""
    edition = edition_of(connection)
    in_force = {
        (row["relation"], row["tf"]): InForce(_interval(row["keep_for"]), row["dropped_before"])
        for row in _fetch(connection, "in_force")
    }
    plain = {row["relation"]: row for row in _fetch(connection, "tables")}
    hyper = _by_relation(connection, "hypertables") if edition.hypertables else {}
    settings = _settings(connection) if edition.compression else {}
    policies = _policies(connection) if edition.policies else {}
    relations = {
        name: _relation(row, hyper.get(name), settings.get(name, ((), ())), policies.get(name, {}))
        for name, row in plain.items()
    }
    refreshes = {name: kinds[REFRESH] for name, kinds in policies.items() if REFRESH in kinds}
    return Catalog(edition, relations, in_force, refreshes)


def by_name(catalog: Catalog, tables: Mapping[str, TableLifecycle]) -> dict[str, TableLifecycle]:
    """The declaration of each table by its name: what is declared of many, for each of those there are."""
    found = {name: table for name, table in tables.items() if not table.of_many}
    for table in tables.values():
        if table.of_many:
            for relation in catalog.relations.values():
                if relation.name.startswith(table.relation[:-1]) and relation.name not in tables:
                    found[relation.name] = _of_one(table, relation)
    return found


def _of_one(table: TableLifecycle, relation: Relation) -> TableLifecycle:
    ordered = {column.split(" ")[0] for column in table.order_by}
    segment_by = tuple(one for one in relation.primary_key if one not in ordered)
    return replace(table, relation=relation.name, segment_by=segment_by)


def check(catalog: Catalog, tables: Iterable[TableLifecycle]) -> None:
    """See that what is declared names what there is.

    Raises:
        SchemaError: a table or a column is not there, or a hypertable is partitioned by another column.
    """
    for table in tables:
        found = catalog.relations.get(table.relation)
        if found is None:
            raise SchemaError(
                f"sql/lifecycle.toml: [{table.relation}]: expected a table of the database, found none: "
                "correct the name, or run `hyperfeast migrate`"
            )
        if absent := sorted(table.columns - found.columns):
            raise SchemaError(
                f"sql/lifecycle.toml: [{table.relation}]: expected columns of the table, found no column "
                f"{', '.join(absent)}: correct the name, or run `hyperfeast migrate`"
            )
        if found.hypertable and found.time_column != table.time_column:
            raise SchemaError(
                f"sql/lifecycle.toml: {table.relation}.time_column: expected {found.time_column}, which "
                f"the hypertable is partitioned by, found {table.time_column}"
            )


def chunks(connection: Connection[DictRow], relation: str) -> list[Chunk]:
    """The chunks of a hypertable, the oldest first."""
    rows = connection.execute(query(FILE, "chunks"), {"relation": relation}).fetchall()
    return [
        Chunk(
            row["schema"], row["name"], row["range_start"], row["range_end"],
            compressed=row["compressed"], bytes=row["bytes"] or 0,
        )
        for row in rows
    ]  # fmt: skip


def horizons(
    connection: Connection[DictRow], keep_for: Mapping[str, Interval | None], now: datetime | None
) -> dict[str, datetime]:
    """By timeframe the Monday, 00:00 UTC, before which rows have expired; none for what stays for ever."""
    kept = {tf: str(interval) for tf, interval in keep_for.items() if interval}
    rows = connection.execute(
        query(FILE, "horizons"), {"now": now, "keep_for": list(kept.values())}
    ).fetchall()
    return {tf: row["horizon"] for tf, row in zip(kept, rows, strict=True)}


def moment(connection: Connection[DictRow], age: Interval, now: datetime | None) -> datetime:
    """So long ago, by the database's clock unless told the time."""
    row = connection.execute(query(FILE, "moment"), {"now": now, "age": str(age)}).fetchall()[0]
    found: datetime = row["moment"]
    return found


def timeframe_of(table: TableLifecycle) -> sql.Composable:
    """A row's timeframe in a statement; empty text where the table is not kept by timeframe."""
    return sql.Identifier("tf") if table.by_timeframe else sql.SQL("''::text")


def _relation(
    row: DictRow,
    hyper: DictRow | None,
    settings: tuple[tuple[str, ...], tuple[str, ...]],
    policies: Mapping[str, Policy],
) -> Relation:
    segment_by, order_by = settings
    return Relation(
        name=row["relation"],
        columns=frozenset(row["columns"]),
        primary_key=tuple(row["primary_key"] or ()),
        rows=hyper["rows"] if hyper else row["rows"],
        bytes=row["bytes"],
        time_column=hyper["time_column"] if hyper else None,
        chunk_interval=_interval(hyper["chunk_interval"]) if hyper else None,
        segment_by=segment_by,
        order_by=order_by,
        policies=policies,
    )


def _settings(
    connection: Connection[DictRow],
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    found: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for row in _fetch(connection, "compression_settings"):
        segment_by, order_by = found.get(row["relation"], ((), ()))
        if row["segment"] is not None:
            segment_by = (*segment_by, row["column"])
        else:
            order_by = (*order_by, row["column"] + ("" if row["ascending"] else " DESC"))
        found[row["relation"]] = (segment_by, order_by)
    return found


def _policies(connection: Connection[DictRow]) -> dict[str, dict[str, Policy]]:
    after = {COMPRESSION: "compress_after", RETENTION: "drop_after", REFRESH: "start_offset"}
    found: dict[str, dict[str, Policy]] = {}
    for row in _fetch(connection, "policies"):
        kind = row["kind"]
        policy = Policy(row["job_id"], kind, row["next_start"], row[after[kind]])
        found.setdefault(row["relation"], {})[kind] = policy
    return found


def _interval(text: str | None) -> Interval | None:
    return Interval.printed(text) if text else None


def _by_relation(connection: Connection[DictRow], name: str) -> dict[str, DictRow]:
    return {row["relation"]: row for row in _fetch(connection, name)}


def _fetch(connection: Connection[DictRow], name: str) -> list[dict[str, Any]]:
    return connection.execute(query(FILE, name)).fetchall()
