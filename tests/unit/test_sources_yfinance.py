"""The real yfinance against a server that answers as Yahoo does: what is stored is what traded."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast import clock
from hyperfeast.errors import DataError, UsageError
from hyperfeast.sources import (
    NoData,
    RetryPolicy,
    SourceError,
    SourceUnavailable,
    YFinanceSource,
    source,
)
from hyperfeast.types import Timeframe
from sources.replay import Day, Fault, Yahoo, serving

yfinance = pytest.importorskip("yfinance", reason="the extra yfinance is not installed")
curl = pytest.importorskip("curl_cffi.requests")

_NEW_YORK = ZoneInfo("America/New_York")
_MINUTE = timedelta(minutes=1)
_POLICY = RetryPolicy(
    attempts=3, give_up_after_s=20, first_wait_s=0.01, longest_wait_s=0.02, jitter_s=0,
    request_timeout_s=1.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yahoo]:
    yfinance.set_tz_cache_location(str(tmp_path_factory.mktemp("yfinance")))
    with serving(Yahoo("AAPL")) as running:
        assert isinstance(running, Yahoo)
        yield running


@pytest.fixture
def yahoo(vendor: Yahoo) -> YFinanceSource:
    """A source whose session takes every address of Yahoo's to the vendor on this machine."""
    vendor.reset()
    return YFinanceSource(policy=_POLICY, session=_session(vendor), interval_s=0)


def _session(vendor: Yahoo) -> Any:
    class Session(curl.Session):  # type: ignore[misc,name-defined]
        def request(self, method: str, url: str, **options: Any) -> Any:
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.hostname.endswith("yahoo.com")
            return super().request(method, vendor.url + parts.path, **options)

    return Session()


def _day(number: float) -> Day:
    return Day(100.04 + number, 102.12 + number, 98.36 + number, 101.64 + number, 4_000_000)


def _open(day: date) -> int:
    return int(datetime.combine(day, time(9, 30), _NEW_YORK).timestamp())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _fill(vendor: Yahoo, first: date, days: int) -> list[date]:
    """A bar on each weekday."""
    dates = [first + timedelta(days=n) for n in range(days)]
    weekdays = [day for day in dates if day.weekday() < 5]
    vendor.bars["1d"] = {_open(day): _day(n) for n, day in enumerate(weekdays)}
    return weekdays


def _daily(
    made: YFinanceSource, start: date, end: date, timeframe: Timeframe = Timeframe.D1
) -> pl.DataFrame:
    return pl.concat(made.fetch("AAPL", timeframe, _midnight(start), _midnight(end)))


def test_daily_bars(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    days = _fill(vendor, date(2024, 1, 1), 30)
    found = _daily(yahoo, date(2024, 1, 3), date(2024, 1, 20))
    assert found["ts"].to_list() == [d for d in days if date(2024, 1, 3) <= d < date(2024, 1, 20)]
    assert found.row(0, named=True) == {
        "symbol": "AAPL", "ts": date(2024, 1, 3), "open": 102.04, "high": 104.12, "low": 100.36,
        "close": 103.64, "volume": 4_000_000,
    }  # fmt: skip
    assert len(vendor.pages("1d")) == 1


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    splits=st.dictionaries(
        st.integers(0, 40), st.sampled_from([(2, 1), (4, 1), (7, 1), (20, 1), (3, 2), (1, 10)]),
        max_size=3,
    ),
    prices=st.lists(st.integers(100, 99_999), min_size=40, max_size=40),
)  # fmt: skip
def test_splits_are_taken_out_again(
    vendor: Yahoo, yahoo: YFinanceSource, splits: dict[int, tuple[int, int]], prices: list[int]
) -> None:
    days = [date(2023, 1, 2) + timedelta(days=n) for n in range(40)]
    vendor.bars["1d"] = {
        _open(day): Day(cents / 100, cents / 100, cents / 100, cents / 100, 1_000_000)
        for day, cents in zip(days, prices, strict=True)
    }
    vendor.splits = {_open(days[0] + timedelta(days=n)): ratio for n, ratio in splits.items()}
    found = _daily(yahoo, days[0], days[-1] + timedelta(days=1))
    assert found["close"].to_list() == [cents / 100 for cents in prices]
    assert found["volume"].to_list() == [1_000_000] * 40


def test_a_later_split_changes_nothing(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    _fill(vendor, date(2024, 1, 1), 60)
    before = _daily(yahoo, date(2024, 1, 1), date(2024, 2, 1))
    vendor.splits = {_open(date(2024, 2, 20)): (3, 1)}
    assert _daily(yahoo, date(2024, 1, 1), date(2024, 2, 1)).equals(before)
    assert len(vendor.pages("1d")) == 2


def test_weeks_are_made_of_days_that_traded(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    _fill(vendor, date(2024, 1, 1), 30)
    vendor.splits = {_open(date(2024, 1, 10)): (4, 1)}
    found = _daily(yahoo, date(2024, 1, 2), date(2024, 1, 22), Timeframe.W1)
    assert found["ts"].to_list() == [date(2024, 1, 8), date(2024, 1, 15)]
    days = _daily(yahoo, date(2024, 1, 8), date(2024, 1, 15))
    week = found.row(0, named=True)
    assert (week["open"], week["close"]) == (days["open"][0], days["close"][-1])
    assert (week["high"], week["low"]) == (days["high"].max(), days["low"].min())
    assert week["volume"] == days["volume"].sum() == 20_000_000


def test_actions_of_their_days(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    _fill(vendor, date(2014, 5, 1), 60)
    vendor.splits = {_open(date(2014, 6, 9)): (7, 1), _open(date(2020, 8, 31)): (4, 1)}
    vendor.dividends = {_open(date(2014, 5, 8)): 3.29, _open(date(2020, 8, 7)): 0.82}
    found = yahoo.actions("AAPL", _midnight(date(2014, 1, 1)), _midnight(date(2020, 8, 31)))
    assert found.rows() == [
        ("AAPL", date(2014, 5, 8), "dividend", None, 3.29),
        ("AAPL", date(2014, 6, 9), "split", 7.0, None),
        ("AAPL", date(2020, 8, 7), "dividend", None, 0.82),
    ]


def _minutes(vendor: Yahoo, first: datetime, numbers: list[int], interval: str = "1m") -> None:
    at = int(first.timestamp())
    vendor.bars[interval] = {at + 60 * n: _day(n % 100) for n in numbers}


def _recent(days: int) -> datetime:
    now = clock.now()
    return (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    numbers=st.sets(st.integers(0, 20 * 1440), max_size=60),
    first=st.integers(0, 15 * 1440),
    length=st.integers(1, 20 * 1440),
)
def test_intraday_pages_lose_and_double_nothing(
    vendor: Yahoo, yahoo: YFinanceSource, numbers: set[int], first: int, length: int
) -> None:
    base = _recent(25)
    edges = {first + n * 7 * 1440 + d for n in range(3) for d in (-1, 0, 1)} & set(range(20 * 1440))
    wanted = sorted(numbers | edges)
    _minutes(vendor, base, wanted)
    start, end = base + first * _MINUTE, base + (first + length) * _MINUTE
    frames = list(yahoo.fetch("AAPL", Timeframe.M1, start, end))
    opens = [ts for frame in frames for ts in frame["ts"]]
    assert opens == [base + n * _MINUTE for n in wanted if first <= n < first + length]


def test_intraday_bars_before_a_split(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    base = _recent(9)
    _minutes(vendor, base, [15 * 60, 16 * 60, (24 + 15) * 60, (24 + 16) * 60])
    split = base.date() + timedelta(days=1)
    vendor.splits = {_open(split): (5, 1)}
    vendor.bars["1d"] = {_open(base.date()): _day(0), _open(split): _day(1)}
    found = pl.concat(yahoo.fetch("AAPL", Timeframe.M1, base, base + timedelta(days=3)))
    assert found["open"].to_list() == [100.04, 160.04, 140.04, 100.04]
    assert found["volume"].to_list() == [4_000_000] * 4


def test_an_answer_from_before_a_split_is_not_kept(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    base = _recent(9)
    _minutes(vendor, base, [900])
    span = (base, base + timedelta(days=1))
    before = pl.concat(yahoo.fetch("AAPL", Timeframe.M1, *span))
    split = base.date() + timedelta(days=2)
    vendor.splits, vendor.bars["1d"] = {_open(split): (2, 1)}, {_open(split): _day(1)}
    assert pl.concat(yahoo.fetch("AAPL", Timeframe.M1, *span)).equals(before)


def test_never_an_unfinished_bar(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    now = clock.now()
    today = now.astimezone(_NEW_YORK).date()
    vendor.bars["1d"] = {_open(today - timedelta(days=1)): _day(1), _open(today): _day(2)}
    if _open(today) > now.timestamp():
        vendor.bars["1d"] = {
            int(now.timestamp()) - 1: _day(2),
            _open(today - timedelta(days=1)): _day(1),
        }
    tomorrow = today + timedelta(days=3)
    for ends, seen in ((60, [today - timedelta(days=1)]), (0, [today - timedelta(days=1)])):
        vendor.session_end = int(now.timestamp()) + ends + (0 if ends else 86_400)
        assert _daily(yahoo, today - timedelta(days=3), tomorrow)["ts"].to_list() == seen
    vendor.session_end = int(now.timestamp()) - 1
    if datetime.fromtimestamp(vendor.session_end, _NEW_YORK).date() == today:
        assert _daily(yahoo, today - timedelta(days=3), tomorrow)["ts"].to_list()[-1] == today
    base = now.replace(second=0, microsecond=0)
    _minutes(vendor, base - 3 * _MINUTE, [0, 1, 2, 3])
    found = pl.concat(yahoo.fetch("AAPL", Timeframe.M1, base - 3 * _MINUTE, base + 9 * _MINUTE))
    assert found["ts"].max() <= clock.now() - _MINUTE  # type: ignore[operator]


@pytest.mark.parametrize(
    ("timeframe", "days"), [(Timeframe.M1, 30), (Timeframe.M15, 60), (Timeframe.H1, 730)]
)
def test_further_back_than_is_kept(
    vendor: Yahoo, yahoo: YFinanceSource, timeframe: Timeframe, days: int
) -> None:
    start = clock.now() - timedelta(days=days, hours=1)
    with pytest.raises(NoData, match=rf"keeps bars of {timeframe} for {days} days.*ask from"):
        yahoo.fetch("AAPL", timeframe, start, clock.now())
    assert not vendor.requests


def test_yahoo_s_own_word_on_what_is_kept(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    reason = (
        "1m data not available for startTime=1 and endTime=2. "
        "The requested range must be within the last 30 days."
    )
    vendor.refusal = (422, reason)
    with pytest.raises(NoData, match=r"not kept for that range.*last 30 days"):
        list(yahoo.fetch("AAPL", Timeframe.M1, _recent(9), clock.now()))


def test_bars_that_begin_with_the_market(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    _minutes(vendor, _recent(9), [14 * 60 + 30, 15 * 60 + 30], interval="1h")
    with pytest.raises(DataError, match=r"begin at 14:30 UTC, with the market"):
        list(yahoo.fetch("AAPL", Timeframe.H1, _recent(9), clock.now()))


@pytest.mark.parametrize("reason", [None, "Data doesn't exist for startDate = 1, endDate = 2"])
def test_nothing_in_the_range_is_no_error(
    vendor: Yahoo, yahoo: YFinanceSource, reason: str | None
) -> None:
    vendor.refusal = (400, reason) if reason else None
    span = (_midnight(date(1990, 1, 1)), _midnight(date(1990, 2, 1)))
    assert list(yahoo.fetch("AAPL", Timeframe.D1, *span)) == []
    assert yahoo.actions("AAPL", *span).is_empty()
    assert list(yahoo.fetch("AAPL", Timeframe.M1, _recent(9), clock.now())) == []


def test_an_unknown_symbol(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    with pytest.raises(NoData, match=r"no symbol NOPE \(No data found"):
        list(yahoo.fetch("NOPE", Timeframe.D1, _midnight(date(2024, 1, 1)), clock.now()))
    assert len(vendor.asked()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body=b"oops"),
        Fault(status=429, body=b"Too Many Requests\r\n"),
        Fault(keep=0.5),
        Fault(cut=0.5),
        Fault(delay_s=2.0),
        Fault(body=b"<html>Will be right back</html>"),
    ],
    ids=["500", "429", "broken off", "truncated", "slow", "a page"],
)
@pytest.mark.parametrize("timeframe", [Timeframe.D1, Timeframe.M1])
def test_faults_that_pass_cost_no_row(
    vendor: Yahoo, yahoo: YFinanceSource, fault: Fault, timeframe: Timeframe
) -> None:
    base = _recent(20)
    _fill(vendor, base.date(), 15)
    _minutes(vendor, base, list(range(0, 15 * 1440, 400)))
    span = (base, base + timedelta(days=15))
    control = pl.concat(yahoo.fetch("AAPL", timeframe, *span))
    asked = len(vendor.asked())
    vendor.requests.clear()
    vendor.faults.extend([fault, fault, Fault(), fault] if timeframe is Timeframe.M1 else [fault])
    assert pl.concat(yahoo.fetch("AAPL", timeframe, *span)).equals(control)
    assert not vendor.faults
    assert len(vendor.asked()) >= (5 if timeframe is Timeframe.M1 else 2)
    assert asked


def test_retry_after_is_honored(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    days = _fill(vendor, date(2024, 1, 1), 5)
    vendor.faults.append(Fault(status=429, body=b"Too Many Requests", headers={"Retry-After": "1"}))
    assert _daily(yahoo, days[0], date(2024, 1, 6)).height == len(days)
    first, second = vendor.asked()[:2]
    assert second.at - first.at >= 1


def test_it_gives_up_in_the_end(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    vendor.faults.extend([Fault(status=503, body=b"down")] * 5)
    with pytest.raises(SourceUnavailable, match=r"given up after 3 attempts.*HTTP 503") as caught:
        _daily(yahoo, date(2024, 1, 1), date(2024, 1, 6))
    assert caught.value.retryable
    assert len(vendor.asked()) == 3


def test_other_refusals_are_final(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    vendor.refusal = (401, "Invalid Crumb")
    with pytest.raises(SourceError, match="Invalid Crumb") as caught:
        _daily(yahoo, date(2024, 1, 1), date(2024, 1, 6))
    assert not caught.value.retryable


def test_an_answer_of_another_shape_is_named(vendor: Yahoo, yahoo: YFinanceSource) -> None:
    chart = (
        b'{"chart":{"result":[{"meta":{"exchangeTimezoneName":"UTC"},"timestamp":[1],'
        b'"indicators":{"quote":[{"open":[1]}]}}],"error":null}}'
    )
    vendor.faults.extend([Fault(body=chart)] * 3)
    with pytest.raises(SourceError, match=r"none that yfinance .* reads"):
        _daily(yahoo, date(2024, 1, 1), date(2024, 1, 6))


def test_what_it_cannot_do(yahoo: YFinanceSource) -> None:
    assert yahoo.symbols() is None
    with pytest.raises(UsageError, match="no bars of 4h: expected one of 1m, 5m, 15m, 1h, 1d, 1w"):
        yahoo.fetch("AAPL", Timeframe.H4, _recent(2), clock.now())


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(UsageError, match=r"yfinance is not installed: .*'hyperfeast\[yfinance\]'"):
        source("yfinance")
