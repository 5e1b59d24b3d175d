"""Readings into `user_baseline_raw`."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import DataError, UsageError
from hyperfeast.ingest import IngestSummary, ingest_metrics, read_file

_USER = UUID("0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47")
_READINGS = "SELECT user_id, metric, source, ts, value FROM user_baseline_raw ORDER BY ts, user_id"


def _reading(minute: int = 0, **cells: Any) -> dict[str, Any]:
    reading = {
        "user": str(_USER), "metric": "heart_rate", "ts": f"2024-01-02 10:{minute:02}", "value": "60",
        "device": "watch",
    }  # fmt: skip
    return reading | cells


def _ingest(database: Database, rows: list[dict[str, Any]], **options: Any) -> IngestSummary:
    return ingest_metrics(database, pl.DataFrame(rows), source="test", **options)


def _counts(summary: IngestSummary) -> tuple[int, int, int, int]:
    return summary.inserted, summary.corrected, summary.unchanged, summary.quarantined


@pytest.mark.parametrize(
    ("rule", "cells"),
    [
        ("user_id_format", {"user": "bob"}),
        ("user_id_format", {"user": None}),
        ("metric_format", {"metric": "Heart Rate"}),
        ("metric_format", {"metric": "x'; DROP TABLE user_baseline_raw; --"}),
        ("metric_format", {"metric": "a" * 64}),
        ("source_format", {"device": "wa\0tch"}),
        ("source_format", {"device": ""}),
        ("time_missing", {"ts": "nil"}),
        ("time_range", {"ts": "1969-01-01"}),
        ("time_range", {"ts": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}),
        ("number_missing", {"value": "nil"}),
        ("finite", {"value": "1e999"}),
        ("duplicate_key", {"ts": "2024-01-02 10:00", "value": "60.5"}),
    ],
)
def test_a_reading_that_breaks_a_rule_goes_to_quarantine(
    database: Database, rule: str, cells: dict[str, Any]
) -> None:
    summary = _ingest(database, [_reading(0), _reading(1) | cells, _reading(2)])
    refused = 2 if rule == "duplicate_key" else 1
    assert summary.refused == {rule: refused}
    assert len(database.fetch(_READINGS)) == 3 - refused
    assert {row["rule"] for row in database.fetch("SELECT rule FROM quarantine")} == {rule}


def test_the_same_readings_again_are_not_written_and_others_correct(database: Database) -> None:
    rows = [_reading(minute) for minute in range(3)]
    assert _counts(_ingest(database, [*rows, rows[0]])) == (3, 0, 1, 0)
    versions = "SELECT xmin::text AS xmin, recorded_at FROM user_baseline_raw ORDER BY ts"
    before = database.fetch(versions)
    assert _counts(_ingest(database, rows[::-1])) == (0, 0, 3, 0)
    assert database.fetch(versions) == before
    assert _counts(_ingest(database, [_reading(0, value="61"), *rows[1:]])) == (0, 1, 2, 0)
    after = database.fetch(versions)
    assert after[1:] == before[1:]
    assert after[0]["recorded_at"] > before[0]["recorded_at"]
    assert [row["value"] for row in database.fetch(_READINGS)] == [61, 60, 60]


def test_what_the_file_lacks_is_given(database: Database) -> None:
    rows = [{"time": "2024-07-01 12:00", "glucose": "100"}]
    _ingest(database, rows, user=str(_USER).upper(), metric="glucose", tz="Europe/Paris")
    assert database.fetch(_READINGS) == [
        {
            "user_id": _USER, "metric": "glucose", "source": "unknown",
            "ts": datetime(2024, 7, 1, 10, tzinfo=UTC), "value": 100,
        }
    ]  # fmt: skip
    with pytest.raises(UsageError, match="'bob' is no user_id: expected a UUID"):
        _ingest(database, rows, user="bob", metric="glucose")
    with pytest.raises(UsageError, match="is no metric"):
        _ingest(database, rows, user=_USER, metric="Glucose!")
    with pytest.raises(DataError, match=r"recognized as value; the file has time, glucose"):
        _ingest(database, rows, user=_USER, metric="sugar")
    with pytest.raises(UsageError, match="metric is given, and the file has it too"):
        _ingest(database, [_reading()], metric="heart_rate")


def test_devices_are_told_apart(database: Database) -> None:
    rows = [_reading(0), _reading(0, device="ring", value="61")]
    assert _counts(_ingest(database, rows)) == (2, 0, 0, 0)


def test_many_at_once_have_one_effect(database: Database) -> None:
    rows = [_reading(minute) for minute in range(50)]
    with ThreadPoolExecutor(4) as pool:
        parts = [rows, rows[::-1], rows[10:40], rows]
        summaries = list(pool.map(lambda part: _ingest(database, part), parts))
    assert sum(summary.inserted for summary in summaries) == 50
    assert sum(summary.corrected for summary in summaries) == 0
    assert len(database.fetch(_READINGS)) == 50


def test_real_glucose(database: Database) -> None:
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    assert spec.origin is not None
    frame = read_file(Path(spec.origin).parent / "_data" / "CGM.csv.gz")
    told: list[tuple[int, int]] = []
    summary = ingest_metrics(
        database, frame, source="CGM.csv.gz", user=_USER, metric="glucose",
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert _counts(summary) == (52_275, 0, 0, 6)
    assert summary.refused == {"duplicate_key": 6}
    assert told == [(0, 52_281), (52_281, 52_281)]
    times = database.fetch("SELECT DISTINCT row ->> 'datetime' AS time FROM quarantine ORDER BY 1")
    assert [row["time"] for row in times] == [
        "2010-05-20 03:21:00", "2010-06-19 18:12:00", "2010-08-13 06:41:00",
    ]  # fmt: skip
    # Another reading of the same sensor says "nil" where it has none: each such row is refused.
    current = ingest_metrics(
        database, frame, source="CGM.csv.gz", user=_USER, metric="isig", columns={"value": "isig"}
    )
    nil = frame["isig"].is_in(["nil"]).sum()
    assert nil > 0
    assert current.refused["number_missing"] == nil
    assert current.inserted == frame.height - current.quarantined
