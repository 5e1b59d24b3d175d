"""Frames into PostgreSQL by COPY."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from psycopg import Connection, sql

_ROWS_A_CHUNK = 50_000


def copy_frame(connection: Connection[Any], table: str, frame: pl.DataFrame) -> int:
    """COPY every row of `frame` into the columns of `table` that bear its columns' names.

    Floats keep every bit: they travel as the shortest text that reads back as the same number.
    Times must be zoned. A null stays NULL, an empty string stays empty.

    Returns:
        The number of rows copied.
    """
    statement = sql.SQL("COPY {table} ({columns}) FROM STDIN (FORMAT csv)").format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, frame.columns)),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for chunk in _csv_chunks(frame):
            copy.write(chunk)
    return frame.height


def _csv_chunks(frame: pl.DataFrame) -> Iterator[str]:
    for part in frame.iter_slices(_ROWS_A_CHUNK):
        yield part.write_csv(
            include_header=False,
            datetime_format="%Y-%m-%dT%H:%M:%S%.6f%z",
            quote_style="necessary",
        )
