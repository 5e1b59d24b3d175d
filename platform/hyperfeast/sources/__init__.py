"""Where a backfill gets its bars from: files, tables in memory, and vendors over the network.

All stand behind the one interface `Source`. Rows come unadjusted, in frames of bounded size, without a bar
that is not finished. `source("ccxt:binance")` makes one from what a person writes.
"""

from hyperfeast.errors import NoData, SourceError, SourceUnavailable
from hyperfeast.sources.exchange import CcxtSource
from hyperfeast.sources.folder import FolderSource
from hyperfeast.sources.frame import FrameSource
from hyperfeast.sources.interface import Source
from hyperfeast.sources.registry import is_vendor, source
from hyperfeast.sources.retry import RetryPolicy
from hyperfeast.sources.yahoo import YFinanceSource

__all__ = [
    "CcxtSource",
    "FolderSource",
    "FrameSource",
    "NoData",
    "RetryPolicy",
    "Source",
    "SourceError",
    "SourceUnavailable",
    "YFinanceSource",
    "is_vendor",
    "source",
]
