"""Feature sets over readings: of a reading that arrives, only its user's days are computed.

Whoever writes readings marks their days in the same transaction (`reading_changes`). The marks are handed
to every set and version that follows readings (`reading_marks`); a set that is new has everything marked.
Computing takes marks, computes the days that they touch and writes what differs, in one transaction: a
process that is killed leaves the marks, and two that run at once take different ones. A user's rows have
one writer at a time, who reads once it is its turn: no old computation ends up as the newest revision.

A reading touches its own day and the days whose window it is in. A day that is not over is described by a
row as of its newest reading, and its mark comes up once more when the day ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import polars as pl
from psycopg import Connection, sql
from psycopg.rows import DictRow, tuple_row

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features import table
from hyperfeast.features.declaration import FeatureSet, FeatureType, Relation
from hyperfeast.sqlfiles import query

Progress = Callable[[int, int], None]

# How many days after a reading have it in their window.
_REACH = timedelta(days=30)
_DAY = timedelta(days=1)
# Marks in one transaction: a user's whole history is one mark, and some 400 rows a year.
_MARKS_AT_ONCE = 500
# Where a query takes what part of it is wanted: what stands there asks for everything.
_PLACES = {
    "of_users": "true /*of users*/",
    "of_stale_users": "true /*of stale users*/",
    "since": "'-infinity' /*since*/",
    "until": "'infinity' /*until*/",
    "touched": "true /*touched*/",
}
_KEYS = ["user_id", "metric"]
_EVENT = "event_timestamp"
_TYPES: dict[FeatureType, pl.DataType] = {
    FeatureType.FLOAT64: pl.Float64(),
    FeatureType.INT64: pl.Int64(),
    FeatureType.FLOAT64_LIST: pl.List(pl.Float64),
}


@dataclass(frozen=True)
class Refreshed:
    """What came of a refresh.

    Attributes:
        rows: how many were new, or differed from the revision served.
        newest: the newest of them of each entity: keys, event_timestamp, recorded_at (UTC) and features.
    """

    rows: int
    newest: pl.DataFrame


@dataclass(frozen=True)
class _Touched:
    """Series and the span of their days that changed, first and last."""

    users: list[UUID]
    metrics: list[str]
    first: list[date]
    last: list[date]


@dataclass(frozen=True)
class _Step:
    """What one transaction did: the rows that it wrote, for how many users; whether others are left."""

    written: pl.DataFrame
    users: int
    is_last: bool


def follows_readings(feature_set: FeatureSet) -> bool:
    """Whether a set is over readings and can be computed for the days that changed alone.

    Its query says so with the notes of users, since, until and touched where it can be bounded, and its keys
    are user_id and metric. Other relations are computed as a whole.
    """
    match feature_set.source:
        case Relation(name):
            text = query("features", name)
            return feature_set.key_columns == _KEYS and all(
                place in text for place in _PLACES.values()
            )
        case _:
            return False


def pending(database: Database, feature_set: FeatureSet) -> dict[str, datetime]:
    """The users whose features are not current: their id -> where the first day that changed begins, UTC."""
    found = database.fetch(query("relation", "pending"), _named(feature_set))
    return {
        str(row["user_id"]): datetime.combine(row["first"], datetime.min.time(), UTC)
        for row in found
    }


def refresh_users(
    database: Database,
    feature_set: FeatureSet,
    users: Sequence[str] | None = None,
    *,
    full: bool = False,
    progress: Progress | None = None,
) -> Refreshed:
    """Compute the days that changed and write what differs as new revisions.

    Any number of processes may call it at once, for the same users or others. A set that is new is computed
    as a whole.

    Args:
        database: where readings and features are.
        feature_set: one that follows readings.
        users: their ids; None for all.
        full: compute all days of these users again.
        progress: told (marks done, marks that there were at the beginning).

    Raises:
        FeatureError: the set does not follow readings.
        UsageError: a user's id is no UUID.
    """
    if not follows_readings(feature_set):
        raise FeatureError(
            f"{feature_set} does not follow readings: its query has no notes such as /*touched*/, or its keys are "
            f"not {' and '.join(_KEYS)}. Compute it as a whole"
        )
    scope = {**_named(feature_set), "table": feature_set.table, "users": _ids(users)}
    with database.connect() as connection:
        scope["moment"] = _prepare(connection, scope, full=full)
    total = len(pending(database, feature_set)) if progress else 0
    written, done, newest = 0, 0, _empty(feature_set)
    while (step := _step(database, feature_set, scope)) is not None:
        written += step.written.height
        newest = _newest(pl.concat([newest, step.written]), feature_set)
        done += step.users
        if progress:
            progress(min(done, total), total)
        if step.is_last:
            break
    return Refreshed(written, newest)


def _prepare(connection: Connection[DictRow], scope: dict[str, Any], *, full: bool) -> datetime:
    """Hand out what was marked; of a set that is new, or asked for in full, mark everything.

    Returns:
        Until when marks are for this refresh: busy writers do not keep it going.
    """
    connection.execute(query("relation", "lock"))
    connection.execute(query("relation", "forget_retired"), scope)
    is_new = connection.execute(query("relation", "register"), scope).fetchone() is not None
    connection.execute(query("relation", "distribute"))
    if is_new:
        connection.execute(query("relation", "mark_all"), {**scope, "users": None})
    elif full:
        connection.execute(query("relation", "mark_all"), scope)
    moment: datetime = connection.execute(query("relation", "moment")).fetchall()[0]["moment"]
    return moment


def _step(database: Database, feature_set: FeatureSet, scope: dict[str, Any]) -> _Step | None:
    """Take some marks and do them; None if nothing is due."""
    with database.connect() as connection:
        claimed = connection.execute(
            query("relation", "claim"), {**scope, "limit": _MARKS_AT_ONCE}
        ).fetchall()
        if not claimed:
            return None
        touched = _spans(claimed)
        keys = {"table": feature_set.table, "users": sorted({str(one) for one in touched.users})}
        connection.execute(query("relation", "share_set"), keys)
        connection.execute(query("relation", "lock_users"), keys)
        written = _write(connection, feature_set, touched)
        connection.execute(
            query("relation", "mark_unfinished"),
            {
                **_named(feature_set),
                "users": touched.users,
                "metrics": touched.metrics,
                "last": touched.last,
            },
        )
    return _Step(written, len(keys["users"]), is_last=len(claimed) < _MARKS_AT_ONCE)


def _spans(claimed: Sequence[DictRow]) -> _Touched:
    """One span a series."""
    spans: dict[tuple[UUID, str], tuple[date, date]] = {}
    for row in claimed:
        key = (row["user_id"], row["metric"])
        first, last = spans.get(key, (row["first"], row["last"]))
        spans[key] = (min(first, row["first"]), max(last, row["last"]))
    ordered = sorted(spans.items())
    return _Touched(
        [user for (user, _), _ in ordered],
        [metric for (_, metric), _ in ordered],
        [first for _, (first, _) in ordered],
        [last for _, (_, last) in ordered],
    )


def _write(
    connection: Connection[DictRow], feature_set: FeatureSet, touched: _Touched
) -> pl.DataFrame:
    """Add the revisions that the touched days ask for; what was written."""
    # Planned for these users: with their ids as constants the daily sums are found by the index.
    rows = _frame(connection, _rows(feature_set, touched), [*_KEYS, _EVENT], feature_set)
    names = [*_KEYS, _EVENT, "recorded_at"]
    stored = _frame(connection, _stored(feature_set, touched), names, feature_set)
    found = table.revisions(feature_set, rows, _comparable(stored, rows))
    return table.append(connection, feature_set, found)


def _frame(
    connection: Connection[DictRow],
    statement: sql.Composed,
    names: Sequence[str],
    feature_set: FeatureSet,
) -> pl.DataFrame:
    """The columns of these names, and the features, of what a statement gives.

    For the few rows of a reading a connection more, for Arrow, would take longer than to read them.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement, prepare=False)
        found = [column.name for column in cursor.description or ()]
        table.check_columns(feature_set, found)
        types = _types(feature_set)
        rows = pl.DataFrame(
            cursor.fetchall(),
            schema=[(name, types[name]) for name in found if name in types],
            orient="row",
        )
    return rows.select(*names, *feature_set.feature_names)


def _stored(feature_set: FeatureSet, touched: _Touched) -> sql.Composed:
    """The served rows that describe the touched days, and what was said of the last one before its end."""
    return sql.SQL(query("relation", "stored")).format(
        table=sql.Identifier(feature_set.table),
        features=sql.SQL(", ").join(map(sql.Identifier, feature_set.feature_names)),
        users=sql.Literal([str(one) for one in touched.users]),
        metrics=sql.Literal(touched.metrics),
        first=sql.Literal([_moment(one) for one in touched.first]),
        last=sql.Literal([_moment(one + _REACH + _DAY) for one in touched.last]),
    )


def _comparable(stored: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that there would be if all were computed now.

    What was said of a day before its end stays as it was said: what came later was not known then. Only what
    lies after the newest reading that there is now has lost what it was made of.
    """
    newest = rows.group_by(_KEYS).agg(pl.col(_EVENT).max().alias("newest"))
    is_end = pl.col(_EVENT).dt.truncate("1d") == pl.col(_EVENT)
    computed = stored.join(rows.select(*_KEYS, _EVENT), on=[*_KEYS, _EVENT], how="semi")
    others = (
        stored.join(computed.select(*_KEYS, _EVENT), on=[*_KEYS, _EVENT], how="anti")
        .join(newest, on=_KEYS, how="left")
        .filter(is_end | pl.col("newest").is_null() | (pl.col(_EVENT) > pl.col("newest")))
        .select(stored.columns)
    )
    return pl.concat([computed, others])


def _rows(feature_set: FeatureSet, touched: _Touched) -> sql.Composed:
    """The query, for what is touched."""
    assert isinstance(feature_set.source, Relation)  # noqa: S101 - it follows readings
    text: LiteralString = query("features", feature_set.source.query)
    for name, place in _PLACES.items():
        text = text.replace(place, "{" + name + "}")
    users = sorted(set(touched.users))
    return sql.SQL(text).format(
        of_users=sql.SQL("user_id = ANY({}::uuid[])").format(sql.Literal(users)),
        of_stale_users=sql.SQL("key = ANY({}::text[])").format(
            sql.Literal([str(one) for one in users])
        ),
        since=_midnight(min(touched.first) - _REACH),
        until=_midnight(max(touched.last) + _REACH + _DAY),
        touched=_within(touched),
    )


def _within(touched: _Touched) -> sql.Composed:
    """That a row `s` describes a day that is touched, or one with such a day in its window."""
    columns = sql.SQL(", ").join(
        sql.SQL("{}::" + kind).format(sql.Literal(values))
        for kind, values in (
            ("uuid[]", touched.users),
            ("text[]", touched.metrics),
            ("timestamptz[]", [_moment(one) for one in touched.first]),
            ("timestamptz[]", [_moment(one + _REACH) for one in touched.last]),
        )
    )
    return sql.SQL(
        "EXISTS (SELECT FROM unnest({}) AS c (user_id, metric, first, last) "
        "WHERE c.user_id = s.user_id AND c.metric = s.metric AND s.day BETWEEN c.first AND c.last)"
    ).format(columns)


def _moment(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)


def _midnight(day: date) -> sql.Composed:
    return sql.SQL("{}::timestamptz").format(sql.Literal(_moment(day)))


def _named(feature_set: FeatureSet) -> dict[str, Any]:
    return {"name": feature_set.name, "version": feature_set.version}


def _ids(users: Sequence[str] | None) -> list[UUID] | None:
    try:
        return None if users is None else [UUID(str(one)) for one in users]
    except ValueError:
        raise UsageError(
            f"expected users' ids, found {[str(one)[:60] for one in users or ()]}: a UUID each, such as "
            "123e4567-e89b-12d3-a456-426614174000"
        ) from None


def _newest(rows: pl.DataFrame, feature_set: FeatureSet) -> pl.DataFrame:
    """The newest row of each entity."""
    return rows.sort("event_timestamp", "recorded_at").unique(
        feature_set.key_columns, keep="last", maintain_order=True
    )


def _empty(feature_set: FeatureSet) -> pl.DataFrame:
    return pl.DataFrame(schema=_types(feature_set))


def _types(feature_set: FeatureSet) -> dict[str, pl.DataType]:
    """The columns of what is written, in their order."""
    moment = pl.Datetime("us", "UTC")
    return {
        **dict.fromkeys(feature_set.key_columns, pl.String()),
        _EVENT: moment,
        "recorded_at": moment,
        **{one.name: _TYPES[one.dtype] for one in feature_set.features},
    }
