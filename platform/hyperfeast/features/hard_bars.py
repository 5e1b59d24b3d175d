"""Made-up bars that rules are tried on: gaps, bars without trade, prices that stand still or leap."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast import calendars
from hyperfeast.indicators import block_start
from hyperfeast.types import Timeframe

SYMBOLS = ("PLAIN", "THIN", "LEAPS", "FLAT", "SPLIT")
"""What each is hard on: bars missing; no trade; leaps, listed late; no move; splits, delisted early."""

_AROUND = datetime(2024, 6, 1, tzinfo=UTC)
_BARS_BEFORE, _BARS_AFTER = 90, 170
_MOST_WARM_UP = 20_000
_MISSING = 0.05


def hard_bars(
    timeframe: Timeframe, *, warm_up: int, seed: int, symbols: Sequence[str] = SYMBOLS
) -> pl.DataFrame:
    """Bars of five symbols around the beginning of a block (`indicators.blocks`).

    Args:
        timeframe: of the bars.
        warm_up: of the rules that are tried: so many bars lie before those around the block's beginning, though
            no more than 20,000.
        seed: the same one gives the same bars.
        symbols: what the five are called.

    Returns:
        As `bars.read_bars`: by symbol and time, finite, low <= open, close <= high, volume >= 0. The market
        never shuts.
    """
    opens = _grid(timeframe, min(warm_up, _MOST_WARM_UP))
    hard = (_plain, _thin, _leaping, _flat, _split)
    return pl.concat(
        make(_walk(opens, timeframe, np.random.default_rng([seed, number])), seed).with_columns(
            pl.lit(symbol).alias("symbol")
        )
        for number, (symbol, make) in enumerate(zip(symbols, hard, strict=True))
    ).select(
        *("symbol", "ts", "event_timestamp", "open", "high", "low", "close", "volume"),
        *("split_factor", "calendar"),
    )


def _grid(timeframe: Timeframe, warm_up: int) -> pl.Series:
    """The opens of consecutive bars, some before a block's beginning and some after it."""
    boundary = block_start(timeframe, _AROUND)
    if timeframe is Timeframe.W1:
        boundary += timedelta(days=-boundary.weekday() % 7)
    first = boundary - (warm_up + _BARS_BEFORE) * timeframe.width
    last = boundary + _BARS_AFTER * timeframe.width
    return pl.datetime_range(first, last, timeframe.width, time_unit="us", eager=True).alias("ts")


def _walk(opens: pl.Series, timeframe: Timeframe, random: np.random.Generator) -> pl.DataFrame:
    """Plausible bars, all of them there."""
    count = len(opens)
    close = 50 * np.exp(random.normal(0, 0.02, count).cumsum())
    start = close * np.exp(random.normal(0, 0.01, count))
    return pl.DataFrame(
        {
            "ts": opens,
            "event_timestamp": opens + timeframe.width,
            "open": start,
            "high": np.maximum(start, close) * (1 + random.uniform(0, 0.01, count)),
            "low": np.minimum(start, close) * (1 - random.uniform(0, 0.01, count)),
            "close": close,
            "volume": random.integers(1_000, 9_000, count).astype(float),
            "split_factor": np.ones(count),
            "calendar": [calendars.ALWAYS_OPEN] * count,
        }
    )


def _plain(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Every twentieth bar is missing, and now and then ten in a row."""
    random = np.random.default_rng([seed, 100])
    there = (random.uniform(size=bars.height) > _MISSING) & ~_stretches(
        random, bars.height, 0.005, 10
    )
    return bars.filter(pl.Series(there))


def _thin(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A third of the bars without a trade; in some stretches the price stands still as well."""
    random = np.random.default_rng([seed, 101])
    silent = _stretches(random, bars.height, 0.1, 4)
    still = _stretches(random, bars.height, 0.01, 12)
    return _standing_still(bars, still).with_columns(
        volume=pl.when(pl.Series(silent | still)).then(0.0).otherwise(pl.col("volume"))
    )


def _leaping(bars: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Listed in the middle; for stretches of a few bars everything is ten thousand times as much, or as little."""
    random = np.random.default_rng([seed, 102])
    high, low = (_stretches(random, bars.height, 0.02, 3) for _ in range(2))
    factor = pl.Series(np.where(high, 1e4, np.where(low, 1e-4, 1.0)))
    listed = bars.height - _BARS_AFTER - _BARS_BEFORE // 2
    return bars.with_columns(
        pl.col("open", "high", "low", "close", "volume") * factor,
    ).slice(listed)


def _flat(bars: pl.DataFrame, _: int) -> pl.DataFrame:
    """One price and one volume throughout."""
    prices = {name: pl.lit(12.5) for name in ("open", "high", "low", "close")}
    return bars.with_columns(**prices, volume=pl.lit(100.0))


def _split(bars: pl.DataFrame, _: int) -> pl.DataFrame:
    """Two splits, two for one and three for one; gone before the others are."""
    row = pl.int_range(pl.len())
    first, second = bars.height - _BARS_AFTER - 20, bars.height - _BARS_AFTER + 40
    factor = pl.when(row < first).then(1.0).when(row < second).then(2.0).otherwise(6.0)
    return bars.with_columns(split_factor=factor).head(bars.height - 25)


def _standing_still(bars: pl.DataFrame, still: NDArray[np.bool_]) -> pl.DataFrame:
    """Where it stands still, a bar's prices are the last close before."""
    held = pl.when(pl.Series(still)).then(None).otherwise(pl.col("close")).forward_fill()
    return bars.with_columns(
        pl.when(pl.Series(still) & held.is_not_null())
        .then(held)
        .otherwise(pl.col(name))
        .alias(name)
        for name in ("open", "high", "low", "close")
    )


def _stretches(
    random: np.random.Generator, count: int, share: float, length: int
) -> NDArray[np.bool_]:
    """Bars in stretches of a length, which begin at a share of all bars."""
    begins = random.uniform(size=count) < share
    return np.asarray(np.convolve(begins, np.ones(length))[:count] > 0, dtype=np.bool_)
