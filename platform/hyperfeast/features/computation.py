"""From bars to the rows of a feature set, and what one run of a set did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from hyperfeast.errors import FeatureError
from hyperfeast.features.bars import with_sessions
from hyperfeast.features.declaration import Bars, FeatureSet, FeatureType, Relation
from hyperfeast.indicators import COMPUTED, evaluate

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
        newest: of what was written the newest row of each entity: its keys, event_timestamp and
            recorded_at (UTC), and the features. What may have to be brought online.
    """

    feature_set: str
    rows: int
    written: int
    newest: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False, compare=False)


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
