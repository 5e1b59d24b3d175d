"""What every table looks like now: declared, in force, chunks, sizes, ages, the next run of its policies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.lifecycle import catalog
from hyperfeast.lifecycle.catalog import FILE, Catalog
from hyperfeast.lifecycle.declaration import FOREVER, NEVER, TableLifecycle, load
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Kept:
    """How long rows are kept, of a table or one of its timeframes.

    Attributes:
        tf: the timeframe; empty for all rows.
        declared: for how long by the declaration.
        in_force: for how long they are; None if nothing was applied yet.
        dropped_before: the horizon below which rows are gone; None if none were dropped.
    """

    tf: str
    declared: str
    in_force: str | None
    dropped_before: datetime | None


@dataclass(frozen=True)
class TableState:
    """One table.

    Attributes:
        relation: its name.
        kept: how long its rows are kept.
        chunk_interval: what its chunks hold; None where it has none.
        compress_after: what is declared; None where the edition cannot compress.
        chunks: how many it has; None for a table that is not partitioned.
        compressed_chunks: how many of these are compressed.
        bytes: what it takes, indexes included.
        bytes_uncompressed: what it would take if nothing were compressed.
        rows: an estimate.
        oldest: the oldest row's time.
        newest: the newest row's time.
        next_runs: when the database's own policies run next, by what they do.
    """

    relation: str
    kept: list[Kept]
    chunk_interval: str | None
    compress_after: str | None
    chunks: int | None
    compressed_chunks: int
    bytes: int
    bytes_uncompressed: int
    rows: int
    oldest: datetime | None
    newest: datetime | None
    next_runs: dict[str, datetime | None]


def show(
    database: Database, tables: Mapping[str, TableLifecycle] | None = None
) -> list[TableState]:
    """Every declared table as it stands. Changes nothing.

    Args:
        database: where.
        tables: the declaration; `sql/lifecycle.toml` if left out.

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
        return [_state(connection, found, table) for table in tables.values()]


def _state(connection: Connection[DictRow], found: Catalog, table: TableLifecycle) -> TableState:
    relation = found.relations[table.relation]
    chunks = catalog.chunks(connection, table.relation) if relation.hypertable else []
    compressed = [one for one in chunks if one.compressed]
    size = sum(one.bytes for one in chunks) if relation.hypertable else relation.bytes
    ages = connection.execute(
        sql.SQL(query(FILE, "newest_and_oldest")).format(
            time=sql.Identifier(table.time_column), relation=sql.Identifier(table.relation)
        )
    ).fetchall()[0]
    return TableState(
        relation=table.relation,
        kept=_kept(found, table),
        chunk_interval=str(relation.chunk_interval.folded) if relation.chunk_interval else None,
        compress_after=str(table.compress_after or NEVER) if found.edition.compression else None,
        chunks=len(chunks) if relation.hypertable else None,
        compressed_chunks=len(compressed),
        bytes=size,
        bytes_uncompressed=size + (_saved(connection, table) if compressed else 0),
        rows=relation.rows,
        oldest=ages["oldest"],
        newest=ages["newest"],
        next_runs={
            kind.removeprefix("policy_"): policy.next_start
            for kind, policy in relation.policies.items()
        },
    )


def _kept(found: Catalog, table: TableLifecycle) -> list[Kept]:
    def in_force(tf: str) -> str | None:
        row = found.in_force.get((table.relation, tf))
        return str(row.keep_for or FOREVER) if row else None

    def dropped_before(tf: str) -> datetime | None:
        row = found.in_force.get((table.relation, tf))
        return row.dropped_before if row else None

    return [
        Kept(tf, str(kept or FOREVER), in_force(tf), dropped_before(tf))
        for tf, kept in table.keep_for.items()
    ]


def _saved(connection: Connection[DictRow], table: TableLifecycle) -> int:
    """The bytes that compression saves."""
    row = connection.execute(
        query(FILE, "compressed_sizes"), {"relation": table.relation}
    ).fetchall()[0]
    saved: int = row["before"] - row["after"]
    return saved
