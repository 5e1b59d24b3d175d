"""The table of a feature set: rows are revisions, and none is ever changed."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import FeatureError
from hyperfeast.features.declaration import FeatureSet, FeatureType
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Span:
    """A stretch of one entity's rows.

    Attributes:
        entity: the values of the set's keys, in their order.
        after: event timestamps later than this (UTC).
        before: and earlier than this.
    """

    entity: tuple[str, ...]
    after: datetime
    before: datetime


@dataclass(frozen=True)
class Correction:
    """What was revised of one entity's rows.

    Attributes:
        entity: the values of the set's keys, in their order.
        first_event: the event timestamp of the first row that was revised (UTC).
        last_event: of the last one.
        revised: how many rows were.
        features: those whose values changed.
    """

    entity: tuple[str, ...]
    first_event: datetime
    last_event: datetime
    revised: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Revisions:
    """What has to be written for a table to hold what was computed.

    Attributes:
        rows: key columns, event_timestamp, recorded_at (later than that of the revision which is served;
            null where there is none) and the features.
        corrections: what of it revises rows that are served already.
    """

    rows: pl.DataFrame
    corrections: tuple[Correction, ...] = ()


def check(database: Database, feature_set: FeatureSet) -> None:
    """Hold the table against the declaration.

    Raises:
        FeatureError: the table is missing, or its columns are not those declared.
    """
    columns = database.fetch(query("features", "columns"), {"table": feature_set.table})
    if not columns:
        raise FeatureError(
            f"{feature_set}: there is no table {feature_set.table}: run `hyperfeast features apply`, which "
            "makes it"
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
            "source: a set that gains a feature takes a new version, which gets a table of its own"
        )


@contextmanager
def one_writer(database: Database, feature_set: FeatureSet) -> Iterator[None]:
    """Hold the set against other writers until the block ends, or the process does."""
    with database.connect(autocommit=True) as connection:
        connection.execute(query("features", "lock"), {"table": feature_set.table})
        yield


def newest(database: Database, feature_set: FeatureSet) -> pl.DataFrame:
    """The revision of every row that is served now: keys, event_timestamp (UTC), features."""
    statement = sql.SQL(query("features", "newest_revisions")).format(**_composed(feature_set))
    return database.frame(statement.as_string())


def served(database: Database, feature_set: FeatureSet, spans: Sequence[Span]) -> pl.DataFrame:
    """The newest revision of each row of some stretches: keys, event_timestamp, recorded_at, features."""
    names = _composed(feature_set) | {
        "table_keys": _columns(feature_set.key_columns, "t"),
        "table_features": _columns(feature_set.feature_names, "t"),
        "typed_keys": sql.SQL(", ").join(
            sql.SQL("{} text").format(sql.Identifier(key)) for key in feature_set.key_columns
        ),
        "same_entity": sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("t", key), sql.Identifier("w", key))
            for key in feature_set.key_columns
        ),
    }
    statement = sql.SQL(query("features", "served_of")).format(**names)
    asked = [
        dict(zip(feature_set.key_columns, one.entity, strict=True))
        | {"after": one.after.isoformat(), "before": one.before.isoformat()}
        for one in spans
    ]
    return database.frame(statement.as_string(), (json.dumps(asked),))


def revisions(feature_set: FeatureSet, rows: pl.DataFrame, stored: pl.DataFrame) -> Revisions:
    """Which rows are new, or differ in a single bit from the revision that is served.

    Args:
        feature_set: whose rows they are.
        rows: what was computed: key columns, event_timestamp and the features; each row once.
        stored: the newest revisions, of those rows at least, as `served` gives them. One that `rows`
            lacks has lost what it was computed from: it is revised to have no value.
    """
    row_key = [*feature_set.key_columns, "event_timestamp"]
    gone = stored.select(row_key).join(rows.select(row_key), on=row_key, how="anti")
    wanted = pl.concat([rows, gone], how="diagonal") if gone.height else rows
    places = wanted.select(row_key).join(
        stored.select(*row_key, "recorded_at", pl.int_range(pl.len()).alias("place")),
        on=row_key,
        how="left",
        maintain_order="left",
    )
    is_served = places["place"].is_not_null().to_numpy()
    differs = ~is_served
    corrections: tuple[Correction, ...] = ()
    if is_served.any():
        before = stored[places["place"].drop_nulls()]
        changed = _changed(feature_set, wanted.filter(is_served), before)
        differs[is_served] = changed.any(axis=1)
        corrections = tuple(_corrections(feature_set, before.select(row_key), changed))
    return Revisions(
        wanted.with_columns(places["recorded_at"].dt.offset_by("1us"))
        .filter(differs)
        .select(*row_key, "recorded_at", *feature_set.feature_names),
        corrections,
    )


def append(
    connection: Connection[DictRow], feature_set: FeatureSet, found: Revisions
) -> pl.DataFrame:
    """Write revisions in the connection's transaction.

    Returns:
        The rows as they were written: now by the database's clock, and in any case later than the
        revisions that they replace.
    """
    if not found.rows.height:
        return found.rows
    moment = _moment(connection)
    rows = found.rows.with_columns(pl.max_horizontal("recorded_at", pl.lit(moment)))
    copy_frame(connection, feature_set.table, rows)
    for one in found.corrections:
        connection.execute(
            query("feature_changes", "correct"),
            {
                "name": feature_set.name,
                "version": feature_set.version,
                "entity": list(one.entity),
                "first_event": one.first_event,
                "last_event": one.last_event,
                "revised": one.revised,
                "features": list(one.features),
                "recorded_at": moment,
            },
        )
    return rows


def _moment(connection: Connection[DictRow]) -> datetime:
    moment: datetime = connection.execute(query("features", "moment")).fetchall()[0]["moment"]
    return moment


def _changed(feature_set: FeatureSet, now: pl.DataFrame, before: pl.DataFrame) -> NDArray[np.bool_]:
    """Rows x features: where a value is another one. 0 is not -0, and no number is not NaN."""
    changed = np.zeros((now.height, len(feature_set.features)), dtype=np.bool_)
    numbers = [
        place for place, one in enumerate(feature_set.features) if one.dtype is FeatureType.FLOAT64
    ]
    if numbers:
        names = [feature_set.feature_names[place] for place in numbers]
        changed[:, numbers] = (_bits(now, names) != _bits(before, names)) | (
            _absent(now, names) != _absent(before, names)
        )
    for place, one in enumerate(feature_set.features):
        if one.dtype is not FeatureType.FLOAT64:
            own = _as_integers(now[one.name]).ne_missing(_as_integers(before[one.name]))
            changed[:, place] = own.to_numpy()
    return changed


def _bits(rows: pl.DataFrame, names: Sequence[str]) -> NDArray[np.int64]:
    """The bits of floats."""
    return np.ascontiguousarray(rows.select(names).to_numpy(), np.float64).view(np.int64)


def _absent(rows: pl.DataFrame, names: Sequence[str]) -> NDArray[np.bool_]:
    return rows.select(pl.col(names).is_null()).to_numpy()


def _as_integers(values: pl.Series) -> pl.Series:
    """Lists of floats as lists of the integers of their bits; other types as they are."""
    if values.dtype != pl.List(pl.Float64):
        return values
    array = values.to_arrow(compat_level=pl.CompatLevel.oldest())
    return pl.Series(values.name, array.view(pa.large_list(pa.int64())))


def _corrections(
    feature_set: FeatureSet, rows: pl.DataFrame, changed: NDArray[np.bool_]
) -> Iterator[Correction]:
    """One an entity, out of which features of which rows changed."""
    revised = rows.with_row_index("row").filter(pl.Series(changed.any(axis=1)))
    by_entity = revised.group_by(feature_set.key_columns, maintain_order=True).agg(
        pl.col("event_timestamp").min().alias("first_event"),
        pl.col("event_timestamp").max().alias("last_event"),
        pl.col("row"),
    )
    names = np.array(feature_set.feature_names)
    for row in by_entity.iter_rows(named=True):
        yield Correction(
            tuple(str(row[key]) for key in feature_set.key_columns),
            row["first_event"],
            row["last_event"],
            len(row["row"]),
            tuple(names[changed[row["row"]].any(axis=0)].tolist()),
        )


def _composed(feature_set: FeatureSet) -> dict[str, sql.Composable]:
    keys, features = feature_set.key_columns, feature_set.feature_names
    return {
        "table": sql.Identifier(feature_set.table),
        "keys": _columns(keys),
        "features": _columns(features),
    }


def _columns(names: Sequence[str], relation: str | None = None) -> sql.Composed:
    qualified = [(relation, name) if relation else (name,) for name in names]
    return sql.SQL(", ").join(sql.Identifier(*parts) for parts in qualified)
