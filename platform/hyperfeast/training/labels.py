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


def _of_symbol(expression: pl.Expr) -> pl.Expr:
    return expression.over("symbol")
