"""Count, sum and sum of squares without rounding: they merge, part and update exactly.

Every finite float is a whole number of 2**-1074, so sums of floats are sums of whole numbers, which
Python adds without an error. Merging two sets of readings (Chan, Golub & LeVeque 1983) is addition,
taking a day out of a window is subtraction, and neither order nor grouping changes a bit: an
incremental update equals a recomputation, and no cancellation spoils a small spread around a large mean.
Only a mean or a deviation that is read out is rounded, once.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hyperfeast.errors import DataError

_SCALE = 1074


@dataclass(frozen=True, slots=True)
class Moments:
    """What a mean and a sample deviation are made of.

    Attributes:
        n: how many values.
        total: their sum, in units of 2**-1074.
        squares: the sum of their squares, in units of 2**-2148.
    """

    n: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Moments":
        """Of some values.

        Raises:
            DataError: a value is not finite.
        """
        n = total = squares = 0
        for value in values:
            units = _units(value)
            n += 1
            total += units
            squares += units * units
        return cls(n, total, squares)

    def __add__(self, other: "Moments") -> "Moments":
        """Of the values of both."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: "Moments") -> "Moments":
        """Of these values without those of the other, all of which are among them."""
        return Moments(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float | None:
        """The mean, correctly rounded; None of nothing."""
        return self.total / (self.n << _SCALE) if self.n else None

    @property
    def std(self) -> float | None:
        """The sample deviation; None of fewer than two."""
        return pooled_std([self])


def pooled_std(groups: Iterable[Moments]) -> float | None:
    """The deviation within groups, each around its own mean: of one group, its sample deviation.

    Returns:
        The root of the squared distances from the groups' means over n less the number of groups;
        None if no group has two values.
    """
    present = [group for group in groups if group.n]
    freedom = sum(group.n - 1 for group in present)
    if not freedom:
        return None
    # Over the product of the counts, so that all stays whole until the last division.
    common = math.prod(group.n for group in present)
    within = sum(
        (group.n * group.squares - group.total * group.total) * (common // group.n)
        for group in present
    )
    return math.sqrt(within / ((common * freedom) << (2 * _SCALE)))


def _units(value: float) -> int:
    try:
        numerator, denominator = value.as_integer_ratio()
    except (ValueError, OverflowError):
        raise DataError(
            f"expected a finite reading, found {value}: leave out what was not measured"
        ) from None
    return numerator << (_SCALE + 1 - denominator.bit_length())
