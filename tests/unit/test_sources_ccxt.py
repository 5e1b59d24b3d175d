"""The real ccxt against a server that answers as Binance does: no bar lost, none twice, every fault survived."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast import clock
from hyperfeast.errors import DataError, UsageError
from hyperfeast.sources import (
    CcxtSource,
    NoData,
    RetryPolicy,
    SourceError,
    SourceUnavailable,
    source,
)
from hyperfeast.types import Timeframe
from sources.replay import Binance, Fault, serving

_START = datetime(2024, 3, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_POLICY = RetryPolicy(
    attempts=3, give_up_after_s=20, first_wait_s=0.01, longest_wait_s=0.02, jitter_s=0,
    request_timeout_s=1.5,
)  # fmt: skip


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _minutes(*numbers: int) -> dict[int, float]:
    return {_ms(_START + number * _MINUTE): 100.0 + number for number in numbers}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Binance]:
    with serving(Binance()) as running:
        assert isinstance(running, Binance)
        yield running


@pytest.fixture(scope="module")
def exchange(vendor: Binance) -> CcxtSource:
    made = _source(vendor)
    made.symbols()
    return made


@pytest.fixture(autouse=True)
def clean(vendor: Binance) -> None:
    vendor.bars = _minutes(*range(25))
    vendor.requests.clear()
    vendor.faults.clear()
    vendor.overlap, vendor.ordering, vendor.limit = 0, "next", 1000
    vendor.knows_ends = True


def _source(vendor: Binance, *, rows: int = 10) -> CcxtSource:
    urls = {
        "public": f"{vendor.url}/api/v3",
        "fapiPublic": f"{vendor.url}/fapi/v1",
        "dapiPublic": f"{vendor.url}/dapi/v1",
    }
    config = {"urls": {"api": urls}, "rateLimit": 1}
    return CcxtSource("binance", policy=_POLICY, config=config, page_rows=rows)


def _fetched(
    exchange: CcxtSource, start: datetime = _START, end: datetime = _START + 25 * _MINUTE
) -> pl.DataFrame:
    return pl.concat(exchange.fetch("BTC/USDT", Timeframe.M1, start, end))


def _opens(frame: pl.DataFrame) -> list[int]:
    return frame["ts"].dt.epoch("ms").to_list()


def test_pages_follow_one_another(vendor: Binance, exchange: CcxtSource) -> None:
    frames = list(exchange.fetch("BTC/USDT", Timeframe.M1, _START, _START + 25 * _MINUTE))
    assert [frame.height for frame in frames] == [10, 10, 5]
    assert len(vendor.asked()) == 3
    whole = pl.concat(frames)
    assert _opens(whole) == sorted(vendor.bars)
    assert whole.row(0, named=True) == {
        "symbol": "BTC/USDT", "ts": _START, "open": 100, "high": 102, "low": 98, "close": 101,
        "volume": 4, "vwap": 100, "taker_buy_vol": 1.5,
    }  # fmt: skip
    assert whole.schema["ts"] == pl.Datetime("us", "UTC")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_exactly_the_rows_of_the_range(
    vendor: Binance, exchange: CcxtSource, data: st.DataObject
) -> None:
    exchange._names_ends = False
    numbers = data.draw(st.sets(st.integers(0, 120)))
    first = data.draw(st.integers(-5, 100))
    last = data.draw(st.integers(first + 1, 130))
    vendor.bars = _minutes(*numbers)
    vendor.overlap = data.draw(st.integers(0, 3))
    vendor.ordering = data.draw(st.sampled_from(["next", "window", "newest"]))
    vendor.limit = data.draw(st.integers(4 if vendor.ordering == "next" else 10, 20))
    start, end = _START + first * _MINUTE, _START + last * _MINUTE
    frames = list(exchange.fetch("BTC/USDT", Timeframe.M1, start, end))
    opens = [open_ for frame in frames for open_ in _opens(frame)]
    assert opens == sorted(_minutes(*(number for number in numbers if first <= number < last)))
    assert all(frame.height for frame in frames)


def test_an_exchange_that_gives_the_newest_bars_loses_none(vendor: Binance) -> None:
    vendor.bars, vendor.ordering = _minutes(*range(95)), "newest"
    assert _opens(_fetched(_source(vendor), end=_START + 95 * _MINUTE)) == sorted(vendor.bars)
    vendor.knows_ends = False
    with pytest.raises(SourceError, match="gives its newest bars"):
        _fetched(_source(vendor), end=_START + 95 * _MINUTE)


def test_an_empty_page_is_no_end(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.bars, vendor.ordering = _minutes(0, 1, 44, 45), "window"
    assert _opens(_fetched(exchange, end=_START + 60 * _MINUTE)) == sorted(vendor.bars)
    assert len(vendor.asked()) > 4


def test_a_long_gap_is_skipped_in_one_step(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.bars = _minutes(0, *range(50_000, 50_005))
    assert _opens(_fetched(exchange, end=_START + 50_005 * _MINUTE)) == sorted(vendor.bars)
    assert len(vendor.asked()) <= 4


def test_within_minutes_and_microseconds(vendor: Binance, exchange: CcxtSource) -> None:
    start = _START + timedelta(microseconds=1)
    end = _START + 5 * _MINUTE + timedelta(microseconds=1)
    assert _opens(_fetched(exchange, start, end)) == sorted(vendor.bars)[1:6]


def test_never_the_unfinished_bar(vendor: Binance, exchange: CcxtSource) -> None:
    now = clock.now().replace(second=0, microsecond=0)
    vendor.bars = {_ms(now - number * _MINUTE): 5.0 for number in range(-1, 5)}
    asked_at = clock.now()
    found = _fetched(exchange, now - 4 * _MINUTE, now + 9 * _MINUTE)
    assert len(_opens(found)) >= 4
    assert found["ts"].max() <= clock.now() - _MINUTE  # type: ignore[operator]
    assert found["ts"].max() >= asked_at - 2 * _MINUTE  # type: ignore[operator]


def test_daily_and_weekly_bars_have_dates(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.bars = {_ms(_START + timedelta(days=n)): 9.0 for n in range(3)}
    days = pl.concat(exchange.fetch("BTC/USDT", Timeframe.D1, _START, _START + timedelta(days=2)))
    assert days["ts"].to_list() == [date(2024, 3, 1), date(2024, 3, 2)]
    vendor.bars = {_ms(datetime(2024, 3, 4, tzinfo=UTC)): 9.0}
    weeks = pl.concat(exchange.fetch("BTC/USDT", Timeframe.W1, _START, _START + timedelta(days=9)))
    assert weeks["ts"].to_list() == [date(2024, 3, 4)]


def test_days_that_begin_elsewhere_are_refused(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.bars = {_ms(_START + timedelta(hours=16)): 9.0}
    with pytest.raises(DataError, match=r"at 16:00 UTC: expected midnight"):
        list(exchange.fetch("BTC/USDT", Timeframe.D1, _START, _START + timedelta(days=2)))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body=b"oops"),
        Fault(status=502, body=b"<html>Bad Gateway</html>", headers={"Content-Type": "text/html"}),
        Fault(status=429, body=b'{"code":-1003,"msg":"Too many requests."}'),
        Fault(status=418, body=b'{"code":-1003,"msg":"Way too many requests."}'),
        Fault(keep=0.5),
        Fault(cut=0.5),
        Fault(cut=0),
        Fault(delay_s=2.0),
    ],
    ids=["500", "502", "429", "418", "broken off", "truncated", "empty body", "slow"],
)
def test_faults_that_pass_cost_no_row(vendor: Binance, exchange: CcxtSource, fault: Fault) -> None:
    control = _fetched(exchange)
    vendor.requests.clear()
    vendor.faults.extend([fault, Fault(), fault])
    assert _fetched(exchange).equals(control)
    assert not vendor.faults
    assert len(vendor.asked()) == 3 + 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honored(vendor: Binance, exchange: CcxtSource, as_date: bool) -> None:
    header = format_datetime(clock.now() + timedelta(seconds=3), usegmt=True) if as_date else "1"
    body = b'{"code":-1003,"msg":"Too many requests."}'
    vendor.faults.append(Fault(status=429, body=body, headers={"Retry-After": header}))
    assert _fetched(exchange).height == 25
    first, second = vendor.asked()[:2]
    assert second.at - first.at >= 1


def test_it_gives_up_in_the_end(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.faults.extend([Fault(status=503, body=b"down")] * 5)
    with pytest.raises(SourceUnavailable, match=r"given up after 3 attempts.*HTTP 503") as caught:
        _fetched(exchange)
    assert caught.value.retryable
    assert len(vendor.asked()) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 451])
def test_other_refusals_are_final(vendor: Binance, exchange: CcxtSource, status: int) -> None:
    vendor.faults.append(Fault(status=status, body=b"{}"))
    with pytest.raises(SourceError, match=f"HTTP {status}") as caught:
        _fetched(exchange)
    assert not caught.value.retryable
    assert len(vendor.asked()) == 1


def test_a_symbol_that_is_not_there(vendor: Binance, exchange: CcxtSource) -> None:
    with pytest.raises(NoData, match=r"no symbol BTC/USDC: did you mean BTC/USDT"):
        list(exchange.fetch("BTC/USDC", Timeframe.M1, _START, _START + _MINUTE))
    vendor.faults.append(Fault(status=400, body=b'{"code":-1121,"msg":"Invalid symbol."}'))
    with pytest.raises(NoData, match="Invalid symbol"):
        _fetched(exchange)


def test_nothing_in_the_range_is_no_error(vendor: Binance, exchange: CcxtSource) -> None:
    vendor.bars = {}
    assert list(exchange.fetch("BTC/USDT", Timeframe.M1, _START, _START + _MINUTE)) == []


def test_markets_are_listed(vendor: Binance) -> None:
    assert _source(vendor).symbols() == ["BTC/USDT"]


def test_requests_are_not_made_in_vain(vendor: Binance, exchange: CcxtSource) -> None:
    with pytest.raises(UsageError, match="is empty"):
        exchange.fetch("BTC/USDT", Timeframe.M1, _START, _START)
    with pytest.raises(UsageError, match="has no time zone"):
        exchange.fetch("BTC/USDT", Timeframe.M1, datetime(2024, 1, 1), _START)  # noqa: DTZ001
    assert not vendor.requests


def test_what_it_is_called() -> None:
    made = source("ccxt:kraken")
    assert made.name == "ccxt:kraken"
    assert Timeframe.M1 in made.timeframes
    with pytest.raises(UsageError, match=r"no exchange 'binanse': did you mean binance"):
        source("ccxt:binanse")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(
        UsageError, match=r"^ccxt is not installed: run pip install 'hyperfeast\[ccxt\]'"
    ):
        source("ccxt:binance")
