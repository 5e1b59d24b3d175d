"""The judge of every point-in-time join: the definition in plain Python, each spine row against each feature row.

It knows no library and no index, costs O(spine x rows), and is right because it can be read:

- a spine row at T of an entity gets the row of that entity with the greatest (event time, created time) whose
  event time is not after T and, with a TTL, not before T - TTL (both ends count);
- `filter_by_created`: only rows that were created by T count; `known_at`: only those created by that moment;
- a created time that is not known is before every other, and by no moment (such a row does not count where
  one is asked for);
- a row without event time matches nothing; a key that is NULL, on either side, equals nothing;
- rows that tie in both times are equally right: every one of them is an answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

Row = Mapping[str, Any]
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class View:
    """A feature view's rows, and how to read them.

    Attributes:
        name: for messages.
        rows: column -> value, times with a zone.
        keys: the spine's column -> the rows' column; empty where all rows are one entity's.
        timestamp: the column of the event time.
        features: the rows' column -> the name in the answer.
        created: the column of the created time, if there is one.
        ttl: how old a row may be; None for any age.
    """

    name: str
    rows: Sequence[Row]
    keys: Mapping[str, str]
    timestamp: str
    features: Mapping[str, str]
    created: str | None = None
    ttl: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked for besides the features.

    Attributes:
        at: the spine's column with the moment asked about.
        filter_by_created: only what was created by that moment.
        known_at: only what was created by this moment.
    """

    at: str = "event_timestamp"
    filter_by_created: bool = False
    known_at: datetime | None = None


def answers(spine_row: Row, view: View, asked: Asked = Asked()) -> list[dict[str, Any]]:
    """The features of one view for one spine row, by name.

    Returns:
        One answer; several where rows tie; one with nothing but None where no row matches.
    """
    at = spine_row[asked.at]
    right: list[Row] = []
    if at is not None:
        matching = [row for row in view.rows if _matches(spine_row, row, view, at, asked)]
        newest = max((_order(row, view) for row in matching), default=None)
        right = [row for row in matching if _order(row, view) == newest]
    if not right:
        return [dict.fromkeys(view.features.values())]
    return [{name: row[column] for column, name in view.features.items()} for row in right]


def differences(
    found: Sequence[Row], spine: Sequence[Row], views: Sequence[View], asked: Asked = Asked()
) -> Iterator[str]:
    """What is wrong with a training set, a line each; nothing where it is right.

    Args:
        found: one row a spine row, in the spine's order: the spine's columns, and then the views' features.
        spine: what was asked about.
        views: what it was joined with.
        asked: how.
    """
    if len(found) != len(spine):
        yield f"expected {len(spine)} rows, one a spine row, found {len(found)}"
        return
    for number, (row, spine_row) in enumerate(zip(found, spine, strict=True)):
        if list(row)[: len(spine_row)] != list(spine_row):
            yield f"row {number}: expected the spine's columns {list(spine_row)}, found {list(row)}"
        for column, value in spine_row.items():
            if not same(row[column], value):
                yield f"row {number}: the spine has {column}={value!r}, found {row[column]!r}"
        for view in views:
            right = answers(spine_row, view, asked)
            given = {name: row[name] for name in view.features.values()}
            if not any(_same_row(given, answer) for answer in right):
                yield f"row {number} {dict(spine_row)}: {view.name} gives {given}, right is {right}"


def of_range(view: View, start: datetime, end: datetime, asked: Asked = Asked()) -> list[list[Row]]:
    """The rows of one view with an event time from start to end (both count), each event once.

    With `filter_by_created` a row counts that was created by its own event time.

    Returns:
        For each entity and event time the rows that are equally right.
    """
    events: dict[tuple[Any, ...], list[Row]] = {}
    for row in view.rows:
        event = row[view.timestamp]
        if event is not None and start <= event <= end and _was_created(row, view, event, asked):
            key = tuple(row[column] for column in view.keys.values())
            events.setdefault((*key, event), []).append(row)
    newest = ((rows, max(_order(row, view) for row in rows)) for rows in events.values())
    return [[row for row in rows if _order(row, view) == order] for rows, order in newest]


def latest(
    view: View,
    start: datetime,
    end: datetime,
    *,
    late_from: datetime | None = None,
) -> list[list[Row]]:
    """The newest row of each entity with an event time from start to end (both count).

    Args:
        view: whose rows.
        start: from this event time on.
        end: up to this event time.
        late_from: with a created time, also rows of any event time up to `end` that were created from this
            moment to `end`: they arrived late, behind `start`.

    Returns:
        For each entity the rows that are equally right; entities with a key that is NULL are left out.
    """
    entities: dict[tuple[Any, ...], list[Row]] = {}
    for row in view.rows:
        key = tuple(row[column] for column in view.keys.values())
        if None not in key and _in_range(row, view, start, end, late_from):
            entities.setdefault(key, []).append(row)
    newest = (
        (rows, max(_order(row, view) for row in rows)) for _, rows in sorted(entities.items())
    )
    return [[row for row in rows if _order(row, view) == order] for rows, order in newest]


def unmatched(found: Sequence[Row], right: Sequence[Sequence[Row]]) -> Iterator[str]:
    """What is wrong with rows of which each must be one of as many answers, in any order."""
    if len(found) != len(right):
        yield f"expected {len(right)} rows, found {len(found)}: {found}"
    open_ = [*right]
    for row in found:
        answer = next((some for some in open_ if any(_same_row(row, one) for one in some)), None)
        if answer is None:
            yield f"{row} is not among {open_}"
        else:
            open_.remove(answer)


def same(one: Any, other: Any) -> bool:
    """Whether two values are one: NaN is itself, lists are compared value by value."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if one is None or other is None:
        return one is other
    return bool(one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def _same_row(one: Row, other: Row) -> bool:
    return all(same(one[name], other[name]) for name in other)


def _matches(spine_row: Row, row: Row, view: View, at: datetime, asked: Asked) -> bool:
    event = row[view.timestamp]
    if event is None or event > at or (view.ttl and event < at - view.ttl):
        return False
    if any(
        spine_row[asked_key] is None or spine_row[asked_key] != row[column]
        for asked_key, column in view.keys.items()
    ):
        return False
    return _was_created(row, view, at, asked)


def _was_created(row: Row, view: View, at: datetime, asked: Asked) -> bool:
    if view.created is None:
        return True
    created = row[view.created]
    by = [moment for moment in (at if asked.filter_by_created else None, asked.known_at) if moment]
    return all(created is not None and created <= moment for moment in by)


def _in_range(
    row: Row, view: View, start: datetime, end: datetime, late_from: datetime | None
) -> bool:
    event = row[view.timestamp]
    if event is None or event > end:
        return False
    if event >= start:
        return True
    created = row[view.created] if view.created else None
    return late_from is not None and created is not None and late_from <= created <= end


def _order(row: Row, view: View) -> tuple[datetime, datetime]:
    created = row[view.created] if view.created else None
    return row[view.timestamp], created or _NEVER
