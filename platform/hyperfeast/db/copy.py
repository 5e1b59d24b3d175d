"""Frames into PostgreSQL by binary COPY."""

from typing import Any

import polars as pl
from psycopg import Connection, sql
from psycopg.rows import tuple_row

from hyperfeast import sqlfiles
from hyperfeast.db import binary
from hyperfeast.errors import SchemaError

# SQL_ASCII is called ascii: bytes go through as they are.
_ENCODINGS = ("utf-8", "ascii")


def copy_frame(connection: Connection[Any], table: str, frame: pl.DataFrame) -> int:
    """COPY every row of `frame` into the columns of `table` that bear its columns' names.

    The frame's columns are encoded as the table's columns are typed: `binary.encoded` says which
    types go together. Floats keep every bit, times must be zoned, a null stays NULL and an empty
    string stays empty. An error on the way leaves the connection's transaction to be rolled back:
    all rows are there, or none.

    Args:
        connection: where to; its client encoding is UTF-8.
        table: one that the search path finds: temporary or not.
        frame: the rows, in any order; columns of the table that it lacks take their defaults.

    Returns:
        The number of rows copied.

    Raises:
        DataError: a column does not fit the table's (nothing was sent), or a value of it does not.
        SchemaError: the table has no column of that name, or the client encoding is another.
        psycopg.Error: whatever else the server refuses.
    """
    if connection.info.encoding not in _ENCODINGS:
        raise SchemaError(
            f"text is sent as UTF-8, and the connection's client_encoding is "
            f"{connection.info.encoding}: set client_encoding to UTF8"
        )
    messages = binary.encoded(frame, _types(connection, table, frame.columns))
    statement = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT binary)").format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, frame.columns)),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for message in messages:
            copy.write(message)
    return frame.height


def _types(connection: Connection[Any], table: str, columns: list[str]) -> dict[str, str]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(sqlfiles.query("copy", "column_types"), {"table": table})
        known: dict[str, str] = dict(cursor)
    missing = [name for name in columns if name not in known]
    if missing:
        raise SchemaError(
            f"{table} has no column {', '.join(missing)}, it has {', '.join(known)}: "
            "run `hyperfeast migrate`, or rename the frame's columns"
        )
    return {name: known[name] for name in columns}
