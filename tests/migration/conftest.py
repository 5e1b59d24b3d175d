"""Databases and questions that the migration tests share."""

from typing import Any

from hyperfeast.db import Database


def columns(database: Database) -> list[tuple[Any, ...]]:
    """Relation, column and type of what is for reading: not the record of migrations, not what views stand on."""
    rows = database.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND left(table_name, 1) <> '_' "
        "AND right(table_name, 5) <> '_kept' "
        "ORDER BY table_name, ordinal_position"
    )
    return [tuple(row.values()) for row in rows]


def relations(database: Database) -> list[str]:
    """Whatever takes a name in the schema: tables, views, indexes, sequences."""
    rows = database.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace ORDER BY 1"
    )
    return [row["relname"] for row in rows]
