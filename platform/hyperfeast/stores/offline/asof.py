"""The as-of match: for every spine row the position of the row that was the newest of its entity at its moment.

Entity and time are packed into one integer, so that a match is a binary search in one sorted array.
Only positions are carried; no value of a feature is touched.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]

_HELD = 2**63


@dataclass(frozen=True)
class Moments:
    """Spine rows, sorted by entity and moment.

    Attributes:
        order: where in the spine each stands.
        entities: 0 and up; rows without an entity or a moment are not among them.
        times: microseconds since 1970.
        rows: how many the spine has in all.
        entity_count: how many entities there are.
    """

    order: Integers
    entities: Integers
    times: Integers
    rows: int
    entity_count: int
    _packings: dict[tuple[int, int, int | None], tuple[Integers, Integers]] = field(
        default_factory=dict, repr=False
    )

    @cached_property
    def first(self) -> int:
        """The first moment of all."""
        return int(self.times.min())

    @cached_property
    def last(self) -> int:
        """The last moment of all."""
        return int(self.times.max())

    def packed(self, low: int, high: int, ttl_us: int | None) -> tuple[Integers, Integers]:
        """What `_packed` says of the spine's rows, for rows whose times are from `low` to `high`."""
        key = (low, high, ttl_us)
        if key not in self._packings:
            # One at a time: each is as long as the spine.
            self._packings.clear()
            starts = self.entities * (high - low + 2)
            times = np.clip(self.times, low - 1, high)
            oldest = starts + 1
            if ttl_us is not None:
                oldest += np.maximum(self.times - (ttl_us + low), 0)
            self._packings[key] = starts + (times - low + 1), oldest
        return self._packings[key]


@dataclass(frozen=True)
class Rows:
    """A view's rows, in any order.

    Attributes:
        entities: int64[rows], -1 where the spine does not have it; None where all are of entity 0.
        events: int64[rows], event times in microseconds since 1970.
        eventless: bool[rows], where the event time is NULL; None where none is.
        created: int64[rows], recorded times; None where they do not count.
        unrecorded: bool[rows], where the recorded time is NULL; None where none is.
    """

    entities: Integers | None
    events: Integers
    eventless: NDArray[np.bool_] | None = None
    created: Integers | None = None
    unrecorded: NDArray[np.bool_] | None = None


def sorted_moments(
    entities: Integers, count: int, times: Integers, timeless: NDArray[np.bool_] | None
) -> Moments:
    """The spine rows that can match something, sorted.

    Args:
        entities: int64[rows], -1 where there is none.
        count: how many entities there are.
        times: int64[rows], microseconds since 1970.
        timeless: where the moment is missing.
    """
    present = entities >= 0
    if timeless is not None:
        present &= ~timeless
    chosen = None if present.all() else np.flatnonzero(present)
    if chosen is not None:
        entities, times = entities[chosen], times[chosen]
    order = _by_entity_and_time(entities, times, max(count, 1))
    return Moments(
        order if chosen is None else chosen[order],
        entities[order],
        times[order],
        len(present),
        max(count, 1),
    )


def _by_entity_and_time(entities: Integers, times: Integers, count: int) -> Integers:
    if not times.size:
        return np.zeros(0, np.int64)
    low = int(times.min())
    width = int(times.max()) - low + 1
    if count * width < _HELD:
        # One sort of one array takes a sixth of the time.
        return np.argsort(entities * width + (times - low))
    return np.lexsort((times, entities))


def newest(moments: Moments, rows: Rows, *, ttl_us: int | None, by_created: bool) -> Integers:
    """For each spine row the position of the row with the greatest (event, created) of its entity.

    Rows count whose event time is not after the spine row's moment and, with a TTL, not before the
    moment minus the TTL; both ends are included. A recorded time that is NULL is before every other.

    Args:
        moments: the spine.
        rows: the view's.
        ttl_us: how old a row may be, in microseconds; None for any age.
        by_created: whether only rows count that were recorded by the moment (NULL is by no moment).

    Returns:
        int64[spine rows], -1 where no row matches. Of rows that tie in both times it is one of them, and
        the same one whenever the rows come in the same order.
    """
    matched = np.full(moments.rows, -1, np.int64)
    chosen = able(rows, by_created=by_created)
    entities = np.zeros(len(rows.events), np.int64) if rows.entities is None else rows.entities
    if chosen is not None:
        entities = entities[chosen]
    events = rows.events if chosen is None else rows.events[chosen]
    created = None
    if rows.created is not None:
        created = rows.created if chosen is None else rows.created[chosen]
        if rows.unrecorded is not None:
            unrecorded = rows.unrecorded if chosen is None else rows.unrecorded[chosen]
            created = np.where(unrecorded, np.iinfo(np.int64).min, created)
    if not events.size or not moments.order.size:
        return matched

    keys, asked, oldest = _packed(moments, entities, events, ttl_us)
    by_event = _sorted(keys, created)
    if by_created and created is not None:
        found = _known(moments, entities, np.maximum(events, created), by_event)
    else:
        found = np.searchsorted(keys[by_event], asked, side="right") - 1
    row = by_event[np.maximum(found, 0)]
    right = (found >= 0) & (keys[row] >= oldest)
    row[~right] = -1
    matched[moments.order] = row if chosen is None else np.where(right, chosen[row], -1)
    return matched


def able(rows: Rows, *, by_created: bool) -> Integers | None:
    """The positions of the rows that can match something; None where all can."""
    found = None if rows.entities is None else rows.entities >= 0
    gone = [rows.eventless, rows.unrecorded if by_created and rows.created is not None else None]
    for absent in gone:
        if absent is not None:
            found = ~absent if found is None else found & ~absent
    return None if found is None or found.all() else np.flatnonzero(found)


def known_from(rows: Rows, *, by_created: bool) -> Integers:
    """From which moment on each row can be an answer, in microseconds since 1970."""
    if by_created and rows.created is not None:
        return np.maximum(rows.events, rows.created)
    return rows.events


def _packed(
    moments: Moments, entities: Integers, times: Integers, ttl_us: int | None
) -> tuple[Integers, Integers, Integers]:
    """Entity and time as integers that sort as the pair does.

    Returns:
        The rows' own; for each spine row the one of its moment (one below the entity's first where
        the moment is before every row's time), and that of the oldest row that may be its answer.
    """
    low, high = int(times.min()), int(times.max())
    width = high - low + 2
    if moments.entity_count * width < _HELD:
        # Bounds of the spine's own where they reach as far: then views of one TTL share what follows.
        low = min(low, moments.first - (ttl_us or 0)) if ttl_us is not None else low
        high = max(high, moments.last)
        width = high - low + 2
    if moments.entity_count * width < _HELD:
        return (entities * width + (times - low) + 1, *moments.packed(low, high, ttl_us))
    # Ranks in place of times: there are no more of them than rows.
    distinct = np.unique(times)
    width = len(distinct) + 1
    starts = moments.entities * width
    asked = starts + np.searchsorted(distinct, moments.times, side="right")
    oldest = starts + 1
    if ttl_us is not None:
        oldest += np.searchsorted(distinct, moments.times - ttl_us)
    return entities * width + np.searchsorted(distinct, times) + 1, asked, oldest


def _sorted(keys: Integers, created: Integers | None) -> Integers:
    """The order of the rows by (entity, event time, recorded time)."""
    if (keys[1:] > keys[:-1]).all():
        return np.arange(len(keys))
    order = np.argsort(keys)
    if created is None:
        return order
    ordered = keys[order]
    if (ordered[1:] > ordered[:-1]).all():
        return order
    return np.lexsort((created, keys))


def _known(
    moments: Moments, entities: Integers, known_from: Integers, by_event: Integers
) -> Integers:
    """Where in `by_event` the newest of the rows stands that were knowable at each moment; -1 for none.

    Once knowable, a row stays so: among an entity's rows in the order in which they became knowable,
    the newest so far is a running maximum of their ranks. Ranks grow with the entity, so that one
    running maximum serves them all.
    """
    rank = np.empty(len(by_event), np.int64)
    rank[by_event] = np.arange(len(by_event))
    keys, asked, _ = _packed(moments, entities, known_from, None)
    order = np.argsort(keys)
    newest_rank = np.maximum.accumulate(rank[order])
    found = np.searchsorted(keys[order], asked, side="right") - 1
    return np.where(found >= 0, newest_rank[np.maximum(found, 0)], -1)
