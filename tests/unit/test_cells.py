"""Cells as numbers and times."""

import math
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.cells import (
    legible,
    read_numbers,
    read_text,
    read_times,
    session_dates,
    time_zone,
)
from hyperfeast.errors import DataError, UsageError

_UTC = ZoneInfo("UTC")
_NEW_YORK = ZoneInfo("America/New_York")


def _time(cell: Any, zone: ZoneInfo = _UTC) -> datetime | None:
    return read_times(pl.Series([cell]), zone)["ts"].item()


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1.5", 1.5), (" +3 ", 3.0), ("1e5", 1e5), (".5", 0.5), ("-0.1", -0.1), ("1e999", math.inf),
        ("-inf", -math.inf), ("nil", None), ("", None), ("NaN", None), ("1,5", None), ("0x10", None),
        ("1\0", None),
    ],
)  # fmt: skip
def test_numbers_from_text(cell: str, number: float | None) -> None:
    assert read_numbers(pl.Series([cell])).to_list() == [number]


@given(st.floats(allow_nan=False))
def test_a_written_float_keeps_every_bit(number: float) -> None:
    read = read_numbers(pl.Series([repr(number)])).item()
    assert math.copysign(1, read) == math.copysign(1, number)
    assert read == number


def test_numbers_from_typed_columns() -> None:
    assert read_numbers(pl.Series([1.5, math.nan, None])).to_list() == [1.5, None, None]
    assert read_numbers(pl.Series([1, 2])).to_list() == [1.0, 2.0]
    assert read_numbers(pl.Series([None])).to_list() == [None]
    with pytest.raises(DataError, match="column 'c' holds Date: expected numbers"):
        read_numbers(pl.Series("c", [date(2024, 1, 1)]))


def test_legible_tells_no_number_from_a_word() -> None:
    cells = pl.Series(["1", "nil", "", None, "abc", "1e999"])
    assert legible(cells).to_list() == [True, True, True, True, False, True]


def test_text_of_a_nested_column_is_refused() -> None:
    with pytest.raises(DataError, match="expected text"):
        read_text(pl.Series("s", [[1]]))


@pytest.mark.parametrize(
    ("cell", "moment"),
    [
        ("2024-01-02", datetime(2024, 1, 2, tzinfo=UTC)),
        ("2024-01-02 03:04", datetime(2024, 1, 2, 3, 4, tzinfo=UTC)),
        ("2024-01-02T03:04:05.25Z", datetime(2024, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)),
        ("2000-03-01 00:00:00-05:00", datetime(2000, 3, 1, 5, tzinfo=UTC)),
        ("2024-01-02 03:04.5", datetime(2024, 1, 2, 3, 4, 0, 500_000, tzinfo=UTC)),
        ("2024-01-02 03:04:05.\u0663", None),
        ("2024-01-01T00:00+0530", datetime(2023, 12, 31, 18, 30, tzinfo=UTC)),
        ("2024-01-01T00:00:00-03:30", datetime(2024, 1, 1, 3, 30, tzinfo=UTC)),
        ("20240131", datetime(2024, 1, 31, tzinfo=UTC)),
        (20240131, datetime(2024, 1, 31, tzinfo=UTC)),
        (date(2024, 1, 2), datetime(2024, 1, 2, tzinfo=UTC)),
        (datetime(2024, 1, 2, 3), datetime(2024, 1, 2, 3, tzinfo=UTC)),  # noqa: DTZ001
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1704067200", datetime(2024, 1, 1, tzinfo=UTC)),
        (1704067200, datetime(2024, 1, 1, tzinfo=UTC)),
        ("1704067200000", datetime(2024, 1, 1, tzinfo=UTC)),
        (1704067200000.0, datetime(2024, 1, 1, tzinfo=UTC)),
        ("1704067200000000", datetime(2024, 1, 1, tzinfo=UTC)),
        ("1704067200000000000", datetime(2024, 1, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
        ("9" * 40, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("20241331", None),
        ("2024-02-30", None),
        ("2024-01-01 25:00", None),
        ("01/02/2024", None),
        ("nil", None),
        ("", None),
        (math.nan, None),
        (None, None),
    ],
)
def test_times(cell: Any, moment: datetime | None) -> None:
    assert _time(cell) == moment


@given(st.datetimes(datetime(1974, 1, 1), datetime(2100, 12, 31)))  # noqa: DTZ001
def test_a_moment_is_the_same_in_every_spelling(naive: datetime) -> None:
    moment = naive.replace(microsecond=0, tzinfo=UTC)
    seconds = int(moment.timestamp())
    spellings = [
        moment.isoformat(),
        moment.astimezone(_NEW_YORK).isoformat(),
        str(seconds),
        str(seconds * 1_000),
        str(seconds * 1_000_000_000),
    ]
    assert set(read_times(pl.Series(spellings), _NEW_YORK)["ts"]) == {moment}


@given(
    st.lists(
        st.sampled_from(
            [
                "2024-01-02", "2024-03-10 02:30", "2024-01-02T03:04:05.25Z", "1704067200", "20240131", "nil",
                "2024-01-02 00:00:00.123456789-05:00", "2024-01-02 23:59:60.5", "2024-01-02 03:04:05.\u0663", None,
            ]
        )
    )
)  # fmt: skip
def test_spellings_that_come_again_are_read_as_each_alone(cells: list[str | None]) -> None:
    times = read_times(pl.Series(cells, dtype=pl.String), _NEW_YORK)
    alone = [read_times(pl.Series([cell], dtype=pl.String), _NEW_YORK).row(0) for cell in cells]
    assert times.rows() == alone


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), st.integers(1, 9))  # noqa: DTZ001
def test_a_fraction_keeps_its_microseconds(naive: datetime, digits: int) -> None:
    fraction = f"{naive.microsecond:06}789"[:digits]
    kept = naive.replace(microsecond=int(f"{fraction[:6]:0<6}"), tzinfo=UTC)
    assert _time(f"{naive.replace(microsecond=0).isoformat()}.{fraction}Z") == kept


def test_a_zone_is_for_times_without_one() -> None:
    assert _time("2024-07-01 12:00", _NEW_YORK) == datetime(2024, 7, 1, 16, tzinfo=UTC)
    assert _time("2024-07-01 12:00Z", _NEW_YORK) == datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert _time("1704067200", _NEW_YORK) == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("cell", ["2024-03-10 02:30", "2024-11-03 01:30"])
def test_a_wall_time_that_comes_never_or_twice_is_no_moment(cell: str) -> None:
    times = read_times(pl.Series([cell, "2024-03-10 03:30"]), _NEW_YORK)
    assert times["once"].to_list() == [False, True]
    assert times["ts"].is_null().to_list() == [True, False]


@pytest.mark.parametrize(
    ("cell", "zone", "day"),
    [
        ("2024-01-02", _NEW_YORK, date(2024, 1, 2)),
        ("2024-01-02 00:00:00", _NEW_YORK, date(2024, 1, 2)),
        ("2024-01-02 00:00:00-05:00", _UTC, date(2024, 1, 2)),
        ("2024-01-02 05:00:00+00:00", _NEW_YORK, date(2024, 1, 2)),
        ("2024-01-01 19:00:00-05:00", _NEW_YORK, date(2024, 1, 2)),
        ("1704171600", _NEW_YORK, date(2024, 1, 2)),
        ("2024-01-02 05:00:00", _NEW_YORK, None),
        ("2024-01-02 14:30:00+00:00", _NEW_YORK, None),
        (None, _UTC, None),
    ],
)
def test_session_dates(cell: str | None, zone: ZoneInfo, day: date | None) -> None:
    times = read_times(pl.Series([cell], dtype=pl.String), _UTC)
    assert session_dates(times, zone).to_list() == [day]


def test_a_zoned_column_names_dates_by_its_own_midnight() -> None:
    column = pl.Series([datetime(2024, 1, 2, 5, tzinfo=UTC)]).dt.convert_time_zone(
        "America/New_York"
    )
    assert session_dates(read_times(column, _UTC), _UTC).to_list() == [date(2024, 1, 2)]


def test_an_unknown_zone_is_told_with_a_close_match() -> None:
    with pytest.raises(
        UsageError, match=r"no time zone 'Europe/Pariss': did you mean Europe/Paris"
    ):
        time_zone("Europe/Pariss")
    with pytest.raises(UsageError, match="no time zone"):
        time_zone("../../etc/passwd")
