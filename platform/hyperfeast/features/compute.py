"""From source rows to the rows of a feature set."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features import table
from hyperfeast.features.bars import read_bars, with_sessions
from hyperfeast.features.declaration import Bars, FeatureSet, FeatureType, Relation
from hyperfeast.indicators import COMPUTED, evaluate
from hyperfeast.sqlfiles import query

_TYPES = {
    FeatureType.FLOAT64: pl.Float64(),
    FeatureType.INT64: pl.Int64(),
    FeatureType.FLOAT64_LIST: pl.List(pl.Float64),
}


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


def over_bars(
    feature_set: FeatureSet,
    bars: pl.DataFrame,
    *,
    since: Mapping[str, datetime] | None = None,
    until: Mapping[str, datetime] | None = None,
) -> pl.DataFrame:
    """Evaluate every rule of a set over each symbol's bars, block by block (`indicators.blocks`).

    Args:
        feature_set: a set whose source is bars.
        bars: as `read_bars` gives them. With `since`, of each symbol no more is needed than the bars
            from `feature_set.warm_up` bars before the block of its `since` on; for a set that
            compares symbols, of all of them.
        since: by symbol, the open of the first bar to give; symbols that are not in it are left out.
            None for all bars of all symbols.
        until: by symbol, the open of the first bar not to give any more.

    Returns:
        symbol, event_timestamp and the features, one row a bar, sorted by symbol and time. Null until
        warm, never NaN or infinite. Equal to the last bit however a row is asked for.

    Raises:
        FeatureError: a rule reads a column that `bars` lacks, or the set is over a relation.
    """
    match feature_set.source:
        case Bars(timeframe):
            rules = feature_set.rules
        case Relation(name):
            raise FeatureError(f"{feature_set} is computed by the query {name}, not over bars")
    bars = with_sessions(bars, timeframe, feature_set.columns)
    if missing := feature_set.columns - {*bars.columns, *COMPUTED}:
        raise FeatureError(
            f"{feature_set} reads {', '.join(sorted(missing))}, and its bars have no such column"
        )
    values = evaluate(rules, bars, timeframe, since=since, until=until)
    return values.select(
        "symbol",
        "event_timestamp",
        *(pl.col(f.name).cast(_TYPES[f.dtype]) for f in feature_set.features),
    )
