"""The newest rows of a table as a suite sees them, with the columns that it is held against."""

import polars as pl
from psycopg import sql

from hyperfeast.db import Database
from hyperfeast.features import FeatureSet
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe


def candles(database: Database, timeframe: Timeframe, rows: int) -> pl.DataFrame:
    """The newest bars of every instrument, about `rows` in all.

    Columns as in the table, and: closes (from when the bar was known), step_s (seconds since the
    bar before it; null for the first), on_grid (it opens where a bar of its calendar may), in_session
    (its market was open in it).
    """
    sample = database.frame(query("quality", "sample_candles"), (timeframe.value, rows))
    return _stepped(sample, "symbol")


def metrics(database: Database, rows: int) -> pl.DataFrame:
    """The newest `rows` readings, with step_s as for `candles`."""
    sample = database.frame(query("quality", "sample_metrics"), (rows,))
    return _stepped(sample, "user_id", "metric", "source")


def actions(database: Database) -> pl.DataFrame:
    """The newest revision of every corporate action, with `stated`: whether it has what its kind needs."""
    return database.frame(query("quality", "sample_actions"))


def features(database: Database, feature_set: FeatureSet, rows: int) -> pl.DataFrame:
    """The newest `rows` rows of a set, with `age`: how many event timestamps its entity has up to the row."""
    names = {
        "table": sql.Identifier(feature_set.table),
        "keys": sql.SQL(", ").join(map(sql.Identifier, feature_set.key_columns)),
        "features": sql.SQL(", ").join(map(sql.Identifier, feature_set.feature_names)),
    }
    statement = sql.SQL(query("quality", "sample_features")).format(**names)
    return database.frame(statement.as_string(), (rows,))


def warm(feature_set: FeatureSet, sample: pl.DataFrame) -> pl.DataFrame:
    """The rows that have all the history that the set's rules need."""
    longest = max((one.rule.lookback for one in feature_set.features if one.rule), default=0)
    return sample.filter(pl.col("age") > longest)


def _stepped(sample: pl.DataFrame, *keys: str) -> pl.DataFrame:
    step = pl.col("ts").diff().over(keys).dt.total_microseconds() / 1e6
    return sample.sort(*keys, "ts").with_columns(step.alias("step_s"))
