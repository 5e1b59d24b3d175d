"""PostgreSQL's types in Arrow: what a column is read as, and what Feast's own store would give for it."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import psycopg
import pyarrow as pa
import pyarrow.compute
from psycopg import sql

from hyperfeast.sqlfiles import query

# A column of Arrow, in one piece and in several, and what computes with them. Arrow's stubs tell apart what a
# column may hold, which is known here only when it runs.
Array: TypeAlias = Any
Chunks: TypeAlias = Any
compute: Any = pyarrow.compute
nulls: Any = pa.nulls

_JSON = pa.large_string()
_TIME = pa.timestamp("us")

# By pg_type.typname. A cast (on the server) where ADBC has no plain Arrow type for it.
_TYPES: dict[str, tuple[str | None, pa.DataType]] = {
    "bool": (None, pa.bool_()),
    "int2": (None, pa.int32()),
    "int4": (None, pa.int32()),
    "int8": (None, pa.int64()),
    "float4": (None, pa.float32()),
    "float8": (None, pa.float64()),
    "numeric": ("float8", pa.float64()),
    "text": (None, pa.string()),
    "varchar": (None, pa.string()),
    "bpchar": (None, pa.string()),
    "bytea": (None, pa.binary()),
    "uuid": ("text", pa.string()),
    "json": ("text", _JSON),
    "jsonb": ("text", _JSON),
    "timestamptz": (None, _TIME),
    "timestamp": (None, _TIME),
    "date": ("timestamp", _TIME),
    "_bool": (None, pa.list_(pa.bool_())),
    "_int2": (None, pa.list_(pa.int32())),
    "_int4": (None, pa.list_(pa.int32())),
    "_int8": (None, pa.list_(pa.int64())),
    "_float4": (None, pa.list_(pa.float32())),
    "_float8": (None, pa.list_(pa.float64())),
    "_numeric": ("float8[]", pa.list_(pa.float64())),
    "_text": (None, pa.list_(pa.string())),
    "_varchar": ("text[]", pa.list_(pa.string())),
    "_bpchar": ("text[]", pa.list_(pa.string())),
    "_bytea": (None, pa.list_(pa.binary())),
    "_uuid": ("text[]", pa.list_(pa.string())),
    "_json": ("text[]", pa.list_(_JSON)),
    "_jsonb": ("text[]", pa.list_(_JSON)),
    "_timestamptz": (None, pa.list_(_TIME)),
    "_timestamp": (None, pa.list_(_TIME)),
    "_date": ("timestamp[]", pa.list_(_TIME)),
}
_OTHER = ("text", pa.string())

_WHOLE = ("int2", "int4", "int8")
_REAL = ("float4", "float8", "numeric")
_INSTANT = ("timestamptz", "timestamp", "date")


@dataclass(frozen=True)
class Column:
    """A column of a relation.

    Attributes:
        name: as the relation has it.
        type_name: pg_type.typname; an array's begins with `_`.
    """

    name: str
    type_name: str

    @property
    def identifier(self) -> sql.Identifier:
        """The column of a relation that is called `source` in the statement."""
        return sql.Identifier("source", self.name)

    @property
    def arrow(self) -> pa.DataType:
        """What Feast's own store gives: times in UTC without a zone. JSON, and what it does not know, is text."""
        return _TYPES.get(self.type_name, _OTHER)[1]

    @property
    def value(self) -> sql.Composable:
        """The expression to select, of a type that ADBC reads as a plain Arrow array."""
        cast = _TYPES.get(self.type_name, _OTHER)[0]
        return _cast(self.identifier, cast)

    @property
    def key(self) -> sql.Composable:
        """The expression to select as a join key: int8, float8, bool, timestamp or text."""
        return _cast(self.identifier, _KEY_CAST[self.kind])

    @property
    def key_type(self) -> pa.DataType:
        """What `key` is read as."""
        return _KEY_ARROW[self.kind]

    @property
    def kind(self) -> str:
        """What a join key's values are: whole, real, bool, instant, uuid or text."""
        if self.type_name in _WHOLE:
            return "whole"
        if self.type_name in _REAL:
            return "real"
        if self.type_name in _INSTANT:
            return "instant"
        return self.type_name if self.type_name in ("bool", "uuid") else "text"

    @property
    def is_instant(self) -> bool:
        """Whether it can be an event time."""
        return self.type_name in _INSTANT


_KEY_CAST = {
    "whole": "int8",
    "real": "float8",
    "bool": None,
    "instant": "timestamptz",
    "uuid": "text",
    "text": "text",
}
_KEY_ARROW: dict[str, pa.DataType] = {
    "whole": pa.int64(),
    "real": pa.float64(),
    "bool": pa.bool_(),
    "instant": _TIME,
    "uuid": pa.string(),
    "text": pa.string(),
}


def _cast(expression: sql.Composable, type_name: str | None) -> sql.Composable:
    if type_name is None:
        return expression
    # From the tables above, never from outside.
    return sql.SQL("{}::{}").format(expression, sql.SQL(type_name))


def described(connection: psycopg.Connection[Any], relation: sql.Composable) -> dict[str, Column]:
    """The columns of a relation by name, in its order.

    Args:
        connection: where the relation is.
        relation: what stands after FROM: a table, or a query in parentheses.

    Raises:
        psycopg.Error: the relation is not there, or its query is refused.
    """
    statement = sql.SQL(query("point_in_time", "columns")).format(relation=relation)
    cursor = connection.execute(statement)
    found = [(column.name, column.type_code) for column in cursor.description or ()]
    codes = [code for _, code in found]
    rows = connection.execute(query("point_in_time", "type_names"), {"codes": codes}).fetchall()
    names: dict[int, str] = {row["oid"]: row["typname"] for row in rows}
    return {name: Column(name, names.get(code, "unknown")) for name, code in found}


def conformed(array: Array | Chunks, to: pa.DataType) -> Any:
    """An array as read, in the type it is to have: integers and text widened, times without their zone."""
    return array if array.type == to else array.cast(to)
