"""What following forecasts is worth where symbols trade by one calendar, and by several."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from hyperfeast import stats
from hyperfeast.training.evaluation import COST_BPS, Equity, equity_curve

_FIRST = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
_HORIZON = 5
_WEEKDAYS = [day for day in range(28) if day % 7 < 5]


def _bars(symbol: str, days: list[int], close: timedelta) -> pl.DataFrame:
    opens = [_FIRST + timedelta(days=day) for day in days]
    return pl.DataFrame(
        {"symbol": symbol, "ts": opens, "event_timestamp": [ts + close for ts in opens]},
        schema_overrides={name: pl.Datetime("us", "UTC") for name in ("ts", "event_timestamp")},
    )


def _stock(symbol: str = "STOCK") -> pl.DataFrame:
    return _bars(symbol, _WEEKDAYS, timedelta(hours=21))


def _coin() -> pl.DataFrame:
    return _bars("COIN", list(range(28)), timedelta(days=1))


def _equity(*symbols: tuple[pl.DataFrame, float, float]) -> Equity:
    """Of bars with a forecast and a return that are always the same; the last bar has neither."""
    oos = [
        bars.head(-1).select(
            "symbol", "event_timestamp", proba=pl.lit(proba), next_return=pl.lit(next_return)
        )
        for bars, proba, next_return in symbols
    ]
    return equity_curve(
        pl.concat(oos).sort("event_timestamp"), _HORIZON, pl.concat(bars for bars, *_ in symbols)
    )


def test_one_calendar_is_the_plain_grid() -> None:
    random = np.random.default_rng(1)
    bars = pl.concat([_stock("AAA"), _stock("BBB")])
    sessions = len(_WEEKDAYS) - 1
    returns, proba = random.normal(0, 0.02, (2, sessions)), random.random((2, sessions))
    oos = pl.concat(
        bars.filter(symbol=symbol)
        .head(-1)
        .with_columns(proba=pl.Series(proba[at]), next_return=pl.Series(returns[at]))
        for at, symbol in enumerate(("AAA", "BBB"))
    )
    equity = equity_curve(oos, _HORIZON, bars)
    positions = stats.overlapping_positions((proba > 0.5).astype(float).T, _HORIZON)
    assert equity.signal == stats.growth(positions, returns.T, cost_bps=COST_BPS).tolist()
    ones = np.ones_like(positions)
    assert equity.buy_and_hold == stats.growth(ones, returns.T, cost_bps=COST_BPS).tolist()
    assert equity.dates == _stock()["event_timestamp"].to_list()


def test_a_symbol_that_never_closes_does_not_thin_another_s_position() -> None:
    """The stock alone earns, the coin is never held: half of the capital is in the stock, always."""
    equity = _equity((_stock(), 0.9, 0.01), (_coin(), 0.1, 0.0))
    worth = 1.0
    for session in range(len(_WEEKDAYS) - 1):
        weight = min(session + 1, _HORIZON) / _HORIZON / 2
        bought = 1 / _HORIZON / 2 if session < _HORIZON else 0.0
        worth *= 1 + weight * np.expm1(0.01) - bought * COST_BPS / 10_000
    assert equity.signal[len(_coin()) - 3] == pytest.approx(worth, rel=1e-12)


def test_holding_pays_for_its_purchase_once_whatever_the_calendars() -> None:
    """Nothing moves, so nothing but costs is seen; the stock's last session is the Thursday."""
    equity = _equity((_stock(), 0.9, 0.0), (_coin(), 0.9, 0.0))
    while_both = equity.buy_and_hold[1 : 28 - 3]
    assert while_both == pytest.approx([1 - COST_BPS / 10_000] * len(while_both), rel=1e-12)


def test_sessions_of_one_date_are_one_point_dated_by_the_last_close() -> None:
    equity = _equity((_stock(), 0.9, 0.0), (_coin(), 0.9, 0.0))
    assert equity.dates == _coin()["event_timestamp"].to_list()
    assert len(equity.signal) == len(equity.buy_and_hold) == len(equity.dates)
