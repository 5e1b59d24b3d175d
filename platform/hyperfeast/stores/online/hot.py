"""Vectors that were read a moment ago, kept in this process until they change, or are a few seconds old.

Redis tells which keys were written, whoever wrote them (`invalidation`), and only what it tells of is kept.
A vector that was read while its key changed is not kept at all.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from feast import FeatureStore
from feast.infra.online_stores.redis import RedisClient, RedisType
from numpy.typing import NDArray
from prometheus_client import Counter

from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.asked import Asked, EntityRows, asked
from hyperfeast.stores.online.invalidation import Invalidations
from hyperfeast.stores.online.packed import key_head
from hyperfeast.stores.online.plan import Features, Plan
from hyperfeast.stores.online.reading import reader_of
from hyperfeast.stores.online.views import Cells, KeyGroup

_READS = Counter(
    "hyperfeast_feature_cache_reads",
    "Online vectors asked for, by whether this process still had them.",
    ("result",),
)
_HITS, _MISSES = _READS.labels("hit"), _READS.labels("miss")
_ENDED = Counter(
    "hyperfeast_feature_cache_invalidations", "Kept vectors that a write to Redis ended."
)

# The keys in Redis that a vector was read from.
_Keys = tuple[bytes, ...]


@dataclass(frozen=True)
class _Vector:
    values: NDArray[np.float64]
    event_timestamps: NDArray[np.datetime64]
    expires: float


@dataclass(eq=False)
class _Flight:
    """A read that is under way, and which of its keys changed meanwhile."""

    keys: frozenset[bytes]
    changed: set[bytes] = field(default_factory=set)


class HotVectors:
    """The online matrix of `online_matrix`, from this process's memory where it can be.

    Safe to share between threads. Without tracking (a cluster, GLIDE, a connection that broke) every read
    goes to Redis.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.
        ttl_s: how long a vector may be served after it was read, whatever happens.
        most: how many vectors are kept; the one that was not asked for longest goes.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        store: FeatureStore,
        *,
        ttl_s: float,
        most: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._reader = store, reader_of(store)
        self._ttl_s, self._most, self._clock = ttl_s, most, clock
        self._kept: OrderedDict[tuple[int, _Keys], tuple[Plan, _Vector]] = OrderedDict()
        self._read_from: dict[bytes, set[tuple[int, _Keys]]] = {}
        self._flights: set[_Flight] = set()
        self._lock = threading.Lock()
        online = store.config.online_store
        self._is_packed = online.layout == "packed"
        self._told = (
            None
            if online.redis_type == RedisType.redis_cluster or online.client == RedisClient.glide
            else Invalidations(
                self._reader.client(store.config),
                store.project,
                on_keys=self._forget,
                on_definitions=self._refresh,
            )
        )

    def online(
        self, features: Features, entity_rows: EntityRows, *, full_feature_names: bool = False
    ) -> OnlineMatrix:
        """What `online_matrix` gives, and the same errors.

        Args:
            features: a feature service, or references `view:feature`.
            entity_rows: a mapping a row (join key -> value), or a column a join key.
            full_feature_names: whether a feature's name is `view__feature`.
        """
        plan = self._reader.plan_of(self._store, features, full_feature_names=full_feature_names)
        rows = asked(plan, entity_rows)
        if not rows.rows or not self._hears(plan):
            return self._read(plan, rows)
        now, keys = self._clock(), _keys_of(self._is_packed, plan, rows)
        with self._lock:
            vectors = [self._still_good(plan, one, now) for one in keys]
            missing = [at for at, vector in enumerate(vectors) if vector is None]
            flight = _Flight(frozenset(key for at in missing for key in keys[at]))
            self._flights.add(flight)
        _HITS.inc(len(keys) - len(missing))
        _MISSES.inc(len(missing))
        try:
            if missing:
                columns = {name: _taken(cells, missing) for name, cells in rows.columns.items()}
                read = self._read(plan, asked(plan, columns))
                fresh = _vectors(read, now + self._ttl_s)
                with self._lock:
                    is_heard = self._hears(plan)
                    for at, vector in zip(missing, fresh, strict=True):
                        vectors[at] = vector
                        if is_heard and flight.changed.isdisjoint(keys[at]):
                            self._keep(plan, keys[at], vector)
        finally:
            with self._lock:
                self._flights.remove(flight)
        return _joined(plan, [vector for vector in vectors if vector is not None])

    def close(self) -> None:
        """Stop listening, and keep nothing any more."""
        if self._told is not None:
            self._told.close()

    def _read(self, plan: Plan, rows: Asked) -> OnlineMatrix:
        found: OnlineMatrix = self._reader.matrix_of(self._store.config, plan, rows)
        return found

    def _hears(self, plan: Plan) -> bool:
        if self._told is None:
            return False
        prefixes = {
            head + group.keys.head
            for group in plan.groups
            for head in _heads(self._is_packed, plan, group)
        }
        return self._told.hears(prefixes)

    def _still_good(self, plan: Plan, keys: _Keys, now: float) -> _Vector | None:
        kept = self._kept.get((id(plan), keys))
        if kept is None or kept[1].expires <= now:
            return None
        self._kept.move_to_end((id(plan), keys))
        return kept[1]

    def _keep(self, plan: Plan, keys: _Keys, vector: _Vector) -> None:
        name = (id(plan), keys)
        kept = self._kept.get(name)
        if kept is not None and kept[1].expires > vector.expires:
            # Another read began later, and may have seen more.
            return
        self._kept[name] = (plan, vector)
        self._kept.move_to_end(name)
        for key in keys:
            self._read_from.setdefault(key, set()).add(name)
        if len(self._kept) > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, name: tuple[int, _Keys]) -> None:
        del self._kept[name]
        for key in name[1]:
            names = self._read_from[key]
            names.discard(name)
            if not names:
                del self._read_from[key]

    def _forget(self, keys: Iterable[bytes] | None) -> None:
        """What was read from these keys counts no more; None for all keys."""
        with self._lock:
            before = len(self._kept)
            if keys is None:
                self._kept.clear()
                self._read_from.clear()
                for flight in self._flights:
                    flight.changed |= flight.keys
            else:
                for key in keys:
                    for name in [*self._read_from.get(key, ())]:
                        self._drop(name)
                    for flight in self._flights:
                        flight.changed |= {key} & flight.keys
            _ENDED.inc(before - len(self._kept))

    def _refresh(self) -> None:
        """Definitions were applied: plans are made anew, and vectors of the old ones are found no more."""
        self._store.refresh_registry()


def _heads(is_packed: bool, plan: Plan, group: KeyGroup) -> list[bytes]:  # noqa: FBT001 - said by its name
    """What stands before an entity's key in Redis: nothing, or each view's own in the packed layout."""
    return [key_head(plan.views[at].stored_as) for at in group.views] if is_packed else [b""]


def _keys_of(is_packed: bool, plan: Plan, rows: Asked) -> list[_Keys]:  # noqa: FBT001
    """The keys that each row of a request is read from."""
    columns = []
    for group, keys in zip(plan.groups, rows.keys, strict=True):
        index = rows.indexes[group.views[0]]
        mine = keys if index is None else [keys[at] for at in index.tolist()]
        columns += [[head + key for key in mine] for head in _heads(is_packed, plan, group)]
    # One view under two aliases may be asked for one entity twice.
    return [tuple(dict.fromkeys(keys)) for keys in zip(*columns, strict=True)]


def _taken(cells: Cells, at: Sequence[int]) -> Cells:
    if isinstance(cells, pa.Array | pa.ChunkedArray | np.ndarray):
        return cells.take(at)
    return [cells[one] for one in at]


def _vectors(read: OnlineMatrix, expires: float) -> list[_Vector]:
    """Each row by itself: one that is kept keeps no other."""
    return [
        _Vector(values.copy(), moments.copy(), expires)
        for values, moments in zip(read.values, read.event_timestamps, strict=True)
    ]


def _joined(plan: Plan, vectors: Sequence[_Vector]) -> OnlineMatrix:
    return OnlineMatrix(
        np.stack([vector.values for vector in vectors]),
        plan.names,
        np.stack([vector.event_timestamps for vector in vectors]),
        plan.view_names,
        plan.view_of,
        plan.ttls,
    )
