"""Aggregates equal what raw rows give, whatever happens in whatever order: a state machine on two editions.

Each run has a region of time and symbols of its own, so that a database can be used for many.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import DictRow

from aggregate_oracle import Bar, Key, Rolled, expected, stored
from hyperfeast.aggregates import refresh, verify
from hyperfeast.aggregates.levels import CANDLES
from hyperfeast.db import Database
from hyperfeast.errors import ServerUnreachable
from hyperfeast.migrate import migrate

FIRST_MONDAY = datetime(2020, 1, 6, tzinfo=UTC)
DAYS = 21
REGIONS = 40
_numbers = count()

prices = st.floats(0.01, 1e12)
volumes = st.one_of(st.just(0.0), st.floats(1e-8, 1e18))
days = st.integers(0, DAYS - 1)
minutes = st.sampled_from([0, 1, 2, 4, 5, 14, 59, 60, 239, 240, 719, 1380, 1438, 1439])
places = st.tuples(st.sampled_from("AB"), days, minutes)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    low, opened, closed, high = sorted(draw(st.tuples(prices, prices, prices, prices)))
    if draw(st.booleans()):
        opened, closed = closed, opened
    return Bar(opened, high, low, closed, draw(volumes), draw(st.none() | prices))


class CrashingDatabase(Database):
    """Its connection dies before the n-th statement.

    Attributes:
        fired: whether it came to that.
    """

    def __init__(self, dsn: str, at: int, kill: Callable[[psycopg.Connection[Any]], None]) -> None:
        super().__init__(dsn)
        self.fired = False
        self._at, self._kill = at, kill

    @contextmanager
    def connect(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[DictRow]]:
        with super().connect(autocommit=autocommit) as connection:
            statements, execute = count(1), connection.execute

            def dying(*arguments: Any, **options: Any) -> Any:
                if next(statements) == self._at:
                    self._kill(connection)
                    self.fired = True
                return execute(*arguments, **options)

            connection.execute = dying  # type: ignore[method-assign]
            yield connection


class Aggregates(RuleBasedStateMachine):
    """Writers, refreshes, retention and crashes against a model in Python."""

    database: ClassVar[Database]
    always_right: ClassVar[bool]  # whether reads are right before a refresh, too
    happened: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        number = next(_numbers)
        self.start = FIRST_MONDAY + timedelta(weeks=6 * (number % REGIONS))
        self.symbols = {letter: f"{letter}{number}" for letter in "AB"}
        self.rows: dict[Key, Bar] = {}
        self.frozen: dict[str, dict[Key, Rolled]] = {name: {} for name in CANDLES.names}
        self.horizon = self.start
        with self.database.connect() as connection:
            connection.execute("SET LOCAL hyperfeast.retention = 'on'")
            connection.execute("DELETE FROM candles")
            connection.execute("DELETE FROM dirty_days")
            connection.execute("DELETE FROM lifecycle_in_force")
            connection.execute(
                "INSERT INTO instruments (symbol) SELECT unnest(%s::text[])",
                [list(self.symbols.values())],
            )

    @rule(batch=st.dictionaries(places, bars(), min_size=1, max_size=6))
    def insert(self, batch: dict[tuple[str, int, int], Bar]) -> None:
        new = {
            key: bar
            for place, bar in batch.items()
            if (key := self._key(*place)) not in self.rows and key[1] >= self.horizon
        }
        with self.database.connect() as connection:
            self._insert(connection, new)
        self.rows |= new

    @rule(letter=st.sampled_from("AB"), bar=bars())
    def insert_late(self, letter: str, bar: Bar) -> None:
        """Far behind everything that was refreshed: the first minute there still can be."""
        key = (self.symbols[letter], self.horizon)
        if key not in self.rows:
            with self.database.connect() as connection:
                self._insert(connection, {key: bar})
            self.rows[key] = bar

    @precondition(lambda self: self.rows)
    @rule(pick=st.randoms(use_true_random=False), bar=bars())
    def correct(self, pick: Any, bar: Bar) -> None:
        key = pick.choice(sorted(self.rows))
        assert self._correct(key, bar) == 1
        self.rows[key] = bar

    @precondition(lambda self: self.rows)
    @rule(pick=st.randoms(use_true_random=False), bar=bars())
    def nudge(self, pick: Any, bar: Bar) -> None:
        """The smallest correction: the volume alone."""
        key = pick.choice(sorted(self.rows))
        self.rows[key] = self.rows[key]._replace(v=bar.v)
        assert self._correct(key, self.rows[key]) == 1

    @precondition(lambda self: self.rows)
    @rule(pick=st.randoms(use_true_random=False), many=st.integers(1, 4))
    def delete(self, pick: Any, many: int) -> None:
        gone = pick.sample(sorted(self.rows), min(many, len(self.rows)))
        with self.database.connect() as connection:
            for symbol, ts in gone:
                connection.execute(
                    "DELETE FROM candles WHERE symbol = %s AND tf = '1m' AND ts = %s", [symbol, ts]
                )
        for key in gone:
            del self.rows[key]

    @rule()
    def refresh(self) -> None:
        refresh(self.database, relation="candles")
        self._settled()

    @rule(first=days, length=st.integers(1, 8))
    def refresh_range(self, first: int, length: int) -> None:
        since = (self.start + timedelta(days=first)).date()
        refresh(
            self.database,
            relation="candles_1d",
            since=since,
            until=since + timedelta(days=length),
        )

    @rule(weeks=st.integers(1, 2))
    def retain(self, weeks: int) -> None:
        """As the lifecycle does it: refreshed first, the horizon recorded, then the raw rows dropped."""
        refresh(self.database, relation="candles")
        self._settled()
        self.horizon = max(self.horizon, self.start + timedelta(weeks=weeks))
        for name, buckets in expected(self.rows).items():
            self.frozen[name] |= {
                key: bucket for key, bucket in buckets.items() if key[1] < self.horizon
            }
        self._drop()
        self.happened["rows dropped"] += len(self.rows)
        self.rows = {key: bar for key, bar in self.rows.items() if key[1] >= self.horizon}

    @rule(batch=st.dictionaries(places, bars(), min_size=1, max_size=3))
    def crash_in_mid_write(self, batch: dict[tuple[str, int, int], Bar]) -> None:
        new = {
            key: bar
            for place, bar in batch.items()
            if (key := self._key(*place)) not in self.rows and key[1] >= self.horizon
        }
        with pytest.raises(ServerUnreachable):
            self._write_and_die(new)
        self.happened["writes crashed"] += 1

    @rule(at=st.integers(1, 16))
    def crash_in_mid_refresh(self, at: int) -> None:
        dying = CrashingDatabase(self.database.dsn, at, self.kill)
        with suppress(ServerUnreachable):
            refresh(dying, relation="candles")
            assert not dying.fired  # there was less to do than that
        self.happened["refreshes crashed"] += dying.fired

    @invariant()
    def equal_or_marked(self) -> None:
        found, wanted = self._found(), self._wanted()
        if self.always_right:
            assert found == wanted
            return
        marked = {
            (row["key"], row["day"])
            for row in self.database.fetch("SELECT DISTINCT key, day FROM dirty_days")
        }
        for level in CANDLES.levels:
            for key in found[level.name].keys() | wanted[level.name].keys():
                if found[level.name].get(key) != wanted[level.name].get(key):
                    symbol, ts = key
                    spanned = {
                        (symbol, (ts + timedelta(days=day)).date())
                        for day in range(max(1, level.width // timedelta(days=1)))
                    }
                    assert spanned & marked, (level.name, key)
        assert all(difference.stale for difference in self._differences())

    def kill(self, connection: psycopg.Connection[Any]) -> None:
        """End the backend, and see that it has gone."""
        pid = connection.info.backend_pid
        with self.database.connect(autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            assert not other.execute(
                "SELECT FROM pg_stat_activity WHERE pid = %s", [pid]
            ).fetchall()

    def _write_and_die(self, new: dict[Key, Bar]) -> None:
        with self.database.connect() as connection:
            self._insert(connection, new)
            self.kill(connection)
            connection.execute("SELECT")

    def _settled(self) -> None:
        assert self._found() == self._wanted()
        assert self._differences() == []
        assert self.database.fetch("SELECT FROM dirty_days") == []

    def _found(self) -> dict[str, dict[Key, Rolled]]:
        return stored(self.database, [*self.symbols.values()])

    def _wanted(self) -> dict[str, dict[Key, Rolled]]:
        now = expected(self.rows)
        return {name: self.frozen[name] | now[name] for name in CANDLES.names}

    def _differences(self) -> list[Any]:
        return verify(self.database, relation="candles", symbols=[*self.symbols.values()])

    def _key(self, letter: str, day: int, minute: int) -> Key:
        return self.symbols[letter], self.start + timedelta(days=day, minutes=minute)

    def _insert(self, connection: psycopg.Connection[Any], rows: dict[Key, Bar]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, vwap) "
                "VALUES (%s, '1m', %s, %s, %s, %s, %s, %s, %s)",
                [(*key, *bar) for key, bar in rows.items()],
            )

    def _correct(self, key: Key, bar: Bar) -> int:
        return self.database.execute(
            "UPDATE candles SET (o, h, l, c, v, vwap) = ROW(%s, %s, %s, %s, %s, %s) "
            "WHERE symbol = %s AND tf = '1m' AND ts = %s",
            [*bar, *key],
        )

    def _drop(self) -> None:
        with self.database.connect() as connection:
            connection.execute("SET LOCAL hyperfeast.retention = 'on'")
            self._record_horizon(connection)
            connection.execute("DELETE FROM candles WHERE tf = '1m' AND ts < %s", [self.horizon])

    def _record_horizon(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(
            "INSERT INTO lifecycle_in_force (relation, tf, dropped_before) "
            "VALUES ('candles', '1m', %s) "
            "ON CONFLICT (relation, tf) DO UPDATE SET dropped_before = excluded.dropped_before",
            [self.horizon],
        )


class OnPlain(Aggregates):
    always_right = True


class OnCommunity(Aggregates):
    always_right = False

    @rule()
    def compress(self) -> None:
        """Every chunk that is not compressed yet."""
        chunks = self.database.fetch(
            "SELECT compress_chunk(chunk, if_not_compressed => true) "
            "FROM show_chunks('candles') AS chunk"
        )
        self.happened["chunks compressed"] += len(chunks)

    def kill(self, connection: psycopg.Connection[Any]) -> None:
        """There is one backend for all clients: what can be cut is the client's connection."""
        connection.pgconn.finish()
        assert connection.closed

    def _drop(self) -> None:
        with self.database.connect() as connection:
            self._record_horizon(connection)
        self.database.fetch("SELECT drop_chunks('candles', older_than => %s)", [self.horizon])
        with self.database.connect() as connection:
            connection.execute("SET LOCAL hyperfeast.retention = 'on'")
            connection.execute("DELETE FROM candles WHERE tf = '1m' AND ts < %s", [self.horizon])


@pytest.mark.slow
def test_plain_postgresql(database: Database) -> None:
    _run(OnPlain, database, examples=12, steps=15)
    assert OnPlain.happened.keys() == {"rows dropped", "writes crashed", "refreshes crashed"}


@pytest.mark.slow
def test_timescaledb_community(community: Database) -> None:
    migrate(community, to=0)
    migrate(community)
    community.execute(
        "ALTER TABLE candles SET (timescaledb.compress, "
        "timescaledb.compress_segmentby = 'symbol, tf', timescaledb.compress_orderby = 'ts DESC')"
    )
    _run(OnCommunity, community, examples=5, steps=15)
    assert {"writes crashed", "refreshes crashed"} <= OnCommunity.happened.keys()


def _run(machine: type[Aggregates], database: Database, *, examples: int, steps: int) -> None:
    machine.database, machine.happened = database, Counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    # Counted where something came of it: the faults did fire.
    machine.happened = +machine.happened
