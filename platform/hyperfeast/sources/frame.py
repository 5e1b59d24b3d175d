"""A table that is in memory already, as a source: polars, pandas or pyarrow."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import polars as pl
from polars import selectors

from hyperfeast.errors import NoData, UsageError
from hyperfeast.sources.interface import check_request, some_of
from hyperfeast.sources.rows import asked_for, symbol_column, time_column
from hyperfeast.types import Timeframe

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    Table: TypeAlias = pl.DataFrame | pd.DataFrame | pa.Table


class FrameSource:
    """The bars of a table. Its rows are passed on as they are; ingestion types and judges them."""

    def __init__(
        self, frame: "Table", *, name: str, symbol: str | None = None, tz: str = "UTC"
    ) -> None:
        """Take a table.

        Args:
            frame: a polars or pandas DataFrame or a pyarrow Table, of bars of one timeframe. A pandas index
                of times or with a name counts as a column.
            symbol: of all its rows, for a table without a column of symbols.
            name: what `candles.source` says of these bars.
            tz: the zone of times that are written without one.

        Raises:
            UsageError: something else than a table, or nothing says which symbol the rows are of.
        """
        self.name = name
        self.timeframes = frozenset(Timeframe)
        self.tz = tz
        table = _polars(frame)
        column = symbol_column(table.columns)
        if column is None and symbol is None:
            raise UsageError(
                f"the table has no column symbol, but {', '.join(table.columns)}: add it, or give symbol="
            )
        if column is None:
            table, column = table.with_columns(pl.lit(symbol).alias("symbol")), "symbol"
        elif symbol is not None:
            raise UsageError(
                f"symbol={symbol!r} is given, and the table has its column {column!r}: leave one out"
            )
        self._table, self._column = table, column
        self._symbols = sorted(table[column].drop_nulls().cast(pl.String).unique().to_list())

    def fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """The rows of a symbol in [start, end): see `Source.fetch`."""
        check_request(self, timeframe, start, end)
        if symbol not in self._symbols:
            raise NoData(f"the table has no rows of {symbol}: it has {some_of(self._symbols)}")
        return asked_for(
            self._table, symbol=symbol, timeframe=timeframe, start=start, end=end, tz=self.tz
        )

    def symbols(self) -> list[str]:
        """The symbols of the table, sorted."""
        return list(self._symbols)

    def versions(self, symbols: Sequence[str], timeframe: Timeframe) -> dict[str, str]:  # noqa: ARG002
        """How many rows each symbol has, and the sum of their hashes."""
        plain = self._table.select(~selectors.nested())
        found = (
            plain.select(symbol=pl.col(self._column).cast(pl.String), hash=plain.hash_rows())
            .filter(pl.col("symbol").is_in(symbols))
            .group_by("symbol")
            .agg(pl.len(), pl.sum("hash"))
        )
        return {symbol: f"{rows}/{total}" for symbol, rows, total in found.iter_rows()}


def _polars(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    package = type(frame).__module__.partition(".")[0]
    if package == "pandas":
        return _of_pandas(frame)
    if package == "pyarrow":
        table = pl.from_arrow(frame)
        if isinstance(table, pl.DataFrame):
            return table
    raise UsageError(
        f"{type(frame).__name__} is no table that can be read: expected a DataFrame of polars or "
        "pandas, or a Table of pyarrow"
    )


def _of_pandas(frame: Any) -> pl.DataFrame:
    """An index of times is the column of times where there is no other."""
    index = frame.index
    if index.dtype.kind == "M" and index.name is None and time_column(list(frame.columns)) is None:
        frame = frame.rename_axis("ts").reset_index()
    elif any(name is not None for name in index.names):
        frame = frame.reset_index()
    return cast("pl.DataFrame", pl.from_pandas(frame))
