"""Decides what has to be applied or taken back, and does it under a lock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import Connection, errors
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.db.connection import edition_of
from hyperfeast.errors import AccessDenied, SchemaError, UsageError
from hyperfeast.migrate import files
from hyperfeast.migrate.report import MigrationReport, SchemaState
from hyperfeast.sqlfiles import query
from hyperfeast.types import Edition


def migrate(database: Database, *, to: int | None = None, dry_run: bool = False) -> MigrationReport:
    """Bring the schema to a version, forward or back. Safe twice, and from several processes.

    Each migration is whole or absent, whatever ends the run. An empty database gets TimescaleDB where
    the server has it, and keeps the edition that it was set up on.

    Args:
        database: where.
        to: the number to go to; 0 takes everything back, data included. The newest if left out.
        dry_run: only tell what would be done.

    Raises:
        UsageError: there is no such number.
        SchemaError: the database is newer than this version, or its edition was changed under it.
        AccessDenied: the user may not create what the schema needs.
        ServerError: the server does not answer, or refuses a statement.
    """
    newest = files.newest_number()
    target = newest if to is None else to
    if not 0 <= target <= newest:
        raise UsageError(
            f"There is no migration {target}: give a number from 0 (empty) to {newest}"
        )
    if dry_run:
        found = state(database)
        plan = _plan(found.edition, found.applied, target)
        return MigrationReport(found.edition, plan.apply, plan.revert, found.current, dry_run=True)
    with database.connect(autocommit=True) as connection:
        connection.execute(query("migrations", "lock"))
        with _rights(database, "migrate as the database's owner"):
            return _migrate(database, connection, target)


def state(database: Database) -> SchemaState:
    """The schema as it stands. Changes nothing, and creates nothing.

    Raises:
        SchemaError: the database is newer than this version, or its edition was changed under it.
        ServerError: the server does not answer.
    """
    with database.connect() as connection:
        applied = _applied(connection)
        edition = edition_of(connection) if applied else _edition_to_be(connection)
    plan = _plan(edition, applied, files.newest_number())
    return SchemaState(edition, applied, plan.apply, _highest(applied))


@dataclass(frozen=True)
class _Plan:
    apply: list[str]
    revert: list[str]


def _migrate(database: Database, connection: Connection[DictRow], target: int) -> MigrationReport:
    from hyperfeast.migrate.ledger import Ledger

    before = _applied(connection)
    if not before and target and _can_create_timescaledb(connection):
        with _rights(database, "let a superuser run CREATE EXTENSION timescaledb in it first"):
            connection.execute(query("migrations", "create_timescaledb"))
    edition = edition_of(connection)
    plan = _plan(edition, before, target)
    if plan.apply or plan.revert:
        ledger = Ledger(connection, files.of_edition(edition))
        for migration_id in plan.revert:
            ledger.revert(migration_id)
        for migration_id in plan.apply:
            ledger.apply(migration_id)
    after = _applied(connection)
    if not after:
        connection.execute(query("migrations", "drop_record"))
    return MigrationReport(edition, plan.apply, plan.revert, _highest(after), dry_run=False)


def _plan(edition: Edition, applied: list[str], target: int) -> _Plan:
    unknown = sorted(set(applied) - files.known_ids())
    if unknown:
        raise SchemaError(
            f"The database is newer than this hyperfeast, which does not know {', '.join(unknown)}: "
            "upgrade hyperfeast"
        )
    ours = [*files.of_edition(edition)]
    _refuse_other_edition(edition, applied, set(ours))
    return _Plan(
        apply=[id_ for id_ in ours if id_ not in applied and files.number_of(id_) <= target],
        revert=[id_ for id_ in reversed(applied) if files.number_of(id_) > target],
    )


def _refuse_other_edition(edition: Edition, applied: list[str], ours: set[str]) -> None:
    """An edition's own migrations cannot be caught up: what was built without them stands on others."""
    theirs = set(applied) - ours
    skipped = {
        id_ for id_ in ours - set(applied) if files.number_of(id_) < _highest(applied)
    } - _ids_of_every_edition()
    if theirs or skipped:
        raise SchemaError(
            f"The database is {edition} now, but was set up as another edition "
            f"({', '.join(sorted(theirs | skipped))} tells): load its data into a new database, "
            "or undo the change to the timescaledb extension"
        )


def _ids_of_every_edition() -> set[str]:
    return set.intersection(*(set(files.of_edition(edition)) for edition in Edition))


def _applied(connection: Connection[DictRow]) -> list[str]:
    """The ids in the database's record, in the order of their numbers; none where there is no record."""
    if not connection.execute(query("migrations", "has_record")).fetchall():
        return []
    rows = connection.execute(query("migrations", "applied")).fetchall()
    return [row["id"] for row in rows]


def _highest(applied: list[str]) -> int:
    return max(map(files.number_of, applied), default=0)


def _edition_to_be(connection: Connection[DictRow]) -> Edition:
    """What an empty database will be set up on."""
    if not _can_create_timescaledb(connection):
        return edition_of(connection)
    license_ = connection.execute(query("migrations", "timescaledb_license")).fetchall()[0][
        "license"
    ]
    return Edition.APACHE if license_ == "apache" else Edition.COMMUNITY


def _can_create_timescaledb(connection: Connection[DictRow]) -> bool:
    return bool(connection.execute(query("migrations", "creatable_timescaledb")).fetchall())


@contextmanager
def _rights(database: Database, remedy: str) -> Iterator[None]:
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise AccessDenied(
            f"The user may not change the schema of {database.address} "
            f"({error.diag.message_primary}): {remedy}"
        ) from error
