"""Folders and tables as sources: the rows that were asked for, as they are written, whatever the layout."""

import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import DataError, UsageError
from hyperfeast.sources import FolderSource, FrameSource, NoData, source
from hyperfeast.types import Timeframe

_START, _END = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)
_TEXT = "Date,Close\n2024-01-01,1\n2024-01-02,2\n2024-01-03,nil\n2024-01-04,4\n"


def _days(prices: dict[str, list[float]]) -> pl.DataFrame:
    """One bar a day from the first of January on."""
    return pl.concat(
        pl.DataFrame(
            {
                "symbol": symbol,
                "ts": [date(2024, 1, 1) + timedelta(days=n) for n in range(len(closes))],
                "close": closes,
            }
        )
        for symbol, closes in prices.items()
    )


def _fetched(made: FolderSource | FrameSource, symbol: str = "AAPL") -> pl.DataFrame:
    return pl.concat(made.fetch(symbol, Timeframe.D1, _START, _END))


def _csv(folder: Path) -> None:
    (folder / "AAPL.csv").write_text(_TEXT)


def _gz(folder: Path) -> None:
    (folder / "AAPL.csv.gz").write_bytes(gzip.compress(_TEXT.encode()))


def _by_timeframe(folder: Path) -> None:
    (folder / "1d").mkdir()
    (folder / "1m").mkdir()
    _csv(folder / "1d")
    (folder / "1m" / "MSFT.csv").write_text(_TEXT)


@pytest.mark.parametrize("lay", [_csv, _gz, _by_timeframe])
def test_a_csv_for_each_symbol_is_passed_on_as_text(
    tmp_path: Path, lay: Callable[[Path], None]
) -> None:
    lay(tmp_path)
    assert _fetched(FolderSource(tmp_path)).to_dict(as_series=False) == {
        "Date": ["2024-01-02", "2024-01-03"],
        "Close": ["2", "nil"],
        "symbol": ["AAPL", "AAPL"],
    }


def _own_parquet(folder: Path) -> None:
    for symbol, closes in _PRICES.items():
        _days({symbol: closes}).write_parquet(folder / f"{symbol.replace('/', '%2F')}.parquet")


def _hive(folder: Path) -> None:
    for symbol, closes in _PRICES.items():
        part = folder / f"symbol={symbol.replace('/', '%2F')}" / "year=2024"
        part.mkdir(parents=True)
        frame = _days({symbol: closes}).drop("symbol")
        frame.head(2).write_parquet(part / "0.parquet")
        frame.tail(-2).write_parquet(part / "1.parquet")


def _shared_parquet(folder: Path) -> None:
    _days(_PRICES).write_parquet(folder / "all.parquet")


def _shared_csv(folder: Path) -> None:
    _days(_PRICES).rename({"symbol": "Ticker", "ts": "timestamp"}).write_csv(folder / "all.csv")


_PRICES = {"AAPL": [1.0, 2.0, 3.0, 4.0], "BTC/USDT": [5.0, 6.0, 7.0, 8.0]}


@pytest.mark.parametrize("lay", [_own_parquet, _hive, _shared_parquet, _shared_csv])
def test_every_layout(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    made = FolderSource(tmp_path)
    assert made.symbols() == ["AAPL", "BTC/USDT"]
    for symbol, closes in _PRICES.items():
        found = _fetched(made, symbol)
        assert found["close"].cast(pl.Float64).to_list() == closes[1:3]
        assert set(found[next(c for c in found.columns if c in ("symbol", "Ticker"))]) == {symbol}


def test_a_large_file_comes_in_pieces_and_whole(tmp_path: Path) -> None:
    rows = 400_000
    first = int(_START.timestamp())
    frame = pl.DataFrame({"ts": pl.int_range(rows, eager=True) * 60 + first, "close": 1.0})
    frame.write_csv(tmp_path / "A.csv")
    frame.write_parquet(tmp_path / "B.parquet")
    made = FolderSource(tmp_path)
    for symbol in ("A", "B"):
        end = _START + timedelta(minutes=rows - 1)
        frames = list(made.fetch(symbol, Timeframe.M1, _START, end))
        assert len(frames) > 2
        assert all(0 < frame.height <= 250_000 for frame in frames)
        opens = pl.concat(frames)["ts"].cast(pl.Int64)
        assert opens.equals(pl.Series("ts", range(first, first + (rows - 1) * 60, 60)))


def test_what_is_no_time_is_passed_on_to_be_refused(tmp_path: Path) -> None:
    (tmp_path / "AAPL.csv").write_text("ts,close\nyesterday,1\n,2\n2024-01-01,3\n9e99,4\n")
    assert _fetched(FolderSource(tmp_path))["close"].to_list() == ["1", "2", "4"]


@pytest.mark.parametrize(
    "written",
    ["2024-01-02T00:00:00Z", "2024-01-02 05:00:00+05:00", "2024-01-01T23:00-01:00", "1704153600",
     "1704153600000", "1704153600000000", "2024-01-02", "20240102", " 2024-01-02 00:00 "],
)  # fmt: skip
def test_moments_are_read_however_they_are_written(written: str) -> None:
    made = FrameSource(pl.DataFrame({"time": [written], "close": [1]}), symbol="X", name="frame")
    just = timedelta(microseconds=1)
    assert list(made.fetch("X", Timeframe.M1, _START, _START + just))
    assert not list(made.fetch("X", Timeframe.M1, _START + just, _END))
    assert not list(made.fetch("X", Timeframe.M1, _START - just, _START))


def test_times_without_a_zone_are_in_the_zone_that_is_given() -> None:
    frame = pl.DataFrame({"ts": [datetime(2024, 1, 2, 9, 30)], "close": [1]})  # noqa: DTZ001
    made = FrameSource(frame, symbol="X", tz="America/New_York", name="frame")
    opening = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
    assert list(made.fetch("X", Timeframe.M1, opening, opening + timedelta(minutes=1)))
    assert not list(made.fetch("X", Timeframe.M1, opening - timedelta(hours=6), opening))


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York", "Europe/London"])
def test_days_that_are_written_as_midnights_of_the_market(zone: str) -> None:
    midnight = pl.datetime(2024, 7, 2, time_zone=zone).dt.convert_time_zone("UTC")
    made = FrameSource(pl.select(midnight.alias("ts"), close=1.0), symbol="X", name="frame")
    day = datetime(2024, 7, 2, tzinfo=UTC)
    assert list(made.fetch("X", Timeframe.D1, day, day + timedelta(days=1)))
    assert not list(made.fetch("X", Timeframe.D1, day - timedelta(days=9), day))


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(-5, 55), st.integers(1, 30))
def test_exactly_the_rows_of_the_range(minutes: list[int], first: int, length: int) -> None:
    opens = [_START + timedelta(minutes=n) for n in minutes]
    frame = pl.DataFrame(
        {"symbol": "X", "ts": opens, "n": minutes},
        schema_overrides={"ts": pl.Datetime("us", "UTC"), "n": pl.Int64, "symbol": pl.String},
    )
    made = FrameSource(pl.concat([frame, frame.with_columns(symbol=pl.lit("Y"))]), name="frame")
    start = _START + timedelta(minutes=first)
    if not minutes:
        assert made.symbols() == []
        return
    frames = list(made.fetch("X", Timeframe.M1, start, start + timedelta(minutes=length)))
    found = [n for part in frames for n in part["n"]]
    assert found == [n for n in minutes if first <= n < first + length]


def test_tables_of_every_library() -> None:
    frame = _days({"AAPL": [1.0, 2.0, 3.0, 4.0]})
    indexed = frame.to_pandas().drop(columns="symbol").set_index("ts").rename_axis(None)
    indexed.index = pd.to_datetime(indexed.index)
    assert isinstance(frame.to_arrow(), pa.Table)
    for made in (
        FrameSource(frame, name="frame"),
        FrameSource(frame.to_pandas(), name="frame"),
        FrameSource(frame.to_arrow(), name="frame"),
        FrameSource(indexed, symbol="AAPL", name="frame"),
        FrameSource(frame.to_pandas().set_index(["symbol", "ts"]), name="frame"),
    ):
        assert _fetched(made)["close"].to_list() == [2, 3]


def test_what_is_no_table() -> None:
    with pytest.raises(UsageError, match="list is no table"):
        FrameSource([1], name="frame")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no column symbol, but ts"):
        FrameSource(pl.DataFrame({"ts": [1]}), name="frame")
    with pytest.raises(UsageError, match="leave one out"):
        FrameSource(pl.DataFrame({"symbol": ["A"]}), symbol="A", name="frame")
    with pytest.raises(NoData, match="no rows of B: it has A"):
        _fetched(FrameSource(pl.DataFrame({"symbol": ["A"]}), name="frame"), "B")


@pytest.mark.parametrize("symbol", ["MSFT", "../AAPL", "1d/../AAPL", "symbol=AAPL", ""])
def test_a_symbol_that_is_not_there(tmp_path: Path, symbol: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    _csv(tmp_path)
    _shared_parquet(inner)
    (inner / "TSLA.csv").write_text(_TEXT)
    with pytest.raises(NoData, match=r"expected a file .*found TSLA.csv, all.parquet"):
        _fetched(FolderSource(inner), symbol)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    _csv(tmp_path)
    with pytest.raises(UsageError, match="found nothing; expected a folder"):
        FolderSource(tmp_path / "no")
    with pytest.raises(UsageError, match="found a file"):
        FolderSource(tmp_path / "AAPL.csv")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("A.csv", b"", "is empty"),
        ("A.csv", _TEXT.encode("utf-16"), "UTF-16"),
        ("A.csv", b"ts,close\n2024-01-02,1,2\n", "as many fields in each row"),
        ("A.csv", b"ts,close\n2024-01-02,\xff\n", "UTF-?8"),
        ("A.csv", b"ts,close,close\n", "more than one column 'close'"),
        ("A.csv.gz", gzip.compress(_TEXT.encode() * 99, mtime=0)[:-20], "no whole gzip file"),
        ("A.csv.gz", b"plain", "no whole gzip file"),
        ("A.parquet", b"PAR1", "whole Parquet file"),
        ("A.parquet", b"", "whole Parquet file"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        list(FolderSource(tmp_path).fetch("A", Timeframe.D1, _START, _END))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_people_write(tmp_path: Path) -> None:
    _csv(tmp_path)
    for spec in (f"folder:{tmp_path}", str(tmp_path)):
        made = source(spec)
        assert isinstance(made, FolderSource)
        assert made.name == f"folder:{tmp_path.resolve()}"
    for spec in ("yfinanc", "ccxt", "ccxt:", "folder:", "", "kafka:topic"):
        with pytest.raises(UsageError, match=r"expected folder:PATH, yfinance, ccxt:EXCHANGE"):
            source(spec)
    with pytest.raises(UsageError, match="did you mean yfinance"):
        source("yfinanc")


def test_folders_of_one_name_are_two_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for vendor in ("one", "other"):
        (tmp_path / vendor / "prices").mkdir(parents=True)
    names = {FolderSource(tmp_path / vendor / "prices").name for vendor in ("one", "other")}
    assert len(names) == 2
    monkeypatch.chdir(tmp_path / "one")
    relative = FolderSource("prices")
    assert relative.name in names
    monkeypatch.chdir(tmp_path)
    assert source(relative.name).name == relative.name


def test_a_table_that_has_changed_has_another_version() -> None:
    def version(prices: dict[str, list[float]]) -> dict[str, str]:
        return FrameSource(_days(prices), name="desk").versions(["A", "B", "NONE"], Timeframe.D1)

    before = version({"A": [1, 2], "B": [1, 2]})
    assert before.keys() == {"A", "B"}
    assert version({"B": [1, 2], "A": [1, 2]}) == before
    assert version({"A": [1, 2, 3], "B": [1, 2]})["A"] != before["A"]
    assert version({"A": [1, 3], "B": [1, 2]})["A"] != before["A"]
    assert version({"A": [1, 3], "B": [1, 2]})["B"] == before["B"]


def test_a_version_is_of_a_symbol_s_own_files(tmp_path: Path) -> None:
    _by_timeframe(tmp_path)
    made = FolderSource(tmp_path)

    def versions() -> tuple[dict[str, str], dict[str, str]]:
        symbols = ["AAPL", "MSFT"]
        return made.versions(symbols, Timeframe.D1), made.versions(symbols, Timeframe.M1)

    daily, minutes = versions()
    assert (daily, minutes) == versions()
    (tmp_path / "1m" / "MSFT.csv").write_text(_TEXT + "2024-01-05,5\n")
    daily_then, minutes_then = versions()
    assert daily_then == daily
    assert minutes_then["MSFT"] != minutes["MSFT"]
    (tmp_path / "1d" / "AAPL.csv").replace(tmp_path / "1d" / "MSFT.csv")
    assert made.versions(["MSFT"], Timeframe.D1) != {"MSFT": daily["MSFT"]}
