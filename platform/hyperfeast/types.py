"""The small words that every layer shares: symbols, timeframes and database editions."""

from datetime import timedelta
from enum import StrEnum

# What an instrument may be called; the database checks the same.
SYMBOL_PATTERN = r"[A-Za-z0-9^][A-Za-z0-9._:/^=-]{0,31}"


class Timeframe(StrEnum):
    """The width of a bar."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"

    @property
    def width(self) -> timedelta:
        """The time from a bar's open to its close, for a market that never shuts."""
        return _WIDTHS[self]


_WIDTHS = {
    Timeframe.M1: timedelta(minutes=1),
    Timeframe.M5: timedelta(minutes=5),
    Timeframe.M15: timedelta(minutes=15),
    Timeframe.H1: timedelta(hours=1),
    Timeframe.H4: timedelta(hours=4),
    Timeframe.D1: timedelta(days=1),
    Timeframe.W1: timedelta(weeks=1),
}


class Edition(StrEnum):
    """What the PostgreSQL server can do beyond PostgreSQL."""

    COMMUNITY = "TimescaleDB community"
    APACHE = "TimescaleDB Apache"
    PLAIN = "plain PostgreSQL"

    @property
    def hypertables(self) -> bool:
        """Whether tables are partitioned by time into chunks that can be dropped."""
        return self is not Edition.PLAIN

    @property
    def continuous_aggregates(self) -> bool:
        """Whether the database itself keeps rollups."""
        return self is Edition.COMMUNITY

    @property
    def compression(self) -> bool:
        """Whether chunks can be compressed into columns."""
        return self is Edition.COMMUNITY

    @property
    def policies(self) -> bool:
        """Whether the database refreshes, compresses and drops on a schedule of its own."""
        return self is Edition.COMMUNITY

    @property
    def cost(self) -> str:
        """What this edition lacks and what that costs, in one line; empty if nothing."""
        return _COSTS[self]


_COSTS = {
    Edition.COMMUNITY: "",
    Edition.APACHE: (
        "no continuous aggregates, compression or policies: rollups are computed when they are read, "
        "and disk use is several times higher"
    ),
    Edition.PLAIN: (
        "no hypertables, continuous aggregates, compression or policies: fine up to some million rows, "
        "slower scans and several times the disk beyond"
    ),
}
