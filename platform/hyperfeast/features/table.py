"""The table of a feature set: rows are revisions, and none is ever changed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import polars as pl
from psycopg import sql

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import FeatureError
from hyperfeast.features.declaration import FeatureSet
from hyperfeast.sqlfiles import query


def check(database: Database, feature_set: FeatureSet) -> None:
    """Hold the table against the declaration.

    Raises:
        FeatureError: the table is missing, or its columns are not those declared.
    """
    columns = database.fetch(query("features", "columns"), {"table": feature_set.table})
    if not columns:
        raise FeatureError(
            f"{feature_set}: there is no table {feature_set.table}: run `hyperfeast migrate`, or add "
            "a migration that creates it"
        )
    found = {column["name"]: column["type"] for column in columns}
    check_columns(feature_set, found)
    for feature in feature_set.features:
        if found[feature.name] != feature.dtype:
            raise FeatureError(
                f"{feature_set}: {feature.name} is declared {feature.dtype.value}, but column "
                f"{feature_set.table}.{feature.name} is {found[feature.name]}"
            )


def check_columns(feature_set: FeatureSet, found: Iterable[str]) -> None:
    """Find every declared column in `found`.

    Raises:
        FeatureError: it names those that are missing.
    """
    wanted = [*feature_set.key_columns, "event_timestamp", *feature_set.feature_names]
    missing = [name for name in wanted if name not in set(found)]
    if missing:
        raise FeatureError(
            f"{feature_set}: {', '.join(missing)} declared, but not in {feature_set.table} or its "
            "source: a set that gains a feature takes a new version and a migration with its table"
        )


@contextmanager
def one_writer(database: Database, feature_set: FeatureSet) -> Iterator[None]:
    """Hold the set against other writers until the block ends, or the process does."""
    with database.connect(autocommit=True) as connection:
        connection.execute(query("features", "lock"), {"table": feature_set.table})
        yield


def write(database: Database, feature_set: FeatureSet, rows: pl.DataFrame) -> int:
    """Add the rows that are new or differ from the revision served.

    Args:
        database: where the table is.
        feature_set: whose rows they are.
        rows: key columns, event_timestamp and the features.

    Returns:
        How many rows were added.
    """
    names = _composed(feature_set)
    with database.connect() as connection:
        connection.execute(sql.SQL(query("features", "stage")).format(**names))
        copy_frame(connection, "staged_features", rows)
        return connection.execute(
            sql.SQL(query("features", "insert_revisions")).format(**names)
        ).rowcount


def newest(database: Database, feature_set: FeatureSet) -> pl.DataFrame:
    """The revision of every row that is served now: keys, event_timestamp (UTC), features."""
    statement = sql.SQL(query("features", "newest_revisions")).format(**_composed(feature_set))
    return database.frame(statement.as_string())


def _composed(feature_set: FeatureSet) -> dict[str, sql.Composable]:
    keys, features = feature_set.key_columns, feature_set.feature_names
    return {
        "table": sql.Identifier(feature_set.table),
        "keys": _columns(keys),
        "features": _columns(features),
        "staged_keys": _columns(keys, "staged"),
        "staged_features": _columns(features, "staged"),
        "served_features": _columns(features, "served"),
        "same_key": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", key), sql.Identifier("staged", key))
            for key in keys
        ),
    }


def _columns(names: Sequence[str], relation: str | None = None) -> sql.Composed:
    qualified = [(relation, name) if relation else (name,) for name in names]
    return sql.SQL(", ").join(sql.Identifier(*parts) for parts in qualified)
