"""Series with holes: where they are, and how a line is kept from crossing them."""

import math
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TypeGuard

from hyperfeast.reports.content import Numbers


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite number."""
    return value is not None and math.isfinite(value)


def numbers(values: Numbers) -> list[float]:
    """The finite numbers, in their order."""
    return [value for value in values if is_number(value)]


def finite(values: Numbers) -> list[float | None]:
    """The same values, with None for whatever is not a finite number."""
    return [float(value) if is_number(value) else None for value in values]


def with_gaps(
    dates: Sequence[date], columns: Sequence[Numbers], *, longest: timedelta
) -> tuple[list[date], list[list[float | None]]]:
    """Rows, and a row of None wherever two dates lie further apart than `longest`.

    Args:
        dates: n dates, ascending.
        columns: k series of n values.
        longest: the greatest distance that a line may bridge.

    Returns:
        The dates, and the k series, of one length, at least n.
    """
    out_dates: list[date] = []
    out_columns: list[list[float | None]] = [[] for _ in columns]
    cleaned = [finite(column) for column in columns]
    for row, day in enumerate(dates):
        if row and day - dates[row - 1] > longest:
            out_dates.append(dates[row - 1] + longest)
            for out in out_columns:
                out.append(None)
        out_dates.append(day)
        for out, column in zip(out_columns, cleaned, strict=True):
            out.append(column[row])
    return out_dates, out_columns


def runs(present: Sequence[bool]) -> Iterator[slice]:
    """The stretches of True, longest possible, in their order."""
    start = None
    for position, here in enumerate([*present, False]):
        if here and start is None:
            start = position
        elif not here and start is not None:
            yield slice(start, position)
            start = None
