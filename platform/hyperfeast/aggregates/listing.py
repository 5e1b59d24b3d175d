"""Which aggregates there are, what keeps them, and how far behind they are."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.aggregates.levels import FAMILIES, Family, Level
from hyperfeast.db import Database
from hyperfeast.db.connection import edition_of
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class AggregateStatus:
    """One aggregate as it stands.

    Attributes:
        relation: what to read.
        built_on: the next finer relation.
        bucket: how wide a bucket is.
        rows: how many are kept, by the database's estimate.
        newest: the start of the newest bucket that is kept, UTC; None if there is none.
        dirty_days: how many days of a key a refresh has to do.
        oldest_mark: since when the first of them waits, UTC; None if all is refreshed.
        kept_by: "continuous aggregate" or "incremental refresh".
        policy: what the database does by itself; None without policies.
    """

    relation: str
    built_on: str
    bucket: timedelta
    rows: int
    newest: datetime | None
    dirty_days: int
    oldest_mark: datetime | None
    kept_by: str
    policy: str | None


def aggregates(database: Database) -> list[AggregateStatus]:
    """Every aggregate, from fine to coarse.

    Raises:
        SchemaError: the schema is older than the aggregates.
        ServerError: the server does not answer, or refuses a statement.
    """
    with database.connect() as connection:
        continuous = edition_of(connection).continuous_aggregates
        return [
            _status(connection, family, level, continuous=continuous)
            for family in FAMILIES
            for level in family.levels
        ]


def _status(
    connection: Connection[DictRow], family: Family, level: Level, *, continuous: bool
) -> AggregateStatus:
    marks = _row(connection, "marks", family, level)
    kept = _row(connection, "continuous_aggregate" if continuous else "kept_table", family, level)
    return AggregateStatus(
        relation=level.name,
        built_on=level.built_on,
        bucket=level.width,
        rows=kept["rows"],
        newest=kept["newest"],
        dirty_days=marks["days"],
        oldest_mark=marks["oldest"],
        kept_by="continuous aggregate" if continuous else "incremental refresh",
        policy=_policy(kept),
    )


def _policy(kept: dict[str, Any]) -> str | None:
    if kept.get("every") is None:
        return None
    start = kept["start_offset"] or "the beginning"
    return f"every {kept['every']}, from {start} to {kept['end_offset']} ago"


def _row(connection: Connection[DictRow], name: str, family: Family, level: Level) -> DictRow:
    statement = sql.SQL(query("listing", name, where="aggregates")).format(
        relation=sql.Identifier(level.name),
        kept=sql.Identifier(level.kept),
        bucket=sql.Identifier(family.bucket),
    )
    parameters = {"raw": family.raw, "relation": level.name, "kept": level.kept}
    return connection.execute(statement, parameters).fetchall()[0]
