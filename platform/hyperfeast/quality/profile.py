"""Statistics of features' values: what is missing, how they spread, what moves together. Pure NumPy and Polars."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast.features import Feature
from hyperfeast.features.bounds import outside

Floats = NDArray[np.float64]

BINS = 24
_TAIL = 0.01
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Histogram:
    """How often values lie in bins of one width.

    Attributes:
        low: where the first bin begins: the 1st percentile; what is below counts to that bin.
        high: where the last one ends: the 99th percentile; what is above counts to that bin.
        counts: values a bin, in order.
    """

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """One feature over some rows.

    Attributes:
        feature: its name.
        rows: how many rows were looked at.
        nulls: how many have no value.
        violations: how many have a value out of the declared bounds.
        not_finite: how many have a value that is NaN or infinite.
        mean: of the finite values, as are all that follow; None without any.
        std: the sample deviation; None of fewer than two.
        least: the smallest.
        quantiles: the 5th, 25th, 50th, 75th and 95th percentile, between neighbors linearly; empty without values.
        greatest: the largest.
        histogram: None without values.
    """

    feature: str
    rows: int
    nulls: int
    violations: int
    not_finite: int
    mean: float | None
    std: float | None
    least: float | None
    quantiles: tuple[float, ...]
    greatest: float | None
    histogram: Histogram | None

    @property
    def null_rate(self) -> float | None:
        """The share of rows without a value; None without rows."""
        return self.nulls / self.rows if self.rows else None


@dataclass(frozen=True)
class MonthOfNulls:
    """How many rows of a month (UTC) have no value of a feature."""

    month: date
    feature: str
    rows: int
    nulls: int


@dataclass(frozen=True)
class Pair:
    """Two features whose rank correlation is far from 0."""

    first: str
    second: str
    correlation: float


@dataclass(frozen=True)
class Association:
    """How far a feature's ranks go with those of what a model is to foresee.

    Attributes:
        model: the model.
        horizon: sessions that its label looks ahead.
        feature: the feature.
        correlation: Spearman's, with the return over the horizon; None where either does not vary.
        score: the correlation in its own standard errors. Labels of neighboring sessions overlap, and symbols of
            one session move together: `sessions` / `horizon` observations count, whatever the rows.
        rows: how many rows were compared.
        sessions: of how many sessions.
        suspect: whether it is too good to be true.
    """

    model: str
    horizon: int
    feature: str
    correlation: float | None
    score: float | None
    rows: int
    sessions: int
    suspect: bool


def profile(rows: pl.DataFrame, feature: Feature) -> Profile:
    """The statistics of one feature.

    Args:
        rows: with its column; of a list, every number counts as a value, and an absent list as one NULL.
        feature: what it is called, and its bounds.
    """
    values = rows[feature.name]
    numbers = _numbers(values)
    finite = numbers.filter(numbers.is_finite()).to_numpy()
    quantiles = tuple(float(one) for one in np.quantile(finite, _QUANTILES)) if len(finite) else ()
    return Profile(
        feature=feature.name,
        rows=len(values),
        nulls=values.null_count(),
        violations=int(outside(values, feature).sum()),
        not_finite=len(numbers) - len(finite),
        mean=float(finite.mean()) if len(finite) else None,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else None,
        least=float(finite.min()) if len(finite) else None,
        quantiles=quantiles,
        greatest=float(finite.max()) if len(finite) else None,
        histogram=_histogram(finite) if len(finite) else None,
    )


def _numbers(values: pl.Series) -> pl.Series:
    flat = values.drop_nulls().explode() if isinstance(values.dtype, pl.List) else values
    return flat.cast(pl.Float64).drop_nulls()


def _histogram(values: Floats) -> Histogram:
    low, high = (float(one) for one in np.quantile(values, (_TAIL, 1 - _TAIL)))
    if low == high:
        return Histogram(low, high, (len(values),))
    counts, _ = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    return Histogram(low, high, tuple(counts.tolist()))


def months_of_nulls(rows: pl.DataFrame, features: Sequence[str]) -> list[MonthOfNulls]:
    """By month of the event timestamp (UTC), how many rows there are and how many lack each feature."""
    month = pl.col("event_timestamp").dt.truncate("1mo").dt.date()
    counts = (
        rows.group_by(month.alias("month"))
        .agg(pl.len().alias("rows"), *(pl.col(one).null_count().alias(one) for one in features))
        .sort("month")
    )
    return [
        MonthOfNulls(row["month"], feature, row["rows"], row[feature])
        for row in counts.to_dicts()
        for feature in features
    ]


def rank_correlations(rows: pl.DataFrame, features: Sequence[str]) -> Floats:
    """Spearman's rank correlation of every two features over the rows that have all of them.

    A feature without a value in half of the rows or more is left out: its row and column are NaN, as
    are those of one that does not vary.

    Args:
        rows: with a column of numbers a feature.
        features: k names.

    Returns:
        Shape (k, k).
    """
    matrix = np.full((len(features), len(features)), np.nan)
    kept = [one for one in features if rows[one].null_count() * 2 < rows.height]
    numbers = rows.select(pl.col(kept).cast(pl.Float64)) if kept else pl.DataFrame()
    complete = numbers.filter(pl.all_horizontal(pl.all().is_finite())) if kept else numbers
    if complete.height < 3:  # noqa: PLR2004 - two points always correlate
        return matrix
    ranks = complete.select(pl.all().rank("average")).to_numpy()
    places = [features.index(one) for one in kept]
    matrix[np.ix_(places, places)] = _pearson(ranks)
    return matrix


def _pearson(columns: Floats) -> Floats:
    """Pearson's correlation of every two columns; NaN of one that does not vary."""
    away = columns - columns.mean(axis=0)
    lengths = np.sqrt((away * away).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = away / np.where(lengths > 0, lengths, np.nan)
    return np.asarray(np.clip(unit.T @ unit, -1, 1), dtype=np.float64)


def pairs_above(correlations: Floats, features: Sequence[str], threshold: float) -> list[Pair]:
    """The pairs whose correlation is `threshold` or more either way, the strongest first."""
    found = [
        Pair(features[row], features[column], float(correlations[row, column]))
        for row in range(len(features))
        for column in range(row + 1, len(features))
        if abs(correlations[row, column]) >= threshold
    ]
    return sorted(found, key=lambda one: (-abs(one.correlation), one.first, one.second))


def association(
    model: str,
    horizon: int,
    feature: str,
    labelled: pl.DataFrame,
    *,
    threshold: float,
    least_score: float,
) -> Association:
    """Hold one feature against what a model is to foresee.

    Args:
        model: the model.
        horizon: sessions that its label looks ahead.
        feature: a column of `labelled`.
        labelled: with forward_return and session: of each row, the moment that its label counts from.
        threshold: suspect from this correlation on, either way,
        least_score: if it is also this many standard errors from 0.
    """
    rows = labelled.select(pl.col(feature).cast(pl.Float64), "forward_return", "session").filter(
        pl.col(feature).is_finite(), pl.col("forward_return").is_finite()
    )
    sessions = rows["session"].n_unique() if rows.height else 0
    ranks = rows.select(pl.col(feature, "forward_return").rank("average")).to_numpy()
    correlation = float(_pearson(ranks)[0, 1]) if rows.height > 1 else math.nan
    if math.isnan(correlation):
        return Association(
            model, horizon, feature, None, None, rows.height, sessions, suspect=False
        )
    score = _score(correlation, sessions / horizon)
    return Association(
        model,
        horizon,
        feature,
        correlation,
        score,
        rows.height,
        sessions,
        suspect=abs(correlation) >= threshold and abs(score) >= least_score,
    )


def _score(correlation: float, observations: float) -> float:
    """A rank correlation in its standard errors under independence: r sqrt(n - 1) (Kendall, 1948)."""
    return correlation * math.sqrt(max(observations - 1, 0.0))
