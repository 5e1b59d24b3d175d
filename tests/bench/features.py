"""Fifty features of daily bars: computed, kept current, and brought online.

- vs-pandas, vs-talib: the bars are in memory, and so are the results. The peers are a loop over the groups of
  pandas that calls the wrapper of TA-Lib on their columns, and the same calls on contiguous arrays, one a symbol
  and column. They go over a whole series at once, ours block by block: equal to 1e-9 of its scale, before
  anything is timed.
- end-to-end: from `candles` to the features' table that was empty, in a process of its own, a transaction a chunk
  of symbols. The peer is computing alone; in end-to-end-vs-copy, a COPY of the finished rows into a table like it.
- new-bars, correction: from the committed change to Redis, features computed and stored on the way. The peer is
  computing everything again and bringing that online.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench import market
from bench.fifty import FIFTY, NAMES, by_talib
from bench.harness import Figure, Task, Turns, WrongAnswer, alternate, must_equal, stopwatch
from bench.servers import describe, migrated, redis, settle
from hyperfeast.db import Database, copy_frame
from hyperfeast.features import schema, table
from hyperfeast.features.bars import read_bars
from hyperfeast.features.computation import over_bars
from hyperfeast.features.incremental import refresh_symbols
from hyperfeast.stores.feast_store import FeastStore
from hyperfeast.types import Timeframe

_SYMBOLS, _DAYS = 1030, 5000
_PRICES = ("open", "high", "low", "close", "volume")
_TOLERANCE = 1e-9
_TESTS = Path(__file__).resolve().parent.parent
_SERVICE = "fifty"
_DEFINITIONS = """\
from bench.fifty import FIFTY
from feast import FeatureService, Project
from hyperfeast.features.views import entity, feature_view

hyperfeast = Project(name="bench")
symbol = entity(FIFTY.keys[0])
fifty_v1 = feature_view(FIFTY, [symbol])
fifty = FeatureService(name="fifty", features=[fifty_v1])
"""
_STORE = """\
project: bench
provider: local
registry:
  registry_type: sql
  path: postgresql+psycopg:///?plugin=hyperfeast
  cache_ttl_seconds: 60
offline_store:
  type: hyperfeast.stores.PlatformOfflineStore
batch_engine:
  type: hyperfeast.stores.ArrowComputeEngine
online_store:
  type: hyperfeast.stores.PlatformOnlineStore
entity_key_serialization_version: 3
"""


def run(task: Task) -> Iterator[Figure]:
    """The cases vs-pandas, vs-talib, end-to-end, end-to-end-vs-copy, new-bars and correction."""
    days = min(_DAYS, task.rows or _DAYS)
    symbols = max(1, round(task.rows / days)) if task.rows else _SYMBOLS
    with migrated() as database, redis() as url, _feast(database, url) as feast:
        task.say(f"{describe(database)}: {symbols * days:,} daily candles of {symbols:,} symbols")
        # The last one comes later.
        _store(database, symbols, days - 1)
        with database.connect() as connection:
            schema.create(connection, FIFTY)
        feast.apply()
        bars = read_bars(database, Timeframe.D1)
        yield from _computing(bars, task)
        yield from _end_to_end(database, bars, task)
        del bars
        current = _Current(database, feast, symbols, days)
        yield from current.figures(task)


def _store(database: Database, symbols: int, days: int) -> None:
    for one in market.daily(symbols, days):
        with database.connect() as connection:
            connection.execute("INSERT INTO instruments (symbol) VALUES (%s)", [one["symbol"][0]])
            copy_frame(connection, "candles", _rows(one))
    with database.connect(autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE candles")


def _rows(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select(
        "symbol",
        pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("ts"),
        *(pl.col(name).alias(name[0]) for name in _PRICES),
        tf=pl.lit("1d"),
    )


def _computing(bars: pl.DataFrame, task: Task) -> Iterator[Figure]:
    """Both peers, once what they compute is known to be ours."""
    frame = bars.select("symbol", *_PRICES).to_pandas()
    arrays = [
        {name: np.ascontiguousarray(part[name].to_numpy()) for name in _PRICES}
        for part in bars.partition_by("symbol", maintain_order=True)
    ]
    results = np.empty((len(NAMES), bars.height))

    def with_pandas() -> None:
        for name in NAMES:
            frame[name] = np.nan
        for _, group in frame.groupby("symbol", sort=False):
            for name, values in by_talib({one: group[one] for one in _PRICES}).items():
                frame.loc[group.index, name] = values

    def with_talib() -> None:
        end = 0
        for columns in arrays:
            begin, end = end, end + len(columns["close"])
            for row, values in enumerate(by_talib(columns).values()):
                results[row, begin:end] = values

    ours = over_bars(FIFTY, bars)
    with_talib()
    _must_agree(ours, dict(zip(NAMES, results, strict=True)))
    with_pandas()
    _must_agree(ours, {name: frame[name].to_numpy() for name in NAMES})
    del ours
    for case, peer in (("vs-pandas", with_pandas), ("vs-talib", with_talib)):
        both = alternate(
            lambda: stopwatch(lambda: over_bars(FIFTY, bars)),
            lambda peer=peer: stopwatch(peer),
            rounds=task.rounds,
        )
        yield _figure(case, bars.height, both)


def _must_agree(ours: pl.DataFrame, peer: dict[str, NDArray[np.float64]]) -> None:
    for name in NAMES:
        mine = ours[name].fill_null(float("nan")).to_numpy()
        if (np.isnan(mine) != np.isnan(peer[name])).any():
            raise WrongAnswer(f"{name}: ours has a value where the peer has none, or the reverse")
        scale = np.nanmax(np.abs(peer[name]), initial=1.0)
        away = np.nanmax(np.abs(mine - peer[name]), initial=0.0)
        if away > _TOLERANCE * scale:
            raise WrongAnswer(f"{name}: ours is {away} off the peer's, whose scale is {scale}")


def _end_to_end(database: Database, bars: pl.DataFrame, task: Task) -> Iterator[Figure]:
    peak = 0.0
    finished = over_bars(FIFTY, bars)
    copies: list[float] = []

    def ours() -> float:
        nonlocal peak
        database.execute(f"TRUNCATE {FIFTY.table}, tracked_feature_sets CASCADE")
        settle(database)
        done = _in_child(database)
        must_equal(done["written"], bars.height, "rows written")
        peak = max(peak, done["peak_mb"])
        copies.append(_copied(database, finished))
        return float(done["seconds"])

    both = alternate(ours, lambda: stopwatch(lambda: over_bars(FIFTY, bars)), rounds=task.rounds)
    newest = table.newest(database, FIFTY).sort("symbol", "event_timestamp")
    must_equal(newest.equals(finished), True, "what was stored is what is computed")
    yield _figure("end-to-end", bars.height, both, peak_mb=peak)
    against = Turns(both.ours, copies[-task.rounds :])
    yield _figure("end-to-end-vs-copy", bars.height, against, peak_mb=peak)


def _copied(database: Database, rows: pl.DataFrame) -> float:
    def copy() -> None:
        with database.connect() as connection:
            copy_frame(connection, "peer", rows)

    database.execute("DROP TABLE IF EXISTS peer")
    database.execute(f"CREATE TABLE peer (LIKE {FIFTY.table} INCLUDING ALL)")
    settle(database)
    return stopwatch(copy)


def _in_child(database: Database) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-m", "bench.features_child"],
        input=database.dsn,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    result: dict[str, Any] = json.loads(answer)
    return result


@dataclass
class _Current:
    """The features that are kept current."""

    database: Database
    feast: FeastStore
    symbols: int
    days: int

    def figures(self, task: Task) -> Iterator[Figure]:
        """A bar more of every symbol, and one bar corrected, against all of it again."""
        self._follow()
        last = pl.concat(market.daily(self.symbols, self.days)).filter(
            pl.col("date") == pl.col("date").max()
        )
        new: list[float] = []
        corrected: list[float] = []
        for number in range(task.rounds + (task.rounds > 1)):
            later = last.with_columns(pl.col("date") + timedelta(days=number))
            with self.database.connect() as connection:
                copy_frame(connection, "candles", _rows(later))
            new.append(stopwatch(self._follow))
            self._must_be_online(self.symbols)
            self.database.execute(
                "UPDATE candles SET v = v + 1, c = least(c * 1.001, h) WHERE symbol = %s "
                "AND ts = (SELECT max(ts) - interval '3 days' FROM candles)",
                [last["symbol"][0]],
            )
            corrected.append(stopwatch(self._follow))
            self._must_be_online(1)
        again = [stopwatch(lambda: self._follow(full=True)) for _ in range(1)]
        for case, seconds, rows in (
            ("new-bars", new, self.symbols),
            ("correction", corrected, 1),
        ):
            both = Turns(seconds[-task.rounds :], again)
            yield _figure(case, rows, both, note=f"at most {max(both.ours):.3f} s")

    def _follow(self, *, full: bool = False) -> None:
        done = refresh_symbols(self.database, FIFTY, full=full)
        self.feast.bring_online(FIFTY.view, done.newest)

    def _must_be_online(self, some: int) -> None:
        newest = (
            table.newest(self.database, FIFTY)
            .sort("event_timestamp")
            .unique("symbol", keep="last", maintain_order=True)
            .sort("symbol")
            .head(some)
        )
        served = self.feast.online(
            _SERVICE, [{"symbol": symbol} for symbol in newest["symbol"].to_list()]
        )
        stored = newest.select(served.features).fill_null(float("nan")).to_numpy()
        must_equal(
            np.array_equal(served.values, stored, equal_nan=True), True, "what is online is newest"
        )


@contextmanager
def _feast(database: Database, url: str) -> Iterator[FeastStore]:
    with tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as folder:
        (Path(folder) / "definitions.py").write_text(_DEFINITIONS, encoding="utf-8")
        (Path(folder) / "feature_store.yaml").write_text(_STORE, encoding="utf-8")
        store = FeastStore(Path(folder), postgres_dsn=database.dsn, redis_url=url)
        try:
            yield store
        finally:
            store.close()


def _figure(
    case: str, rows: int, both: Turns, *, peak_mb: float | None = None, note: str = ""
) -> Figure:
    return Figure(
        bench="features",
        case=case,
        rows=rows,
        ours_s=both.ours_s,
        peer_s=both.peer_s,
        ratio=both.ratio,
        peak_mb=peak_mb,
        note=f"{note or f'{rows * len(NAMES) / both.ours_s / 1e6:,.0f} M values/s'}; {both.note}",
    )
