"""Where there is something of a user: in which tables, and by which condition it is told from others'.

A table belongs to users if it has a column `user_id`, whoever made it: a feature set of the team's own,
what Feast logs, the store below a continuous aggregate. A few others are named here. In all that is left
a user can only be mentioned (a job's arguments, an error's text), and there the mention is what goes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.sqlfiles import query

FILE = "users"

# Tables whose rows are one user's, though not by a column user_id.
_NAMED = {
    "dirty_days": "relation = 'user_baseline_raw' AND key = {text}",
    "quarantine": (
        "batch_id IN (SELECT batch_id FROM ingest_batches WHERE user_id = {text}::uuid) "
        "OR target = 'user_baseline_raw' AND row::text ~* {pattern}"
    ),
    "signals": "symbol = {text} OR symbol LIKE {text} || '/%'",
    "generated_signals": "symbol = {text} OR symbol LIKE {text} || '/%'",
    "model_performance": "symbol = {text} OR symbol LIKE {text} || '/%'",
    "outlier_flags": "key = {text} OR key LIKE {text} || '/%'",
    "feature_corrections": "{text} = ANY(entity)",
}
# Nothing in them can mention a user, or nothing in them may change.
_LEFT_OUT = (
    "audit_log",
    "model_deployments",
    "market_sessions",
    "corporate_actions",
    "instruments",
)


class OnlineFeatures(Protocol):
    """What is online of a user: in the product, Feast's online store in Redis."""

    def of_entity(self, value: str) -> Iterable[Mapping[str, Any]]:
        """The rows of every entity with this value among its keys: what they are of, and their features."""

    def forget_entity(self, value: str) -> int:
        """Delete these rows; how many there were."""


@dataclass(frozen=True)
class Place:
    """Rows of a user in one table.

    Attributes:
        name: what it is called in reports.
        table: which, composed.
        condition: of its rows `t`.
    """

    name: str
    table: sql.Identifier
    condition: sql.Composable


@dataclass(frozen=True)
class Mention:
    """Columns of one table that may name a user in rows that are others'.

    Attributes:
        name: of the table.
        columns: name and type of each.
    """

    name: str
    columns: tuple[tuple[str, str], ...]


def places(connection: Connection[DictRow], user_id: UUID) -> list[Place]:
    """Every place in the order in which it can be emptied: what rows are told by goes last."""
    own = connection.execute(query(FILE, "tables_of_users")).fetchall()
    if connection.execute(query(FILE, "has_continuous_aggregates")).fetchall()[0]["found"]:
        own += connection.execute(query(FILE, "continuous_tables_of_users"), {}).fetchall()
    there = connection.execute(query(FILE, "existing"), {"names": list(_NAMED)}).fetchall()
    named = [
        Place(
            row["name"],
            sql.Identifier(row["name"]),
            _filled(_NAMED[row["name"]], user_id),
        )
        for row in there
    ]
    return named + [
        Place(
            row["shown"],
            sql.Identifier(row["schema"], row["name"]),
            sql.SQL("t.user_id = {}").format(sql.Literal(str(user_id))),
        )
        for row in own
    ]


def mentions(connection: Connection[DictRow], emptied: Iterable[str]) -> list[Mention]:
    """Every other table with columns of text, JSON or ids."""
    left_out = [*_LEFT_OUT, *emptied]
    columns: dict[str, list[tuple[str, str]]] = {}
    for row in connection.execute(query(FILE, "texts"), {"left_out": left_out}).fetchall():
        columns.setdefault(row["name"], []).append((row["column"], row["type"]))
    return [Mention(name, tuple(found)) for name, found in columns.items()]


def pattern(user_id: UUID) -> str:
    """A regular expression of the ways to write a UUID: with hyphens or without."""
    digits = user_id.hex
    return "-?".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def is_feature_table(name: str) -> bool:
    """Whether it is a feature set's."""
    return name.startswith("features_")


def moment(connection: Connection[DictRow]) -> datetime:
    """The database's clock."""
    found: datetime = connection.execute(query("relation", "moment")).fetchall()[0]["moment"]
    return found


def _filled(condition: str, user_id: UUID) -> sql.Composed:
    # From the constants above, never from outside.
    return sql.SQL(condition).format(
        text=sql.Literal(str(user_id)), pattern=sql.Literal(pattern(user_id))
    )
