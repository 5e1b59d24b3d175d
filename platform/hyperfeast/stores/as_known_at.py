"""Training sets as they would have been at an earlier moment: without what was recorded, or corrected, since.

    with as_known_at(datetime(2024, 5, 1, tzinfo=UTC)):
        job = store.get_historical_features(...)

The moment belongs to the request: a job that was made inside keeps it, whenever it runs. The key
`as_known_at` of the offline store's configuration sets it for every request; the context goes first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from hyperfeast.errors import UsageError
from hyperfeast.sqlfiles import query

KnownAt: TypeAlias = datetime | None

_MOMENT: ContextVar[KnownAt] = ContextVar("as_known_at", default=None)


@contextmanager
def as_known_at(moment: datetime) -> Iterator[None]:
    """Read features as they were known at `moment`, in the requests that are made inside.

    A source whose table has a function `<table>_as_known_at(timestamptz)` beside it is read through
    that; any other by the rows whose created timestamp is not after the moment. A row whose created
    timestamp is NULL was never known.

    Args:
        moment: with a time zone.

    Raises:
        UsageError: the moment is none, or has no time zone.
    """
    if not isinstance(moment, datetime):
        raise UsageError(
            f"as_known_at: expected a moment with a time zone, found {moment!r}: "
            "write datetime(2024, 5, 3, tzinfo=UTC)"
        )
    if moment.tzinfo is None:
        raise UsageError(
            f"as_known_at: expected a moment with a time zone, found {moment.isoformat()}: "
            "add one, such as tzinfo=UTC"
        )
    token = _MOMENT.set(moment.astimezone(UTC))
    try:
        yield
    finally:
        _MOMENT.reset(token)


def asked_moment(configured: KnownAt) -> KnownAt:
    """The moment of the context (UTC), else the configured one; None where neither asks for one."""
    moment = _MOMENT.get() or configured
    return moment.astimezone(UTC) if moment else None


def known_at_relation(
    connection: psycopg.Connection[Any], table: str, moment: datetime
) -> sql.Composed | None:
    """What to read in place of a table to have it as known at a moment.

    Args:
        connection: where the table is.
        table: its name as it stands after FROM; empty for a query.
        moment: UTC.

    Returns:
        A call of `<table>_as_known_at`; None where there is no such function.
    """
    if not table:
        return None
    row = connection.execute(
        query("point_in_time", "known_at_function"), {"table": table}
    ).fetchone()
    if row is None:
        return None
    return sql.SQL("{}({}::timestamptz)").format(
        sql.Identifier(row["schema"], row["name"]), sql.Literal(moment.isoformat())
    )
