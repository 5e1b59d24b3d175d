"""The small interface behind which every source of bars stands, and what its calls have in common."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import polars as pl

from hyperfeast.errors import UsageError
from hyperfeast.types import Timeframe

# Their bars are named by dates and not by moments.
DATED = frozenset({Timeframe.D1, Timeframe.W1})

# What the engine of ingestion takes as one batch.
FRAME_ROWS = 250_000

_SHOWN = 5


class Source(Protocol):
    """Where a backfill gets its bars from."""

    @property
    def name(self) -> str:
        """What `candles.source` says of these bars."""
        ...

    @property
    def timeframes(self) -> frozenset[Timeframe]:
        """The timeframes that the source has."""
        ...

    @property
    def tz(self) -> str:
        """The zone of times that are written without one."""
        ...

    def fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """The finished bars of a symbol whose open lies in [start, end), unadjusted.

        Args:
            symbol: as the source calls it.
            timeframe: one of `timeframes`.
            start: zoned. A daily or weekly bar opens at midnight UTC of its date.
            end: zoned; exclusive.

        Yields:
            Frames of at most 250,000 rows, none of them empty, no bar twice. Columns symbol, ts
            (Datetime(us, UTC); Date for daily and weekly bars), open, high, low, close, volume, and those
            of vwap, taker_buy_vol and published_at that the source has. Files and frames are passed on
            under the names and types that they have: ingestion reads those.

        Raises:
            UsageError: a timeframe that the source lacks, or a range that makes no sense.
            NoData: the source does not know the symbol, or does not keep bars for so long.
            SourceUnavailable: it does not answer, within the bounds of the retries (retryable).
            SourceError: it refuses, or answers what cannot be read.
            DataError: a file is damaged, or bars do not lie on the grid of their timeframe.
        """
        ...

    def symbols(self) -> list[str] | None:
        """The symbols that the source has, sorted; None where it cannot list them."""
        ...

    def versions(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, str]:
        """What tells the present content of the source from any other: symbol -> a text that changes with it.

        Without the symbols of which the source cannot say: what it had once counts as what it has.
        """
        ...


def check_request(source: Source, timeframe: Timeframe, start: datetime, end: datetime) -> None:
    """That the source has the timeframe, and that the range is one.

    Raises:
        UsageError: it has not, or it is none.
    """
    if timeframe not in source.timeframes:
        known = ", ".join(tf for tf in Timeframe if tf in source.timeframes)
        raise UsageError(f"{source.name} has no bars of {timeframe}: expected one of {known}")
    if start.tzinfo is None or end.tzinfo is None:
        raise UsageError(f"{start} to {end} has no time zone: give zoned times, in UTC say")
    if start >= end:
        raise UsageError(
            f"the range {start.astimezone(UTC):%Y-%m-%d %H:%M} to {end.astimezone(UTC):%Y-%m-%d %H:%M} "
            "is empty: expected a start before its end, which is exclusive"
        )


def some_of(names: Sequence[str]) -> str:
    """A few of the names, for a message that would be too long with all of them."""
    shown = ", ".join(names[:_SHOWN]) or "none"
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
