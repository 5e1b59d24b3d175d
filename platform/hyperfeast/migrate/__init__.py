"""Brings a database's schema to a version: applies `sql/migrations`, or takes it back."""

from hyperfeast.migrate.migrator import migrate, state
from hyperfeast.migrate.report import MigrationReport, SchemaState

__all__ = ["MigrationReport", "SchemaState", "migrate", "state"]
