"""Training sets: ours against Feast's own PostgreSQL store, and against fetching the finished result from a table.

All features are daily rows that came in by time. The finished result of a million rows is a table that
the server made with lookups of its own; whoever gives another answer is not timed.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from adbc_driver_postgresql import dbapi
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from bench.harness import Figure, Task, Turns, WrongAnswer, alternate, stopwatch
from bench.servers import describe, migrated, settle
from feast_repos import repo
from hyperfeast.db import Database, copy_frame

_ROWS = 500_000
_FIRST = datetime(2015, 1, 1, tzinfo=UTC)
_TTL = timedelta(days=7)
_NO_TTL = timedelta(0)
_VIEWS = 5
_TESTS = Path(__file__).resolve().parent.parent
_AGAINST_FEAST = (
    ("spine-1000-ttl", 1_000, _TTL),
    ("spine-100000-ttl", 100_000, _TTL),
    ("spine-5000-nottl", 5_000, _NO_TTL),
)


@dataclass(frozen=True)
class _Table:
    """A table of daily features."""

    name: str
    symbols: int
    days: int
    features: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.symbols * self.days

    def create(self, database: Database) -> None:
        """Fill it, day after day, and let the planner know of it."""
        columns = ", ".join(f"{name} double precision" for name in self.features)
        values = ", ".join("random()" for _ in self.features)
        with database.connect(autocommit=True) as connection:
            connection.execute(
                f"CREATE UNLOGGED TABLE {self.name} (symbol text, event_timestamp timestamptz, {columns})".encode()
            )
            connection.execute("SELECT setseed(0.5)")
            connection.execute(
                f"INSERT INTO {self.name} SELECT 'S' || lpad(symbol::text, 4, '0'), "
                f"%s::timestamptz + day * interval '1 day', {values} FROM generate_series(0, %s - 1) AS day, "
                "generate_series(0, %s - 1) AS symbol ORDER BY day, symbol".encode(),
                (_FIRST, self.days, self.symbols),
            )
            connection.execute(
                f"CREATE INDEX ON {self.name} (symbol, event_timestamp DESC)".encode()
            )
            connection.execute(f"VACUUM ANALYZE {self.name}".encode())

    def view(self, ttl: timedelta, *, name: str) -> FeatureView:
        """A feature view over it."""
        return FeatureView(
            name=name,
            entities=[_SYMBOL],
            ttl=ttl,
            schema=[
                Field(name="symbol", dtype=String),
                *(Field(name=feature, dtype=Float64) for feature in self.features),
            ],
            source=PostgreSQLSource(
                name=f"{name}_source", table=self.name, timestamp_field="event_timestamp"
            ),
        )


_SYMBOL = Entity(name="symbol", join_keys=["symbol"], value_type=ValueType.STRING)


@dataclass(frozen=True)
class _Bench:
    """The database, the repository, and how much of everything."""

    database: Database
    folder: Path
    scale: float
    task: Task

    def scaled(self, number: int) -> int:
        """A full-size number, as small as the run."""
        return max(4, round(number * self.scale))

    def store(self, whose: Any = "ours") -> FeatureStore:
        return repo(self.folder, self.database.dsn, offline=whose)

    def apply(self, service: str, views: Sequence[FeatureView]) -> None:
        with _quiet():
            self.store("stock").apply(
                [_SYMBOL, *views, FeatureService(name=service, features=list(views))]
            )

    def training_set(self, whose: Any, service: str, spine: Any) -> Callable[[], pa.Table]:
        """What makes the training set, with Feast's objects at hand already."""
        store = self.store(whose)
        features = store.get_feature_service(service)

        def made() -> pa.Table:
            with _quiet():
                return store.get_historical_features(entity_df=spine, features=features).to_arrow()

        return made


def run(task: Task) -> Iterator[Figure]:
    """Against Feast's own store at three spines, and against a fetch at a million rows."""
    scale = (task.rows or _ROWS) / _ROWS
    with tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as folder, migrated() as database:
        task.say(describe(database))
        bench = _Bench(database, Path(folder), scale, task)
        yield from _against_feast(bench)
        yield from _against_a_fetch(bench)


def _against_feast(bench: _Bench) -> Iterator[Figure]:
    """One view of 20 features: both stores answer the same before either is timed."""
    table = _Table(
        "daily",
        min(200, bench.scaled(200)),
        max(8, bench.scaled(_ROWS) // min(200, bench.scaled(200))),
        _names(20),
    )
    table.create(bench.database)
    bench.task.say(f"{table.rows:,} rows of 20 features")
    for case, size, ttl in _AGAINST_FEAST:
        service = case.replace("-", "_")
        bench.apply(service, [table.view(ttl, name=service)])
        spine = _spine(table, bench.scaled(size))
        ours = bench.training_set("ours", service, spine)
        stock = bench.training_set("stock", service, spine)
        _must_be_one(ours(), stock(), case)
        settle(bench.database)
        both = alternate(_seconds(ours), _seconds(stock), rounds=bench.task.rounds)
        yield _figure(case, len(spine), both)


def _against_a_fetch(bench: _Bench) -> Iterator[Figure]:
    """50 features of 5 views at a million moments, against the finished table: 2 and 5.15 million rows."""
    spine = yield from _at_a_million_moments(bench, "spine-1000000-ttl", "wide", 1_000, 400)
    query = "SELECT number, symbol, event_timestamp FROM wide_spine"
    yield _fetched(bench, "sql-spine", "wide", spine, query)
    for part in (4, 2, 1):
        some = spine[: len(spine) // part]
        yield _fetched(bench, f"linear-{1_000_000 // part}", "wide", some, some)
    yield from _at_a_million_moments(bench, "rows-5150000", "long", 1_030, 1_000)


def _at_a_million_moments(
    bench: _Bench, case: str, service: str, symbols: int, days: int
) -> Generator[Figure, None, pd.DataFrame]:
    """One case over tables of its own; returns the spine."""
    some = min(symbols, bench.scaled(symbols))
    tables = [
        _Table(
            f"{service}_{number}",
            some,
            max(8, bench.scaled(symbols * days) // some),
            _names(10, number),
        )
        for number in range(_VIEWS)
    ]
    for table in tables:
        table.create(bench.database)
    bench.task.say(f"{_VIEWS} tables of {tables[0].rows:,} rows of 10 features")
    bench.apply(service, [table.view(_TTL, name=table.name) for table in tables])
    spine = _spine(tables[0], bench.scaled(1_000_000))
    _finish(bench.database, service, spine, tables)
    bench.task.say("the finished table stands")
    yield _fetched(bench, case, service, spine, spine, alone=True)
    return spine


def _fetched(
    bench: _Bench, case: str, service: str, spine: pd.DataFrame, asked: Any, *, alone: bool = False
) -> Figure:
    """Ours against one ADBC fetch of the finished rows; and, alone in a process, how much memory it takes."""
    ours = bench.training_set("ours", service, asked)
    with dbapi.connect(bench.database.dsn) as connection, connection.cursor() as cursor:

        def fetch() -> pa.Table:
            cursor.execute(f"SELECT * FROM {service}_finished WHERE number < {len(spine)}")
            return cursor.fetch_arrow_table()

        _must_be_one(ours(), fetch(), case)
        settle(bench.database)
        both = alternate(_seconds(ours), _seconds(fetch), rounds=bench.task.rounds)
    memory = _peak(bench, service, spine) if alone else None
    return _figure(case, len(spine), both, memory)


def _finish(database: Database, name: str, spine: pd.DataFrame, tables: Sequence[_Table]) -> None:
    """The spine as a table, and the training set as another, both made on the server."""
    features = ", ".join(
        f"{table.name}.{feature}" for table in tables for feature in table.features
    )
    joins = " ".join(
        f"LEFT JOIN LATERAL (SELECT * FROM {table.name} AS row WHERE row.symbol = spine.symbol "
        "AND row.event_timestamp <= spine.event_timestamp "
        "AND row.event_timestamp >= spine.event_timestamp - interval '7 days' "
        f"ORDER BY row.event_timestamp DESC LIMIT 1) AS {table.name} ON true"
        for table in tables
    )
    with database.connect() as connection:
        connection.execute(
            f"CREATE UNLOGGED TABLE {name}_spine "
            "(number bigint, symbol text, event_timestamp timestamptz)".encode()
        )
        copy_frame(connection, f"{name}_spine", pl.from_pandas(spine))
        connection.execute(
            f"CREATE UNLOGGED TABLE {name}_finished AS SELECT spine.*, {features} "
            f"FROM {name}_spine AS spine {joins}".encode()
        )
    with database.connect(autocommit=True) as connection:
        connection.execute(f"VACUUM ANALYZE {name}_spine, {name}_finished".encode())


def _peak(bench: _Bench, service: str, spine: pd.DataFrame) -> dict[str, float]:
    """The same streamed by a process of its own."""
    file = bench.folder / "spine.parquet"
    pq.write_table(pa.Table.from_pandas(spine, preserve_index=False), file)
    finished = subprocess.run(
        [sys.executable, "-m", "bench.training_child", str(bench.folder), str(file), service],
        input=bench.database.dsn,
        capture_output=True,
        text=True,
        cwd=_TESTS,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(f"the bench's child failed: {finished.stderr[-2000:]}")
    found: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    if found["rows"] != len(spine):
        raise WrongAnswer(f"expected {len(spine)} rows, the stream gave {found['rows']}")
    return found


def _spine(table: _Table, rows: int) -> pd.DataFrame:
    """Random symbols at random moments of the time that the table spans."""
    random = np.random.default_rng(7)
    symbols = np.array([f"S{number:04d}" for number in range(table.symbols)], dtype=object)
    micros = random.integers(0, table.days * 86_400_000_000, rows)
    moments = pd.Timestamp(_FIRST) + pd.to_timedelta(micros, unit="us")
    return pd.DataFrame(
        {
            "number": np.arange(rows),
            "symbol": symbols[random.integers(0, table.symbols, rows)],
            "event_timestamp": moments.astype("datetime64[us, UTC]"),
        }
    )


def _must_be_one(ours: pa.Table, peer: pa.Table, case: str) -> None:
    """Refuse to time what is not the same table, whatever its order.

    Raises:
        WrongAnswer: it is not.
    """
    one, other = (
        pl.DataFrame(pl.from_arrow(table))
        .with_columns(pl.col("event_timestamp").cast(pl.Datetime("us")))
        .sort("number")
        for table in (ours, peer)
    )
    if one.columns != other.columns or not one.equals(other):
        raise WrongAnswer(f"{case}: ours gives {one.head(3)}, the peer {other.head(3)}")


def _seconds(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: stopwatch(work)


def _figure(case: str, rows: int, both: Turns, memory: dict[str, float] | None = None) -> Figure:
    note = both.note
    if memory:
        note += (
            f"; streamed alone in {memory['seconds']:.1f} s, {memory['before_mb']:.0f} MB before it"
        )
    return Figure(
        bench="training-set",
        case=case,
        rows=rows,
        ours_s=both.ours_s,
        peer_s=both.peer_s,
        ratio=both.ratio,
        peak_mb=memory["peak_mb"] if memory else None,
        note=note,
    )


def _names(count: int, table: int = 0) -> tuple[str, ...]:
    return tuple(f"f{table}_{number}" for number in range(count))


@contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints and warns as it goes."""
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
