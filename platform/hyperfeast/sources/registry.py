"""From what a person writes (`ccxt:binance`, a path) to a source."""

from difflib import get_close_matches
from pathlib import Path

from hyperfeast.errors import UsageError
from hyperfeast.sources.exchange import CcxtSource
from hyperfeast.sources.folder import FolderSource
from hyperfeast.sources.interface import Source
from hyperfeast.sources.retry import RetryPolicy
from hyperfeast.sources.yahoo import YFinanceSource

KNOWN = ("folder:PATH", "yfinance", "ccxt:EXCHANGE")


def source(spec: str, *, policy: RetryPolicy | None = None) -> Source:
    """The source that is meant.

    Args:
        spec: `folder:PATH` or a path that is there, `yfinance`, or `ccxt:EXCHANGE` (`ccxt:binance`).
        policy: the bounds of retries over the network; the usual ones if not given.

    Raises:
        UsageError: there is no such source, folder or exchange, or its library is not installed.
    """
    kind, _, rest = spec.partition(":")
    policy = policy or RetryPolicy()
    if kind == "folder" and rest:
        return FolderSource(rest)
    if kind == "ccxt" and rest:
        return CcxtSource(rest, policy=policy)
    if spec == "yfinance":
        return YFinanceSource(policy=policy)
    if _is_path(spec):
        return FolderSource(spec)
    close = get_close_matches(kind, [name.partition(":")[0] for name in KNOWN], n=1)
    hint = next((name for name in KNOWN if close and name.startswith(close[0])), None)
    raise UsageError(
        f"there is no source {spec!r}: expected {', '.join(KNOWN)} or the path of a folder"
        + (f"; did you mean {hint}?" if hint else "")
    )


def _is_path(spec: str) -> bool:
    written = spec.startswith(("/", "./", "../", "~", ".\\")) or spec in {".", ".."}
    return written or (bool(spec) and Path(spec).exists())


def is_vendor(spec: str) -> bool:
    """Whether it names a vendor over the network, and no file of this machine."""
    return spec == "yfinance" or spec.startswith("ccxt:")
