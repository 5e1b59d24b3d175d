"""Yahoo Finance through yfinance, with the splits taken back out of its prices.

Yahoo divides the prices of a bar by every split that came after it, also where no adjustment is asked for. What
is stored here is what traded: prices are multiplied, and volumes divided, by the ratios of all splits with
an ex-date after the bar's date that Yahoo itself reports, which come in the same answer as the daily bars.
A dividend's amount is brought back to the shares of its day in the same way.

How exact that is. Yahoo sends prices as 32-bit floats: 129.0399932861328 for 129.04. They are rounded to
the seven significant digits that such a float holds, and to six where a split was taken out. So a price of
up to six digits comes out as it traded, and the same whenever it is asked for: a later split makes no
revisions of what came before. Volumes are whole shares: exact for whole ratios of one share into several;
after a reverse split, or 3 for 2, Yahoo has rounded them before. Dividends have the six decimals
that Yahoo keeps. A split that Yahoo does not report, or has not yet worked into its intraday bars, cannot be
taken out.

A weekly bar is made from its days' bars, as they traded, and begins on a Monday: Yahoo's own would mix a
week's shares when a split falls into it.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from hyperfeast import clock
from hyperfeast.errors import DataError, NoData, SourceError
from hyperfeast.sources.extras import load
from hyperfeast.sources.interface import DATED, FRAME_ROWS, check_request
from hyperfeast.sources.retry import Pace, RetryPolicy, retrying
from hyperfeast.sources.yahoo_session import watched
from hyperfeast.types import Timeframe

_PRICES = ("open", "high", "low", "close")
_NAMES = {"Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume"}
_DIGITS, _DIGITS_AFTER_A_SPLIT = 7, 6
_DIVIDEND_DECIMALS = 6

# Yahoo publishes no limit; four requests a second have long been taken.
_INTERVAL_S = 0.25

# Of all sources in the process: yfinance keeps answers for all of them.
_ASKED = itertools.count(1)

_NOTHING_THERE = "Data doesn't exist"


class _Kept(NamedTuple):
    """What Yahoo keeps of an intraday timeframe, and how much of it a request may ask for."""

    history: timedelta
    page: timedelta


_INTRADAY = {
    Timeframe.M1: _Kept(timedelta(days=30), timedelta(days=7)),
    Timeframe.M5: _Kept(timedelta(days=60), timedelta(days=30)),
    Timeframe.M15: _Kept(timedelta(days=60), timedelta(days=60)),
    Timeframe.H1: _Kept(timedelta(days=730), timedelta(days=180)),
}


class _Page(NamedTuple):
    """What one request brought: yfinance's pandas frame, and of the exchange its zone and its session's end.

    `session_end` is that of the current or last regular session, if Yahoo says it.
    """

    frame: Any
    zone: str
    session_end: datetime | None


class YFinanceSource:
    """Bars and corporate actions of Yahoo Finance. Needs the extra `yfinance`.

    It sets yfinance's own `config.debug.hide_exceptions` to False, for the whole process: a failure would
    else look like a symbol without data.
    """

    tz = "UTC"

    name = "yfinance"
    timeframes = frozenset({*_INTRADAY, *DATED})

    def __init__(
        self,
        *,
        policy: RetryPolicy | None = None,
        session: Any | None = None,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            policy: the bounds of the retries of a request.
            session: a session of curl_cffi, with a proxy say; an own one if not given.
            interval_s: the least time between two requests, over all threads that use this source.

        Raises:
            UsageError: yfinance is not installed.
        """
        self._yfinance = load("yfinance", "yfinance")
        self._yfinance.config.debug.hide_exceptions = False
        self._policy = policy or RetryPolicy()
        self._session = watched(session, Pace(interval_s))

    def fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """The bars of a symbol as they traded: see `Source.fetch`.

        Yahoo keeps 1m bars for 30 days, 5m and 15m for 60, 1h for 730. What lies further back is refused, and
        not left out in silence. A symbol that exists and has no bars in the range yields nothing.

        Raises:
            NoData: an unknown symbol, or a start further back than Yahoo keeps the timeframe.
            DataError: the market's bars do not begin on the grid of the timeframe in UTC: those of 1h begin at
                09:30 in New York.
        """
        check_request(self, timeframe, start, end)
        if timeframe in _INTRADAY:
            _check_kept(symbol, timeframe, start)
            return self._intraday(symbol, timeframe, start, end)
        return self._dated(symbol, timeframe, start, end)

    def actions(self, symbol: str, start: datetime, end: datetime) -> pl.DataFrame:
        """The splits and cash dividends of a symbol with an ex-date in [start, end).

        Returns:
            Columns symbol, ex_date (Date), kind ("split" or "dividend"), ratio (new shares for one old; null
            for a dividend) and amount (currency a share of that day; null for a split), in the order of dates:
            what `ingest_actions` takes.

        Raises:
            NoData: an unknown symbol.
            SourceUnavailable: Yahoo does not answer, within the bounds of the retries.
            SourceError: it refuses, or answers what cannot be read.
        """
        check_request(self, Timeframe.D1, start, end)
        daily = self._daily(symbol, _monday(start))
        splits = daily.filter(pl.col("split") > 0).select(
            "date", kind=pl.lit("split"), ratio="split", amount=pl.lit(None, pl.Float64)
        )
        decimals = _DIVIDEND_DECIMALS - pl.col("factor").log10().ceil().clip(0, _DIVIDEND_DECIMALS)
        scale = pl.lit(10.0).pow(decimals)
        dividends = daily.filter(pl.col("dividend") > 0).select(
            "date",
            kind=pl.lit("dividend"),
            ratio=pl.lit(None, pl.Float64),
            amount=(pl.col("dividend") * pl.col("factor") * scale).round() / scale,
        )
        return (
            pl.concat([splits, dividends])
            .filter(_opens_within("date", start, end))
            .sort("date", "kind")
            .select(pl.lit(symbol).alias("symbol"), pl.col("date").alias("ex_date"), "kind", "ratio", "amount")
        )  # fmt: skip

    def symbols(self) -> None:
        """Yahoo has no list of them."""

    def versions(self, symbols: Sequence[str], timeframe: Timeframe) -> Mapping[str, str]:  # noqa: ARG002
        """None: a vendor corrects a bar now and then, and does not say so."""
        return {}

    def _dated(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """All in one answer, with the splits until today: 60 years of days are 15,000 rows."""
        days = self._daily(symbol, _monday(start))
        bars = _as_traded(days.filter("finished"))
        if timeframe is Timeframe.W1:
            bars = _weekly(bars, clock.now())
        bars = bars.filter(_opens_within("date", start, end))
        if not bars.is_empty():
            yield _named(bars, symbol, "date")

    def _intraday(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        splits = self._daily(symbol, start.date() - timedelta(days=7)).filter(pl.col("split") > 0)
        now = clock.now()
        page_start, last = start.astimezone(UTC), min(end.astimezone(UTC), now)
        while page_start < last:
            page_end = min(page_start + _INTRADAY[timeframe].page, last)
            page = self._history(symbol, timeframe, _seconds(page_start), _seconds(page_end))
            bars = _moments(page.frame, symbol, timeframe).filter(
                pl.col("ts") >= page_start,
                pl.col("ts") < page_end,
                pl.col("ts") + timeframe.width <= now,
            )
            bars = _as_traded(bars.with_columns(_factors(bars["date"], splits)))
            for part in bars.iter_slices(FRAME_ROWS) if bars.height else ():
                yield _named(part, symbol, "ts")
            page_start = page_end

    def _daily(self, symbol: str, first: date) -> pl.DataFrame:
        """Finished daily bars from a date until now, as Yahoo adjusts them, with what happened on their days.

        Returns:
            Columns date, open, high, low, close, volume (null on a day with an event and no bar), dividend,
            split (0 where there is none), factor (of the splits after the date) and finished.
        """
        now = clock.now()
        page = self._history(symbol, Timeframe.D1, first, _seconds(now))
        days = _dates(page.frame)
        splits = days.filter(pl.col("split") > 0)
        return days.with_columns(
            _factors(days["date"], splits), finished=pl.col("date") < _unfinished_from(page, now)
        )

    def _history(self, symbol: str, timeframe: Timeframe, start: date, end: datetime) -> _Page:
        """One request; an empty page where Yahoo knows the symbol and has nothing for the range."""

        def ask() -> _Page:
            ticker = self._yfinance.Ticker(symbol, session=self._session)
            # The timeout is part of the key under which yfinance keeps answers; one that differs each
            # time keeps it from mixing pages from before a split with the splits of today.
            timeout = self._policy.request_timeout_s + next(_ASKED) / 1e6
            frame = ticker.history(
                interval=timeframe.value, start=start, end=end, timeout=timeout,
                auto_adjust=False, back_adjust=False, actions=True, keepna=False,
            )  # fmt: skip
            metadata = ticker.history_metadata
            period = (metadata.get("currentTradingPeriod") or {}).get("regular") or {}
            return _Page(
                frame, str(metadata.get("exchangeTimezoneName")), _moment(period.get("end"))
            )

        what = f"{timeframe} bars of {symbol} from Yahoo"
        return retrying(lambda: self._translated(ask, symbol, what), what=what, policy=self._policy)

    def _translated(self, ask: Callable[[], _Page], symbol: str, what: str) -> _Page:
        """The errors of yfinance as ours."""
        exceptions = self._yfinance.exceptions
        try:
            return ask()
        except NoData as error:
            raise NoData(
                f"Yahoo has no symbol {symbol} ({error}): look up how it is written there"
            ) from error
        except exceptions.YFPricesMissingError as error:
            return _missing(error.yahoo_reason, symbol, what)
        except exceptions.YFTzMissingError as error:
            raise NoData(
                f"Yahoo has no symbol {symbol}: look up how it is written there"
            ) from error
        except (
            exceptions.YFException,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
        ) as error:
            raise SourceError(
                f"{what}: the answer is none that yfinance {self._yfinance.__version__} reads "
                f"({type(error).__name__}: {error}); a newer yfinance may: "
                "pip install -U yfinance"
            ) from error  # fmt: skip


def _missing(reason: str | None, symbol: str, what: str) -> _Page:
    """No bars in the range is an answer; everything else that Yahoo gives as a reason is a refusal."""
    if reason is None or _NOTHING_THERE in reason:
        import pandas as pd

        return _Page(pd.DataFrame(), "UTC", None)
    if "available" in reason or "range" in reason:
        raise NoData(f"{what} are not kept for that range: {reason}")
    raise SourceError(f"{what} are refused: {reason}; check {symbol} on finance.yahoo.com")


def _check_kept(symbol: str, timeframe: Timeframe, start: datetime) -> None:
    kept = _INTRADAY[timeframe].history
    first = clock.now() - kept
    if start < first:
        raise NoData(
            f"Yahoo keeps bars of {timeframe} for {kept.days} days: those of {symbol} from "
            f"{start.astimezone(UTC):%Y-%m-%d %H:%M} are gone; ask from {first:%Y-%m-%d %H:%M} UTC on, or for 1d"
        )


def _seconds(moment: datetime) -> datetime:
    """Rounded up: Yahoo takes whole seconds, and a page must not end before it is asked to."""
    return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)


def _monday(start: datetime) -> date:
    """The Monday on or before: a weekly bar needs all its days."""
    first = start.astimezone(UTC).date()
    return first - timedelta(days=first.weekday())


def _opens_within(column: str, start: datetime, end: datetime) -> pl.Expr:
    opens = pl.col(column).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return (opens >= start.astimezone(UTC)) & (opens < end.astimezone(UTC))


def _unfinished_from(page: _Page, now: datetime) -> date:
    """The first date whose bar is not finished: today at the exchange, until its regular session is over."""
    zone = ZoneInfo(page.zone)
    today = now.astimezone(zone).date()
    if page.session_end is None:
        return today
    over = page.session_end.astimezone(zone).date() == today and page.session_end <= now
    return today + timedelta(days=1) if over else today


def _moment(found: Any) -> datetime | None:
    """A moment, which yfinance makes of some of Yahoo's epochs and not of others."""
    if found is None or isinstance(found, datetime):
        return found
    return datetime.fromtimestamp(found, UTC)


def _dates(page: Any) -> pl.DataFrame:
    names = {"date": pl.Date} | dict.fromkeys(
        (*_NAMES.values(), "dividend", "split"), pl.Float64
    )  # fmt: skip
    if page.empty:
        return pl.DataFrame(schema=names)
    columns = page.rename(columns={**_NAMES, "Dividends": "dividend", "Stock Splits": "split"})
    return pl.DataFrame(
        {
            "date": pl.Series(list(columns.index.date), dtype=pl.Date),
            **{name: columns[name].to_numpy(float) for name in names if name != "date"},
        }
    ).with_columns(pl.col(*_PRICES).fill_nan(None))


def _moments(page: Any, symbol: str, timeframe: Timeframe) -> pl.DataFrame:
    """Columns ts, date (at the exchange, which names ex-dates), open, high, low, close and volume."""
    schema: dict[str, Any] = {
        "ts": pl.Datetime("us", "UTC"),
        "date": pl.Date,
        **dict.fromkeys(_NAMES.values(), pl.Float64),
    }
    if page.empty:
        return pl.DataFrame(schema=schema)
    bars = pl.DataFrame(
        {
            "ts": pl.Series(page.index.tz_convert("UTC").tz_localize(None).to_numpy()),
            "date": pl.Series(list(page.index.date), dtype=pl.Date),
            **{ours: page[theirs].to_numpy(float) for theirs, ours in _NAMES.items()},
        }
    ).with_columns(
        pl.col("ts").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        pl.col(*_PRICES).fill_nan(None),
    )
    _check_grid(bars["ts"], symbol, timeframe)
    return bars


def _check_grid(opens: pl.Series, symbol: str, timeframe: Timeframe) -> None:
    """One bar off the grid is for ingestion to refuse; all of them are another kind of bars."""
    width_us = timeframe.width // timedelta(microseconds=1)
    if (opens.dt.epoch("us") % width_us != 0).all():
        raise DataError(
            f"Yahoo's {timeframe} bars of {symbol} begin at {opens[0]:%H:%M} UTC, with the market and not with "
            f"the clock: expected multiples of {timeframe}; fetch 15m or 1m bars, whose rollups are on the grid"
        )


def _factors(dates: pl.Series, splits: pl.DataFrame) -> pl.Series:
    """Float64, named "factor": the product of the ratios of the splits with an ex-date after each date."""
    factor = pl.repeat(1.0, pl.len())
    for ex_date, ratio in splits.select("date", "split").iter_rows():
        factor *= pl.when(pl.col("date") < ex_date).then(ratio).otherwise(1.0)
    return pl.DataFrame({"date": dates}).select(factor.alias("factor"))["factor"]


def _as_traded(bars: pl.DataFrame) -> pl.DataFrame:
    """Prices and volumes of each bar's own day, without rows that hold an event and no bar."""
    split = pl.col("factor") != 1
    return bars.filter(pl.any_horizontal(pl.col(*_PRICES).is_not_null())).with_columns(
        *(
            pl.when(split)
            .then((pl.col(price) * pl.col("factor")).round_sig_figs(_DIGITS_AFTER_A_SPLIT))
            .otherwise(pl.col(price).round_sig_figs(_DIGITS))
            for price in _PRICES
        ),
        volume=pl.when(split)
        .then((pl.col("volume") / pl.col("factor")).round())
        .otherwise("volume"),
    )


def _weekly(days: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Weeks from Monday on that are over, in UTC."""
    this_week = pl.lit(now.date()).dt.truncate("1w")
    return (
        days.sort("date")
        .group_by(pl.col("date").dt.truncate("1w"), maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
        .filter(pl.col("date") < this_week)
    )


def _named(bars: pl.DataFrame, symbol: str, time: str) -> pl.DataFrame:
    return bars.select(pl.lit(symbol).alias("symbol"), pl.col(time).alias("ts"), *_PRICES, "volume")
