"""Drops what has expired under what is in force.

The order, and why it heals. First the rollups of what will go are refreshed. Then one short transaction
locks the table's row in `lifecycle_in_force`, sees that no day below the new horizon waits for a
refresh, and records the horizon. Only then do rows go, in transactions of their own. Whoever is killed
in between leaves rows below a recorded horizon: refreshes and ingestion take them as gone already, and
the next run drops them. The other order would leave a gap above the horizon, and a refresh would
take it for rows that were deleted, and delete the rollups.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from psycopg import Connection, errors, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import DataError
from hyperfeast.lifecycle import catalog
from hyperfeast.lifecycle.catalog import FILE, Catalog, Chunk
from hyperfeast.lifecycle.declaration import WHOLE, TableLifecycle, load
from hyperfeast.lifecycle.expiry import ExpiredChunk, expired_chunks
from hyperfeast.lifecycle.intervals import Interval
from hyperfeast.lifecycle.planning import compressible
from hyperfeast.lifecycle.turn import transaction, turn
from hyperfeast.sqlfiles import query

# About 4 MB, some 40,000 bars: what one transaction deletes.
_PAGES_A_BATCH = 512

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Enforced:
    """What was dropped of one table.

    Attributes:
        relation: the table.
        dropped_before: by timeframe the horizon below which rows are gone; on TimescaleDB those of a chunk
            that reaches above it wait until the whole chunk is below.
        chunks_dropped: chunks that went as a whole.
        rows_dropped: rows that went, with a chunk or without.
        chunks_compressed: chunks that were compressed because that was asked for.
    """

    relation: str
    dropped_before: Mapping[str, datetime] = field(default_factory=dict)
    chunks_dropped: int = 0
    rows_dropped: int = 0
    chunks_compressed: int = 0


def enforce(
    database: Database,
    tables: Mapping[str, TableLifecycle] | None = None,
    *,
    refresh: Callable[[], object],
    now: datetime | None = None,
    compress_now: bool = False,
    progress: Progress | None = None,
) -> list[Enforced]:
    """Drop every row that has expired under what is in force. Safe to end and to run again.

    Args:
        database: where.
        tables: the declaration, for what columns and rollups a table has; how long its rows are kept is
            read from what is in force. `sql/lifecycle.toml` if left out.
        refresh: brings the aggregates up to date; called before anything is dropped.
        now: the time to judge ages by, zoned; the database's clock if left out.
        compress_now: also compress what is old enough, ahead of the database's schedule.
        progress: called with (done, total) steps of the table at hand.

    Returns:
        One entry a table that something is in force for.

    Raises:
        DataError: changes below the horizon have not reached the aggregates. Nothing of that table was
            dropped; the other tables are done.
        SchemaError: the declaration names what is not there.
        ServerError: the server does not answer, or another run is at it.
    """
    tables = load() if tables is None else tables
    with turn(database) as connection:
        found = catalog.read(connection)
        tables = catalog.by_name(found, tables)
        ruled = [table for name, table in tables.items() if _kept(found, name)]
        catalog.check(found, ruled)
        if any(_expiring(found, table.relation) for table in ruled):
            refresh()
        run = _Run(connection, found, now, progress or (lambda _done, _total: None))
        done, refused = list[Enforced](), list[DataError]()
        for table in ruled:
            try:
                done.append(run.enforce(table, compress_now=compress_now))
            except DataError as error:
                refused.append(error)
    if refused:
        raise refused[0]
    return done


@dataclass(frozen=True)
class _Run:
    connection: Connection[DictRow]
    found: Catalog
    now: datetime | None
    progress: Progress

    def enforce(self, table: TableLifecycle, *, compress_now: bool) -> Enforced:
        keep_for = _expiring(self.found, table.relation)
        table = replace(table, keep_for=_kept(self.found, table.relation))
        horizons = catalog.horizons(self.connection, keep_for, self.now)
        for tf, horizon in horizons.items():
            transaction(self.connection, self._move_horizon, table, tf, horizon)
        done = Enforced(table.relation, horizons)
        hypertable = self.found.relations[table.relation].hypertable
        if hypertable:
            done = self._drop_from_chunks(done, table, horizons)
        elif horizons:
            rows = self._sweep(sql.Identifier(table.relation), table.relation, table, horizons)
            done = replace(done, rows_dropped=rows)
        if compress_now and hypertable and self.found.edition.compression:
            done = replace(done, chunks_compressed=self._compress(table))
        return done

    def _move_horizon(self, table: TableLifecycle, tf: str, horizon: datetime) -> None:
        parameters = {"relation": table.relation, "tf": tf, "horizon": horizon}
        row = self.connection.execute(query(FILE, "lock_in_force"), parameters).fetchall()[0]
        if table.rollups and tf == table.rollups_of:
            self._refuse_unrefreshed(table, {**parameters, **row})
        self.connection.execute(query(FILE, "move_horizon"), parameters)

    def _refuse_unrefreshed(self, table: TableLifecycle, parameters: Mapping[str, object]) -> None:
        """What was changed below the old horizon is no concern: its rows were gone before."""
        row = self.connection.execute(query(FILE, "unrefreshed_days"), parameters).fetchall()[0]
        if row["days"]:
            raise DataError(
                f"{table.relation}: expected aggregates that hold every change before "
                f"{parameters['horizon']:%Y-%m-%d}, found {row['days']} days with changes that they do not: "
                "run `hyperfeast aggregates refresh`, then enforce again; nothing of it was dropped"
            )

    def _drop_from_chunks(
        self, done: Enforced, table: TableLifecycle, horizons: Mapping[str, datetime]
    ) -> Enforced:
        expired = expired_chunks(self.connection, table, horizons)
        for position, one in enumerate(expired):
            self.progress(position, len(expired))
            whole, rows = self._expire(table, one, horizons)
            done = replace(
                done,
                chunks_dropped=done.chunks_dropped + whole,
                rows_dropped=done.rows_dropped + rows,
            )
        return done

    def _expire(
        self, table: TableLifecycle, expired: ExpiredChunk, horizons: Mapping[str, datetime]
    ) -> tuple[bool, int]:
        """Whether a chunk was dropped as a whole, and how many rows went."""
        try:
            if expired.whole and transaction(self.connection, self._drop_chunk, table, expired):
                return True, expired.expired_rows
            return False, self._thin_out(table, expired, horizons)
        except errors.UndefinedTable:
            # The database's own retention policy was faster.
            return False, 0

    def _drop_chunk(self, table: TableLifecycle, expired: ExpiredChunk) -> bool:
        """Drop a chunk, unless a row that stays has come in since its rows were counted."""
        chunk = expired.chunk
        self.connection.execute(query(FILE, "silence_marks"))
        self.connection.execute(sql.SQL(query(FILE, "lock_chunk")).format(chunk=chunk.identifier))
        kept = sql.SQL(query(FILE, "kept_rows")).format(
            chunk=chunk.identifier, tf=catalog.timeframe_of(table)
        )
        if self.connection.execute(kept, {"tfs": list(expired.expired)}).fetchall():
            return False
        self.connection.execute(
            query(FILE, "drop_chunk"),
            {"relation": table.relation, "range_start": chunk.start, "range_end": chunk.end},
        )
        return True

    def _thin_out(
        self, table: TableLifecycle, expired: ExpiredChunk, horizons: Mapping[str, datetime]
    ) -> int:
        """Delete the expired timeframes of a chunk in which others stay."""
        chunk, due = expired.chunk, {tf: horizons[tf] for tf in expired.expired}
        name = chunk.identifier.as_string(self.connection)
        if chunk.compressed:
            self._chunk_call("decompress_chunk", name)
        rows = self._sweep(chunk.identifier, name, table, due)
        if chunk.compressed:
            self._chunk_call("compress_chunk", name)
        return rows

    def _sweep(
        self,
        where: sql.Identifier,
        name: str,
        table: TableLifecycle,
        horizons: Mapping[str, datetime],
    ) -> int:
        statement = sql.SQL(query(FILE, "sweep")).format(
            table=where, tf=catalog.timeframe_of(table), time=sql.Identifier(table.time_column)
        )
        expiry = {"tfs": list(horizons), "horizons": list(horizons.values())}
        rows = self.connection.execute(query(FILE, "pages"), {"table": name}).fetchall()
        swept = 0
        for first, last in self._batches(rows[0]["pages"]):
            parameters = {**expiry, "first": f"({first},0)", "last": f"({last},0)"}
            swept += transaction(self.connection, self._sweep_batch, statement, parameters)
        return swept

    def _sweep_batch(self, statement: sql.Composed, parameters: Mapping[str, object]) -> int:
        self.connection.execute(query(FILE, "silence_marks"))
        return self.connection.execute(statement, parameters).rowcount

    def _batches(self, pages: int) -> Iterator[tuple[int, int]]:
        for first in range(0, pages, _PAGES_A_BATCH):
            self.progress(first, pages)
            yield first, first + _PAGES_A_BATCH

    def _compress(self, table: TableLifecycle) -> int:
        due: list[Chunk] = compressible(self.connection, table, self.now)
        for position, chunk in enumerate(due):
            self.progress(position, len(due))
            self._chunk_call("compress_chunk", chunk.identifier.as_string(self.connection))
        return len(due)

    def _chunk_call(self, name: str, chunk: str) -> None:
        transaction(self.connection, self.connection.execute, query(FILE, name), {"chunk": chunk})


def _kept(found: Catalog, relation: str) -> dict[str, Interval | None]:
    """What is in force for a table: by timeframe, or for the whole of it."""
    kept = {tf: row.keep_for for (name, tf), row in found.in_force.items() if name == relation}
    if len(kept) > 1:
        del kept[WHOLE]
    return kept


def _expiring(found: Catalog, relation: str) -> dict[str, Interval | None]:
    return {tf: kept for tf, kept in _kept(found, relation).items() if kept}
