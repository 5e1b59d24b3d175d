"""Which rows have expired, where they lie, and what dropping them frees."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.lifecycle import catalog
from hyperfeast.lifecycle.catalog import FILE, Chunk, Relation
from hyperfeast.lifecycle.declaration import TableLifecycle
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Drop:
    """What enforcing drops of one table, or of one of its timeframes.

    Attributes:
        relation: the table.
        tf: the timeframe; empty for a table that is not kept by timeframe.
        before: the horizon: rows older than this have expired.
        chunks: chunks that hold such rows; 0 where the table has none.
        rows: how many rows go.
        bytes: what they take: their share of the chunks or the table, so about.
    """

    relation: str
    tf: str
    before: datetime
    chunks: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class ExpiredChunk:
    """A chunk in which some rows, or all, have expired.

    Attributes:
        chunk: the chunk.
        rows: its rows by timeframe, those that stay included.
        expired: the timeframes of which everything in it has expired.
    """

    chunk: Chunk
    rows: Mapping[str, int]
    expired: frozenset[str]

    @property
    def whole(self) -> bool:
        """Whether nothing in it stays."""
        return self.expired.issuperset(self.rows)

    @property
    def expired_rows(self) -> int:
        """How many rows go."""
        return sum(rows for tf, rows in self.rows.items() if tf in self.expired)


def expired_chunks(
    connection: Connection[DictRow], table: TableLifecycle, horizons: Mapping[str, datetime]
) -> list[ExpiredChunk]:
    """The chunks of a hypertable that end at or before a horizon and hold something that goes, or nothing.

    A chunk goes as a whole or, where it holds rows of several timeframes, by whole timeframes: rows wait
    for the newest one of their chunk. To cut a chunk in two would cost more than the space is worth.
    """
    if not horizons:
        return []
    newest = max(horizons.values())
    due = {
        (one.schema, one.name): one
        for one in catalog.chunks(connection, table.relation)
        if one.end <= newest
    }
    if not due:
        return []
    rows = _count_in_chunks(connection, table, max(one.end for one in due.values()))
    found = [
        ExpiredChunk(
            one,
            rows.get(key, {}),
            frozenset(tf for tf, horizon in horizons.items() if one.end <= horizon),
        )
        for key, one in due.items()
    ]
    return [one for one in found if one.whole or one.expired_rows]


def drops(
    connection: Connection[DictRow],
    table: TableLifecycle,
    relation: Relation,
    horizons: Mapping[str, datetime],
) -> list[Drop]:
    """What enforcing would drop of a table, by timeframe; nothing is left out but what is empty."""
    if not horizons:
        return []
    if relation.hypertable:
        return _from_chunks(table, horizons, expired_chunks(connection, table, horizons))
    return _from_table(connection, table, relation, horizons)


def _from_chunks(
    table: TableLifecycle, horizons: Mapping[str, datetime], expired: list[ExpiredChunk]
) -> list[Drop]:
    found = []
    for tf, horizon in horizons.items():
        holding = [one for one in expired if tf in one.expired and one.rows.get(tf)]
        rows = sum(one.rows[tf] for one in holding)
        share = sum(one.chunk.bytes * one.rows[tf] / sum(one.rows.values()) for one in holding)
        if rows:
            found.append(Drop(table.relation, tf, horizon, len(holding), rows, round(share)))
    return found


def _from_table(
    connection: Connection[DictRow],
    table: TableLifecycle,
    relation: Relation,
    horizons: Mapping[str, datetime],
) -> list[Drop]:
    statement = sql.SQL(query(FILE, "count_in_table")).format(
        tf=catalog.timeframe_of(table),
        time=sql.Identifier(table.time_column),
        relation=sql.Identifier(table.relation),
    )
    counted = connection.execute(
        statement, {"tfs": list(horizons), "horizons": list(horizons.values())}
    ).fetchall()
    total = sum(row["rows"] for row in counted)
    return [
        Drop(
            table.relation, row["tf"], horizons[row["tf"]], 0, row["expired"],
            round(relation.bytes * row["expired"] / total),
        )
        for row in sorted(counted, key=lambda row: str(row["tf"]))
        if row["expired"]
    ]  # fmt: skip


def _count_in_chunks(
    connection: Connection[DictRow], table: TableLifecycle, before: datetime
) -> dict[tuple[str, str], dict[str, int]]:
    statement = sql.SQL(query(FILE, "count_in_chunks")).format(
        tf=catalog.timeframe_of(table),
        time=sql.Identifier(table.time_column),
        relation=sql.Identifier(table.relation),
    )
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in connection.execute(statement, {"before": before}).fetchall():
        found[row["schema"], row["name"]][row["tf"]] = row["rows"]
    return found
