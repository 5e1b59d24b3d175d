"""When a market was open, and the moment from which each session's daily bar was knowable.

Calendars are named as exchange_calendars names them (XNYS, XLON, …); "24/7" is the market that never
shuts, whose day is a UTC day. The library is slow to import and to build, so both happen at first use.
"""

from difflib import get_close_matches
from functools import cache
from types import ModuleType
from typing import Any, cast
from zoneinfo import ZoneInfo

import polars as pl

from hyperfeast.errors import UsageError

ALWAYS_OPEN = "24/7"

_START = "1970-01-01"


def session_close(calendar: str, dates: pl.Series) -> pl.Series:
    """The moment when each session's daily bar was knowable.

    Args:
        calendar: an exchange_calendars code, or "24/7".
        dates: Date, the sessions as the exchange's own wall calendar names them.

    Returns:
        Datetime(us, UTC), named "close", one value a date, in its order: the exchange's close (half
        days and daylight saving counted), or the next midnight UTC for "24/7". Null where the date is
        no session, is before 1970 or what the calendar records, or over a year ahead.

    Raises:
        UsageError: there is no such calendar.
    """
    if calendar == ALWAYS_OPEN:
        days = dates.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        return days.dt.offset_by("24h").alias("close")
    sessions = dates.cast(pl.Date).alias("session").to_frame()
    return sessions.join(_closes(calendar), on="session", how="left", maintain_order="left")[
        "close"
    ]


def timezone(calendar: str) -> ZoneInfo:
    """The time zone in which the exchange names its sessions.

    Raises:
        UsageError: there is no such calendar.
    """
    return ZoneInfo("UTC") if calendar == ALWAYS_OPEN else ZoneInfo(str(_calendar(calendar).tz))


def sessions(calendar: str) -> pl.DataFrame:
    """Every session that the library knows of an exchange, from 1970 or from where its record begins.

    Args:
        calendar: an exchange_calendars code.

    Returns:
        Columns session (Date) and opens, closes, break_starts, break_ends (Datetime(us, UTC); the last two null
        without a lunch break); one row a session, in their order.

    Raises:
        UsageError: there is no such calendar.
    """
    schedule = _calendar(calendar).schedule
    moments = {
        "opens": "open",
        "closes": "close",
        "break_starts": "break_start",
        "break_ends": "break_end",
    }
    return pl.DataFrame(
        {
            "session": pl.Series(schedule.index.to_numpy()).cast(pl.Date),
            **{
                name: pl.from_pandas(schedule[column]).cast(pl.Datetime("us", "UTC"))
                for name, column in moments.items()
            },
        }
    )


@cache
def _closes(calendar: str) -> pl.DataFrame:
    closes = _calendar(calendar).closes
    return pl.DataFrame(
        {
            "session": pl.Series(closes.index.to_numpy()).cast(pl.Date),
            "close": pl.from_pandas(closes).cast(pl.Datetime("us", "UTC")),
        }
    )


@cache
def _calendar(name: str) -> Any:
    """The library's calendar, from 1970 or from where its record of holidays begins."""
    import exchange_calendars
    from exchange_calendars.errors import InvalidCalendarName

    try:
        return exchange_calendars.get_calendar(name, start=_START)
    except InvalidCalendarName as error:
        raise UsageError(_unknown(name, exchange_calendars)) from error
    except ValueError:
        beginning = type(exchange_calendars.get_calendar(name)).bound_min()
        return exchange_calendars.get_calendar(name, start=beginning)


def _unknown(name: str, library: ModuleType) -> str:
    names = cast("list[str]", library.get_calendar_names())
    close = get_close_matches(name.upper(), names, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?" if close else "use an exchange_calendars code: XNYS"
    )
    return f"there is no calendar {name!r}: {hint} (24/7 is the market that never shuts)"
