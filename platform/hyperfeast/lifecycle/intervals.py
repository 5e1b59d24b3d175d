"""Spans of time as a person writes them and as PostgreSQL prints them: `6 months`, `6 mons`, `01:00:00`."""

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import total_ordering

from hyperfeast.errors import DataError

_WRITTEN = re.compile(r"([1-9]\d{0,3}) (hour|day|week|month|year)s?")
_PRINTED = re.compile(
    r"(?:(\d+) years?)? ?(?:(\d+) mons?)? ?(?:(\d+) days?)? ?(?:(\d+):00:00)?", re.ASCII
)
_LONGEST_YEARS = 100
_MONTHS_A_YEAR, _DAYS_A_MONTH, _DAYS_A_WEEK, _HOURS_A_DAY = 12, 30, 7, 24


@total_ordering
@dataclass(frozen=True)
class Interval:
    """Months, days and hours, which are not multiples of each other on a calendar.

    They compare by length, a month counted as 30 days and a year as 365: two that are equal by this
    measure are still two intervals if they are written in other units.
    """

    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """`7 days` as an interval: a whole number of hours, days, weeks, months or years.

        Raises:
            DataError: it is none, or longer than 100 years.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise DataError(
                f'expected a number of hours, days, weeks, months or years, as in "7 days", found "{text}"'
            )
        count, unit = int(match[1]), match[2]
        interval = {
            "hour": cls(hours=count),
            "day": cls(days=count),
            "week": cls(days=count * _DAYS_A_WEEK),
            "month": cls(months=count),
            "year": cls(months=count * _MONTHS_A_YEAR),
        }[unit]
        if interval > cls(months=_LONGEST_YEARS * _MONTHS_A_YEAR):
            raise DataError(f'expected {_LONGEST_YEARS} years at most, found "{text}"')
        return interval

    @classmethod
    def printed(cls, text: str) -> "Interval | None":
        """What PostgreSQL prints, in its default style; None for what has other parts than these."""
        match = _PRINTED.fullmatch(text)
        if match is None or not text:
            return None
        years, months, days, hours = (int(part or 0) for part in match.groups())
        return cls(years * _MONTHS_A_YEAR + months, days, hours)

    @property
    def approximate(self) -> timedelta:
        """Its length, a month counted as 30 days and a year as 365."""
        years, months = divmod(self.months, _MONTHS_A_YEAR)
        days = years * 365 + months * _DAYS_A_MONTH + self.days
        return timedelta(days=days, hours=self.hours)

    @property
    def folded(self) -> "Interval":
        """The same length with 24 hours written as a day, as for what ignores daylight saving."""
        days, hours = divmod(self.days * _HOURS_A_DAY + self.hours, _HOURS_A_DAY)
        return Interval(self.months, days, hours)

    def __lt__(self, other: "Interval") -> bool:
        return self.approximate < other.approximate

    def __str__(self) -> str:
        years, months = divmod(self.months, _MONTHS_A_YEAR)
        if months:
            years, months = 0, self.months
        parts = [(years, "year"), (months, "month"), (self.days, "day"), (self.hours, "hour")]
        return " ".join(f"{n} {unit}{'s' if n > 1 else ''}" for n, unit in parts if n)
