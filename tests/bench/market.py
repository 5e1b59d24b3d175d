"""Made-up markets from a seed: random walks on a cent tick, with whole volumes."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

_MINUTES_A_DAY = 1440
_Floats = NDArray[np.float64]


def daily(
    symbols: int, days: int, *, first: date = date(2010, 1, 4), seed: int = 0
) -> Iterator[pl.DataFrame]:
    """A frame a symbol: symbol, date, open, high, low, close, volume; a bar for each day."""
    dates = pl.date_range(first, first + timedelta(days=days - 1), eager=True)
    for number in range(symbols):
        random = np.random.default_rng([seed, number])
        yield pl.DataFrame({"symbol": [_name(number)] * days, "date": dates}).with_columns(
            **_walk(random, days, volatility=0.015, volume=2e6, tick=True)
        )


def minutes(
    symbols: int, days: int, *, first: date, seed: int = 0, tick: bool = True
) -> Iterator[pl.DataFrame]:
    """A frame a symbol: symbol, ts (UTC), open, high, low, close, volume; a bar for each minute.

    Args:
        symbols: how many.
        days: how many.
        first: the first of them.
        seed: others give other markets.
        tick: prices in whole cents; otherwise as the walk gives them.
    """
    opens = pl.datetime_range(
        datetime(first.year, first.month, first.day),  # noqa: DTZ001 - the zone is set below
        interval="1m",
        end=datetime(first.year, first.month, first.day) + timedelta(days=days, minutes=-1),  # noqa: DTZ001
        eager=True,
        time_unit="us",
    ).dt.replace_time_zone("UTC")
    for number in range(symbols):
        random = np.random.default_rng([seed, number, first.toordinal()])
        yield pl.DataFrame({"symbol": [_name(number)] * len(opens), "ts": opens}).with_columns(
            **_walk(random, len(opens), volatility=0.0005, volume=2e3, tick=tick)
        )


def in_days(rows: int, most_symbols: int, least_days: int) -> tuple[int, int]:
    """How many symbols and whole days of minutes make about so many rows."""
    symbols = max(1, min(most_symbols, rows // (_MINUTES_A_DAY * least_days)))
    return symbols, max(2, round(rows / symbols / _MINUTES_A_DAY))


def corrected(bars: pl.DataFrame, *, every: int) -> pl.DataFrame:
    """The bars with another volume in one row of so many."""
    changed = pl.int_range(pl.len()) % every == 0
    return bars.with_columns(volume=pl.col("volume") + changed.cast(pl.Float64))


def stored(bars: pl.DataFrame, *, tf: str, source: str, recorded_at: datetime) -> pl.DataFrame:
    """The bars as `candles` holds them, to be copied into such a table."""
    ts = pl.col("ts") if "ts" in bars.columns else pl.col("date").cast(pl.Datetime("us", "UTC"))
    return bars.select(
        "symbol",
        ts.alias("ts"),
        *(pl.col(name).alias(name[0]) for name in ("open", "high", "low", "close", "volume")),
        tf=pl.lit(tf),
        source=pl.lit(source),
        recorded_at=pl.lit(recorded_at).cast(pl.Datetime("us", "UTC")),
    )


def write_parquet(bars: pl.DataFrame, path: Path) -> Path:
    """The bars in a file, as another program would write it."""
    bars.write_parquet(path, row_group_size=100_000)
    return path


def _name(number: int) -> str:
    return f"S{number:04d}"


def _walk(
    random: np.random.Generator, bars: int, *, volatility: float, volume: float, tick: bool
) -> dict[str, _Floats]:
    """Each bar opens where the last one closed."""
    path = random.uniform(20, 400) * np.exp(random.normal(0, volatility, bars + 1).cumsum())
    wick = np.abs(random.normal(0, volatility / 2, (2, bars))) * path[:-1]
    start, close = path[:-1], path[1:]
    high, low = np.maximum(start, close) + wick[0], np.minimum(start, close) - wick[1]
    prices = {"open": start, "high": high, "low": low, "close": close}
    if tick:
        prices = {name: np.maximum(one.round(2), 0.01) for name, one in prices.items()}
    return {**prices, "volume": np.round(random.lognormal(np.log(volume), 0.8, bars))}
