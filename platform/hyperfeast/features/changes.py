"""Which bars changed and were not yet computed, for each feature set.

Triggers mark what a statement touched in the transaction that touched it (`changed_bars`), whoever
writes. From there each tracked set gets marks of its own (`feature_backlog`), and they are deleted in
the transaction that writes the rows which follow from them: what a process did not finish is still
marked, and what it did finish is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features.declaration import Bars, FeatureSet, Relation
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

_FILE = "feature_changes"

# What stands for "from the first bar on" and "to the last": earlier and later than any.
BEGINNING = datetime(1000, 1, 1, tzinfo=UTC)
END = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Change:
    """What has to be computed of one symbol.

    Attributes:
        symbol: whose bars changed.
        ids: of the marks.
        first: the open of the earliest bar that changed, or a moment before it; BEGINNING for all bars.
            Later than `last` where the rows up to it are done.
        last: the open of the latest, or a moment behind it; END for all that follow.
    """

    symbol: str
    ids: tuple[int, ...]
    first: datetime
    last: datetime


def timeframe_of(feature_set: FeatureSet) -> Timeframe:
    """The timeframe of the bars that a set reads.

    Raises:
        FeatureError: it is over a relation.
    """
    match feature_set.source:
        case Bars(timeframe):
            return timeframe
        case Relation(name):
            raise FeatureError(
                f"{feature_set} is computed by the query {name}: changes of bars do not touch it"
            )


def collect(
    database: Database,
    feature_set: FeatureSet,
    symbols: Sequence[str] | None = None,
    *,
    full: bool = False,
) -> list[Change]:
    """Give every tracked set what changed since the last time, and track this one from now on.

    A set that was not tracked, or whose table was made anew, has everything to compute.

    Args:
        database: where the marks are.
        feature_set: the set.
        symbols: of which to say what has to be computed; None for all.
        full: have all bars of these symbols computed again.

    Returns:
        What has to be computed, one change a symbol, in their order.
    """
    with database.connect() as connection:
        connection.execute(query(_FILE, "lock"))
        scope = _scope(feature_set, symbols) | {
            "tf": timeframe_of(feature_set).value,
            "table": feature_set.table,
        }
        connection.execute(query(_FILE, "forget_retired"), scope)
        is_new = connection.execute(query(_FILE, "track"), scope).fetchone() is not None
        if is_new:
            connection.execute(query(_FILE, "mark_all"), scope | {"symbols": None})
        connection.execute(query(_FILE, "distribute"))
        if full and not is_new:
            connection.execute(query(_FILE, "mark_all"), scope)
        return _waiting(connection, scope)


def waiting(
    database: Database, feature_set: FeatureSet, symbols: Sequence[str] | None = None
) -> list[Change]:
    """What has been collected for a set and not been computed, one change a symbol, in their order."""
    with database.connect() as connection:
        return _waiting(connection, _scope(feature_set, symbols))


def _waiting(connection: Connection[DictRow], scope: dict[str, Any]) -> list[Change]:
    rows = connection.execute(query(_FILE, "waiting"), scope).fetchall()
    return [
        Change(row["symbol"], tuple(sorted(row["ids"])), row["first"], row["last"]) for row in rows
    ]


def settle(connection: Connection[DictRow], changes: Sequence[Change]) -> bool:
    """Delete the marks of these changes, in the transaction that writes what follows from them.

    Returns:
        Whether all were there. If not, somebody else has computed them: roll back, and look anew.
    """
    ids = [one for change in changes for one in change.ids]
    return connection.execute(query(_FILE, "settle"), {"ids": ids}).rowcount == len(ids)


def leave(connection: Connection[DictRow], feature_set: FeatureSet, left: Sequence[Change]) -> None:
    """Mark what is left to do of changes that were settled for a part of the time."""
    if left:
        marks = _scope(feature_set, [one.symbol for one in left]) | {
            "firsts": [one.first for one in left],
            "lasts": [one.last for one in left],
        }
        connection.execute(query(_FILE, "leave"), marks)


def _scope(feature_set: FeatureSet, symbols: Sequence[str] | None = None) -> dict[str, Any]:
    return {
        "name": feature_set.name,
        "version": feature_set.version,
        "symbols": None if symbols is None else list(symbols),
    }
