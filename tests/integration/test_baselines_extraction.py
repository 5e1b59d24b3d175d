"""Baselines from readings in the database: extraction, comparison, and the current windows of all users."""

import random
import re
import statistics
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast import clock
from hyperfeast.aggregates import refresh
from hyperfeast.baselines import BaselineExtractor, compare, extract, refresh_windows
from hyperfeast.baselines.readings import last_day
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import DataError, NoData, UsageError
from hyperfeast.sqlfiles import query

USER, OTHER = UUID("0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47"), UUID(int=2)
DAY = date(2024, 4, 10)
END = datetime(2024, 4, 10, tzinfo=UTC)
_WINDOWS = (
    "SELECT user_id, metric, source, as_of, n, mean, std, days_present, confidence "
    "FROM user_baseline_windows ORDER BY 1, 2, 3"
)
Row = tuple[UUID, str, str, datetime, float]


def store(database: Database, rows: list[Row], recorded_at: datetime | None = None) -> None:
    frame = pl.DataFrame(
        [(str(user), *rest) for user, *rest in rows],
        schema=["user_id", "metric", "source", "ts", "value"],
        orient="row",
    )
    if recorded_at:
        frame = frame.with_columns(recorded_at=pl.lit(recorded_at))
    with database.connect() as connection:
        copy_frame(connection, "user_baseline_raw", frame)


def some_rows(seed: int, users: int = 3) -> list[Row]:
    """Two metrics and two devices, with gaps, over eighty days around a change of clocks."""
    rng = random.Random(seed)
    return [
        (UUID(int=user + 1), metric, source, END - timedelta(days=back, seconds=-second), rng.gauss(90, 12))
        for user in range(users)
        for metric in ("pulse", "steps")
        for source in ("ring", "watch")
        for back in range(-5, 75)
        if rng.random() < 0.6
        for second in rng.sample(range(86_400), rng.randint(1, 3))
    ]  # fmt: skip


def windows(database: Database) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in database.fetch(_WINDOWS)]


def naive_windows(rows: list[Row], day: date) -> list[tuple[Any, ...]]:
    end = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found: dict[tuple[UUID, str, str], list[tuple[datetime, float]]] = {}
    for user, metric, source, ts, value in rows:
        if end - timedelta(days=30) <= ts < end:
            found.setdefault((user, metric, source), []).append((ts, value))
    expected = []
    for key, readings in sorted(found.items()):
        values = [value for _, value in readings]
        days = len({ts.date() for ts, _ in readings})
        std = statistics.stdev(values) if len(values) > 1 else None
        expected.append((*key, end, len(values), statistics.mean(values), std, days, days / 30))
    return expected


def test_the_extractor_reads_the_window_and_nothing_else(database: Database) -> None:
    rows = some_rows(1)
    store(database, rows)
    made = BaselineExtractor(database, time_zone="Europe/Berlin").extract(UUID(int=1), DAY)
    own = pl.DataFrame(
        [row[1:] for row in rows if row[0] == UUID(int=1) and row[3] < END],
        schema=["metric", "source", "ts", "value"],
        orient="row",
    )
    assert made.known_at is not None
    assert made == extract(own, DAY, known_at=made.known_at, time_zone="Europe/Berlin")
    assert set(made.metrics) == {"pulse", "steps"}
    assert made.as_of == END


def test_what_was_known_then_is_what_is_counted(database: Database) -> None:
    rows = [
        (USER, "pulse", "ring", END - timedelta(hours=hour), 60.0 + hour % 7)
        for hour in range(1, 500)
    ]
    learned = END + timedelta(minutes=1)
    store(database, rows, recorded_at=learned)
    extractor = BaselineExtractor(database)
    before = extractor.extract(USER, DAY)
    store(database, [(USER, "pulse", "ring", END - timedelta(minutes=7), 500.0)])
    corrected = END - timedelta(hours=3)
    database.execute(
        "INSERT INTO user_baseline_revisions (user_id, metric, source, ts, value, recorded_at) "
        "SELECT user_id, metric, source, ts, value, recorded_at FROM user_baseline_raw WHERE ts = %s",
        [corrected],
    )
    database.execute(
        "UPDATE user_baseline_raw SET value = 300, recorded_at = clock_timestamp() WHERE ts = %s",
        [corrected],
    )
    after = extractor.extract(USER, DAY)
    then = extractor.extract(USER, DAY, known_at=learned)
    assert then.metrics == before.metrics
    assert after.metrics["pulse"].n == before.metrics["pulse"].n + 1
    assert after.metrics["pulse"].mean > before.metrics["pulse"].mean

    first = last = DAY - timedelta(days=1)
    (known,) = compare(database, USER, first=first, last=last, as_known=False)
    assert known.days[0].value == pytest.approx(after.metrics["pulse"].days[-1].mean)
    with pytest.raises(NoData, match="was known when its day ended"):
        compare(database, USER, first=first, last=last, as_known=True)


def test_users_and_days_without_readings_are_named(database: Database) -> None:
    with pytest.raises(
        NoData, match=f"user {USER} has no reading in the 30 days before 2024-04-10"
    ):
        BaselineExtractor(database).extract(USER, DAY)
    with pytest.raises(NoData, match="has no reading: take some in"):
        last_day(database, USER)
    store(database, [(USER, "pulse", "ring", END, 60.0)])
    assert last_day(database, USER) == DAY
    with pytest.raises(NoData, match="no reading of steps from"):
        compare(database, USER, first=DAY, last=DAY, metric="steps")


def test_what_is_yet_to_come_is_refused(database: Database) -> None:
    tomorrow = clock.now() + timedelta(days=1)
    calls = [
        lambda: BaselineExtractor(database).extract(USER, tomorrow.date()),
        lambda: BaselineExtractor(database).extract(USER, DAY, known_at=tomorrow),
        lambda: refresh_windows(database, day=tomorrow.date()),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="is yet to come"):
            call()
    with pytest.raises(UsageError, match="days that have begun"):
        compare(database, USER, first=DAY, last=tomorrow.date())


def test_mixed_up_units_are_refused_and_declared_ones_converted(database: Database) -> None:
    rows = [
        (USER, "glucose", source, END - timedelta(hours=hour), level + hour % 3 * level / 50)
        for hour in range(1, 200)
        for source, level in (("cgm", 110.0), ("strips", 6.1))
    ]
    store(database, rows)
    with pytest.raises(DataError, match="glucose by strips cannot be mg/dL and look like mmol/L"):
        BaselineExtractor(database).extract(USER, DAY)
    with pytest.raises(DataError, match="look like mmol/L"):
        compare(database, USER, first=DAY - timedelta(days=1), last=DAY)
    units = {"glucose/strips": "mmol/L"}
    found = BaselineExtractor(database, units=units).extract(USER, DAY).metrics["glucose"]
    assert [one.mean for one in found.segments] == pytest.approx([112, 112], abs=1)
    assert found.unit == "mg/dL"


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.booleans())
def test_the_windows_of_all_equal_the_naive_ones(
    database: Database, seed: int, refreshed: bool
) -> None:
    """From aggregates that are up to date and from dirty ones; late rows change what they touch."""
    database.execute("DELETE FROM user_baseline_raw")
    database.execute("DELETE FROM user_baseline_windows")
    rows = some_rows(seed)
    late, on_time = rows[::11], [row for number, row in enumerate(rows) if number % 11]
    store(database, on_time)
    if refreshed:
        refresh(database)
    refresh_windows(database, day=DAY)
    assert windows(database) == naively(on_time)
    store(database, late)
    for user in {row[0] for row in late}:
        refresh_windows(database, day=DAY, user_id=user)
    assert windows(database) == naively(rows)
    by_one = windows(database)
    database.execute("DELETE FROM user_baseline_windows")
    refresh_windows(database, day=DAY)
    assert windows(database) == by_one, (
        "one user at a time or all at once: the same to the last bit"
    )


def naively(rows: list[Row]) -> list[Any]:
    return [
        tuple(pytest.approx(one, rel=1e-12) if isinstance(one, float) else one for one in row)
        for row in naive_windows(rows, DAY)
    ]


def test_a_refresh_writes_what_changed_and_drops_what_ended(database: Database) -> None:
    store(database, some_rows(5))
    store(database, [(OTHER, "weight", "scale", END - timedelta(days=29), 70.0)])
    (first, *_) = refresh_windows(database, day=DAY, metric="pulse")
    assert (first.metric, first.series, first.written, first.emptied) == ("pulse", 6, 6, 0)
    (again,) = refresh_windows(database, day=DAY, metric="pulse")
    assert again.written == 0
    done = {one.metric: one for one in refresh_windows(database, day=DAY)}
    assert done["weight"].series == 1
    refresh_windows(database, day=DAY + timedelta(days=5))
    assert not [row for row in windows(database) if row[1] == "weight"]
    later = windows(database)
    refresh_windows(database, day=DAY, metric="pulse")
    assert windows(database) == later, "an older day overwrites nothing"


def test_one_reading_reads_its_window_by_the_index(database: Database) -> None:
    """However long the history and however many the users: bounded rows, and no scan of a table."""
    store(database, some_rows(6, users=40))
    refresh(database)
    database.execute("ANALYZE")
    span = {
        "metric": "pulse",
        "since": END - timedelta(days=30),
        "as_of": END,
        "user_id": UUID(int=3),
    }
    with database.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "
            + query("baselines", "refresh_windows"),
            span,
            prepare=False,
        ).fetchall()
    lines = [str(line["QUERY PLAN"]) for line in plan]
    (kept,) = [n for n, line in enumerate(lines) if "user_baseline_daily_kept" in line]
    below = " ".join(lines[kept : kept + 4])
    assert "user_baseline_daily_key" in below, lines
    assert re.search(r"Index Cond: .*user_id = .*metric = .*day >= .*day < ", below), below
    rows = re.search(r"rows=(\d+)", lines[kept])
    assert rows is not None
    assert int(rows[1]) <= 2 * 30


def test_on_timescaledb(migrated_community: Database) -> None:
    rows = some_rows(8, users=1)
    store(migrated_community, rows)
    refresh_windows(migrated_community, day=DAY)
    assert windows(migrated_community) == naively(rows)
    made = BaselineExtractor(migrated_community).extract(UUID(int=1), DAY)
    assert made.metrics["pulse"].days_present > 10
