"""Split adjustment that knows no later split.

Back-adjusted prices, as vendors sell them, divide every price by the splits that came after it:
each of them holds the future. Here a price is instead multiplied by the splits that came before it,

    forward price(t) = price(t) * factor(t),   factor(t) = product of ratios with ex_date <= t,

which is continuous across a split and, at t, needs nothing later than t. A window of forward prices
divided by factor(t) is the window as a chart drawn at t would show it.
"""

import polars as pl

_PRICES = ("open", "high", "low", "close")


def split_factor(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.Series:
    """The number of today's shares that one share of the series' beginning has become.

    Args:
        bars: columns symbol (str) and ts (Datetime, UTC), one row a session.
        splits: columns symbol (str), ex_date (Date) and ratio (Float64): new shares for one old.

    Returns:
        Float64, one value a row of `bars`, in its order. 1 before any split.
    """
    cumulative = (
        splits.sort("symbol", "ex_date")
        .select(
            "symbol",
            pl.col("ex_date").alias("session"),
            pl.col("ratio").cum_prod().over("symbol").alias("factor"),
        )
        .sort("session")
    )
    sessions = bars.select(
        "symbol", pl.col("ts").dt.date().alias("session"), pl.int_range(pl.len()).alias("row")
    ).sort("session")
    joined = sessions.join_asof(
        cumulative, on="session", by="symbol", strategy="backward", check_sortedness=False
    )
    return joined.sort("row")["factor"].fill_null(1.0)


def forward_adjust(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Bars whose prices and volumes do not jump at a split.

    Args:
        bars: unadjusted; columns symbol, ts, open, high, low, close, volume.
        splits: as for `split_factor`.

    Returns:
        The same rows and order, prices multiplied and volumes divided by the added column
        `split_factor`.
    """
    return bars.with_columns(split_factor(bars, splits).alias("split_factor")).with_columns(
        *(pl.col(price) * pl.col("split_factor") for price in _PRICES),
        volume=pl.col("volume") / pl.col("split_factor"),
    )
