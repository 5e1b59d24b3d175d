"""Index lookups on the server: for each spine row the newest row of its entity, found by ORDER BY … LIMIT 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from psycopg import sql

from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.columns import Chunks, Column
from hyperfeast.stores.offline.merge import conditions
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.spine import Spine

_TABLE = "hyperfeast_spine"
_NUMBER, _MOMENT = "number", "moment"

# How the staged value, an int8, a float8 or text, is compared with a column of its kind.
_AS_COLUMN = {
    "whole": "{}",
    "real": "{}",
    "text": "{}",
    "uuid": "{}::uuid",
    "bool": "({} <> 0)",
    "instant": "(to_timestamp(0) + {} * interval '1 microsecond')",
}
# What is compared directly can be found by its index; numeric has to be a float8 first, as in a merge.
_ARRAYS = {"whole": "int8[]", "real": "float8[]", "text": "text[]", "uuid": "uuid[]"}
_DIRECT_TEXT = ("text", "varchar", "name")


@dataclass(frozen=True)
class Staged:
    """The spine on the server: its numbers, moments and keys.

    Attributes:
        names: (spine's column, kind of key) -> the staged column.
        columns: the staged columns with their values, in the spine's order.
    """

    names: Mapping[tuple[str, str], str]
    columns: Mapping[str, Chunks]


def staged(spine: Spine, keys: Mapping[tuple[str, str], Chunks]) -> Staged:
    """What the server needs of a spine.

    Args:
        spine: the spine.
        keys: (its column, kind of key) -> values as `entities.key_values` gives them.
    """
    names = {key: f"key_{number}" for number, key in enumerate(keys)}
    moments = pa.array(spine.moments, mask=spine.timeless).cast(pa.timestamp("us"))
    columns = {
        _NUMBER: pa.chunked_array([pa.array(range(spine.rows), pa.int64())]),
        _MOMENT: pa.chunked_array([moments.cast(pa.timestamp("us", "UTC"))]),
        **{names[key]: column for key, column in keys.items()},
    }
    return Staged(names, columns)


def stage(connection: ArrowConnection, rows: Staged) -> None:
    """Put the spine into a temporary table of the connection's transaction, by binary COPY."""
    table = pa.table(dict(rows.columns))
    with connection.cursor() as cursor:
        cursor.adbc_ingest(_TABLE, table, mode="create", temporary=True)
        cursor.execute(
            sql.SQL(query("point_in_time", "analyzed"))
            .format(table=sql.Identifier("pg_temp", _TABLE))
            .as_string()
        )


def unstage(connection: ArrowConnection) -> None:
    """Drop the staged spine, for the next one."""
    with connection.cursor() as cursor:
        cursor.execute(
            sql.SQL(query("point_in_time", "unstaged"))
            .format(table=sql.Identifier("pg_temp", _TABLE))
            .as_string()
        )


def on_server() -> sql.Composable:
    """The staged spine, in its order."""
    return sql.SQL("(SELECT * FROM {} ORDER BY {})").format(
        sql.Identifier("pg_temp", _TABLE), sql.Identifier(_NUMBER)
    )


def written_out(rows: Staged, numbers: Sequence[int] | None = None) -> sql.Composable:
    """A spine as a part of the statement itself.

    Args:
        rows: the spine.
        numbers: which of its rows; None for all.
    """
    columns = [
        column if numbers is None else column.take(pa.array(numbers, pa.int64()))
        for column in rows.columns.values()
    ]
    types = [_type_name(column.type) for column in columns]
    lines = [
        sql.SQL("({})").format(
            sql.SQL(", ").join(
                [_written(value, name) for value, name in zip(line, types, strict=True)]
            )
        )
        for line in zip(*[column.to_pylist() for column in columns], strict=True)
    ]
    names = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
    nothing = sql.SQL("SELECT {} WHERE false").format(
        sql.SQL(", ").join([_written(None, name) for name in types])
    )
    values = sql.SQL("VALUES {}").format(sql.SQL(", ").join(lines)) if lines else nothing
    return sql.SQL("(SELECT * FROM ({}) AS written ({}))").format(values, names)


def lookup_query(
    views: Sequence[View],
    names: Mapping[tuple[str, str], str],
    spine: sql.Composable,
    bounds: tuple[int, int],
    *,
    by_created: bool,
    before: Sequence[sql.Composable] = (),
) -> sql.Composed:
    """The features of all views for every row of a spine, in the spine's order.

    Args:
        views: whose features.
        names: what the spine's keys are called on the server.
        spine: the spine on the server.
        bounds: its first and last moment, in microseconds since 1970.
        by_created: whether only rows count that were recorded by the spine row's moment.
        before: what to select before the features.
    """
    outputs: list[sql.Composable] = [*before]
    lookups = []
    for number, view in enumerate(views):
        alias = sql.Identifier(f"v_{number}")
        outputs += [
            sql.SQL("{}.{} AS {}").format(
                alias, sql.Identifier(f"f_{position}"), sql.Identifier(output)
            )
            for position, (_, output) in enumerate(view.features)
        ]
        lookups.append(_lookup(view, names, alias, bounds, by_created=by_created))
    return sql.SQL(query("point_in_time", "looked_up")).format(
        columns=sql.SQL(", ").join(outputs),
        spine=spine,
        lookups=sql.SQL("\n").join(lookups),
        number=sql.Identifier(_NUMBER),
    )


def _lookup(
    view: View,
    names: Mapping[tuple[str, str], str],
    alias: sql.Identifier,
    bounds: tuple[int, int],
    *,
    by_created: bool,
) -> sql.Composed:
    asked = sql.SQL("spine.{}").format(sql.Identifier(_MOMENT))
    event = view.timestamp.identifier
    found = conditions(view, bounds)
    found.append(sql.SQL("{} <= {}").format(event, asked))
    if view.ttl_us is not None:
        found.append(
            sql.SQL("{} >= {} - {} * interval '1 microsecond'").format(
                event, asked, sql.Literal(view.ttl_us)
            )
        )
    if by_created and view.created is not None:
        found.append(sql.SQL("{} <= {}").format(view.created.identifier, asked))
    found += [_equal(column, names[key, column.kind]) for key, column in view.keys.items()]
    order = [sql.SQL("{} DESC").format(event)]
    if view.created is not None:
        order.append(sql.SQL("{} DESC NULLS LAST").format(view.created.identifier))
    features = [
        sql.SQL("{} AS {}").format(column.value, sql.Identifier(f"f_{number}"))
        for number, (column, _) in enumerate(view.features)
    ]
    return sql.SQL(query("point_in_time", "lookup")).format(
        columns=sql.SQL(", ").join(features),
        relation=view.relation,
        condition=sql.SQL(" AND ").join(found),
        order=sql.SQL(", ").join(order),
        alias=alias,
    )


def needs_cast(column: Column) -> bool:
    """Whether a key column has to be cast before it is compared; its index is of no use then."""
    return column.type_name == "numeric" or (
        column.kind == "text" and column.type_name not in _DIRECT_TEXT
    )


def array_type(column: Column) -> sql.Composable:
    """The type of an array of values that a key column can be compared with."""
    return sql.SQL(_ARRAYS[column.kind])


def _equal(column: Column, staged_name: str) -> sql.Composed:
    own = column.key if needs_cast(column) else column.identifier
    value = sql.SQL("spine.{}").format(sql.Identifier(staged_name))
    return sql.SQL("{} = {}").format(own, sql.SQL(_AS_COLUMN[column.kind]).format(value))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if pa.types.is_floating(kind):
        return "float8"
    return "int8" if pa.types.is_integer(kind) else "text"


def _written(value: object, type_name: str) -> sql.Composable:
    # From the names above, never from outside.
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(type_name))
