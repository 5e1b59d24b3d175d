"""Computes feature sets: from what changed since the last time, or from everything, as it was known once."""

from datetime import datetime

import polars as pl

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features import table
from hyperfeast.features.bars import read_bars
from hyperfeast.features.changes import BEGINNING, END
from hyperfeast.features.computation import Computation, over_bars
from hyperfeast.features.declaration import Bars, FeatureSet, Relation
from hyperfeast.features.incremental import Progress, refresh_symbols
from hyperfeast.features.relation import follows_readings, refresh_users
from hyperfeast.sqlfiles import query

__all__ = ["Computation", "compute", "over_bars", "refresh"]


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


def refresh(
    database: Database,
    feature_set: FeatureSet,
    *,
    full: bool = False,
    progress: Progress | None = None,
) -> Computation:
    """Compute what changed since the last time, and write what differs as new revisions.

    Args:
        database: where source and table are.
        feature_set: what to bring up to date. A relation that says nothing of what changed is computed
            as a whole.
        full: compute everything again.
        progress: told (entities done, entities in all).

    Raises:
        FeatureError: the table or the source is not as it is declared.
    """
    table.check(database, feature_set)
    if isinstance(feature_set.source, Bars):
        return refresh_symbols(database, feature_set, full=full, progress=progress)
    if follows_readings(feature_set):
        done = refresh_users(database, feature_set, full=full, progress=progress)
        return Computation(feature_set.name, done.rows, done.rows, done.newest)
    return _refresh_whole(database, feature_set)


def _refresh_whole(database: Database, feature_set: FeatureSet) -> Computation:
    # Whoever read earlier also writes earlier: an old computation never ends up as the newest revision.
    with table.one_writer(database, feature_set):
        rows = compute(database, feature_set)
        stored = table.served(database, feature_set, _spans(feature_set, rows))
        # A row that the relation does not give any more stays: it may give the newest days only.
        kept = stored.join(rows, on=[*feature_set.key_columns, "event_timestamp"], how="semi")
        found = table.revisions(feature_set, rows, kept)
        with database.connect() as connection:
            written = table.append(connection, feature_set, found)
    newest = written.sort("event_timestamp", "recorded_at").unique(
        feature_set.key_columns, keep="last", maintain_order=True
    )
    return Computation(feature_set.name, rows.height, written.height, newest)


def _spans(feature_set: FeatureSet, rows: pl.DataFrame) -> list[table.Span]:
    entities = rows.select(feature_set.key_columns).unique()
    return [table.Span(entity, BEGINNING, END) for entity in entities.iter_rows()]
