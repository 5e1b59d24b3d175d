"""A value against those of all other symbols at the same moment.

Who the others are is what was known then: the symbols that have a value at that very moment and, if a
universe is listed, belonged to it. A symbol listed later does not appear.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.rule import FloatArray, Rule, as_rule


@dataclass(frozen=True)
class Member:
    """A symbol's stay in a universe: from a moment on, until another or to this day. Both zoned."""

    symbol: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True)
class CrossSection:
    """How a feature follows from one rule's values of all symbols at one moment.

    Attributes:
        text: what identifies it.
        of: the rule whose values are compared.
        compare: from values and the positions where another moment begins to one result a value.
        universe: whose values count, and get a result; empty for every symbol with a value.
    """

    text: str
    of: Rule
    compare: Callable[[FloatArray, NDArray[np.int64]], FloatArray] = field(
        compare=False, repr=False
    )
    universe: tuple[Member, ...] = ()

    @property
    def lookback(self) -> int:
        """How many earlier bars the first value needs."""
        return self.of.lookback

    @property
    def warm_up(self) -> int:
        """How many bars are put before a block."""
        return self.of.warm_up

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the bars that it reads."""
        return self.of.columns

    @property
    def width(self) -> int:
        """How many numbers a bar has."""
        return 1

    def across(self, bars: pl.DataFrame, values: FloatArray) -> FloatArray:
        """Compare the values of each moment.

        Args:
            bars: columns symbol and event_timestamp; of a moment all bars, or none.
            values: of `of`, one a bar.

        Returns:
            One result a bar; NaN where it has no value or is no member.
        """
        counts = np.isfinite(values) & self._members(bars)
        # By symbol within a moment: a sum has its bits from its order.
        places = (
            bars.select("event_timestamp", "symbol", pl.int_range(pl.len()).alias("place"))
            .filter(counts)
            .sort("event_timestamp", "symbol")
        )
        results = np.full(len(values), np.nan)
        if places.height:
            rows = places["place"].to_numpy()
            moments = places["event_timestamp"].rle_id().to_numpy()
            firsts = np.flatnonzero(np.diff(moments, prepend=np.int64(-1)))
            with np.errstate(all="ignore"):
                results[rows] = self.compare(values[rows], firsts)
        return results

    def _members(self, bars: pl.DataFrame) -> NDArray[np.bool_]:
        if not self.universe:
            return np.ones(bars.height, dtype=np.bool_)
        stays = pl.DataFrame(
            [(one.symbol, one.since, one.until) for one in self.universe],
            schema={
                "symbol": pl.String,
                "since": pl.Datetime("us", "UTC"),
                "until": pl.Datetime("us", "UTC"),
            },
            orient="row",
        )
        moments = bars.select("symbol", "event_timestamp", pl.int_range(pl.len()).alias("place"))
        inside = moments.join(stays, on="symbol").filter(
            pl.col("event_timestamp") >= pl.col("since"),
            (pl.col("event_timestamp") < pl.col("until")).fill_null(value=True),
        )
        members = np.zeros(bars.height, dtype=np.bool_)
        members[inside["place"].to_numpy()] = True
        return members


def cross_rank(of: Rule | str, *, universe: tuple[Member, ...] = ()) -> CrossSection:
    """The share of the others that are below: 0 the least of all symbols then, 1 the greatest.

    Equal values share their mean rank. Null for a symbol that is alone.

    Args:
        of: what to compare.
        universe: whose values count; empty for every symbol with a value at the moment.

    Raises:
        FeatureError: a stay in the universe has no time zone, or ends before it begins.
    """
    rule = as_rule(of)
    return CrossSection(_text("cross_rank", rule, universe), rule, _ranks, universe)


def cross_z_score(of: Rule | str, *, universe: tuple[Member, ...] = ()) -> CrossSection:
    """The value less the mean of all symbols then, itself included, in their sample deviations.

    Null where it is alone, or all are equal.

    Args:
        of: what to compare.
        universe: whose values count; empty for every symbol with a value at the moment.

    Raises:
        FeatureError: a stay in the universe has no time zone, or ends before it begins.
    """
    rule = as_rule(of)
    return CrossSection(_text("cross_z_score", rule, universe), rule, _z_scores, universe)


def _text(name: str, rule: Rule, universe: tuple[Member, ...]) -> str:
    for one in universe:
        if one.since.tzinfo is None or (one.until and one.until.tzinfo is None):
            raise FeatureError(f"{name}: the stay of {one.symbol} has no time zone: add one (UTC)")
        if one.until is not None and one.until <= one.since:
            raise FeatureError(f"{name}: the stay of {one.symbol} ends before it begins")
    members = "".join(
        f", {one.symbol} {one.since.isoformat()}/{one.until.isoformat() if one.until else ''}"
        for one in universe
    )
    return f"{name}({rule.text}{members})"


def _sizes(values: FloatArray, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.diff(firsts, append=len(values))


def _ranks(values: FloatArray, firsts: NDArray[np.int64]) -> FloatArray:
    sizes = _sizes(values, firsts)
    moments = np.repeat(np.arange(len(firsts)), sizes)
    ranked = pl.DataFrame({"moment": moments, "value": values}).select(
        pl.col("value").rank("average").over("moment")
    )
    ranks: FloatArray = ranked["value"].to_numpy()
    return (ranks - 1) / np.repeat(sizes - 1, sizes)


def _z_scores(values: FloatArray, firsts: NDArray[np.int64]) -> FloatArray:
    sizes = _sizes(values, firsts)
    means = np.add.reduceat(values, firsts) / sizes
    away = values - np.repeat(means, sizes)
    deviations = np.sqrt(np.add.reduceat(away * away, firsts) / (sizes - 1))
    equal = np.maximum.reduceat(values, firsts) == np.minimum.reduceat(values, firsts)
    scores: FloatArray = away / np.repeat(np.where(equal, np.nan, deviations), sizes)
    return scores
