"""Puts the declaration in force: chunk intervals, compression, policies, and how long rows are kept."""

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.lifecycle import catalog
from hyperfeast.lifecycle.catalog import FILE, Catalog
from hyperfeast.lifecycle.declaration import WHOLE, TableLifecycle
from hyperfeast.lifecycle.planning import Change, Plan, changes
from hyperfeast.lifecycle.turn import transaction, turn
from hyperfeast.sqlfiles import query


def apply(database: Database, plan: Plan, *, confirmed: bool = False) -> list[Change]:
    """Put what a plan declares in force. Drops nothing itself; what it declares may, from now on.

    Each table is set in one transaction. What is in force already is left alone, so that it can be
    applied twice, and goes on where it was ended.

    Args:
        database: where.
        plan: what `plan` returned for this database.
        confirmed: whether whoever asked knows what will be dropped.

    Returns:
        The settings that were changed.

    Raises:
        UsageError: something would be dropped, and that is not confirmed.
        ServerError: the server does not answer or refuses, or another run is at it.
    """
    if plan.drops and not confirmed:
        rows = sum(one.rows for one in plan.drops)
        raise UsageError(
            f"{rows:,} rows ({plan.dropped_bytes:,} bytes) would be dropped once this is in force: "
            "`hyperfeast lifecycle plan` shows which; confirm with --yes"
        )
    with turn(database) as connection:
        found = catalog.read(connection)
        due = changes(connection, found, plan.tables, None)
        for name, table in plan.tables.items():
            mine = [one for one in due if one.relation in {name, *table.rollups}]
            if mine:
                transaction(connection, _set, connection, found, table, mine)
        for one in due:
            if one.relation in found.relations and one.relation not in plan.tables:
                transaction(connection, _keep, connection, found, one)
    return due


def _set(
    connection: Connection[DictRow], found: Catalog, table: TableLifecycle, due: list[Change]
) -> None:
    relation = found.relations[table.relation]
    settings = {one.setting for one in due if one.relation == table.relation}
    if "chunk_interval" in settings:
        _call(connection, "set_chunk_interval", table, interval=str(table.chunk_interval))
    if settings & {"segment_by", "order_by"}:
        _set_compression(connection, table)
    if "compress_after" in settings:
        _call(connection, "remove_compression_policy", table)
        if table.compress_after:
            _call(connection, "add_compression_policy", table, after=str(table.compress_after))
    if "retention_policy" in settings:
        _call(connection, "remove_retention_policy", table)
        if table.dropped_by_policy:
            kept = str(table.keep_for[WHOLE])
            _call(connection, "add_retention_policy", table, after=kept)
    for one in due:
        if one.setting == "refresh_from":
            parameters = {"job": found.refreshes[one.relation].job_id, "offset": one.declared}
            connection.execute(query(FILE, "set_refresh_start"), parameters)
    _record(connection, found, table, hypertable=relation.hypertable)


def _set_compression(connection: Connection[DictRow], table: TableLifecycle) -> None:
    statement = sql.SQL(query(FILE, "set_compression")).format(
        relation=sql.Identifier(table.relation),
        segment_by=sql.Literal(", ".join(f'"{column}"' for column in table.segment_by)),
        order_by=sql.Literal(", ".join(table.order_by)),
    )
    connection.execute(statement)


def _record(
    connection: Connection[DictRow], found: Catalog, table: TableLifecycle, *, hypertable: bool
) -> None:
    """One row for the table and one for each timeframe that it is kept by."""
    compressed = hypertable and found.edition.compression and table.compress_after
    whole = {
        "relation": table.relation,
        "tf": WHOLE,
        "chunk_interval": str(table.chunk_interval) if hypertable else None,
        "compress_after": str(table.compress_after) if compressed else None,
    }
    rows = {tf: {**whole, "tf": tf, "keep_for": kept} for tf, kept in table.keep_for.items()}
    if table.by_timeframe:
        rows = {
            tf: {**row, "chunk_interval": None, "compress_after": None} for tf, row in rows.items()
        }
        rows[WHOLE] = {**whole, "keep_for": None}
    for row in rows.values():
        kept = row["keep_for"]
        connection.execute(
            query(FILE, "put_in_force"), {**row, "keep_for": str(kept) if kept else None}
        )


def _keep(connection: Connection[DictRow], found: Catalog, change: Change) -> None:
    """What is declared no more stays for ever from now on. Its horizon is still true."""
    relation = found.relations[change.relation]
    if relation.hypertable and found.edition.policies:
        for statement in ("remove_compression_policy", "remove_retention_policy"):
            connection.execute(query(FILE, statement), {"relation": change.relation})
    connection.execute(
        query(FILE, "put_in_force"),
        {
            "relation": change.relation, "tf": change.tf, "chunk_interval": None,
            "compress_after": None, "keep_for": None,
        },
    )  # fmt: skip


def _call(
    connection: Connection[DictRow], name: str, table: TableLifecycle, **parameters: str
) -> None:
    connection.execute(query(FILE, name), {"relation": table.relation, **parameters})
