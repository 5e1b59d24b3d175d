"""Holds the aggregates against a recomputation from raw rows, bit for bit, and names what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.aggregates.levels import Family, Level, check_range, midnight, scopes_of
from hyperfeast.aggregates.refresh import Progress
from hyperfeast.db import Database
from hyperfeast.sqlfiles import query

_KEYS_A_SLICE = 50
_WEEK = timedelta(weeks=1)


@dataclass(frozen=True)
class Difference:
    """One column of one bucket that is not what the raw rows give.

    Attributes:
        relation: the aggregate.
        key: the symbol; of a user's readings user_id/metric/source.
        bucket: its start, UTC.
        column: which column. A bucket that is missing, or there without raw rows, is named once, by `n`.
        kept: what the aggregate says; None for a missing bucket.
        recomputed: what the raw rows give; None for a bucket too many.
        stale: the bucket is marked dirty: a refresh will put it right. Otherwise it is wrong.
    """

    relation: str
    key: str
    bucket: datetime
    column: str
    kept: float | int | None
    recomputed: float | int | None
    stale: bool


def verify(
    database: Database,
    *,
    relation: str | None = None,
    since: date | None = None,
    until: date | None = None,
    symbols: list[str] | None = None,
    limit: int = 1000,
    progress: Progress | None = None,
) -> list[Difference]:
    """Compare what the aggregates say with what the raw rows give.

    A slice of keys and a week at a time, each seen at one moment: writers may go on. Buckets before
    retention's horizon cannot be checked, for their raw rows are gone, and are left out.

    Args:
        database: where.
        relation: one aggregate, or a raw table for all that is made from it. All by default.
        since: the first UTC day; buckets that hold it are compared whole.
        until: the UTC day after the last one.
        symbols: only these keys: symbols, or users' ids as text. A family that can have none of them is left
            out.
        limit: stop after so many differences.
        progress: told (slices of keys done, slices in all).

    Returns:
        What differs, in the order of relations, weeks and keys; nothing if all is right.

    Raises:
        UsageError: an unknown relation, keys that none of its rows can have, or an empty range.
        SchemaError: the schema is older than the aggregates.
        ServerError: the server does not answer, or refuses a statement.
    """
    scopes = scopes_of(relation, symbols)
    check_range(since, until)
    with database.connect() as connection:
        found = (
            difference
            for family, keys in scopes
            for difference in _family(connection, family, relation, since, until, keys, progress)
        )
        return list(islice(found, limit))


def _family(
    connection: Connection[DictRow],
    family: Family,
    relation: str | None,
    since: date | None,
    until: date | None,
    wanted: list[str] | None,
    progress: Progress | None,
) -> Iterator[Difference]:
    levels = [level for level in family.levels if relation in (None, family.raw, level.name)]
    keys = _keys(connection, family) if wanted is None else wanted
    slices = [keys[at : at + _KEYS_A_SLICE] for at in range(0, len(keys), _KEYS_A_SLICE)]
    work = [(level, some) for level in levels for some in slices]
    for done, (level, some) in enumerate(work, start=1):
        yield from _level(connection, family, level, some, since, until)
        if progress:
            progress(done, len(work))


def _keys(connection: Connection[DictRow], family: Family) -> list[str]:
    name = "keys" if family.key_type == "text" else "users"
    return [row["key"] for row in connection.execute(query("verify", name, where="aggregates"))]


def _level(
    connection: Connection[DictRow],
    family: Family,
    level: Level,
    keys: list[str],
    since: date | None,
    until: date | None,
) -> Iterator[Difference]:
    """The differences of some keys in the whole buckets of the range, week by week."""
    scope = {
        "raw": family.raw,
        "timeframe": family.timeframe,
        "keys": keys,
        "width": level.width,
    }
    first = level.floor(midnight(since)) if since else None
    last = level.ceiling(midnight(until)) if until else None
    weeks = connection.execute(
        _formatted("weeks", family, level), {**scope, "since": first, "until": last}
    ).fetchall()
    statement = _formatted("compare", family, level)
    for week in (row["week"] for row in weeks):
        window = {
            "since": max(first or week, week),
            "until": min(last or week + _WEEK, week + _WEEK),
        }
        for row in connection.execute(statement, {**scope, **window}).fetchall():
            yield from _differences(family, level, row)


def _differences(family: Family, level: Level, row: dict[str, Any]) -> Iterator[Difference]:
    key = "/".join(str(row[name]) for name in family.identity if name != family.bucket)
    whole = row["kept_n"] is None or row["now_n"] is None
    for column in ("n",) if whole else family.values:
        kept, now = row[f"kept_{column}"], row[f"now_{column}"]
        if kept != now:
            yield Difference(
                level.name, key, row[family.bucket], column, kept, now, stale=row["stale"]
            )


def _formatted(name: str, family: Family, level: Level) -> sql.Composed:
    comma = sql.SQL(", ")
    both = [
        sql.SQL("{} AS {}").format(sql.Identifier(side, value), sql.Identifier(f"{side}_{value}"))
        for value in family.values
        for side in ("kept", "now")
    ]
    of_timeframe = sql.SQL("tf = {}").format(sql.Literal(family.timeframe))
    return sql.SQL(query("verify", name, where="aggregates")).format(
        relation=sql.Identifier(level.name),
        raw=sql.Identifier(family.raw),
        recomputed=sql.Identifier(level.recomputed),
        key=sql.Identifier(family.key),
        key_type=sql.SQL(family.key_type),
        bucket=sql.Identifier(family.bucket),
        of_timeframe=of_timeframe if family.timeframe else sql.SQL("true"),
        identity=comma.join(map(sql.Identifier, family.identity)),
        values=comma.join(both),
        values_kept=comma.join(sql.Identifier("kept", value) for value in family.values),
        values_now=comma.join(sql.Identifier("now", value) for value in family.values),
    )
