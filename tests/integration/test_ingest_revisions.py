"""Revisions: published before or after each other, arriving in any order, kept when they are replaced."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hyperfeast.db import Database
from hyperfeast.ingest import IngestSummary, ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe

_SERVED = "SELECT symbol, ts, o, h, l, c, v, published_at FROM candles ORDER BY symbol, ts"
_PHYSICAL = "SELECT ctid::text, xmin::text, xmax::text, recorded_at FROM candles ORDER BY ctid"
_KEPT = (
    "SELECT c, published_at, recorded_at = replaced_at AS at_once, reason "
    "FROM candle_revisions ORDER BY c"
)
_COLUMNS = {"symbol": pl.String, "ts": pl.String, "close": pl.Float64, "published_at": pl.String}


def _bars(*rows: tuple[str, int, float, str | None]) -> pl.DataFrame:
    """Bars of days of January 2024: symbol, day, close, and when they were published."""
    frame = pl.DataFrame(
        [(symbol, f"2024-01-{day:02}", close, stamp) for symbol, day, close, stamp in rows],
        schema=_COLUMNS,
        orient="row",
    )
    return frame.with_columns(open=10.0, high=20.0, low=5.0, volume=100.0)


def _ingest(database: Database, frame: pl.DataFrame) -> IngestSummary:
    return ingest_candles(database, frame, timeframe=Timeframe.D1, source="test")


def _counts(summary: IngestSummary) -> tuple[int, int, int, int]:
    return summary.inserted, summary.corrected, summary.unchanged, summary.quarantined


def test_an_older_revision_that_comes_later_is_kept_and_not_served(database: Database) -> None:
    older, newer = ("AAA", 2, 11.0, "2024-01-03T10:00Z"), ("AAA", 2, 12.0, "2024-01-04T10:00Z")
    assert _counts(_ingest(database, _bars(newer))) == (1, 0, 0, 0)
    before = database.fetch(_PHYSICAL)
    for _ in range(2):
        assert _counts(_ingest(database, _bars(older))) == (0, 0, 1, 0)
    assert database.fetch(_PHYSICAL) == before
    assert database.fetch(_KEPT) == [
        {
            "c": 11, "published_at": datetime(2024, 1, 3, 10, tzinfo=UTC), "at_once": True,
            "reason": "outdated",
        }
    ]  # fmt: skip


def test_a_newer_revision_replaces_an_older_one_also_with_equal_values(database: Database) -> None:
    stamps = ["2024-01-03", "2024-01-04"]
    for stamp in stamps:
        _ingest(database, _bars(("AAA", 2, 11.0, stamp)))
    assert _counts(_ingest(database, _bars(("AAA", 2, 11.0, stamps[1])))) == (0, 0, 1, 0)
    assert [row["published_at"].day for row in database.fetch(_SERVED)] == [4]
    assert [row["published_at"].day for row in database.fetch(_KEPT)] == [3]


def test_without_a_stamp_the_last_to_arrive_is_served(database: Database) -> None:
    _ingest(database, _bars(("AAA", 2, 11.0, "2024-01-05")))
    assert _counts(_ingest(database, _bars(("AAA", 2, 11.0, None)))) == (0, 0, 1, 0)
    assert _counts(_ingest(database, _bars(("AAA", 2, 12.0, "")))) == (0, 1, 0, 0)
    assert [(row["c"], row["published_at"]) for row in database.fetch(_SERVED)] == [(12, None)]
    bare = _bars(("AAA", 2, 13.0, None)).drop("published_at")
    assert _counts(_ingest(database, bare)) == (0, 1, 0, 0)
    assert _counts(_ingest(database, _bars(("AAA", 2, 14.0, "2024-01-03")))) == (0, 1, 0, 0)
    assert [row["c"] for row in database.fetch(_SERVED)] == [14]
    assert [row["c"] for row in database.fetch(_KEPT)] == [11, 12, 13]


def test_of_two_revisions_in_one_batch_the_newest_is_served(database: Database) -> None:
    rows = [("AAA", 2, 11.0, "2024-01-03"), ("AAA", 2, 12.0, "2024-01-04")]
    assert _counts(_ingest(database, _bars(*rows))) == (1, 0, 1, 0)
    assert [row["c"] for row in database.fetch(_SERVED)] == [12]


@pytest.mark.parametrize("stamp", ["soon", "1969-01-01", "2999-01-01"])
def test_a_stamp_that_is_none_is_refused(database: Database, stamp: str) -> None:
    rows = [("AAA", 2, 11.0, stamp), ("AAA", 3, 11.0, "nil")]
    summary = _ingest(database, _bars(*rows))
    assert (summary.refused, summary.inserted) == ({"published_at": 1}, 1)


_STAMPED = st.lists(
    st.builds(
        lambda symbol, day, stamp, close: (symbol, day, close, f"2024-02-{stamp:02}"),
        st.sampled_from(["AAA", "BBB"]),
        st.integers(2, 4),
        st.integers(1, 5),
        st.sampled_from([9.0, 11.0]),
    ),
    unique_by=lambda row: (row[0], row[1], row[3]),
    min_size=1,
    max_size=10,
)
_UNSTAMPED = st.lists(
    st.builds(
        lambda symbol, day, close: (symbol, day, close, None),
        st.sampled_from(["AAA", "BBB"]),
        st.integers(2, 6),
        st.sampled_from([9.0, 11.0]),
    ),
    unique_by=lambda row: row[:2],
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(
    max_examples=25,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=_STAMPED | _UNSTAMPED, data=st.data())
def test_any_order_and_repetition_of_batches_ends_in_the_same_candles(
    database: Database, rows: list[tuple[str, int, float, str | None]], data: st.DataObject
) -> None:
    ends = []
    for _ in range(2):
        database.execute("TRUNCATE candles, candle_revisions, instruments CASCADE")
        arriving = data.draw(st.permutations(rows))
        arriving += data.draw(st.lists(st.sampled_from(rows), max_size=3))
        while arriving:
            size = data.draw(st.integers(1, len(arriving)))
            assert _ingest(database, _bars(*arriving[:size])).quarantined == 0
            arriving = arriving[size:]
        ends.append(database.fetch(_SERVED))
    assert ends[0] == ends[1]
    newest = {row[:2]: row for row in sorted(rows, key=lambda row: row[3] or "")}
    assert [(row["symbol"], row["ts"].day, row["c"]) for row in ends[0]] == [
        row[:3] for _, row in sorted(newest.items())
    ]


def test_rows_that_are_there_are_not_even_touched(database: Database) -> None:
    rows = [("AAA", day, 11.0, "2024-02-01") for day in range(2, 30)]
    _ingest(database, _bars(*rows))
    before = database.fetch(_PHYSICAL)
    assert {row["xmax"] for row in before} == {"0"}
    assert _counts(_ingest(database, _bars(*rows))) == (0, 0, 28, 0)
    assert database.fetch(_PHYSICAL) == before


def test_new_and_changed_and_equal_bars_in_one_batch(database: Database) -> None:
    _ingest(database, _bars(*[("AAA", day, 11.0, None) for day in range(2, 10)]))
    batch = [("AAA", day, 11.0 if day < 6 else 12.0, None) for day in range(4, 12)]
    assert _counts(_ingest(database, _bars(*batch, ("BBB", 2, 9.0, None)))) == (3, 4, 2, 0)
    assert [row["c"] for row in database.fetch(_SERVED)] == [11] * 4 + [12] * 6 + [9]
    assert len(database.fetch(_KEPT)) == 4


def test_a_corrected_reading_stays_readable(database: Database) -> None:
    user = "0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47"
    for value in (60.0, 61.0, 61.0, 62.0):
        frame = pl.DataFrame({"ts": ["2024-01-02 10:00", "2024-01-02 10:01"], "value": [value, 50]})
        ingest_metrics(database, frame, source="test", user=user, metric="heart_rate")
    rows = database.fetch(
        "SELECT value, recorded_at, replaced_at, reason FROM user_baseline_revisions "
        "ORDER BY replaced_at"
    )
    assert [(row["value"], row["reason"]) for row in rows] == [(60, "corrected"), (61, "corrected")]
    served = database.fetch("SELECT recorded_at FROM user_baseline_raw WHERE value = 62")
    starts = [row["recorded_at"] for row in rows] + [served[0]["recorded_at"]]
    assert [row["replaced_at"] for row in rows] == starts[1:]
    assert starts == sorted(starts)


def test_rows_older_than_what_retention_dropped_are_refused(database: Database) -> None:
    database.execute(
        "INSERT INTO lifecycle_in_force (relation, tf, dropped_before) "
        "VALUES ('candles', '1d', '2024-01-08Z'), ('user_baseline_raw', '', '2024-01-08Z')"
    )
    summary = _ingest(database, _bars(("AAA", 7, 11.0, None), ("AAA", 8, 11.0, None)))
    assert (summary.refused, summary.inserted) == ({"retention": 1}, 1)
    weekly = _bars(("AAA", 1, 11.0, None))
    assert ingest_candles(database, weekly, timeframe=Timeframe.W1, source="test").inserted == 1
    frame = pl.DataFrame({"ts": ["2024-01-07 23:59", "2024-01-08 00:00"], "value": [60, 61]})
    readings = ingest_metrics(
        database, frame, source="test", metric="heart_rate",
        user="0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47",
    )  # fmt: skip
    assert (readings.refused, readings.inserted) == ({"retention": 1}, 1)


def test_what_the_gate_said_is_kept_with_the_batch(database: Database) -> None:
    good = _ingest(database, _bars(("AAA", 2, 11.0, None)))
    bad = _ingest(database, _bars(("AAA", 3, 11.0, None), ("AAA", 4, 99.0, None)))
    rows = database.fetch(
        'SELECT "check", scope, passed, observed, expectation, batch_id '
        "FROM data_quality_results ORDER BY ts"
    )
    assert [row.pop("expectation")["name"] for row in rows] == ["gate", "gate"]
    first: dict[str, Any] = {"check": "gate", "scope": "candles/1d", "batch_id": good.batch_id}
    assert rows == [
        first | {"passed": True, "observed": {"rows": 1, "refused": {}}},
        first
        | {
            "passed": False, "batch_id": bad.batch_id,
            "observed": {"rows": 2, "refused": {"high_is_highest": 1}},
        },
    ]  # fmt: skip


def test_prices_that_no_sum_could_hold_are_refused(database: Database) -> None:
    bar = _bars(("AAA", 2, 11.0, None))
    assert _ingest(database, bar.with_columns(high=1e13)).refused == {"magnitude": 1}
    assert _ingest(database, bar.with_columns(volume=1e19)).refused == {"magnitude": 1}
    assert _ingest(database, bar.with_columns(high=1e12, volume=1e18)).inserted == 1


def test_the_latest_stamp_may_run_a_little_ahead(database: Database) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert _ingest(database, _bars(("AAA", 2, 11.0, soon))).inserted == 1
