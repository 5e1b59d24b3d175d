"""Bars into `candles`: rules one by one, corrections, order, concurrency, interruption, real data."""

import importlib.util
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hyperfeast.db import Database
from hyperfeast.errors import DataError, ServerUnreachable, UsageError
from hyperfeast.ingest import IngestSummary, ingest_candles, read_file
from hyperfeast.types import Timeframe

_CANDLES = "SELECT symbol, tf, ts, o, h, l, c, v, vwap FROM candles ORDER BY symbol, tf, ts"
_VERSIONS = "SELECT symbol, ts, xmin::text AS xmin, recorded_at FROM candles ORDER BY symbol, ts"


def _bar(day: int = 2, **cells: Any) -> dict[str, Any]:
    """A good bar of a day of January 2024, as text, with some of its cells changed."""
    bar = {
        "symbol": "AAA", "ts": f"2024-01-{day:02}", "open": "10", "high": "12", "low": "9", "close": "11",
        "volume": "100",
    }  # fmt: skip
    return bar | cells


def _ingest(
    database: Database, rows: list[dict[str, Any]] | pl.DataFrame, **options: Any
) -> IngestSummary:
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(rows)
    return ingest_candles(
        database, frame, **({"timeframe": Timeframe.D1, "source": "test"} | options)
    )


def _counts(summary: IngestSummary) -> tuple[int, int, int, int]:
    return summary.inserted, summary.corrected, summary.unchanged, summary.quarantined


_TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
_TODAY = datetime.now(UTC).date().isoformat()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("symbol_format", {"symbol": "A'; DROP TABLE sentinel; --"}),
    ("symbol_format", {"symbol": "A" * 64}),
    ("symbol_format", {"symbol": "AA\0"}),
    ("symbol_format", {"symbol": "AAA\n"}),
    ("symbol_format", {"symbol": ""}),
    ("symbol_format", {"symbol": None}),
    ("time_missing", {"ts": ""}),
    ("time_missing", {"ts": "soon"}),
    ("time_range", {"ts": "1969-12-31"}),
    ("time_range", {"ts": "9999-12-31"}),
    ("time_range", {"ts": "170415360000000000000000"}),
    ("time_range", {"ts": _TOMORROW}),
    ("time_range", {"ts": _TODAY}),
    ("number_missing", {"open": "nil"}),
    ("number_missing", {"close": "NaN"}),
    ("number_missing", {"volume": ""}),
    ("number_missing", {"vwap": "abc"}),
    ("finite", {"high": "1e999"}),
    ("finite", {"low": "-inf"}),
    ("finite", {"volume": "Infinity"}),
    ("price_positive", {"low": "0"}),
    ("price_positive", {"vwap": "-1"}),
    ("high_is_highest", {"high": "10.5"}),
    ("high_is_highest", {"high": "8"}),
    ("low_is_lowest", {"low": "10.5"}),
    ("volume_not_negative", {"volume": "-1"}),
]


def test_rows_that_break_a_rule_go_to_quarantine_and_their_neighbours_in(
    database: Database,
) -> None:
    """Each between two good bars of its own instrument, or of one that it does not name."""
    database.execute("CREATE TABLE sentinel AS SELECT 1 AS untouched")
    rows, bad = [], []
    for number, (_, cells) in enumerate(BAD):
        symbol = f"S{number:02}"
        bad.append(_bar(3, symbol=symbol, vwap="10.5") | cells)
        rows += [_bar(2, symbol=symbol, vwap="10.5"), bad[-1], _bar(4, symbol=symbol, vwap="")]
    summary = _ingest(database, rows)
    assert summary.refused == Counter(rule for rule, _ in BAD)
    assert _counts(summary) == (2 * len(BAD), 0, 0, len(BAD))
    stored = [(row["symbol"], row["ts"].day) for row in database.fetch(_CANDLES)]
    assert stored == [(f"S{number:02}", day) for number in range(len(BAD)) for day in (2, 4)]
    kept = database.fetch("SELECT batch_id, target, rule, row FROM quarantine")
    expected = [
        {
            "batch_id": summary.batch_id,
            "target": "candles",
            "rule": rule,
            "row": {
                name: cell.replace("\0", "\\u0000") if isinstance(cell, str) else cell
                for name, cell in row.items()
            },
        }
        for (rule, _), row in zip(BAD, bad, strict=True)
    ]

    def cells(one: dict[str, Any]) -> str:
        return str(sorted(one["row"].items()))

    assert sorted(kept, key=cells) == sorted(expected, key=cells)
    assert database.fetch("SELECT * FROM sentinel") == [{"untouched": 1}]


def test_cells_that_jsonb_cannot_hold_are_kept_as_text(database: Database) -> None:
    frame = pl.DataFrame(
        {
            "symbol": ["AAA", "BBB"], "ts": [date(2024, 1, 2), date(2024, 1, 3)], "open": [float("nan"), 10.0],
            "high": [float("inf"), 12.0], "low": [9.0, 9.0], "close": [11.0, 11.0], "volume": [1, 2],
            "note": [b"\x00\xff", None], "more": [[float("nan")], None],
        }
    )  # fmt: skip
    assert _ingest(database, frame).refused == {"number_missing": 1}
    assert database.fetch("SELECT row FROM quarantine")[0]["row"] == {
        "symbol": "AAA", "ts": "2024-01-02", "open": "nan", "high": "inf", "low": 9.0, "close": 11.0,
        "volume": 1, "note": "00ff", "more": ["nan"],
    }  # fmt: skip


def test_a_date_without_a_session_is_refused(database: Database) -> None:
    summary = _ingest(database, [_bar(2), _bar(6), _bar(15), _bar(16)], calendar="XNYS")
    assert summary.refused == {"session": 2}
    assert _counts(summary) == (2, 0, 0, 2)


def test_times_off_the_timeframe_s_grid_are_refused(database: Database) -> None:
    times = ["2024-01-02 10:00", "2024-01-02 10:05", "2024-01-02 10:07", "2024-01-02 10:10:01"]
    rows = [_bar(ts=ts) for ts in times]
    summary = _ingest(database, rows, timeframe=Timeframe.M5)
    assert summary.refused == {"timeframe_multiple": 2}
    assert [row["ts"].minute for row in database.fetch(_CANDLES)] == [0, 5]


def test_weeks_begin_on_monday(database: Database) -> None:
    summary = _ingest(database, [_bar(1), _bar(8), _bar(9)], timeframe=Timeframe.W1)
    assert summary.refused == {"timeframe_multiple": 1}
    assert summary.inserted == 2


def test_duplicate_keys(database: Database) -> None:
    rows = [
        _bar(2),
        _bar(2),
        _bar(3),
        _bar(3, close="11.5"),
        _bar(3),
        _bar(4),
        _bar(4, close="nil"),
    ]
    summary = _ingest(database, rows)
    assert summary.refused == {"duplicate_key": 3, "number_missing": 1}
    assert _counts(summary) == (2, 0, 1, 4)
    assert summary.rows_in == 7


def test_the_same_rows_again_are_not_written(database: Database) -> None:
    rows = [_bar(day, vwap="10.5") for day in (2, 3, 4)]
    first = _ingest(database, rows)
    before = database.fetch(_VERSIONS)
    second = _ingest(database, rows)
    assert _counts(first) == (3, 0, 0, 0)
    assert _counts(second) == (0, 0, 3, 0)
    assert database.fetch(_VERSIONS) == before
    assert database.fetch("SELECT * FROM candle_revisions") == []


def test_a_correction_keeps_what_it_replaces(database: Database) -> None:
    _ingest(database, [_bar(2), _bar(3)], source="first")
    before = database.fetch("SELECT recorded_at FROM candles WHERE ts = '2024-01-03'")[0]
    summary = _ingest(database, [_bar(2), _bar(3, close="11.5")], source="second")
    assert _counts(summary) == (0, 1, 1, 0)
    after = database.fetch("SELECT c, source, recorded_at FROM candles ORDER BY ts")
    assert [(row["c"], row["source"]) for row in after] == [(11, "first"), (11.5, "second")]
    kept = database.fetch(
        "SELECT ts, c, source, recorded_at, replaced_at, reason FROM candle_revisions"
    )
    assert kept == [
        {
            "ts": datetime(2024, 1, 3, tzinfo=UTC), "c": 11, "source": "first",
            "recorded_at": before["recorded_at"], "replaced_at": after[1]["recorded_at"],
            "reason": "corrected",
        }
    ]  # fmt: skip
    assert after[1]["recorded_at"] > before["recorded_at"]


def test_missing_values_are_compared_too_and_absent_columns_left_alone(database: Database) -> None:
    assert _ingest(database, [_bar(2, vwap=None)]).inserted == 1
    assert _ingest(database, [_bar(2, vwap="10.5")]).corrected == 1
    assert _ingest(database, [_bar(2)]).unchanged == 1
    assert database.fetch("SELECT vwap FROM candles") == [{"vwap": 10.5}]
    assert _ingest(database, [_bar(2, vwap="nil")]).corrected == 1
    assert _ingest(database, [_bar(2, vwap="")]).unchanged == 1
    assert database.fetch("SELECT vwap FROM candles") == [{"vwap": None}]
    assert database.fetch("SELECT vwap FROM candle_revisions ORDER BY replaced_at") == [
        {"vwap": None}, {"vwap": 10.5},
    ]  # fmt: skip


_ROWS = st.lists(
    st.builds(
        lambda symbol, day, close: _bar(day, symbol=symbol, close=str(close)),
        st.sampled_from(["AAA", "BBB", "CCC", "no symbol"]),
        st.integers(2, 12),
        st.sampled_from([9.5, 11, 13]),  # the last lies above the high
    ),
    unique_by=lambda row: (row["symbol"], row["ts"]),
    min_size=1,
    max_size=20,
)


# Without shrinking: an example costs a second, and is small as it is.
@settings(
    max_examples=5,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=_ROWS, data=st.data())
def test_any_order_and_partition_gives_the_same_candles(
    database: Database, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))
    repeated = shuffled + data.draw(st.lists(st.sampled_from(rows), max_size=4))
    cut = data.draw(st.integers(0, len(repeated)))
    tables = []
    for parts in ([rows], [repeated[:cut], repeated[cut:]]):
        database.execute("TRUNCATE candles, candle_revisions, instruments CASCADE")
        for part in filter(None, parts):
            _ingest(database, part)
        tables.append(database.fetch(_CANDLES))
        assert database.fetch("SELECT * FROM candle_revisions") == []
    assert tables[0] == tables[1]
    assert len(tables[0]) == sum(
        row["symbol"] != "no symbol" and row["close"] != "13" for row in rows
    )


def test_instruments_are_created_with_the_calendar_and_keep_it(database: Database) -> None:
    _ingest(database, [_bar(2)], calendar="XNYS")
    _ingest(database, [_bar(2, symbol="BTC")])
    _ingest(database, [_bar(3), _bar(6), _bar(6, symbol="BTC")])
    known = {row["symbol"]: row["calendar"] for row in database.fetch("SELECT * FROM instruments")}
    assert known == {"AAA": "XNYS", "BTC": "24/7"}
    assert len(database.fetch(_CANDLES)) == 4
    with pytest.raises(UsageError, match="AAA is registered with calendar XNYS, and 24/7 is given"):
        _ingest(database, [_bar(4)], calendar="24/7")


def test_rows_that_are_all_refused_create_no_instrument(database: Database) -> None:
    assert _ingest(database, [_bar(2, open="nil")]).quarantined == 1
    assert database.fetch("SELECT * FROM instruments") == []
    batch = database.fetch("SELECT status, quarantined, range FROM ingest_batches")[0]
    assert batch == {"status": "COMPLETED", "quarantined": 1, "range": None}


@pytest.mark.parametrize(
    ("ts", "calendar"),
    [
        ("2024-07-02 00:00:00-04:00", None),
        ("2024-07-02 04:00:00+00:00", "XNYS"),
        ("2024-07-02T00:00:00Z", "XNYS"),
        ("1719878400", "XNYS"),
        ("1719878400000", None),
    ],
)
def test_daily_bars_carry_their_session_s_date(
    database: Database, ts: str, calendar: str | None
) -> None:
    assert _ingest(database, [_bar(ts=ts)], calendar=calendar).inserted == 1
    assert database.fetch(_CANDLES)[0]["ts"] == datetime(2024, 7, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-01-02", "2024-01-02 10:05", "2024-01-02 10:10"], r"^row 2 has .* 10:05.*--tf 5m fits"),
        (["2024-01-02 05:00Z", "2024-01-03 05:00Z"], r"--calendar XNYS"),
        (["2024-01-02 10:00:01", "2024-01-02 10:05"], r"no --tf fits"),
    ],
)  # fmt: skip
def test_daily_bars_with_times_within_the_day_fail_as_a_whole(
    database: Database, times: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        _ingest(database, [_bar(ts=ts) for ts in times])
    assert database.fetch(_CANDLES) == database.fetch("SELECT * FROM quarantine") == []
    assert database.fetch("SELECT * FROM instruments") == []
    batch = database.fetch("SELECT status, error, finished_at FROM ingest_batches")[0]
    assert batch["status"] == "FAILED"
    assert batch["error"].startswith("DataError: row ")
    assert batch["finished_at"] is not None


def test_local_times_need_a_zone(database: Database) -> None:
    rows = [_bar(ts=ts) for ts in ("2024-03-10 01:00", "2024-03-10 02:30", "2024-03-10 03:00")]
    summary = _ingest(database, rows, timeframe=Timeframe.M15, tz="America/New_York")
    assert summary.refused == {"time_ambiguous": 1}
    assert [row["ts"].hour for row in database.fetch(_CANDLES)] == [6, 7]


def test_a_symbol_for_all_rows(database: Database) -> None:
    frame = pl.DataFrame([_bar(2)]).drop("symbol")
    assert _ingest(database, frame, symbol="BRK.B").inserted == 1
    assert database.fetch(_CANDLES)[0]["symbol"] == "BRK.B"
    with pytest.raises(UsageError, match="is no symbol"):
        _ingest(database, frame, symbol="a b")
    with pytest.raises(UsageError, match="the file has it too"):
        _ingest(database, [_bar(2)], symbol="AAA")
    with pytest.raises(DataError, match=r"recognized as symbol.*--symbol"):
        _ingest(database, frame)
    with pytest.raises(UsageError, match="no calendar"):
        _ingest(database, frame, symbol="AAA", calendar="XNYZ")


def test_progress_is_complete_only_after_the_commit(database: Database) -> None:
    told: list[tuple[int, int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total, len(database.fetch(_CANDLES))))

    _ingest(database, [_bar(2), _bar(3)], progress=progress)
    assert told == [(0, 2, 0), (2, 2, 2)]


def test_two_that_ingest_the_same_rows_at_once_both_succeed(database: Database) -> None:
    rows = [_bar(day, symbol=symbol) for day in range(2, 12) for symbol in ("AAA", "BBB", "CCC")]
    with ThreadPoolExecutor(2) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        both = [pool.submit(_ingest, database, part) for part in (rows, rows[::-1])]
        _wait_for_blocked(database, 2)
        holder.rollback()
        summaries = [one.result() for one in both]
    assert sorted(_counts(summary) for summary in summaries) == [(0, 0, 30, 0), (30, 0, 0, 0)]
    assert len(database.fetch(_CANDLES)) == 30
    assert database.fetch("SELECT * FROM candle_revisions") == []


def test_a_calendar_that_another_batch_sets_meanwhile_is_noticed(database: Database) -> None:
    with ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol, calendar) VALUES ('AAA', 'XNYS')")
        late = pool.submit(_ingest, database, [_bar(6)])
        _wait_for_blocked(database, 1)
        holder.commit()
        with pytest.raises(UsageError, match="nothing was taken in; run it again"):
            late.result()
    assert database.fetch(_CANDLES) == []


def test_a_broken_connection_leaves_nothing_and_the_next_run_heals(database: Database) -> None:
    rows = [_bar(2), _bar(3), _bar(4, open="nil")]
    with ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        broken = pool.submit(_ingest, database, rows)
        (pid,) = _wait_for_blocked(database, 1)
        database.fetch("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(ServerUnreachable) as caught:
            broken.result()
        holder.rollback()
    assert caught.value.retryable
    assert database.fetch(_CANDLES) == database.fetch("SELECT * FROM quarantine") == []
    assert database.fetch("SELECT status FROM ingest_batches") == [{"status": "FAILED"}]
    assert _counts(_ingest(database, rows)) == (2, 0, 0, 1)


_KILLED = """
import os, signal, sys
import polars as pl
from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles
from hyperfeast.types import Timeframe

def killed(done, rows):
    os.kill(os.getpid(), signal.SIGKILL)

ingest_candles(
    Database(sys.argv[1]), pl.read_json(sys.stdin.buffer), timeframe=Timeframe.D1, source="test",
    progress=killed,
)
"""


def test_a_killed_batch_is_failed_by_the_next_and_one_that_lives_is_not(database: Database) -> None:
    frame = pl.DataFrame([_bar()])
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, database.dsn],
        input=frame.write_json().encode(),
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    batches = "SELECT status, error FROM ingest_batches ORDER BY started_at"
    running = {"status": "RUNNING", "error": None}
    assert database.fetch(batches) == [running]

    failed = {"status": "FAILED", "error": "the process ended before it was finished"}
    completed = {"status": "COMPLETED", "error": None}
    with ThreadPoolExecutor(1) as pool, database.connect() as holder:
        holder.execute("INSERT INTO instruments (symbol) VALUES ('AAA')")
        living = pool.submit(_ingest, database, frame)
        _wait_for_blocked(database, 1)
        _ingest(database, [_bar(symbol="BBB")])
        assert database.fetch(batches) == [failed, running, completed]
        holder.rollback()
        assert _counts(living.result()) == (1, 0, 0, 0)
    assert database.fetch(batches) == [failed, completed, completed]


def _wait_for_blocked(database: Database, sessions: int) -> list[int]:
    """The server processes that wait for a lock, once there are that many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        blocked = database.fetch(
            "SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
        )
        if len(blocked) == sessions:
            return [row["pid"] for row in blocked]
        threading.Event().wait(0.05)
    raise AssertionError(f"no {sessions} sessions wait for a lock")


def _sample(name: str) -> Path:
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "_data" / name


def test_real_stocks(database: Database) -> None:
    frame = read_file(_sample("stocks.csv.gz"))
    first = _ingest(database, frame, calendar="XNYS", source="stocks.csv.gz")
    assert _counts(first) == (12_154, 0, 0, 0)
    assert _counts(_ingest(database, frame, source="stocks.csv.gz")) == (0, 0, 12_154, 0)
    rows = database.fetch(
        "SELECT c, v, source FROM candles WHERE symbol = 'AAPL' ORDER BY ts LIMIT 1"
    )
    assert rows == [{"c": 130.31, "v": 9_616_100, "source": "stocks.csv.gz"}]
    assert {row["symbol"] for row in database.fetch("SELECT symbol FROM instruments")} == {
        "AAPL", "FB", "GOOG", "IBM", "MSFT",
    }  # fmt: skip
    batch = database.fetch("SELECT * FROM ingest_batches ORDER BY started_at LIMIT 1")[0]
    assert (batch["status"], batch["rows_in"], batch["tf"]) == ("COMPLETED", 12_154, "1d")
    assert batch["range"].lower == datetime(2000, 3, 1, tzinfo=UTC)
