"""Crypto exchanges through ccxt."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, TypeVar

import polars as pl

from hyperfeast import clock
from hyperfeast.errors import DataError, NoData, SourceError, UsageError
from hyperfeast.sources.extras import load
from hyperfeast.sources.interface import DATED, check_request
from hyperfeast.sources.retry import (
    RetryPolicy,
    Trouble,
    may_pass,
    retry_after_s,
    retrying,
)
from hyperfeast.types import Timeframe

T = TypeVar("T")

_COLUMNS = ("ts", "open", "high", "low", "close", "volume")
_DAY_MS = 86_400_000

# What every exchange gives at once, where ccxt does not know how much this one does.
_PAGE_ROWS = 200

# ccxt keeps six numbers of a bar; Binance's own answer has more.
_BINANCE_VOLUME, _BINANCE_QUOTE_VOLUME, _BINANCE_TAKER_BUY_VOLUME = 5, 7, 9


class CcxtSource:
    """Bars of one exchange. Needs the extra `ccxt`.

    The exchange's own rate limit is kept, over all threads that use this source: one request at a time.
    Binance's bars also have vwap (quote volume over volume) and taker_buy_vol.
    """

    tz = "UTC"

    def __init__(
        self,
        exchange: str,
        *,
        policy: RetryPolicy | None = None,
        config: Mapping[str, Any] | None = None,
        page_rows: int | None = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            exchange: as ccxt calls it: binance, kraken, …
            policy: the bounds of the retries of a request.
            config: what ccxt's exchange takes besides: proxies, urls, options.
            page_rows: bars to ask for at once, at most what the exchange allows, and that if not given.

        Raises:
            UsageError: ccxt is not installed, or there is no such exchange, or it has no bars.
        """
        self._ccxt = load("ccxt", "ccxt")
        self._policy = policy or RetryPolicy()
        self._exchange = self._made(exchange, config or {})
        self._page_rows = page_rows
        self._names_ends = False
        self._lock = threading.Lock()
        self.name = f"ccxt:{exchange}"
        kept = self._exchange.timeframes or {}
        self.timeframes = frozenset(tf for tf in Timeframe if tf.value in kept)

    def fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """The bars of a symbol, BTC/USDT say, page by page: see `Source.fetch`.

        An empty page is no end: an exchange that was down has none, and the next page is asked for.
        """
        check_request(self, timeframe, start, end)
        return self._fetch(symbol, timeframe, start, end)

    def symbols(self) -> list[str]:
        """The symbols of the active markets of the exchange, sorted.

        Raises:
            SourceUnavailable: it does not answer, within the bounds of the retries.
            SourceError: it refuses.
        """
        markets = self._markets()
        return sorted(name for name, market in markets.items() if market.get("active") is not False)

    def versions(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, str]:  # noqa: ARG002
        """None: a vendor corrects a bar now and then, and does not say so."""
        return {}

    def _fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        if symbol not in self._markets():
            close = get_close_matches(symbol, self._exchange.symbols, n=3)
            raise NoData(
                f"{self.name} has no symbol {symbol}: "
                + (f"did you mean {' or '.join(close)}?" if close else "expected one like BTC/USDT")
            )
        width = timeframe.width // timedelta(milliseconds=1)
        since = _aligned(start, timeframe)
        last = min(_ms(end) - 1, int(clock.now().timestamp() * 1000) - width)
        rows = self._rows_a_page(symbol)
        while since <= last:
            bars, following = self._from(since, symbol, timeframe, rows)
            taken = bars.filter(pl.col("ts").is_between(_ms(start), last))
            if taken.height:
                yield _typed(taken, symbol, timeframe, self.name)
            since = following

    def _from(
        self, since: int, symbol: str, timeframe: Timeframe, rows: int
    ) -> tuple[pl.DataFrame, int]:
        """The next bars from a moment on, sorted, and where to go on from.

        Bars beyond the window that was asked for may be the next ones after a gap, or the newest of all:
        exchanges differ. If the very first bar from `since` on is the page's first, they are the next. If not,
        the window's end has to be named, to this exchange from now on.

        Raises:
            SourceError: the exchange gives its newest bars, whatever is asked for.
        """
        width = timeframe.width // timedelta(milliseconds=1)
        window_end = since + rows * width
        until = window_end - 1 if self._names_ends else None
        bars = self._page(symbol, timeframe, since, rows, until=until)
        if bars.is_empty():
            return bars, window_end
        first, last = int(bars["ts"][0]), int(bars["ts"][-1])
        if first < window_end or self._is_next(first, symbol, timeframe, since):
            return bars, last + width
        if self._names_ends:
            raise SourceError(
                f"{self.name} gives its newest bars of {symbol} for every range: older ones cannot be "
                "fetched through ccxt; take another exchange, or files"
            )
        self._names_ends = True
        return self._from(since, symbol, timeframe, rows)

    def _is_next(self, first: int, symbol: str, timeframe: Timeframe, since: int) -> bool:
        return self._page(symbol, timeframe, since, 1)["ts"].to_list() == [first]

    def _page(
        self, symbol: str, timeframe: Timeframe, since: int, rows: int, *, until: int | None = None
    ) -> pl.DataFrame:
        """Columns ts (Int64, ms, sorted), open, high, low, close, volume, and Binance's two more."""
        end = {} if until is None else {"until": until}

        def ask() -> pl.DataFrame:
            found = self._exchange.fetch_ohlcv(
                symbol, timeframe.value, since=since, limit=rows, params=end
            )
            frame = _table(found, _COLUMNS)
            if frame["ts"].null_count():
                raise Trouble("a body that is no whole list of bars")
            extras = _binance_extras(self._exchange)
            whole = frame if extras is None else frame.join(extras, on="ts", how="left")
            return whole.filter(pl.col("ts") >= since).unique("ts", keep="last").sort("ts")

        return self._asked(ask, f"{timeframe} bars of {symbol} from {self.name}")

    def _markets(self) -> Mapping[str, Any]:
        if self._exchange.markets:
            return dict(self._exchange.markets)
        return dict(self._asked(self._exchange.load_markets, f"the markets of {self.name}"))

    def _rows_a_page(self, symbol: str) -> int:
        if self._page_rows is not None:
            return self._page_rows
        known = self._exchange.feature_value(symbol, "fetchOHLCV", "limit", _PAGE_ROWS)
        return int(known or _PAGE_ROWS)

    def _asked(self, ask: Callable[[], T], what: str) -> T:
        """A request by itself: ccxt's throttle and its last answer belong to one thread at a time."""

        def alone() -> T:
            with self._lock:
                return self._translated(ask, what)

        return retrying(alone, what=what, policy=self._policy)

    def _translated(self, ask: Callable[[], T], what: str) -> T:
        """The errors of ccxt as ours. It calls some final refusals (403, 404) the exchange's absence."""
        ccxt = self._ccxt
        try:
            return ask()
        except ccxt.BadSymbol as error:
            raise NoData(f"{what}: there is no such symbol ({_first_line(error)})") from error
        except ccxt.NetworkError as error:
            status, wait = _answer(error)
            told_to_wait = isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded)
            if status is None or may_pass(status) or told_to_wait:
                raise Trouble(_reason(status, error), wait) from error
            raise _refused(what, _reason(status, error)) from error
        except ccxt.BaseError as error:
            status, wait = _answer(error)
            if status is not None and may_pass(status):
                raise Trouble(_reason(status, error), wait) from error
            raise _refused(what, _reason(status, error)) from error
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise Trouble(f"a body that ccxt cannot read ({_first_line(error)})") from error

    def _made(self, exchange: str, config: Mapping[str, Any]) -> Any:
        ccxt = self._ccxt
        if exchange not in ccxt.exchanges:
            close = get_close_matches(exchange.lower(), ccxt.exchanges, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "expected one like binance"
            raise UsageError(f"ccxt has no exchange {exchange!r}: {hint}")
        made = getattr(ccxt, exchange)(
            {
                "enableRateLimit": True,
                "timeout": int(self._policy.request_timeout_s * 1000),
                **config,
            }
        )
        made.enableLastJsonResponse = True
        made.fetch = _whole(made.fetch)
        if made.has.get("fetchOHLCV") is not True:
            raise UsageError(f"{exchange} gives no bars through ccxt: expected another exchange")
        return made


def _whole(fetch: Callable[..., Any]) -> Callable[..., Any]:
    """A body that is no JSON comes out of ccxt as text, and would be read as a list without bars."""

    def checked(*arguments: Any, **options: Any) -> Any:
        answer = fetch(*arguments, **options)
        if isinstance(answer, str | bytes):
            raise Trouble(f"a body of {len(answer)} characters that is no whole JSON")
        return answer

    return checked


def _refused(what: str, reason: str) -> SourceError:
    return SourceError(
        f"{what} are refused: {reason}; check that the exchange serves your region and account"
    )


def _answer(error: BaseException) -> tuple[int | None, float | None]:
    """The HTTP status behind ccxt's error, and what Retry-After asks for, if there was an answer."""
    cause: BaseException | None = error
    while cause is not None:
        answer = getattr(cause, "response", None)
        if answer is not None:
            return int(answer.status_code), retry_after_s(answer.headers.get("Retry-After"))
        cause = cause.__cause__ or cause.__context__
    return None, None


def _reason(status: int | None, error: Exception) -> str:
    found = f"{type(error).__name__}: {_first_line(error)}"
    return found if status is None else f"HTTP {status} ({found})"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]


def _table(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> pl.DataFrame:
    """Ccxt's rows of numbers; what is beyond the columns is left away."""
    series = zip(columns, zip(*(row[: len(columns)] for row in rows), strict=True), strict=True)
    schema = {name: pl.Int64 if name == "ts" else pl.Float64 for name in columns}
    return pl.DataFrame(dict(series) if rows else None, schema=schema, strict=False)


def _binance_extras(exchange: Any) -> pl.DataFrame | None:
    """ts, vwap and taker_buy_vol out of Binance's own answer, the one that ccxt has just read."""
    found = exchange.last_json_response
    if not exchange.id.startswith("binance") or not isinstance(found, list) or not found:
        return None
    if any(len(row) <= _BINANCE_TAKER_BUY_VOLUME for row in found):
        return None
    places = (0, _BINANCE_VOLUME, _BINANCE_QUOTE_VOLUME, _BINANCE_TAKER_BUY_VOLUME)
    names = ("ts", "volume", "quote", "taker_buy_vol")
    rows = [[float(row[place]) for place in places] for row in found]
    table = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Float64), orient="row")
    return table.select(
        pl.col("ts").cast(pl.Int64),
        pl.when(pl.col("volume") > 0, pl.col("quote") > 0)
        .then(pl.col("quote") / pl.col("volume"))
        .alias("vwap"),
        "taker_buy_vol",
    ).unique("ts", keep="last")


def _ms(moment: datetime) -> int:
    """Rounded up: bars open on whole milliseconds."""
    return -((datetime.fromtimestamp(0, UTC) - moment) // timedelta(milliseconds=1))


def _aligned(start: datetime, timeframe: Timeframe) -> int:
    """The bar in which the start lies: some exchanges give nothing for a moment within a bar."""
    width = timeframe.width // timedelta(milliseconds=1)
    # 1970 began on a Thursday, and weeks begin on Mondays.
    origin = 4 * _DAY_MS if timeframe is Timeframe.W1 else 0
    return (_ms(start) - origin) // width * width + origin


def _typed(bars: pl.DataFrame, symbol: str, timeframe: Timeframe, source: str) -> pl.DataFrame:
    if timeframe in DATED:
        _check_midnight(bars["ts"], symbol, timeframe, source)
    ts = pl.from_epoch("ts", "ms").cast(pl.Datetime("us"))
    opens = ts.cast(pl.Date) if timeframe in DATED else ts.dt.replace_time_zone("UTC")
    extras = [name for name in ("vwap", "taker_buy_vol") if name in bars.columns]
    return bars.select(pl.lit(symbol).alias("symbol"), opens.alias("ts"), *_COLUMNS[1:], *extras)


def _check_midnight(opens: pl.Series, symbol: str, timeframe: Timeframe, source: str) -> None:
    off = opens.filter(opens % _DAY_MS != 0)
    if not off.is_empty():
        begins = datetime.fromtimestamp(int(off[0]) / 1000, UTC)
        raise DataError(
            f"{source} begins its {timeframe} bars of {symbol} at {begins:%H:%M} UTC: expected midnight; "
            "fetch shorter bars, whose rollups are in UTC"
        )
