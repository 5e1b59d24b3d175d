"""What `apply` would change, and what enforcing the declaration would drop and compress."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.lifecycle import catalog
from hyperfeast.lifecycle.catalog import COMPRESSION, RETENTION, Catalog, Chunk, InForce
from hyperfeast.lifecycle.declaration import FOREVER, NEVER, TableLifecycle, load
from hyperfeast.lifecycle.expiry import Drop, drops
from hyperfeast.lifecycle.intervals import Interval
from hyperfeast.types import Edition

Setting = tuple[str, str, str]


@dataclass(frozen=True)
class Change:
    """One setting that is not in force as it is declared.

    Attributes:
        relation: the table, or the aggregate whose refresh is meant.
        tf: the timeframe; empty for all rows.
        setting: keep_for, chunk_interval, compress_after, segment_by, order_by, retention_policy or
            refresh_from.
        found: what is in force; None for nothing.
        declared: what will be; None for nothing.
    """

    relation: str
    tf: str
    setting: str
    found: str | None
    declared: str | None


@dataclass(frozen=True)
class Compression:
    """What compressing now would take on: chunks of one table that are old enough, and their bytes."""

    relation: str
    chunks: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What would change.

    Attributes:
        edition: what the database can do.
        changes: settings that `apply` would set.
        drops: what `enforce` would drop once they are.
        compress: what is old enough to be compressed; None where the edition cannot compress.
        notes: what is worth knowing besides.
        tables: the declaration that it was made from.
    """

    edition: Edition
    changes: list[Change]
    drops: list[Drop]
    compress: list[Compression] | None
    notes: list[str]
    tables: Mapping[str, TableLifecycle]

    @property
    def dropped_bytes(self) -> int:
        """What enforcing would free, about."""
        return sum(one.bytes for one in self.drops)


def plan(
    database: Database,
    tables: Mapping[str, TableLifecycle] | None = None,
    *,
    now: datetime | None = None,
) -> Plan:
    """Compare what is declared with what is in force. Changes nothing.

    Counts the rows that have expired, so it takes as long as reading them.

    Args:
        database: where.
        tables: the declaration; `sql/lifecycle.toml` if left out.
        now: the time to judge ages by, zoned; the database's clock if left out.

    Raises:
        DataError: the declaration is wrong.
        SchemaError: it names tables or columns that are not there.
        ServerError: the server does not answer.
    """
    tables = load() if tables is None else tables
    with database.connect() as connection:
        found = catalog.read(connection)
        tables = catalog.by_name(found, tables)
        catalog.check(found, tables.values())
        return Plan(
            edition=found.edition,
            changes=changes(connection, found, tables, now),
            drops=[
                drop
                for name, table in tables.items()
                for drop in drops(
                    connection,
                    table,
                    found.relations[name],
                    catalog.horizons(connection, table.keep_for, now),
                )
            ],
            compress=_compressible(connection, found, tables, now),
            notes=_notes(found, tables),
            tables=tables,
        )


def changes(
    connection: Connection[DictRow],
    found: Catalog,
    tables: Mapping[str, TableLifecycle],
    now: datetime | None,
) -> list[Change]:
    """Every setting whose declared value is not the one in force."""
    declared: dict[Setting, str | None] = {}
    in_force = dict.fromkeys(
        ((name, tf, "keep_for") for name, tf in found.in_force if name not in tables), None
    )
    actual: dict[Setting, str | None] = {
        key: _keep_for(found.in_force[key[0], key[1]]) for key in in_force
    }
    for table in tables.values():
        declared |= _declared(table, found)
        actual |= _actual(table, found)
        declared |= refreshes_from(connection, table, found, now)
    for rollup, policy in found.refreshes.items():
        actual[rollup, "", "refresh_from"] = _readable(policy.after) or "the beginning"
    return [
        Change(*key, actual.get(key), declared.get(key))
        for key in [*declared, *in_force]
        if actual.get(key) != declared.get(key) and (key not in in_force or actual[key] != FOREVER)
    ]


def refreshes_from(
    connection: Connection[DictRow],
    table: TableLifecycle,
    found: Catalog,
    now: datetime | None,
) -> dict[Setting, str | None]:
    """How far back the refresh policies of a table's rollups may reach: never below the horizon.

    The horizon is never newer than `keep_for` ago, so that a policy which starts there is right for ever;
    unless rows were dropped while less was kept. Then it starts at what is left, and the range grows
    with every `apply` until it is `keep_for`: a shorter one that is in force stays for now.
    """
    kept = table.keep_for.get(table.rollups_of)
    row = found.in_force.get((table.relation, table.rollups_of))
    left = _left(connection, row.dropped_before, now) if row and row.dropped_before else None
    wanted: dict[Setting, str | None] = {}
    for rollup in table.rollups:
        policy = found.refreshes.get(rollup)
        if policy is None:
            continue
        limit = min((one for one in (kept, left) if one), default=None)
        reach = Interval.printed(policy.after) if policy.after else None
        shortened = limit is not None and limit is not kept
        if limit is None or (shortened and reach is not None and reach <= limit):
            continue
        wanted[rollup, "", "refresh_from"] = str(limit)
    return wanted


def _left(connection: Connection[DictRow], horizon: datetime, now: datetime | None) -> Interval:
    """The whole hours since the horizon, less one."""
    age = catalog.moment(connection, Interval(hours=1), now) - horizon
    return Interval(hours=max(int(age.total_seconds() // 3600), 1)).folded


def _declared(table: TableLifecycle, found: Catalog) -> dict[Setting, str | None]:
    name, relation = table.relation, found.relations[table.relation]
    settings: dict[Setting, str | None] = {
        (name, tf, "keep_for"): str(kept) if kept else FOREVER
        for tf, kept in table.keep_for.items()
    }
    if not relation.hypertable:
        return settings
    settings[name, "", "chunk_interval"] = str(table.chunk_interval.folded)
    if found.edition.compression and table.compress_after:
        settings[name, "", "segment_by"] = ", ".join(table.segment_by)
        settings[name, "", "order_by"] = ", ".join(table.order_by)
    if found.edition.compression:
        settings[name, "", "compress_after"] = (
            str(table.compress_after) if table.compress_after else NEVER
        )
    if found.edition.policies:
        kept = table.keep_for.get("")
        settings[name, "", "retention_policy"] = str(kept) if table.dropped_by_policy else None
    return settings


def _actual(table: TableLifecycle, found: Catalog) -> dict[Setting, str | None]:
    name, relation = table.relation, found.relations[table.relation]
    settings: dict[Setting, str | None] = {
        (name, tf, "keep_for"): _keep_for(found.in_force.get((name, tf))) for tf in table.keep_for
    }
    compression = relation.policies.get(COMPRESSION)
    retention = relation.policies.get(RETENTION)
    settings[name, "", "chunk_interval"] = (
        str(relation.chunk_interval.folded) if relation.chunk_interval else None
    )
    settings[name, "", "segment_by"] = ", ".join(relation.segment_by) if relation.order_by else None
    settings[name, "", "order_by"] = ", ".join(relation.order_by) or None
    settings[name, "", "compress_after"] = _readable(compression.after) if compression else NEVER
    settings[name, "", "retention_policy"] = _readable(retention.after) if retention else None
    return settings


def _keep_for(row: InForce | None) -> str | None:
    if row is None:
        return None
    return str(row.keep_for) if row.keep_for else FOREVER


def _readable(printed: str | None) -> str | None:
    """An interval as PostgreSQL prints it, as it is written in the declaration."""
    return str(Interval.printed(printed) or printed) if printed else None


def compressible(
    connection: Connection[DictRow], table: TableLifecycle, now: datetime | None
) -> list[Chunk]:
    """The chunks of a hypertable that are old enough to be compressed, and are not yet."""
    if table.compress_after is None:
        return []
    newest = catalog.moment(connection, table.compress_after, now)
    return [
        one
        for one in catalog.chunks(connection, table.relation)
        if not one.compressed and one.end <= newest
    ]


def _compressible(
    connection: Connection[DictRow],
    found: Catalog,
    tables: Mapping[str, TableLifecycle],
    now: datetime | None,
) -> list[Compression] | None:
    if not found.edition.compression:
        return None
    due = {
        name: compressible(connection, table, now)
        for name, table in tables.items()
        if found.relations[name].hypertable
    }
    return [
        Compression(name, len(chunks), sum(one.bytes for one in chunks))
        for name, chunks in due.items()
        if chunks
    ]


def _notes(found: Catalog, tables: Mapping[str, TableLifecycle]) -> list[str]:
    notes = []
    if not found.edition.compression:
        notes.append(f"compression is unavailable on {found.edition}")
    if not found.edition.hypertables:
        notes.append(
            "rows are deleted in batches: VACUUM makes their space usable again, by itself after a while"
        )
    for name, relation in found.relations.items():
        if relation.hypertable and name not in tables:
            notes.append(f"{name} is a hypertable without a declaration: its rows stay for ever")
        if found.edition.hypertables and name in tables and not relation.hypertable:
            notes.append(f"{name} is no hypertable: it has no chunks to compress or drop")
    return notes
