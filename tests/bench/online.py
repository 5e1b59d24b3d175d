"""20 features of 1 or 100 entities from Redis, against Feast's own `get_online_features().to_dict()`.

The same rows lie in Redis for both; for the packed cases they lie there a second time, packed. Each side reads
random entities one request after another on one connection; a turn is the mean of so many requests, and `-p99`
the 99th percentile of all of them.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import Figure, Task, WrongAnswer, alternate, percentile
from bench.latest import FEATURES, KEY, SERVICE, Latest, materialize, quiet
from bench.servers import describe, migrated, redis
from hyperfeast.stores import online_matrix

_ENTITIES = 50_000
_REQUESTS = {1: 1_000, 100: 50}

Rows = list[dict[str, Any]]
Read = Callable[[Rows], Any]


@dataclass(frozen=True)
class _Case:
    """Which of ours reads how many entities."""

    name: str
    read: Read
    entities: int


def run(task: Task) -> Iterator[Figure]:
    """The cases single, batch-100, packed-single, packed-batch-100, and the p99 of each."""
    with (
        tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as folder,
        migrated() as database,
        redis() as url,
    ):
        latest = Latest(database, url, Path(folder), task.rows or _ENTITIES)
        latest.create()
        task.say(f"{describe(database)}: {latest.entities:,} entities x 20 features")
        for options in ({}, {"layout": "packed"}):
            materialize(latest.store("ours", **options))
        stock = _as_dict(latest.store("stock"))
        for prefix, options in (("", {}), ("packed-", {"layout": "packed"})):
            store = latest.store("ours", **options)
            for case in (
                _Case(f"{prefix}single", _as_dict(store), 1),
                _Case(f"{prefix}single-matrix", _as_matrix(store), 1),
                _Case(f"{prefix}batch-100", _as_matrix(store), 100),
            ):
                yield from _timed(latest, case, stock, task.rounds)


def _timed(latest: Latest, case: _Case, stock: Read, rounds: int) -> Iterator[Figure]:
    """Mean and 99th percentile, once both sides are known to answer the same."""
    requests = _requests(latest, case.entities)
    for rows in (*requests[:5], [*requests[0][:-1], {KEY: -1}]):
        _must_be_one(case.read(rows), stock(rows), case.name)
    ours, feasts = _Reader(case.read, requests), _Reader(stock, requests)
    both = alternate(ours.turn, feasts.turn, rounds=rounds)
    yield Figure(
        bench="online",
        case=case.name,
        rows=case.entities,
        ours_s=both.ours_s,
        peer_s=both.peer_s,
        ratio=both.ratio,
        note=both.note,
    )
    worst, feasts_worst = ours.p99(rounds), feasts.p99(rounds)
    yield Figure(
        bench="online",
        case=f"{case.name}-p99",
        rows=case.entities,
        ours_s=worst,
        peer_s=feasts_worst,
        ratio=feasts_worst / worst,
        note=f"{rounds * len(requests):,} requests",
    )


class _Reader:
    """One side's requests, and how long each took."""

    def __init__(self, read: Read, requests: Sequence[Rows]) -> None:
        self._read, self._requests = read, requests
        self._seconds: list[float] = []

    def turn(self) -> float:
        """The mean of all requests, one after another."""
        moments = [time.perf_counter()]
        for rows in self._requests:
            self._read(rows)
            moments.append(time.perf_counter())
        taken = [after - before for before, after in itertools.pairwise(moments)]
        self._seconds += taken
        return sum(taken) / len(taken)

    def p99(self, rounds: int) -> float:
        """Of the turns that counted."""
        return percentile(self._seconds[-rounds * len(self._requests) :], 0.99)


def _as_dict(store: Any) -> Read:
    """As Feast answers."""
    service = store.get_feature_service(SERVICE)

    def read(rows: Rows) -> Any:
        return store.get_online_features(service, rows).to_dict()

    return _quietly(read)


def _as_matrix(store: Any) -> Read:
    """As numbers."""
    service = store.get_feature_service(SERVICE)

    def read(rows: Rows) -> Any:
        return online_matrix(store, service, rows)

    return _quietly(read)


def _quietly(read: Read) -> Read:
    """What Feast has to say it says at the first request."""
    with quiet():
        read([{KEY: 1}])
    return read


def _requests(latest: Latest, entities: int) -> list[Rows]:
    random = np.random.default_rng(3)
    return [
        [{KEY: int(number)} for number in random.integers(1, latest.entities + 1, entities)]
        for _ in range(_REQUESTS[entities])
    ]


def _must_be_one(ours: Any, feasts: dict[str, list[Any]], case: str) -> None:
    """Refuse to time another answer.

    Raises:
        WrongAnswer: it is one.
    """
    found = (
        [ours[name] for name in FEATURES]
        if isinstance(ours, dict)
        else [ours.values[:, ours.features.index(name)] for name in FEATURES]
    )
    right = [feasts[name] for name in FEATURES]
    numbers = [np.array(columns, dtype=float) for columns in (found, right)]
    if not np.array_equal(*numbers, equal_nan=True):
        raise WrongAnswer(f"{case}: ours gives {found}, the peer {right}")
