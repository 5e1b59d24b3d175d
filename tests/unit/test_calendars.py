"""Session dates and closes."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast import calendars
from hyperfeast.errors import UsageError


def _close(calendar: str, day: date) -> datetime | None:
    return calendars.session_close(calendar, pl.Series([day])).item()


@pytest.mark.parametrize(
    ("day", "hour"),
    [
        (date(2024, 1, 2), 21),  # winter: New York is UTC-5
        (date(2024, 7, 2), 20),  # summer: UTC-4
        (date(2024, 7, 3), 17),  # the half day before Independence Day
        (date(2000, 9, 29), 20),
        (date(1987, 10, 19), 20),
    ],
)
def test_new_york_closes_at_four_except_on_half_days(day: date, hour: int) -> None:
    assert _close("XNYS", day) == datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


@pytest.mark.parametrize("day", [date(2024, 7, 4), date(2024, 1, 6), date(2001, 9, 12)])
def test_no_session_has_no_close(day: date) -> None:
    assert _close("XNYS", day) is None


@given(st.lists(st.dates(date(1970, 1, 1), date(2100, 12, 31)) | st.none()))
def test_the_market_that_never_shuts_knows_a_day_at_the_next_midnight(
    days: list[date | None],
) -> None:
    closes = calendars.session_close("24/7", pl.Series(days, dtype=pl.Date))
    assert closes.dtype == pl.Datetime("us", "UTC")
    assert closes.to_list() == [
        day and datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        for day in days
    ]


@given(st.lists(st.dates(date(1990, 1, 1), date(2026, 1, 1)) | st.none(), max_size=30))
def test_many_dates_give_what_each_gives_alone(days: list[date | None]) -> None:
    dates = pl.Series(days, dtype=pl.Date)
    closes = calendars.session_close("XNYS", dates)
    assert closes.dtype == pl.Datetime("us", "UTC")
    assert closes.to_list() == [_close("XNYS", day) if day else None for day in days]


def test_a_calendar_whose_record_begins_late_begins_there() -> None:
    assert _close("XTKS", date(1997, 1, 6)) == datetime(1997, 1, 6, 6, tzinfo=UTC)
    assert _close("XTKS", date(1990, 1, 8)) is None


def test_time_zones() -> None:
    assert calendars.timezone("XNYS") == ZoneInfo("America/New_York")
    assert calendars.timezone("24/7") == ZoneInfo("UTC")


def test_an_unknown_calendar_is_told_with_a_close_match() -> None:
    with pytest.raises(UsageError, match=r"no calendar 'xnys': did you mean XNYS"):
        calendars.session_close("xnys", pl.Series([date(2024, 1, 2)]))


def test_sessions_have_their_half_days_and_lunch_breaks() -> None:
    found = calendars.sessions("XHKG").filter(pl.col("session").dt.year() == 2024)
    assert found["session"].is_sorted()
    day, half = (
        found.row(by_predicate=pl.col("session") == one, named=True)
        for one in (date(2024, 12, 23), date(2024, 12, 24))
    )
    assert [day[name].hour for name in ("opens", "break_starts", "break_ends", "closes")] == [
        1,
        4,
        5,
        8,
    ]
    assert (half["closes"].hour, half["break_starts"]) == (4, None)
    assert (
        calendars.sessions("XNYS")["break_starts"].null_count() == calendars.sessions("XNYS").height
    )
    with pytest.raises(UsageError, match="there is no calendar 'XNYC'"):
        calendars.sessions("XNYC")


def test_the_library_is_asked_in_one_place() -> None:
    """From when its records are read is decided once."""
    package = Path(calendars.__file__).parent
    assert [
        path.name for path in package.rglob("*.py") if "get_calendar(" in path.read_text("utf-8")
    ] == ["calendars.py"]
