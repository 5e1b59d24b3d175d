"""Made-up bars for tests: plausible prices from a seed, on real sessions."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from hyperfeast import calendars
from hyperfeast.adjustment import forward_adjust
from hyperfeast.demo import data

_PRICES_AND_VOLUME = ("Open", "High", "Low", "Close", "Volume")


def bars(
    sessions: int, *, symbols: tuple[str, ...] = ("AAA", "BBB"), seed: int = 0
) -> pl.DataFrame:
    """Bars as `features.bars.read_bars` gives them, unadjusted, one a day, no splits."""
    return pl.concat(
        _one(symbol, sessions, np.random.default_rng([seed, number]))
        for number, symbol in enumerate(symbols)
    )


def _one(symbol: str, sessions: int, random: np.random.Generator) -> pl.DataFrame:
    first = datetime(2020, 1, 1, tzinfo=UTC)
    close = 100 * np.exp(random.normal(0, 0.02, sessions).cumsum())
    start = close * np.exp(random.normal(0, 0.01, sessions))
    high = np.maximum(close, start) * (1 + random.uniform(0, 0.01, sessions))
    low = np.minimum(close, start) * (1 - random.uniform(0, 0.01, sessions))
    opens = [first + timedelta(days=day) for day in range(sessions)]
    return pl.DataFrame(
        {
            "symbol": [symbol] * sessions,
            "ts": opens,
            "event_timestamp": [one + timedelta(hours=21) for one in opens],
            "open": start,
            "high": high,
            "low": low,
            "close": close,
            "volume": random.integers(1_000, 9_000, sessions).astype(float),
            "split_factor": np.ones(sessions),
        },
        schema_overrides={
            "ts": pl.Datetime("us", "UTC"),
            "event_timestamp": pl.Datetime("us", "UTC"),
        },
    )


def splits(*rows: tuple[str, date, float]) -> pl.DataFrame:
    """Splits as `adjustment` takes them."""
    return pl.DataFrame(
        rows, schema={"symbol": pl.String, "ex_date": pl.Date, "ratio": pl.Float64}, orient="row"
    )


def real_bars() -> pl.DataFrame:
    """Thirteen years of daily bars of five stocks, as `features.bars.read_bars` gives them."""
    traded = pl.read_csv(data.stocks(), try_parse_dates=True).select(
        pl.col("Ticker").alias("symbol"),
        pl.col("Date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("ts"),
        *(pl.col(name).cast(pl.Float64).alias(name.lower()) for name in _PRICES_AND_VOLUME),
        pl.lit(data.CALENDAR).alias("calendar"),
    )
    actions = pl.read_csv(data.corporate_actions(), try_parse_dates=True)
    known = splits(*actions.select("symbol", "ex_date", "ratio").iter_rows())
    closes = calendars.session_close(data.CALENDAR, traded["ts"].dt.date())
    return forward_adjust(traded, known).with_columns(closes.alias("event_timestamp"))
