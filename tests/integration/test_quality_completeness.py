"""Completeness against exchange_calendars itself: exactly the bars that were dropped are listed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import exchange_calendars
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import QueryFailed, UsageError
from hyperfeast.quality import (
    Completeness,
    MissingRange,
    completeness,
    heal,
    metric_completeness,
    monthly_completeness,
    sync_calendars,
)
from hyperfeast.types import Timeframe

WEEKS = {
    "daylight saving begins": ("2024-03-07", "2024-03-13"),
    "daylight saving ends": ("2024-10-30", "2024-11-06"),
    "half days": ("2024-12-23", "2025-01-03"),
}
# Lunch breaks in Hong Kong and Tokyo; sessions that begin on the UTC day before in Chicago and Sydney.
CALENDARS = ("XNYS", "XHKG", "XTKS", "CMES", "XASX", "24/7")
USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
on_one_database = settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def moments(index: Any) -> list[datetime]:
    return [one.to_pydatetime().replace(tzinfo=UTC) for one in index]


def sessions(calendar: str, first: str, last: str) -> list[datetime]:
    return moments(exchange_calendars.get_calendar(calendar).sessions_in_range(first, last))


def intraday(calendar: str, first: str, last: str, width: str) -> list[datetime]:
    library = exchange_calendars.get_calendar(calendar)
    return moments(library.trading_index(first, last, width, intervals=False, closed="left"))


def put(database: Database, calendar: str, tf: str, opens: list[datetime]) -> None:
    """These bars of one instrument and no others."""
    frame = pl.DataFrame(
        {"symbol": "AAA", "tf": tf, "ts": opens, "o": 1.0, "h": 1.0, "l": 1.0, "c": 1.0, "v": 1.0},
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )
    with database.connect() as connection:
        connection.execute("TRUNCATE candles")
        connection.execute(
            "INSERT INTO instruments (symbol, calendar) VALUES ('AAA', %s) "
            "ON CONFLICT (symbol) DO UPDATE SET calendar = EXCLUDED.calendar",
            [calendar],
        )
        if opens:
            copy_frame(connection, "candles", frame)


def of_one(database: Database, tf: str, **bounds: Any) -> Completeness:
    (found,) = completeness(database, symbol="AAA", timeframe=Timeframe(tf), **bounds)
    return found


def listed(found: Completeness, grid: list[datetime]) -> list[datetime]:
    """The bars of the grid that lie in a missing range."""
    return [bar for bar in grid if any(one.since <= bar < one.until for one in found.missing)]


def assert_lists_what_is_dropped(
    database: Database, calendar: str, tf: str, grid: list[datetime], data: st.DataObject
) -> None:
    dropped = data.draw(st.lists(st.sampled_from(grid), unique=True, max_size=25).map(sorted))
    put(database, calendar, tf, sorted({*grid} - {*dropped}))
    found = of_one(database, tf, since=grid[0], until=grid[-1] + timedelta(microseconds=1))
    assert (found.expected, found.absent) == (len(grid), len(dropped))
    assert listed(found, grid) == dropped
    assert all(one.since in dropped and one.since < one.until for one in found.missing)
    assert all(a.until < b.since for a, b in zip(found.missing, found.missing[1:], strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("calendar", CALENDARS)
def test_exactly_what_is_dropped_is_listed(database: Database, calendar: str) -> None:
    grids = [("1d", sessions(calendar, "2023-12-01", "2025-01-31"))]
    grids += [("15m", intraday(calendar, *week, "15min")) for week in WEEKS.values()]

    @on_one_database
    @given(st.sampled_from(grids), st.data())
    def holds(series: tuple[str, list[datetime]], data: st.DataObject) -> None:
        assert_lists_what_is_dropped(database, calendar, *series, data)

    for tf, grid in grids:
        put(database, calendar, tf, grid)
        assert of_one(database, tf).missing == ()
    holds()


def test_bars_of_one_minute_on_a_half_day_with_a_lunch_break(database: Database) -> None:
    grid = intraday("XHKG", "2024-12-23", "2024-12-24", "1min")
    put(database, "XHKG", "1m", grid[:100] + grid[200:])
    found = of_one(database, "1m")
    assert (found.expected, found.present) == (len(grid), len(grid) - 100)
    assert listed(found, grid) == grid[100:200]


@pytest.mark.slow
@pytest.mark.parametrize("calendar", ["XNYS", "XASX"])
@pytest.mark.parametrize("tf", ["1h", "4h"])
def test_hours_are_cut_from_the_open_or_from_the_full_hour_as_the_bars_are(
    database: Database, calendar: str, tf: str
) -> None:
    hours = int(tf[0])
    from_open = intraday(calendar, "2024-02-01", "2024-05-31", tf)
    # The same minutes in buckets of the UTC grid, one level up.
    minutes = intraday(calendar, "2024-02-01", "2024-05-31", "1min")
    in_utc = sorted({one.replace(minute=0, hour=one.hour // hours * hours) for one in minutes})
    for grid in (from_open, in_utc):
        put(database, calendar, tf, [grid[0], *grid[3:]])
        found = of_one(database, tf)
        assert (found.expected, listed(found, grid)) == (len(grid), grid[1:3])


@pytest.mark.slow
@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
def test_weeks_begin_on_the_mondays_of_weeks_with_a_session(
    database: Database, calendar: str
) -> None:
    days = sessions(calendar, "2023-01-02", "2024-12-29")
    grid = sorted({day - timedelta(days=day.weekday()) for day in days})
    put(database, calendar, "1w", grid[:10] + grid[12:])
    found = of_one(database, "1w")
    assert (found.expected, listed(found, grid)) == (len(grid), grid[10:12])
    assert len(found.missing) == 1


@pytest.mark.slow
@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
def test_nothing_is_expected_before_the_listing_or_after_the_delisting(
    database: Database, calendar: str
) -> None:
    grid = sessions(calendar, "2024-01-10", "2024-03-20")
    put(database, calendar, "1d", grid)
    database.execute("UPDATE instruments SET listed_at = '2024-02-01', delisted_at = '2024-02-29'")
    found = of_one(
        database,
        "1d",
        since=datetime(2020, 1, 1, tzinfo=UTC),
        until=datetime(2025, 1, 1, tzinfo=UTC),
    )
    alive = [
        day
        for day in grid
        if datetime(2024, 2, 1, tzinfo=UTC) <= day < datetime(2024, 3, 1, tzinfo=UTC)
    ]
    assert (found.expected, found.missing) == (len(alive), ())


@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
@pytest.mark.parametrize("tf", ["15m", "1d", "1w"])
def test_what_has_not_closed_is_not_missing(database: Database, calendar: str, tf: str) -> None:
    put(database, calendar, tf, [])
    now = datetime.now(UTC)
    found = of_one(database, tf, since=now - timedelta(days=30), until=now + timedelta(days=200))
    assert found.absent == found.expected > 0
    last = found.missing[-1].until
    assert last <= now + (timedelta(hours=12) if tf == "1d" else timedelta(days=3) * (tf == "1w"))


def test_a_series_without_bars(database: Database) -> None:
    put(database, "XNYS", "1d", [])
    assert completeness(database) == []
    assert of_one(database, "1d").expected == 0
    found = of_one(database, "1d", since=datetime(2024, 1, 1, tzinfo=UTC))
    assert found.expected == found.absent > 200
    assert found.share == 0


def test_bars_off_the_calendar_fill_no_gap(database: Database) -> None:
    grid = sessions("XNYS", "2024-01-02", "2024-01-31")
    saturday = datetime(2024, 1, 6, tzinfo=UTC)
    put(database, "XNYS", "1d", [grid[0], saturday, grid[-1]])
    assert of_one(database, "1d").present == 2


def test_months_add_up(database: Database) -> None:
    grid = sessions("XNYS", "2024-01-02", "2024-03-28")
    put(database, "XNYS", "1d", grid[:30] + grid[33:])
    whole = of_one(database, "1d")
    months = monthly_completeness(database, [("AAA", "1d")])
    assert [one.month.month for one in months] == [1, 2, 3]
    assert sum(one.expected for one in months) == whole.expected
    assert [one.expected - one.present for one in months] == [0, 3, 0]


def test_sessions_are_read_once_and_again_when_they_end_too_soon(database: Database) -> None:
    put(database, "XNYS", "1d", [])
    assert sync_calendars(database)["XNYS"] > 14_000
    assert sync_calendars(database) == {}
    assert sync_calendars(database, force=True) == {"XNYS": 0}
    database.execute("DELETE FROM market_sessions WHERE session > '2026-01-01'")
    database.execute(
        "UPDATE market_sessions SET closes = opens + interval '1 minute' WHERE session = '2024-01-02'"
    )
    database.execute(
        "INSERT INTO market_sessions SELECT calendar, '2024-01-06', opens, closes, NULL, NULL, source "
        "FROM market_sessions WHERE session = '2024-01-05'"
    )
    assert sync_calendars(database)["XNYS"] > 2
    assert sync_calendars(database, force=True) == {"XNYS": 0}


def test_sql_refuses_what_it_cannot_know(database: Database) -> None:
    put(database, "XNYS", "1d", [datetime(2024, 1, 2, tzinfo=UTC)])
    with pytest.raises(QueryFailed, match="market_sessions does not reach"):
        database.fetch("SELECT * FROM data_completeness('AAA', '1d')")
    with pytest.raises(QueryFailed, match="no instrument 'NONE'"):
        database.fetch("SELECT * FROM data_completeness('NONE', '1d')")
    with pytest.raises(QueryFailed, match="no timeframe '2d'"):
        database.fetch("SELECT * FROM data_completeness('AAA', '2d')")


def test_bad_questions_are_refused(database: Database) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(UsageError, match="no instrument 'NONE'"):
        completeness(database, symbol="NONE")
    with pytest.raises(UsageError, match="nothing lies between"):
        completeness(database, since=moment, until=moment)
    put(database, "NOWHERE", "1d", [moment])
    with pytest.raises(UsageError, match="there is no calendar 'NOWHERE'"):
        completeness(database)


def test_bars_are_found_by_their_index(database: Database) -> None:
    grid = sessions("XNYS", "2015-01-02", "2024-12-31")
    put(database, "XNYS", "1d", grid)
    database.execute(
        "INSERT INTO instruments (symbol, calendar) SELECT 'S' || n, 'XNYS' FROM generate_series(1, 20) AS n"
    )
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c) "
        "SELECT 'S' || n, '1d', ts, 1, 1, 1, 1 FROM candles, generate_series(1, 20) AS n"
    )
    with database.connect(autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE candles")
    before = _scans(database)
    assert sum(one.expected for one in completeness(database)) == 21 * len(grid)
    after = _scans(database)
    assert after["seq_scan"] == before["seq_scan"]
    assert after["idx_scan"] >= before["idx_scan"] + 3 * 21


def _scans(database: Database) -> dict[str, int]:
    with database.connect() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
    return database.fetch(
        "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'candles'"
    )[0]


def readings(database: Database, times: list[datetime], device: str = "watch") -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO user_baseline_raw (user_id, metric, value, ts, source) VALUES (%s, 'pulse', 60, %s, %s)",
            [(USER, time, device) for time in times],
        )


def test_readings_are_held_against_their_device_s_interval(database: Database) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    every = [start + timedelta(minutes=5 * step) for step in range(300)]
    jittered = [
        time + timedelta(seconds=[0, 20, -10, 5][step % 4]) for step, time in enumerate(every)
    ]
    readings(database, jittered[:100] + jittered[150:])
    readings(database, [start, start + timedelta(days=9)], device="scale")
    scale, watch = metric_completeness(database)
    # The median of distances that jitter by seconds is some seconds off the interval.
    assert watch.present == 250
    assert abs(watch.expected - 300) <= 3
    (gap,) = watch.missing
    assert jittered[99] < gap.since < jittered[100] + timedelta(minutes=1)
    assert gap.until == jittered[150]
    # Two readings tell no interval, unless it is declared.
    assert (scale.expected, scale.missing) == (2, ())
    declared = metric_completeness(database, intervals={"scale": timedelta(days=1)})[0]
    assert (declared.expected, declared.present) == (10, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tolerance": 1.0}, "a tolerance above 1"),
        ({"intervals": {"watch": timedelta(0)}}, "a positive interval for device 'watch'"),
    ],
)
def test_a_gap_needs_a_measure(database: Database, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        metric_completeness(database, **arguments)


def test_healing_hands_over_every_range_once(database: Database) -> None:
    grid = sessions("XNYS", "2024-01-02", "2024-01-31")
    put(database, "XNYS", "1d", [grid[0], grid[5], grid[-1]])
    queue: list[MissingRange] = []
    found = completeness(database)
    assert heal(found, queue.extend) == queue == list(found[0].missing)
    assert [(one.key, one.tf, one.since) for one in queue] == [
        ("AAA", "1d", grid[1]),
        ("AAA", "1d", grid[6]),
    ]
    put(database, "XNYS", "1d", grid)
    assert heal(completeness(database), queue.clear) == []  # type: ignore[arg-type]
    assert len(queue) == 2
