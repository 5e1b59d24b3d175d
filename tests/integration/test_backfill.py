"""Backfills: resumed after a kill, several instruments at once, and what fails alone."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import NoData, ServerUnreachable, SourceUnavailable, UsageError
from hyperfeast.ingest import backfill_candles, newest_sources
from hyperfeast.sources import FolderSource, FrameSource
from hyperfeast.types import Timeframe

START, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)
HOURS = [f"H{number}" for number in range(4)]


class Prices:
    """Hourly bars of every symbol but those it is told not to know; it notes what it was asked for."""

    name = "prices"
    tz = "UTC"
    timeframes = frozenset({Timeframe.M1, Timeframe.H1})

    def __init__(
        self, *, unknown: tuple[str, ...] = (), price: float = 10.0, busy: str = ""
    ) -> None:
        self.asked: list[tuple[str, datetime]] = []
        self.most_at_once = 0
        self._unknown, self._price, self._busy = unknown, price, busy
        self._now = 0
        self._lock = threading.Lock()

    def fetch(
        self,
        symbol: str,
        timeframe: Timeframe,
        start: datetime,
        end: datetime,
    ) -> Iterator[pl.DataFrame]:
        assert timeframe in self.timeframes
        with self._lock:
            self.asked.append((symbol, start))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(0.1)
        with self._lock:
            self._now -= 1
        if symbol in self._unknown:
            raise NoData(f"there is no {symbol}")
        if symbol == self._busy:
            raise SourceUnavailable("it does not answer")
        opens = pl.datetime_range(start, end, "1h", closed="left", time_zone="UTC", eager=True)
        for part in opens.to_frame("ts").iter_slices(500):
            prices = dict.fromkeys(("open", "high", "low", "close"), pl.lit(self._price))
            yield part.with_columns(symbol=pl.lit(symbol), volume=pl.lit(1.0), **prices)

    def symbols(self) -> list[str]:
        return HOURS

    def versions(self, *_: object) -> dict[str, str]:
        return {}


def fill(database: Database, source: Prices, **options: object) -> object:
    arguments = {"timeframe": Timeframe.M1, "start": START, "end": END} | options
    return backfill_candles(database, source, HOURS, **arguments)  # type: ignore[arg-type]


def test_every_bar_of_every_instrument_is_in(database: Database) -> None:
    told: list[tuple[int, int]] = []
    source = Prices()
    done = backfill_candles(
        database, source, HOURS, timeframe=Timeframe.M1, start=START, end=END, workers=3,
        progress=lambda now, total: told.append((now, total)),
    )  # fmt: skip
    hours = (END - START) // timedelta(hours=1)
    assert (done.pieces, done.done_before, done.failures) == (8, 0, ())
    assert (done.ingested.inserted, done.ingested.quarantined) == (4 * hours, 0)
    assert database.fetch("SELECT count(*) AS n FROM candles") == [{"n": 4 * hours}]
    assert told[0] == (0, 8)
    assert told[-1] == (8, 8)
    assert 2 <= source.most_at_once <= 3
    series = {(symbol, "1m") for symbol in HOURS}
    assert newest_sources(database, series | {("NONE", "1m")}) == dict.fromkeys(series, "prices")


def test_the_same_call_again_fetches_nothing_and_a_longer_one_only_what_is_new(
    database: Database,
) -> None:
    fill(database, Prices())
    second = Prices()
    done = fill(database, second)
    assert second.asked == []
    assert done.done_before == done.pieces == 8  # type: ignore[attr-defined]
    longer = Prices()
    fill(database, longer, end=END + timedelta(days=31))
    assert {start for _, start in longer.asked} == {END}


def test_again_fetches_what_the_source_has_corrected(database: Database) -> None:
    fill(database, Prices())
    assert fill(database, Prices(price=11.0)).ingested.corrected == 0  # type: ignore[attr-defined]
    done = fill(database, Prices(price=11.0), again=True)
    assert done.ingested.corrected == done.ingested.rows_in > 0  # type: ignore[attr-defined]
    assert database.fetch("SELECT DISTINCT c FROM candles") == [{"c": 11.0}]


def daily(folder: Path, name: str, days: int, *, symbol: str | None = None) -> None:
    bars = pl.DataFrame(
        {"Date": [f"2024-01-{day:02d}" for day in range(1, days + 1)]}
    ).with_columns(Volume=1, **dict.fromkeys(("Open", "High", "Low", "Close"), pl.lit(10.0)))
    if symbol is not None:
        bars = bars.with_columns(symbol=pl.lit(symbol))
    folder.mkdir(parents=True, exist_ok=True)
    bars.write_csv(folder / name)


def taken(database: Database, folder: Path, *symbols: str) -> tuple[int, int]:
    """How many pieces were done before, and how many rows came anew."""
    done = backfill_candles(
        database, FolderSource(folder), symbols, timeframe=Timeframe.D1,
        start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 2, 1, tzinfo=UTC),
    )  # fmt: skip
    assert done.failures == ()
    return done.done_before, done.ingested.inserted


def test_files_that_have_grown_are_read_again_and_the_others_are_not(
    database: Database, tmp_path: Path
) -> None:
    daily(tmp_path, "A.csv", 3)
    daily(tmp_path, "B.csv", 3)
    daily(tmp_path / "symbol=C", "2023.csv", 3)
    assert taken(database, tmp_path, "A", "B", "C") == (0, 9)
    assert taken(database, tmp_path, "A", "B", "C") == (3, 0)

    daily(tmp_path, "A.csv", 5)
    assert taken(database, tmp_path, "A", "B", "C") == (2, 2)
    daily(tmp_path / "symbol=C", "2024.csv", 6)
    assert taken(database, tmp_path, "A", "B", "C") == (2, 3)
    assert taken(database, tmp_path, "A", "B", "C") == (3, 0)


def test_a_file_of_many_that_has_changed_is_read_again(database: Database, tmp_path: Path) -> None:
    daily(tmp_path, "A.csv", 3)
    daily(tmp_path, "all.csv", 3, symbol="M")
    assert taken(database, tmp_path, "A", "M") == (0, 6)
    daily(tmp_path, "more.csv", 4, symbol="M")
    assert taken(database, tmp_path, "A", "M") == (1, 1)


def test_a_file_that_cannot_be_read_fails_its_instrument_alone(
    database: Database, tmp_path: Path
) -> None:
    daily(tmp_path, "A.csv", 3)
    (tmp_path / "B.csv").write_bytes(b"")
    done = backfill_candles(
        database, FolderSource(tmp_path), ["A", "B"], timeframe=Timeframe.D1,
        start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime(2024, 2, 1, tzinfo=UTC),
    )  # fmt: skip
    assert [one.piece.symbol for one in done.failures] == ["B"]
    assert done.ingested.inserted == 3


def test_one_instrument_that_fails_leaves_the_others_alone(database: Database) -> None:
    done = fill(database, Prices(unknown=("H1",), busy="H2"), workers=2)
    assert [str(one.error) for one in done.failures] == ["there is no H1", "it does not answer"]  # type: ignore[attr-defined]
    rows = database.fetch("SELECT DISTINCT symbol FROM candles ORDER BY 1")
    assert [row["symbol"] for row in rows] == ["H0", "H3"]
    mended = Prices()
    assert fill(database, mended).failures == ()  # type: ignore[attr-defined]
    assert {symbol for symbol, _ in mended.asked} == {"H1", "H2"}


def test_what_the_source_lacks_is_done_too(database: Database) -> None:
    class Silent(Prices):
        def fetch(self, *_: object) -> Iterator[pl.DataFrame]:
            return iter(())

    assert fill(database, Silent()).ingested.rows_in == 0  # type: ignore[attr-defined]
    asked = Prices()
    fill(database, asked)
    assert asked.asked == []


def test_a_piece_that_has_not_ended_is_never_done(database: Database) -> None:
    # The newest bar has closed, so that the gate has nothing to say.
    end = datetime.now(UTC) + timedelta(minutes=10)
    fill(database, Prices(), start=end - timedelta(days=3), end=end)
    later = Prices()
    fill(database, later, start=end - timedelta(days=3), end=end)
    assert {symbol for symbol, _ in later.asked} == set(HOURS)


def test_times_are_read_in_the_zone_of_the_source(database: Database) -> None:
    bars = pl.DataFrame(
        {
            "symbol": "A",
            "ts": ["2024-01-02 09:00:00"],
            "open": 1.0,
            "high": 1.0,
            "low": 1.0,
            "close": 1.0,
            "volume": 1,
        }
    )
    feed = FrameSource(bars, name="desk", tz="America/New_York")
    range_ = {
        "start": datetime(2024, 1, 2, 14, tzinfo=UTC),
        "end": datetime(2024, 1, 2, 15, tzinfo=UTC),
    }
    backfill_candles(database, feed, ["A"], timeframe=Timeframe.H1, **range_)
    assert database.fetch("SELECT ts FROM candles") == [{"ts": range_["start"]}]


def test_a_timeframe_that_the_source_lacks(database: Database) -> None:
    with pytest.raises(UsageError, match="prices has no bars of 1d: expected one of 1m, 1h"):
        fill(database, Prices(), timeframe=Timeframe.D1)


def test_the_database_away_ends_it(database: Database) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(ServerUnreachable):
        fill(nowhere, Prices())


KILLED = """
import sys
from datetime import UTC, datetime
from hyperfeast.db import Database
from hyperfeast.ingest import backfill_candles
from hyperfeast.sources import source
from hyperfeast.types import Timeframe

dsn, folder = sys.argv[1:]
done = backfill_candles(
    Database(dsn), source(folder), source(folder).symbols(), timeframe=Timeframe.D1, workers=2,
    start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2021, 1, 1, tzinfo=UTC),
)
print(done.done_before, done.pieces, len(done.failures))
"""


@pytest.mark.slow
def test_killed_and_begun_again(database: Database, tmp_path: Path) -> None:
    """SIGKILL in the middle: what was acknowledged stays, nothing is doubled, the rest is done after."""
    days = pl.date_range(date(2010, 1, 1), date(2020, 12, 31), eager=True)
    for number in range(60):
        bars = pl.DataFrame({"Date": days}).with_columns(
            Open=10.0 + number,
            High=11.0 + number,
            Low=9.0 + number,
            Close=10.5 + number,
            Volume=100,
        )
        bars.write_csv(tmp_path / f"S{number:02d}.csv")
    arguments = [sys.executable, "-c", KILLED, database.dsn, str(tmp_path)]
    completed = "SELECT count(*) AS n FROM ingest_batches WHERE status = 'COMPLETED'"

    first = subprocess.Popen(arguments)
    end = time.monotonic() + 60
    while not 3 <= database.fetch(completed)[0]["n"] < 40:
        assert first.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < end
    first.kill()
    first.wait()
    acknowledged = database.fetch(completed)[0]["n"]
    assert acknowledged < 60

    second = subprocess.run(arguments, capture_output=True, text=True, check=True)
    before, wanted, failed = map(int, second.stdout.split())
    # What committed between the last look and the kill counts as well.
    assert wanted > before >= acknowledged > 0
    assert failed == 0
    rows = database.fetch("SELECT count(*) AS n, count(DISTINCT (symbol, ts)) AS keys FROM candles")
    assert rows == [{"n": 60 * len(days), "keys": 60 * len(days)}]
    assert database.fetch("SELECT FROM candle_revisions") == []
    assert database.fetch("SELECT FROM ingest_batches WHERE status = 'RUNNING'") == []
