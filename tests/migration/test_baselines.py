"""user_baseline_30d against the plainest computation that there is, on every edition at hand."""

import math
import random
import statistics
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hyperfeast.db import Database

SEED = 20_240_310
FIRST_DAY = datetime(2024, 2, 1, tzinfo=UTC)  # the clocks of New York change within the days
DAYS = 80

Key = tuple[UUID, str, str]
Reading = tuple[datetime, float]


@pytest.mark.parametrize("edition", ["database", "migrated_community"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_equals_the_naive_computation(
    edition: str, zone: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(edition)
    readings = _random_readings()
    _insert(database, readings)

    with database.connect() as connection:
        connection.execute("SELECT set_config('timezone', %s, true)", [zone])
        rows = connection.execute("SELECT * FROM user_baseline_30d").fetchall()
    found = {
        (row["user_id"], row["metric"], row["source"], row["as_of"]): (
            row["mean"],
            math.nan if row["std"] is None else row["std"],
            row["n"],
            row["days_present"],
            row["confidence"],
        )
        for row in rows
    }
    expected = {
        (*key, day + timedelta(days=1)): _naive(series, day)
        for key, series in readings.items()
        for day in {_day(ts) for ts, _ in series}
    }

    assert found.keys() == expected.keys()
    assert len(found) > 300
    assert any(0 < days < 20 for *_, days, _ in expected.values())
    for key, numbers in expected.items():
        assert found[key] == pytest.approx(numbers, rel=1e-9, nan_ok=True), (SEED, key)


def test_one_reading_has_no_deviation(database: Database) -> None:
    _insert(database, {(UUID(int=1), "steps", "watch"): [(FIRST_DAY, 5.0)]})

    (row,) = database.fetch("SELECT * FROM user_baseline_30d")
    assert (row["n"], row["mean"], row["std"], row["days_present"]) == (1, 5.0, None, 1)


def _random_readings() -> dict[Key, list[Reading]]:
    """Two users, two metrics, two devices; on three days of ten nothing, and long gaps."""
    rng = random.Random(SEED)
    readings: dict[Key, list[Reading]] = defaultdict(list)
    for user in (1, 2):
        for metric in ("glucose", "pulse"):
            for source in ("ring", "watch"):
                gap = range(start := rng.randrange(DAYS), start + 20)
                for day in range(DAYS):
                    if day in gap or rng.random() < 0.3:
                        continue
                    seconds = rng.sample(range(86_400), rng.randint(1, 6))
                    readings[UUID(int=user), metric, source] += [
                        (FIRST_DAY + timedelta(days=day, seconds=second), rng.gauss(100, 15))
                        for second in seconds
                    ]
    return readings


def _naive(series: list[Reading], day: datetime) -> tuple[Any, ...]:
    window = [(ts, value) for ts, value in series if day - timedelta(days=29) <= _day(ts) <= day]
    values = [value for _, value in window]
    days = len({_day(ts) for ts, _ in window})
    std = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), std, len(values), days, days / 30


def _day(ts: datetime) -> datetime:
    return ts.replace(hour=0, minute=0, second=0, microsecond=0)


def _insert(database: Database, readings: dict[Key, list[Reading]]) -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_baseline_raw (user_id, metric, source, ts, value) "
            "VALUES (%s, %s, %s, %s, %s)",
            [(*key, *reading) for key, series in readings.items() for reading in series],
        )
