"""Labels joined with the features that were known at their event timestamps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast.db import Database
from hyperfeast.errors import TrainingError
from hyperfeast.features import FeatureSet, table
from hyperfeast.models import Deviation, ModelSpec
from hyperfeast.training import labels

HistoricalFeatures = Callable[[pl.DataFrame, str], pl.DataFrame]
"""From a spine (symbol, event_timestamp) and a feature service to the spine with its features."""

KEYS = ("symbol", "event_timestamp")
FEWEST_ROWS = 100

_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True)
class Dataset:
    """What a model is trained on.

    Attributes:
        rows: the labels' columns, sorted by event timestamp and symbol.
        columns: the features' names.
        matrix: shape (rows, columns); NaN is missing.
        cold: rows left out because no feature was warm.
    """

    rows: pl.DataFrame
    columns: tuple[str, ...]
    matrix: NDArray[np.float64]
    cold: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """Shape (rows,), 0 or 1."""
        return self.rows["label"].to_numpy()

    def times(self, column: str) -> NDArray[np.datetime64]:
        """A column of times, UTC."""
        return self.rows[column].dt.replace_time_zone(None).to_numpy()


def ends_of_days(database: Database, feature_set: FeatureSet, label: Deviation) -> pl.DataFrame:
    """The rows that a Deviation is read from, as they are served now.

    Returns:
        symbol (the entity's keys with a slash between them), event_timestamp (the end of a UTC day) and value.

    Raises:
        TrainingError: the set has no such column or key.
    """
    known = [*feature_set.feature_names, *feature_set.key_columns]
    if missing := sorted({label.column, *label.where} - set(known)):
        raise TrainingError(
            f"{feature_set} has no {', '.join(missing)}, which the label is read from: it has {', '.join(known)}"
        )
    moment = pl.col("event_timestamp")
    rows = table.newest(database, feature_set)
    return rows.filter(
        moment.dt.truncate("1d") == moment,
        *(pl.col(key) == value for key, value in label.where.items()),
    ).select(
        pl.concat_str(feature_set.key_columns, separator="/").alias("symbol"),
        "event_timestamp",
        pl.col(label.column).cast(pl.Float64).alias("value"),
    )


def of_entities(historical_features: HistoricalFeatures, keys: Sequence[str]) -> HistoricalFeatures:
    """The join for entities of several keys, which the spine names as one text with a slash between them."""

    def joined(spine: pl.DataFrame, feature_service: str) -> pl.DataFrame:
        parts = pl.col("symbol").str.split_exact("/", len(keys) - 1).struct
        split = spine.select(
            *(parts.field(f"field_{place}").alias(key) for place, key in enumerate(keys)),
            *(name for name in spine.columns if name != "symbol"),
        )
        features = historical_features(split, feature_service).drop(split.columns)
        return pl.concat([spine, features], how="horizontal")

    return joined


def build(bars: pl.DataFrame, spec: ModelSpec, historical_features: HistoricalFeatures) -> Dataset:
    """Join labels and features, and refuse what no honest model can be trained on.

    Args:
        bars: as for `labels.direction`; of a Deviation the rows, as for `labels.deviation`.
        spec: the model.
        historical_features: the offline store's point-in-time join.

    Raises:
        TrainingError: no bars, no label known yet, no or unusable features, too few rows, one class.
    """
    labelled = _labelled(bars, spec)
    features = historical_features(labelled.select(KEYS), spec.feature_service)
    columns = _feature_columns(features, labelled, spec)
    joined = labelled.join(_numbers(features, columns), on=KEYS, how="left").sort(
        "event_timestamp", "symbol"
    )
    warm = joined.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
    _check_finite(warm, columns)
    _check_enough(warm, joined, spec)
    return Dataset(
        rows=warm.select(labelled.columns),
        columns=tuple(columns),
        matrix=np.column_stack([warm[name].fill_null(np.nan).to_numpy() for name in columns]),
        cold=joined.height - warm.height,
    )


def _labelled(bars: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    match spec.label:
        case Deviation() as label:
            return _deviating(bars, spec, label)
        case _:
            return _moved(bars, spec)


def _deviating(rows: pl.DataFrame, spec: ModelSpec, label: Deviation) -> pl.DataFrame:
    labelled = labels.deviation(rows, spec.horizon, label.threshold)
    if labelled.is_empty():
        raise TrainingError(
            f"no label is known: {rows.height} days of {label.feature_set} have a row, and none of them has "
            f"{label.column} {spec.horizon} day(s) later. Ingest a longer history, then compute the features"
        )
    return labelled


def _moved(bars: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    if bars.is_empty():
        raise TrainingError("there are no bars to train on: run `hyperfeast ingest candles` first")
    close = pl.col("close")
    if unusable := bars.filter(((close > 0) & close.is_finite()).not_() | close.is_null()).height:
        raise TrainingError(
            f"{unusable} of {bars.height} closes are no finite price above 0: correct the candles"
        )
    labelled = labels.direction(bars, spec.horizon)
    if labelled.is_empty():
        sessions = bars["event_timestamp"].n_unique()
        raise TrainingError(
            f"no label is known: it takes {spec.horizon} later sessions, and there are "
            f"{sessions} in all. Ingest a longer history"
        )
    return labelled


def _feature_columns(features: pl.DataFrame, labelled: pl.DataFrame, spec: ModelSpec) -> list[str]:
    service = f"feature service {spec.feature_service}"
    if missing := [key for key in KEYS if key not in features.columns]:
        raise TrainingError(f"{service}: the features come without {', '.join(missing)}")
    columns = [name for name in features.columns if name not in KEYS]
    if not columns:
        raise TrainingError(f"{service} has no features: declare some, then apply")
    if leaked := sorted(set(columns) & set(labelled.columns)):
        raise TrainingError(
            f"{service}: {', '.join(leaked)} is what the model is to foresee: rename the feature"
        )
    if words := [n for n in columns if not _is_number(features.schema[n])]:
        raise TrainingError(
            f"{service}: a model reads numbers, and {', '.join(words)} has none: leave it out"
        )
    return columns


def _is_number(dtype: pl.DataType) -> bool:
    # A column without any value comes without a type, too.
    return dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)


def _numbers(features: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Keys of the spine's types and one row each; features as floats, NaN as NULL."""
    typed = features.select(
        pl.col("symbol").cast(pl.String),
        pl.col("event_timestamp").cast(_TIME),
        pl.col(columns).cast(pl.Float64).fill_nan(None),
    )
    if typed.select(KEYS).is_duplicated().any():
        raise TrainingError(
            "the features hold a symbol and event timestamp more than once, expected one row each: "
            "check the feature views' join keys"
        )
    return typed


def _check_finite(warm: pl.DataFrame, columns: list[str]) -> None:
    if infinite := [name for name in columns if warm[name].is_infinite().any()]:
        raise TrainingError(
            f"{', '.join(infinite)} holds infinity, expected finite numbers or NULL: "
            "correct the feature's rule"
        )


def _check_enough(warm: pl.DataFrame, joined: pl.DataFrame, spec: ModelSpec) -> None:
    if warm.is_empty():
        raise TrainingError(
            f"all features of {spec.feature_service} are NULL in all {joined.height} rows: "
            "materialize the feature views, or ingest a longer history"
        )
    if warm.height < FEWEST_ROWS:
        raise TrainingError(
            f"{warm.height} rows with features are too few, expected {FEWEST_ROWS} at least: "
            "ingest a longer history or more symbols"
        )
    if warm["label"].n_unique() == 1:
        raise TrainingError(
            f"all {warm.height} rows have one label ({_said(spec, warm['label'][0])}), expected both: "
            "there is nothing to tell apart. Check the source"
        )


def _said(spec: ModelSpec, label: int) -> str:
    match spec.label:
        case Deviation(column=column):
            return f"{column} is {'always' if label else 'never'} beyond the threshold"
        case _:
            return f"the price {'rises' if label else 'never rises'}"
