"""yoyo on a connection of ours: it reads the files, runs them, and keeps the record of them.

yoyo itself opens a connection a migration by a URL and records a migration after having committed
it, so that a kill between the two leaves a database that no later run can repair; it takes turns by
a row that a killed process leaves behind; and it prints the rows that a statement returns. Here one
connection does everything, a migration and its record are one transaction, and nothing is printed.
"""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import tuple_row
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, default_migration_table

# Without any handler Python would write yoyo's complaints to stderr; they are raised as errors anyway.
logging.getLogger("yoyo").addHandler(logging.NullHandler())


class Ledger(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """The record of migrations in one database, and the way to add to it.

    Args:
        connection: in autocommit mode, and holding the lock that lets one migrator in at a time.
        paths: the files of the database's edition by their migrations' ids.
    """

    def __init__(self, connection: psycopg.Connection[Any], paths: dict[str, Path]) -> None:
        self._ours = connection
        # All of them: a migration's dependencies are looked for among those that have been made.
        self._migrations = {
            id_: Migration(id_, str(path), path.parent) for id_, path in paths.items()
        }
        nowhere = DatabaseURI("postgresql+psycopg", None, None, None, None, "", {})
        super().__init__(nowhere, default_migration_table)
        self.ensure_internal_schema_updated()

    def apply(self, migration_id: str) -> None:
        """Run a migration and record it: both or neither, unless it is marked as not transactional."""
        migration = self._loaded(migration_id)
        with self._at_once(migration):
            migration.process_steps(self, "apply")
            with self.transaction():
                self.mark_one(migration, log=False)
                self.log_migration(migration, "apply")

    def revert(self, migration_id: str) -> None:
        """Run a migration's rollback and strike it from the record: both or neither, as above."""
        migration = self._loaded(migration_id)
        with self._at_once(migration):
            migration.process_steps(self, "rollback")
            with self.transaction():
                self.unmark_one(migration, log=False)
                self.log_migration(migration, "rollback")

    def _loaded(self, migration_id: str) -> Migration:
        migration = self._migrations[migration_id]
        migration.load()
        return migration

    @contextmanager
    def _at_once(self, migration: Migration) -> Iterator[None]:
        if not migration.use_transactions:
            yield
            return
        with self.transaction():
            yield

    def connect(self, dburi: DatabaseURI) -> psycopg.Connection[Any]:  # noqa: ARG002
        """Our connection, whatever the address."""
        return self._ours

    def cursor(self) -> psycopg.Cursor[tuple[Any, ...]]:
        """A cursor of tuples, which yoyo counts on."""
        return _SilentCursor(self._ours, row_factory=tuple_row)

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:  # noqa: ARG002
        """Nothing: the connection's own lock keeps the others out, and ends with the connection."""
        yield

    def get_log_data(
        self, migration: Migration | None = None, operation: str = "apply"
    ) -> dict[str, Any]:
        """Who did what. yoyo would ask DNS for the machine's full name, and fail without a login."""
        return {
            "id": str(uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": self._ours.info.user,
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }


class _SilentCursor(psycopg.Cursor[tuple[Any, ...]]):
    """yoyo prints the rows of a statement whose cursor describes them."""

    @property
    def description(self) -> None:
        return None
