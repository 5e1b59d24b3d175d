"""A vendor on this machine: answers in the shapes that Binance and Yahoo give, and the faults they have.

Each fault is used up by one request; `requests` holds every request that came, so that a test can prove
that its fault fired and how often was asked.
"""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from datetime import time as time_of_day
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    keep: float = 1.0  # the part of the body that is sent; the announced length stays
    cut: float = 1.0  # the part of the body that is sent, its length announced as such
    delay_s: float = 0.0


@dataclass(frozen=True)
class Request:
    path: str
    query: dict[str, str]
    at: float


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any


class Vendor:
    """Answers requests; subclasses know the shapes."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: deque[Fault] = deque()
        self.url = ""

    def counts(self, path: str) -> bool:
        """Whether the request is one for bars: faults are meant for those."""
        raise NotImplementedError

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def asked(self) -> list[Request]:
        return [request for request in self.requests if self.counts(request.path)]


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    class Handler(_Handler):
        served = vendor

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    vendor.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield vendor
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: Vendor

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        request = Request(parts.path, query, time.monotonic())
        self.served.requests.append(request)
        fault = Fault()
        if self.served.counts(parts.path) and self.served.faults:
            fault = self.served.faults.popleft()
        time.sleep(fault.delay_s)
        answer = self.served.answer(request)
        status = answer.status if fault.status == 200 else fault.status
        body = json.dumps(answer.body).encode() if fault.body is None else fault.body
        body = body[: int(len(body) * fault.cut)]
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **fault.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body[: int(len(body) * fault.keep)])
            self.wfile.flush()
            if fault.keep < 1:
                self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the client has given up waiting

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Binance(Vendor):
    """Klines of one market by open time in ms, after the shape of api.binance.com/api/v3/klines."""

    def __init__(self, bars: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.bars = dict(bars or {})
        self.overlap = 0  # bars from before startTime that come with a page
        self.ordering = (
            "next"  # or "window": nothing beyond the page's window; "newest": as it says
        )
        self.limit = 1000
        self.knows_ends = True

    def counts(self, path: str) -> bool:
        return path.endswith("/klines")

    def answer(self, request: Request) -> Answer:
        if not self.counts(request.path):
            symbols = [_MARKET] if "/api/v3/" in request.path else []
            return Answer(200, {"timezone": "UTC", "rateLimits": [], "symbols": symbols})
        since = int(request.query["startTime"])
        limit = min(int(request.query["limit"]), self.limit)
        width = _WIDTHS_MS[request.query["interval"]]
        until = int(request.query.get("endTime", 2**62)) if self.knows_ends else 2**62
        opens = sorted(open_ for open_ in self.bars if since <= open_ <= until)
        before = sorted(open_ for open_ in self.bars if open_ < since)
        if self.ordering == "window":
            opens = [open_ for open_ in opens if open_ < since + limit * width]
        page = opens[-limit:] if self.ordering == "newest" else opens[:limit]
        page = (before[-self.overlap :] if self.overlap else []) + page
        return Answer(200, [kline(open_, self.bars[open_], width) for open_ in page])


_WIDTHS_MS = {"1m": 60_000, "1h": 3_600_000, "1d": 86_400_000, "1w": 604_800_000}

_MARKET = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "baseAssetPrecision": 8,
    "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8, "orderTypes": ["LIMIT"],
    "icebergAllowed": True, "isSpotTradingAllowed": True, "isMarginTradingAllowed": True,
    "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
    ],
}  # fmt: skip


def kline(open_ms: int, price: float, width_ms: int) -> list[Any]:
    """One bar as Binance writes it: numbers as text, quote volume and the takers' part included."""
    texts = [
        f"{price:.8f}",
        f"{price + 2:.8f}",
        f"{price - 2:.8f}",
        f"{price + 1:.8f}",
        "4.00000000",
    ]
    quote = f"{4 * price:.8f}"
    return [open_ms, *texts, open_ms + width_ms - 1, quote, 17, "1.50000000", "1.0", "0"]


@dataclass(frozen=True)
class Day:
    """A bar as it traded, before any split."""

    open: float
    high: float
    low: float
    close: float
    volume: int


class Yahoo(Vendor):
    """One symbol's chart after the shape of query2.finance.yahoo.com/v8/finance/chart.

    It is told what traded, by the epoch seconds of each bar's open, and divides it by later splits as Yahoo
    does, in 32-bit floats.
    """

    def __init__(self, symbol: str, zone: str = "America/New_York") -> None:
        super().__init__()
        self.symbol = symbol
        self.zone = zone
        self.reset()

    def reset(self) -> None:
        self.requests.clear()
        self.faults.clear()
        self.bars: dict[str, dict[int, Day]] = {"1d": {}}
        self.splits: dict[int, tuple[int, int]] = {}
        self.dividends: dict[int, float] = {}
        self.session_end = 0
        self.refusal: tuple[int, str] | None = None

    def counts(self, path: str) -> bool:
        return path.startswith("/v8/finance/chart/")

    def answer(self, request: Request) -> Answer:
        if request.path == "/v1/test/getcrumb":
            return Answer(200, "crumb")
        if not self.counts(request.path):
            return Answer(404, {})
        if request.path.rpartition("/")[2] != self.symbol:
            return _error(404, "Not Found", "No data found, symbol may be delisted")
        if self.refusal and "period1" in request.query:
            return _error(*self.refusal, self.refusal[1])
        return Answer(200, {"chart": {"result": [self._chart(request.query)], "error": None}})

    def pages(self, interval: str) -> list[Request]:
        """The requests for bars of an interval, without the one by which yfinance learns the zone."""
        return [
            request
            for request in self.asked()
            if request.query["interval"] == interval and "period1" in request.query
        ]

    def _chart(self, query: Mapping[str, str]) -> dict[str, Any]:
        first, last = int(query.get("period1", 0)), int(query.get("period2", 2**33))
        bars = {
            at: day
            for at, day in sorted(self.bars.get(query["interval"], {}).items())
            if first <= at < last
        }
        chart: dict[str, Any] = {"meta": self._meta(query["interval"])}
        events = self._events(first, last)
        if events:
            chart["events"] = events
        if not bars:
            return {**chart, "indicators": {"quote": [{}], "adjclose": [{}]}}
        quote = {
            name: [_float32(getattr(day, name) / self._factor(at)) for at, day in bars.items()]
            for name in ("open", "high", "low", "close")
        }
        volumes = [round(day.volume * self._factor(at)) for at, day in bars.items()]
        return {
            **chart,
            "timestamp": list(bars),
            "indicators": {
                "quote": [{**quote, "volume": volumes}],
                "adjclose": [{"adjclose": quote["close"]}],
            },
        }

    def _factor(self, at: int) -> float:
        factor = 1.0
        for when, (new, old) in self.splits.items():
            factor *= new / old if at // 86_400 < when // 86_400 else 1
        return factor

    def _events(self, first: int, last: int) -> dict[str, Any]:
        splits = {
            str(at): {"date": at, "numerator": float(new), "denominator": float(old),
                      "splitRatio": f"{new}:{old}"}
            for at, (new, old) in self.splits.items() if first <= at < last
        }  # fmt: skip
        dividends = {
            str(at): {"amount": round(amount / self._factor(at), 6), "date": at}
            for at, amount in self.dividends.items()
            if first <= at < last
        }
        found = {"splits": splits, "dividends": dividends}
        return {name: events for name, events in found.items() if events}

    def _meta(self, interval: str) -> dict[str, Any]:
        period = {"timezone": "EST", "gmtoffset": -18000, "start": self.session_end - 23_400}
        periods = {name: {**period, "end": self.session_end} for name in ("pre", "regular", "post")}
        meta = {
            "currency": "USD", "symbol": self.symbol, "exchangeName": "NMS",
            "fullExchangeName": "NasdaqGS", "instrumentType": "EQUITY", "firstTradeDate": 345479400,
            "regularMarketTime": self.session_end, "hasPrePostMarketData": True, "gmtoffset": -18000,
            "timezone": "EST", "exchangeTimezoneName": self.zone, "regularMarketPrice": 1.0,
            "priceHint": 2, "currentTradingPeriod": periods, "dataGranularity": interval, "range": "",
            "validRanges": ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"],
        }  # fmt: skip
        if interval[-1] in "mh":
            zone = ZoneInfo(self.zone)
            days = {datetime.fromtimestamp(at, zone).date() for at in self.bars.get(interval, {})}
            opens = [datetime.combine(day, time_of_day(), zone).timestamp() for day in sorted(days)]
            meta["tradingPeriods"] = [
                [{**period, "start": int(at), "end": int(at) + 90_000}]
                for at in opens or [self.session_end]
            ]
        return meta


def _float32(number: float) -> float:
    import numpy as np

    return float(np.float32(number))


def _error(status: int, code: str, description: str) -> Answer:
    error = {"code": code, "description": description}
    return Answer(status, {"chart": {"result": None, "error": error}})
