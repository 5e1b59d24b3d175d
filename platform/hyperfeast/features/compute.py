"""From source rows to the rows of a feature set."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features import table
from hyperfeast.features.bars import read_bars
from hyperfeast.features.declaration import Bars, Feature, FeatureSet, Relation
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Computation:
    """What one run of a feature set did.

    Attributes:
        feature_set: its name.
        rows: rows computed.
        written: rows that were new or differed from the revision served; the others were left alone.
    """

    feature_set: str
    rows: int
    written: int


def compute(
    database: Database, feature_set: FeatureSet, *, as_known_at: datetime | None = None
) -> pl.DataFrame:
    """The rows of a set: key columns, event_timestamp (UTC), then its features in declared order.

    Args:
        database: where the source is.
        feature_set: what to compute.
        as_known_at: from what was recorded by then; None for all. Only for sets over bars.

    Raises:
        FeatureError: the source relation lacks a declared column, or `as_known_at` for a relation.
    """
    match feature_set.source:
        case Bars(timeframe):
            return over_bars(feature_set, read_bars(database, timeframe, as_known_at=as_known_at))
        case Relation() if as_known_at is not None:
            raise FeatureError(
                f"{feature_set}: what was known at {as_known_at} can be computed over bars only; a relation "
                "keeps no revisions"
            )
        case Relation(name):
            rows = database.frame(query("features", name))
            table.check_columns(feature_set, rows.columns)
            return rows.select(
                *feature_set.key_columns, "event_timestamp", *feature_set.feature_names
            )


def refresh(database: Database, feature_set: FeatureSet) -> Computation:
    """Compute a set and write what changed as new revisions."""
    table.check(database, feature_set)
    # Whoever read earlier also writes earlier: an old computation never ends up as the newest revision.
    with table.one_writer(database, feature_set):
        rows = compute(database, feature_set)
        written = table.write(database, feature_set, rows)
    return Computation(feature_set.name, rows.height, written)


def over_bars(feature_set: FeatureSet, bars: pl.DataFrame) -> pl.DataFrame:
    """Evaluate every rule of a set over each symbol's bars.

    Args:
        feature_set: a set whose source is bars.
        bars: as `read_bars` gives them.

    Returns:
        symbol, event_timestamp and the features, one row a bar. Null until warm, never NaN or infinite.
    """
    return (
        bars.lazy()
        .select(
            "symbol",
            "event_timestamp",
            *(_column(feature) for feature in feature_set.features),
        )
        .collect()
    )


def _column(feature: Feature) -> pl.Expr:
    rule = feature.rule
    if rule is None:  # FeatureSet has refused this for a set over bars.
        raise AssertionError(feature.name)
    value = rule.expression.over("symbol")
    if rule.in_price_units:
        value = value / pl.col("split_factor")
    return pl.when(value.is_finite()).then(value).alias(feature.name)
