"""Index lookups on the server: for each spine row the newest row of its entity, found by ORDER BY … LIMIT 1."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, cast

import pyarrow as pa
from adbc_driver_manager.dbapi import Connection as ArrowConnection
from psycopg import sql

from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.columns import Chunks, Column
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.rows import conditions
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
# What Arrow's columns are as PostgreSQL's; what is not here is text.
_TYPE_NAMES: tuple[tuple[Callable[[Any], bool], LiteralString], ...] = (
    (pa.types.is_boolean, "bool"),
    (pa.types.is_int32, "int4"),
    (pa.types.is_integer, "int8"),
    (pa.types.is_floating, "float8"),
    (pa.types.is_decimal, "numeric"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "interval"),
    (pa.types.is_binary, "bytea"),
    (pa.types.is_large_binary, "bytea"),
    (pa.types.is_struct, "jsonb"),
    (pa.types.is_map, "jsonb"),
)
# Where PostgreSQL's time begins: 4714-11-24 BC, in microseconds before 1970.
_FIRST_US = -210_866_803_200_000_000
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
        found += _young_enough(event, asked, view.ttl_us, bounds)
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


def _young_enough(
    event: sql.Composable, asked: sql.Composable, ttl_us: int, bounds: tuple[int, int]
) -> list[sql.Composable]:
    """The TTL's condition, without a moment that is before PostgreSQL's first, which would be an error."""
    first, last = bounds
    if last - ttl_us < _FIRST_US:
        return []
    oldest = sql.SQL("{} - {} * interval '1 microsecond'").format(asked, sql.Literal(ttl_us))
    if first - ttl_us < _FIRST_US:
        oldest = sql.SQL(
            "CASE WHEN {} >= 'epoch'::timestamptz + {} * interval '1 microsecond' THEN {} ELSE '-infinity' END"
        ).format(asked, sql.Literal(_FIRST_US + ttl_us), oldest)
    return [sql.SQL("{} >= {}").format(event, oldest)]


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


def _type_name(kind: pa.DataType) -> LiteralString:
    """What a spine's column is on the server, so that it comes back as what it is."""
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return f"{_type_name(kind.value_type)}[]"
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return next((name for test, name in _TYPE_NAMES if test(kind)), "text")


def _written(value: object, type_name: LiteralString) -> sql.Composable:
    if type_name == "jsonb" and value is not None:
        value = json.dumps(dict(cast("Any", value)), default=str)
    if isinstance(value, list):
        items = [_written(item, type_name.removesuffix("[]")) for item in value]
        return sql.SQL("ARRAY[{}]::{}").format(sql.SQL(", ").join(items), sql.SQL(type_name))
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(type_name))
