"""The tables that follow from declarations: a new set needs no migration.

Tables that a migration made are taken as they are. A table is never dropped or altered: another
version of its set has a table of its own.
"""

from collections.abc import Iterable, Sequence

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db.connection import edition_of
from hyperfeast.features.declaration import FeatureSet
from hyperfeast.features.definitions import Record
from hyperfeast.sqlfiles import query

_FILE = "feature_definitions"


def present(connection: Connection[DictRow], tables: Iterable[str]) -> set[str]:
    """Which of these tables there are."""
    rows = connection.execute(query(_FILE, "tables_present"), {"tables": list(tables)}).fetchall()
    return {row["name"] for row in rows}


def create(connection: Connection[DictRow], feature_set: FeatureSet) -> None:
    """Make the table of a set, its index, its function `..._as_known_at` and its comments.

    On TimescaleDB it becomes a hypertable on event_timestamp; Community also learns how to compress it.

    Args:
        connection: with an open transaction: the table is whole or absent.
        feature_set: whose table is not there yet.
    """
    names = _composed(feature_set)
    for statement in ("create_table", "create_index", "create_known_at", "comment_known_at"):
        connection.execute(sql.SQL(query(_FILE, statement)).format(**names))
    describe(connection, feature_set)
    edition = edition_of(connection)
    if edition.hypertables:
        connection.execute(sql.SQL(query(_FILE, "make_hypertable")).format(**names))
    if edition.compression:
        connection.execute(sql.SQL(query(_FILE, "make_compressible")).format(**names))


def describe(connection: Connection[DictRow], feature_set: FeatureSet) -> None:
    """Comment the table and its columns with what the declaration says of them."""
    for column, text in _descriptions(feature_set).items():
        connection.execute(
            sql.SQL(query(_FILE, "comment_column")).format(
                column=sql.Identifier(feature_set.table, column), text=sql.Literal(text)
            )
        )
    words = (
        f"Feature set {feature_set.name}, version {feature_set.version}. {feature_set.description}"
    )
    connection.execute(
        sql.SQL(query(_FILE, "comment_table")).format(
            table=sql.Identifier(feature_set.table), text=sql.Literal(words.strip())
        )
    )


def replace_views(connection: Connection[DictRow], records: Sequence[Record]) -> None:
    """Make the view feature_store, and with it feature_values, of the rows of these sets."""
    parts = [_served(one) for one in records] or [sql.SQL(query(_FILE, "no_rows"))]
    connection.execute(
        sql.SQL(query(_FILE, "replace_feature_store")).format(
            parts=sql.SQL("\nUNION ALL\n").join(parts)
        )
    )


def _served(record: Record) -> sql.Composable:
    keys = [key.partition(":")[2] for key in record.keys]
    entity = sql.SQL(" || '/' || ").join(map(sql.Identifier, keys))
    own = ",".join([*keys, "event_timestamp", "recorded_at"])
    return sql.SQL(query(_FILE, "served_rows")).format(
        entity=entity,
        set_name=sql.Literal(record.name),
        own_columns=sql.Literal(f"{{{own}}}"),
        version=sql.Literal(record.version),
        key_names=_names(keys),
        table=sql.Identifier(record.table),
    )


def _descriptions(feature_set: FeatureSet) -> dict[str, str]:
    return {
        **{key.column: key.description or f"The {key.entity}." for key in feature_set.keys},
        "event_timestamp": "Available time: from when the row could be known.",
        "recorded_at": "When this revision was written: the newest is served.",
        **{one.name: one.description for one in feature_set.features},
    }


def _composed(feature_set: FeatureSet) -> dict[str, sql.Composable]:
    table = feature_set.table
    keys = [sql.SQL("{} text NOT NULL").format(sql.Identifier(k)) for k in feature_set.key_columns]
    features = [
        sql.SQL("{} {}").format(sql.Identifier(one.name), sql.SQL(one.dtype.value))
        for one in feature_set.features
    ]
    return {
        "table": sql.Identifier(table),
        "name": sql.Literal(f'"{table}"'),
        "index": sql.Identifier(f"{table}_recorded"),
        "function": sql.Identifier(f"{table}_as_known_at"),
        "keys": sql.SQL(",\n    ").join(keys),
        "key_names": _names(feature_set.key_columns),
        "features": sql.SQL(",\n    ").join(features),
        "segment_by": sql.Literal(", ".join(f'"{key}"' for key in feature_set.key_columns)),
    }


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
