"""The quality of a feature set's rows, measured: what is missing, stale, out of bounds, redundant or too good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from psycopg import sql

from hyperfeast.db import Database
from hyperfeast.features import Feature, FeatureSet, FeatureType, table
from hyperfeast.quality.invariants import scope_of
from hyperfeast.quality.profile import (
    Association,
    MonthOfNulls,
    Pair,
    Profile,
    association,
    months_of_nulls,
    pairs_above,
    profile,
    rank_correlations,
)
from hyperfeast.sqlfiles import query

_LABEL = ("symbol", "event_timestamp", "forward_return")


@dataclass(frozen=True)
class FeatureRules:
    """What makes a feature look wrong.

    Attributes:
        rows: how many rows are looked at, at the most: of a longer table evenly many from everywhere.
        ranked_rows: how many of those are ranked for correlations.
        null_rate: the share of rows with all their history that may lack a value of a rule, where its
            declaration says nothing of it.
        correlated: two features are as good as one from this rank correlation on.
        leakage: a feature is suspect from this rank correlation with the label on. Honest ones, of what
            happens in days, stay below a tenth,
        leakage_score: if it is also so many standard errors from 0.
    """

    rows: int = 200_000
    ranked_rows: int = 20_000
    null_rate: float = 0.05
    correlated: float = 0.95
    leakage: float = 0.3
    leakage_score: float = 4.0


@dataclass(frozen=True)
class Label:
    """What a declared model is to foresee.

    Attributes:
        model: the model's name.
        horizon: sessions that the label looks ahead.
        rows: columns symbol, event_timestamp (UTC; the label counts from there) and forward_return.
    """

    model: str
    horizon: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class Staleness:
    """The newest row of an entity.

    Attributes:
        entity: the values of its keys.
        newest: its event timestamp, UTC.
        behind: how far that is behind the newest row of the set.
        ended: whether the instrument was delisted by then, so that nothing newer is to come.
    """

    entity: str
    newest: datetime
    behind: timedelta
    ended: bool


@dataclass(frozen=True)
class FeatureQuality:
    """What is known of a set's rows.

    Attributes:
        feature_set: the declaration.
        rows: in the table, superseded revisions included.
        seen: the newest revisions that were looked at.
        warm: of those, the ones that have all the history that the longest rule needs. Everything that
            follows is of these.
        profiles: one a feature, in declared order.
        months: rows and nulls by month and feature.
        staleness: one an entity, the stalest first; of all rows.
        correlated: names of the features that are numbers.
        correlations: shape (k, k), the rank correlation of every two of those; NaN where there is none.
        pairs: those beyond the rule, the strongest first.
        associations: one a model and feature.
    """

    feature_set: FeatureSet
    rows: int
    seen: int
    warm: int
    profiles: tuple[Profile, ...]
    months: tuple[MonthOfNulls, ...]
    staleness: tuple[Staleness, ...]
    correlated: tuple[str, ...]
    correlations: tuple[tuple[float, ...], ...]
    pairs: tuple[Pair, ...]
    associations: tuple[Association, ...]

    @property
    def scope(self) -> str:
        """What it is of: `market_technical v1`."""
        return scope_of(self.feature_set)

    @property
    def newest(self) -> datetime | None:
        """The newest event timestamp, UTC; None without rows."""
        return max((one.newest for one in self.staleness), default=None)

    @property
    def stale(self) -> list[Staleness]:
        """The entities that are further behind the others than a row may be old."""
        limit = self.feature_set.freshness
        return [one for one in self.staleness if one.behind > limit and not one.ended]

    @property
    def suspects(self) -> list[Association]:
        """What foresees a label better than anything honest does, the best first."""
        found = [one for one in self.associations if one.suspect]
        return sorted(found, key=lambda one: -abs(one.correlation or 0))


def measure(
    database: Database,
    feature_set: FeatureSet,
    labels: Sequence[Label] = (),
    *,
    rules: FeatureRules | None = None,
) -> FeatureQuality:
    """Measure the quality of a set's rows. A set without a table has none.

    Args:
        database: where they are.
        feature_set: whose rows.
        labels: what models are to foresee; of no use for a set whose entity is no symbol.
        rules: what looks wrong.

    Raises:
        FeatureError: the table lacks a declared column.
    """
    rules = rules or FeatureRules()
    columns = database.fetch(query("features", "columns"), {"table": feature_set.table})
    if not columns:
        return _nothing(feature_set)
    table.check_columns(feature_set, [column["name"] for column in columns])
    size = sql.SQL(query("feature_quality", "size")).format(**_names(feature_set))
    rows: int = database.fetch(size)[0]["rows"]
    served = _served(database, feature_set, one_in=-(-rows // rules.rows) if rows else 1)
    warm = served.filter(pl.col("event_timestamp") >= pl.col("warm_from"))
    features = feature_set.feature_names
    numbers = [
        one.name for one in feature_set.features if one.dtype is not FeatureType.FLOAT64_LIST
    ]
    ranked = _thinned(warm, rules.ranked_rows)
    correlations = rank_correlations(ranked, numbers)
    return FeatureQuality(
        feature_set=feature_set,
        rows=rows,
        seen=served.height,
        warm=warm.height,
        profiles=tuple(profile(warm, one) for one in feature_set.features),
        months=tuple(months_of_nulls(warm, features)),
        staleness=tuple(_staleness(database, feature_set)),
        correlated=tuple(numbers),
        correlations=tuple(tuple(row) for row in correlations.tolist()),
        pairs=tuple(pairs_above(correlations, numbers, rules.correlated)),
        associations=tuple(
            association(
                label.model,
                label.horizon,
                feature,
                labelled,
                threshold=rules.leakage,
                least_score=rules.leakage_score,
            )
            for label, labelled in _labelled(feature_set, warm, labels, rules)
            for feature in numbers
        ),
    )


def null_limit(feature: Feature, rules: FeatureRules) -> float:
    """The share of warm rows that may lack a value of the feature."""
    if feature.null_rate is not None:
        return feature.null_rate
    return rules.null_rate if feature.rule is not None else 1.0


def _nothing(feature_set: FeatureSet) -> FeatureQuality:
    return FeatureQuality(feature_set, 0, 0, 0, (), (), (), (), (), (), ())


def _served(database: Database, feature_set: FeatureSet, *, one_in: int) -> pl.DataFrame:
    longest = max((rule.lookback for rule in feature_set.rules.values()), default=0)
    statement = sql.SQL(query("feature_quality", "served")).format(**_names(feature_set))
    return database.frame(statement.as_string(), (one_in, longest))


def _thinned(rows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Every n-th row, so that no more than `most` are left."""
    return rows.gather_every(max(1, -(-rows.height // most)))


def _staleness(database: Database, feature_set: FeatureSet) -> list[Staleness]:
    statement = sql.SQL(query("feature_quality", "newest")).format(**_names(feature_set))
    rows = database.fetch(statement)
    if not rows:
        return []
    reach = max(row["newest"] for row in rows)
    ended = _ended(database) if feature_set.key_columns == ["symbol"] else {}
    found = [
        Staleness(
            entity := ", ".join(str(row[key]) for key in feature_set.key_columns),
            row["newest"],
            reach - row["newest"],
            ended=entity in ended and ended[entity] <= reach.date(),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (-one.behind, one.entity))


def _ended(database: Database) -> Mapping[str, Any]:
    rows = database.fetch(query("feature_quality", "delisted"))
    return {row["symbol"]: row["delisted_at"] for row in rows}


def _labelled(
    feature_set: FeatureSet, warm: pl.DataFrame, labels: Sequence[Label], rules: FeatureRules
) -> list[tuple[Label, pl.DataFrame]]:
    """Rows with what came after them: the first label that counts from the row's moment or later."""
    if feature_set.key_columns != ["symbol"] or warm.is_empty():
        return []
    found = []
    for label in labels:
        known = label.rows.select(_LABEL).with_columns(session="event_timestamp")
        joined = warm.sort("event_timestamp").join_asof(
            known.sort("event_timestamp"),
            on="event_timestamp",
            by="symbol",
            strategy="forward",
            tolerance=feature_set.freshness,
            check_sortedness=False,
        )
        found.append((label, _thinned(joined.drop_nulls("forward_return"), rules.ranked_rows)))
    return found


def _names(feature_set: FeatureSet) -> dict[str, sql.Composable]:
    keys = feature_set.key_columns
    return {
        "table": sql.Identifier(feature_set.table),
        "keys": _columns(keys),
        "features": _columns(feature_set.feature_names),
        "entity_keys": _columns(keys, "entity"),
        "same_entity": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", key), sql.Identifier("entity", key))
            for key in keys
        ),
    }


def _columns(names: Sequence[str], relation: str | None = None) -> sql.Composed:
    qualified = [(relation, name) if relation else (name,) for name in names]
    return sql.SQL(", ").join(sql.Identifier(*parts) for parts in qualified)
