"""Times that a mistake has made: quarantined or read as they were meant, and no chunks of other centuries."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe

# A Thursday, where a chunk of seven days begins.
_FIRST = datetime(2024, 1, 4, tzinfo=UTC)
_WEEKS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNKS = (
    "SELECT count(*) AS n FROM timescaledb_information.chunks WHERE hypertable_name = %(relation)s"
)


@dataclass(frozen=True)
class Case:
    """What a sender wrote as a bar's open, and what has to come of it: a rule, or a moment."""

    name: str
    cell: Any
    outcome: str | datetime


def _at(moment: datetime, unit: int) -> int:
    return int(moment.timestamp()) * unit


_MEANT = _FIRST + timedelta(hours=5)
CASES = [
    Case("the year 9999", "9999-12-31T23:59:00Z", "time_range"),
    # A thousand times finer it lies in 1978, and so many digits are taken for that; refused all the same.
    Case("the year 9999 as seconds", 253_402_300_740, "timeframe_multiple"),
    Case("the year 9999 as milliseconds", 253_402_300_740_000, "timeframe_multiple"),
    Case("the year 9999 as microseconds", 253_402_300_740_000_000, "timeframe_multiple"),
    Case("the year 0001", "0001-01-01T00:00:00Z", "time_range"),
    Case("the year 294276", 9_223_371_331_200_000_000 * 10, "time_range"),
    Case("tomorrow", f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:00Z}", "time_range"),
    Case("seconds", _at(_MEANT, 1), _MEANT),
    Case("milliseconds", _at(_MEANT, 1_000), _MEANT),
    Case("microseconds", _at(_MEANT, 1_000_000), _MEANT),
    Case("nanoseconds", _at(_MEANT, 1_000_000_000), _MEANT),
    Case("seconds made milliseconds twice over", _at(_MEANT, 1_000_000) * 10, "time_range"),
    Case("1e18 nanoseconds", 10**18, "timeframe_multiple"),
    Case("1e18 nanoseconds on a minute", 10**18 + 20 * 10**9, datetime(2001, 9, 9, 1, 47, tzinfo=UTC)),
    Case("epoch 0", 0, _EPOCH),
    Case("one second before", -1, "time_range"),
    Case("a negative epoch", -_at(_MEANT, 1), "time_range"),
    Case("the least integer", -(2**63), "time_range"),
    Case("no number", "NaN", "time_missing"),
    Case("beyond all floats", "1e999", "time_missing"),
    Case("a month 13", "2024-13-01T00:00:00Z", "time_missing"),
    Case("the 30th of February", "2024-02-30T00:00:00Z", "time_missing"),
]  # fmt: skip


def _bars(times: list[Any], *, symbol: str = "AAA") -> pl.DataFrame:
    return pl.DataFrame({"ts": times}).with_columns(
        symbol=pl.lit(symbol), open=10.0, high=20.0, low=5.0, close=11.0, volume=100.0
    )


def _stored(database: Database) -> list[datetime]:
    return [row["ts"] for row in database.fetch("SELECT ts FROM candles ORDER BY ts")]


def _chunks(database: Database, relation: str) -> int:
    (row,) = database.fetch(_CHUNKS, {"relation": relation})
    return int(row["n"])


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "number"])
def test_each_bar_is_quarantined_or_stored_as_it_was_meant(
    database: Database, as_text: bool
) -> None:
    cases = [case for case in CASES if as_text or _is_int64(case.cell)]
    cells = [str(case.cell) if as_text else case.cell for case in cases]
    bars = _bars(cells).with_columns(symbol=pl.Series([f"S{n}" for n in range(len(cases))]))
    summary = ingest_candles(database, bars, timeframe=Timeframe.M1, source="test")

    stored = database.fetch("SELECT symbol, ts AS outcome FROM candles")
    kept = database.fetch("SELECT row ->> 'symbol' AS symbol, rule AS outcome FROM quarantine")
    outcomes = {row["symbol"]: row["outcome"] for row in stored + kept}
    found = {case.name: outcomes[f"S{number}"] for number, case in enumerate(cases)}
    assert found == {case.name: case.outcome for case in cases}
    assert (summary.inserted, summary.quarantined) == (len(stored), len(kept))
    as_sent = database.fetch(
        "SELECT row -> 'ts' AS cell, row ->> 'symbol' AS symbol FROM quarantine"
    )
    assert all(row["cell"] == cells[int(row["symbol"][1:])] for row in as_sent)


def _is_int64(cell: Any) -> bool:
    return isinstance(cell, int) and -(2**63) <= cell < 2**63


def test_seconds_in_a_column_of_milliseconds(database: Database) -> None:
    """A column typed before it is sent names its unit: what it says is what is judged."""
    good = _minutes(_FIRST, 600)
    seconds = [_at(moment, 1) for moment in good]
    typed = pl.Series("ts", seconds).cast(pl.Datetime("ms", "UTC"))
    summary = ingest_candles(
        database, _bars(typed.to_list()), timeframe=Timeframe.M1, source="test"
    )
    assert summary.refused == {"timeframe_multiple": summary.quarantined}
    assert summary.inserted == len(_stored(database)) <= 1
    control = ingest_candles(
        database, _bars(good, symbol="BBB"), timeframe=Timeframe.M1, source="test"
    )
    assert control.inserted == len(good)


def _minutes(first: datetime, count: int) -> list[datetime]:
    return [first + timedelta(minutes=number) for number in range(count)]


def _hours(weeks: int) -> list[datetime]:
    return [_FIRST + timedelta(hours=number) for number in range(weeks * 7 * 24)]


def test_bad_bars_make_no_chunks(migrated_community: Database) -> None:
    database = migrated_community
    control = ingest_candles(database, _bars(_hours(_WEEKS)), timeframe=Timeframe.H1, source="test")
    assert control.inserted == _WEEKS * 7 * 24
    assert _chunks(database, "candles") == _WEEKS
    # A bar for each of 3,000 years, 3,000 seconds read as days, and what else a mistake makes.
    bad = [f"{year:04}-06-01T00:00:00Z" for year in (*range(1, 1970), *range(2101, 3132))]
    bad += [str(case.cell) for case in CASES if isinstance(case.outcome, str)]
    bad += [str(-86_400 * number) for number in range(1, 200)]
    before = _stored(database)
    summary = ingest_candles(
        database, _bars([*bad, "2024-01-04T00:30:00Z"]), timeframe=Timeframe.M1, source="test"
    )
    assert (summary.inserted, summary.quarantined) == (1, len(bad))
    assert set(summary.refused) == {"time_range", "time_missing", "timeframe_multiple"}
    assert len(_stored(database)) == len(before) + 1
    assert _chunks(database, "candles") == _WEEKS
    (kept,) = database.fetch("SELECT count(*) AS n FROM quarantine")
    assert kept["n"] == len(bad)


def test_bad_readings_make_no_chunks(migrated_community: Database) -> None:
    database, user = migrated_community, uuid4()
    good = pl.DataFrame({"ts": [f"{one:%Y-%m-%dT%H:%M:%SZ}" for one in _hours(2)], "value": 60.0})
    bad = good.with_columns(
        ts=pl.Series([f"{2101 + number}-01-01T00:00:00Z" for number in range(good.height)])
    )
    control = ingest_metrics(database, good, source="test", user=user, metric="heart_rate")
    assert control.inserted == good.height
    chunks = _chunks(database, "user_baseline_raw")
    assert chunks == len({(one - _EPOCH) // timedelta(days=7) for one in _hours(2)})
    refused = ingest_metrics(database, bad, source="test", user=user, metric="heart_rate")
    assert refused.refused == {"time_range": bad.height}
    assert _chunks(database, "user_baseline_raw") == chunks
