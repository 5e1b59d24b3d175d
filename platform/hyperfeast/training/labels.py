"""What a model learns to foresee, and from when it was known."""

import polars as pl


def direction(bars: pl.DataFrame, horizon: int) -> pl.DataFrame:
    """Whether the close is higher `horizon` sessions later.

    A row needs nothing later than its label_end. Rows whose label is not known yet are left out.

    Args:
        bars: columns symbol (str), ts (Datetime us UTC, the session), event_timestamp (Datetime us
            UTC, the session's close) and close (Float64, above 0, continuous across splits).
        horizon: sessions ahead, at least 1; the sessions of the symbol itself.

    Returns:
        Sorted by symbol and time, with columns symbol; event_timestamp; label_end (event_timestamp of
        the bar `horizon` sessions later); forward_return (log return until then); label (Int64: 1 if
        that is above 0, else 0); last_return (log return of the bar itself, null on a symbol's
        first); next_return (log return of the session that follows).
    """
    close = pl.col("close")
    return (
        bars.sort("symbol", "ts")
        .select(
            "symbol",
            "event_timestamp",
            _of_symbol(pl.col("event_timestamp").shift(-horizon)).alias("label_end"),
            _of_symbol((close.shift(-horizon) / close).log()).alias("forward_return"),
            _of_symbol((close / close.shift(1)).log()).alias("last_return"),
            _of_symbol((close.shift(-1) / close).log()).alias("next_return"),
        )
        .drop_nulls("label_end")
        .select(
            "symbol",
            "event_timestamp",
            "label_end",
            "forward_return",
            (pl.col("forward_return") > 0).cast(pl.Int64).alias("label"),
            "last_return",
            "next_return",
        )
    )


def deviation(rows: pl.DataFrame, horizon: int, threshold: float) -> pl.DataFrame:
    """Whether what is usual for an entity will be left, `horizon` days later.

    A row needs nothing later than its label_end. Rows whose label is not known yet, or whose day has no
    reading, are left out: a gap is no answer.

    Args:
        rows: columns symbol (str, the entity), event_timestamp (Datetime us UTC, the end of a day) and value
            (Float64, a distance; null where there is none), each day once.
        horizon: days ahead, at least 1.
        threshold: of the distance's size.

    Returns:
        Sorted by symbol and time, with columns symbol; event_timestamp; label_end (event_timestamp of the
        day `horizon` days later); label (Int64: 1 if that day's size is above the threshold, else 0);
        persists (Boolean: whether the day's own is, null if it has none).
    """
    beyond = pl.col("value").abs() > threshold
    later = rows.select(
        "symbol",
        pl.col("event_timestamp").dt.offset_by(f"-{24 * horizon}h"),
        pl.col("event_timestamp").alias("label_end"),
        beyond.cast(pl.Int64).alias("label"),
    )
    return (
        rows.join(later.drop_nulls("label"), on=["symbol", "event_timestamp"])
        .select(
            "symbol",
            "event_timestamp",
            "label_end",
            "label",
            beyond.alias("persists"),
        )
        .sort("symbol", "event_timestamp")
    )


def _of_symbol(expression: pl.Expr) -> pl.Expr:
    return expression.over("symbol")
