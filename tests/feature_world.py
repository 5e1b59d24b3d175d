"""A market that changes in steps, and the feature sets that have to follow it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from hyperfeast.db import Database
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key, schema, table
from hyperfeast.features.changes import BEGINNING, END
from hyperfeast.features.compute import compute
from hyperfeast.features.incremental import refresh_symbols
from hyperfeast.indicators import (
    AnyRule,
    change,
    column,
    cross_rank,
    cross_z_score,
    expression,
    higher,
    lag,
    log_return,
    sequence,
    session,
    ta,
    z_score,
)
from hyperfeast.types import Timeframe

SYMBOLS = ("AAA", "BBB", "CCC")
BARS = 220
# A bar every so often, so that blocks hold some 48 and 104 bars: several of them, and windows that reach over two.
STEPS = {Timeframe.M1: timedelta(hours=1), Timeframe.D1: timedelta(days=14)}
FIRST = {
    Timeframe.M1: datetime(2024, 3, 5, 7, tzinfo=UTC),
    Timeframe.D1: datetime(2015, 6, 1, tzinfo=UTC),
}


def made(name: str, timeframe: Timeframe, rules: dict[str, AnyRule]) -> FeatureSet:
    """A set of these rules over bars."""
    return FeatureSet(
        name,
        1,
        (Key("symbol", "symbol"),),
        Bars(timeframe),
        tuple(
            Feature(
                one,
                "One of many.",
                rule,
                dtype=FeatureType.FLOAT64 if rule.width == 1 else FeatureType.FLOAT64_LIST,
            )
            for one, rule in rules.items()
        ),
        timedelta(days=7),
    )


ALONE = {
    "ema": ta("EMA", timeperiod=3),
    "rsi": ta("RSI", timeperiod=2),
    "atr": ta("ATR", timeperiod=2),
    "sma": ta("SMA", timeperiod=5),
    "obv": change(ta("OBV"), 4),
    "nested": ta("EMA", timeperiod=2, on=ta("RSI", timeperiod=2)),
    "z": z_score(log_return(1), 6),
    "lagged": lag(ta("EMA", timeperiod=2), 3),
    "last": sequence(log_return(1), 3),
    "median": expression(pl.col("close").rolling_median(5), lookback=4),
    "nothing": column("close") / (column("volume") - column("volume")),
}
TOGETHER = {
    "own": ta("EMA", timeperiod=3),
    "rank": cross_rank(log_return(2)),
    "score": cross_z_score(ta("RSI", timeperiod=2)),
}
MINUTES = made("minutes", Timeframe.M1, ALONE)
MINUTES_TOGETHER = made("minutes_together", Timeframe.M1, TOGETHER)
DAYS = made(
    "days",
    Timeframe.D1,
    ALONE
    | {
        "weekly": higher(Timeframe.W1, ta("SMA", timeperiod=2), base=Timeframe.D1),
        "since": session("days_since_session"),
    },
)
DAYS_TOGETHER = made("days_together", Timeframe.D1, TOGETHER)
SETS = (MINUTES, MINUTES_TOGETHER, DAYS, DAYS_TOGETHER)


@dataclass(frozen=True)
class Arrive:
    """Bars come in, all in one statement; those that are there are corrected."""

    tf: Timeframe
    symbol: int
    first: int
    count: int
    seed: int


@dataclass(frozen=True)
class Delete:
    """Bars are deleted by hand."""

    tf: Timeframe
    symbol: int
    first: int
    count: int


@dataclass(frozen=True)
class Split:
    """A split is recorded."""

    symbol: int
    days: int
    ratio: float


@dataclass(frozen=True)
class Refresh:
    """A set is brought up to date, for all symbols or some."""

    which: int
    symbols: tuple[int, ...] | None
    full: bool = False


Step = Arrive | Delete | Split | Refresh


def create(database: Database, *sets: FeatureSet) -> None:
    """Make the tables of the sets."""
    with database.connect() as connection:
        for one in sets:
            schema.create(connection, one)


def do(database: Database, step: Step) -> None:
    """Take a step."""
    match step:
        case Arrive(tf, symbol, first, count, seed):
            arrive(database, tf, symbol, range(first, min(BARS, first + count)), seed)
        case Delete(tf, symbol, first, count):
            times = [moment(tf, one) for one in range(first, min(BARS, first + count))]
            database.execute(
                "DELETE FROM candles WHERE symbol = %s AND tf = %s AND ts = ANY(%s)",
                [SYMBOLS[symbol], tf.value, times],
            )
        case Split(symbol, days, ratio):
            database.execute(
                "INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
                "SELECT %s, %s, 'split', %s, 'test' FROM instruments WHERE symbol = %s",
                [
                    SYMBOLS[symbol],
                    FIRST[Timeframe.D1].date() + timedelta(days=days),
                    ratio,
                    SYMBOLS[symbol],
                ],
            )
        case Refresh(which, some, full):
            named = None if some is None else [SYMBOLS[one] for one in some]
            refresh_symbols(database, SETS[which], named, full=full)


def moment(tf: Timeframe, number: int) -> datetime:
    """The open of a bar."""
    return FIRST[tf] + number * STEPS[tf]


def arrive(database: Database, tf: Timeframe, symbol: int, numbers: range, seed: int) -> None:
    """Insert bars, or correct those that are there."""
    random = np.random.default_rng([seed, symbol])
    closes = 100 * np.exp(random.normal(0, 0.05, BARS).cumsum())
    # Nothing is traded now and then: what divides by a volume has a gap there.
    volumes = random.integers(0, 5, BARS).astype(float)
    rows: list[dict[str, Any]] = [
        {
            "ts": moment(tf, one),
            "c": float(closes[one]),
            "o": float(closes[one - 1]),
            "h": float(closes[one : one + 1].max() * 1.3),
            "l": float(closes[one] * 0.7),
            "v": float(volumes[one]),
        }
        for one in numbers
    ]
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO instruments (symbol) VALUES (%s) ON CONFLICT DO NOTHING",
            [SYMBOLS[symbol]],
        )
        connection.execute(
            "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) "
            "SELECT %s, %s, ts, least(greatest(o, l), h), h, l, c, v "
            "FROM unnest(%s::timestamptz[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::float8[]) "
            "AS r (ts, o, h, l, c, v) "
            "ON CONFLICT (symbol, tf, ts) DO UPDATE "
            "SET (o, h, l, c, v) = ROW(excluded.o, excluded.h, excluded.l, excluded.c, excluded.v)",
            [
                SYMBOLS[symbol],
                tf.value,
                *([row[name] for row in rows] for name in ("ts", "o", "h", "l", "c", "v")),
            ],
        )


def clear(database: Database) -> None:
    """As if nothing had ever been there."""
    names = ", ".join(one.table for one in SETS)
    database.execute(
        f"TRUNCATE candles, instruments, tracked_feature_sets, changed_bars, {names} CASCADE"
    )
    database.execute("TRUNCATE changed_bars, feature_corrections")


def same_as_rebuilt(database: Database, feature_set: FeatureSet) -> None:
    """The newest revisions are what a computation from scratch gives; what lost its bar has no value."""
    rebuilt = compute(database, feature_set)
    entities = set(rebuilt["symbol"]) | {
        row["symbol"] for row in database.fetch(f"SELECT DISTINCT symbol FROM {feature_set.table}")
    }
    stored = table.served(
        database,
        feature_set,
        [table.Span((one,), BEGINNING, END) for one in sorted(entities)],
    )
    row_key = ["symbol", "event_timestamp"]
    known = stored.join(rebuilt, on=row_key, how="semi").drop("recorded_at")
    assert_frame_equal(known, rebuilt.sort(row_key), check_exact=True)
    assert table.revisions(feature_set, rebuilt, stored).rows.is_empty()


def no_revision_repeats(database: Database, feature_set: FeatureSet) -> None:
    """Each revision of a row says something else than the one before it."""
    rows = database.frame(
        f"SELECT * FROM {feature_set.table} ORDER BY symbol, event_timestamp, recorded_at"
    )
    again = pl.all_horizontal(
        pl.col("symbol", "event_timestamp", *feature_set.feature_names).eq_missing(
            pl.col("symbol", "event_timestamp", *feature_set.feature_names).shift()
        )
    )
    assert rows.filter(again).is_empty()
