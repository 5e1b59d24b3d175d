"""Which column is which."""

import pytest

from hyperfeast.errors import DataError, UsageError
from hyperfeast.ingest.candles import _COLUMNS
from hyperfeast.ingest.columns import locate

_YAHOO = ["Ticker", "Date", "Open", "High", "Low", "Close", "Volume", "Adj Close"]


@pytest.mark.parametrize("symbol", ["symbol", "Symbol", "ticker", "Ticker"])
@pytest.mark.parametrize("ts", ["Date", "timestamp", "ts", "time", "datetime", "open_time"])
@pytest.mark.parametrize(
    "prices", [["o", "h", "l", "c", "v"], ["Open", "HIGH", "low", "Close", "vol"]]
)
def test_the_field_s_names_are_recognized(symbol: str, ts: str, prices: list[str]) -> None:
    places = locate([symbol, ts, *prices, "vwap", "other"], _COLUMNS)
    names = ["symbol", "ts", "open", "high", "low", "close", "volume", "vwap"]
    assert places == dict(zip(names, [symbol, ts, *prices, "vwap"], strict=True))


def test_adjusted_closes_are_never_taken() -> None:
    assert locate(_YAHOO, _COLUMNS)["close"] == "Close"
    with pytest.raises(DataError, match="recognized as close"):
        locate([name for name in _YAHOO if name != "Close"], _COLUMNS)
    with pytest.raises(UsageError, match="after the bar and is never taken"):
        locate(_YAHOO, _COLUMNS, {"close": "Adj Close"})


def test_a_mapping_wins() -> None:
    places = locate([*_YAHOO, "px_last"], _COLUMNS, {"close": "px_last"})
    assert places["close"] == "px_last"
    assert places["open"] == "Open"


@pytest.mark.parametrize(
    ("found", "mapping", "given", "error", "message"),
    [
        (["a", "Close"], {}, (), DataError, r"symbol, ts, open.*; the file has a, Close.*--column"),
        ([*_YAHOO, "time"], {}, (), DataError, r"'Date' and 'time' could each be the column ts"),
        (_YAHOO, {"price": "Close"}, (), UsageError, "no column 'price' to map to: expected symbol, ts"),
        (_YAHOO, {"close": "px"}, (), DataError, "no column 'px' for close: the file has Ticker"),
        (_YAHOO, {}, ("symbol",), UsageError, "symbol is given, and the file has it too"),
    ],
)  # fmt: skip
def test_what_is_missing_or_doubtful_is_said(
    found: list[str],
    mapping: dict[str, str],
    given: tuple[str],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        locate(found, _COLUMNS, mapping, given)


def test_two_times_are_settled_by_a_mapping() -> None:
    assert locate([*_YAHOO, "time"], _COLUMNS, {"ts": "time"})["ts"] == "time"
