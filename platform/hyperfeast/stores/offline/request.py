"""What a point-in-time read asks for: frozen, built from Feast's objects, and then checked against the tables."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

import psycopg
from feast import FeatureView
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.utils import _get_requested_feature_views_to_features_dict
from psycopg import sql

from hyperfeast.errors import FeatureError
from hyperfeast.stores.as_known_at import KnownAt, known_at_relation
from hyperfeast.stores.offline.columns import Column, described

# PostgreSQL's own times span less than 2^59 microseconds: an age above that excludes nothing.
_ENDLESS_US = 2**60


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A feature view as its definition has it; names of the source are not yet known to be there.

    Attributes:
        name: what the features are called by: the view's name, or its alias.
        table: the source's table as it is written there; empty for a query.
        relation: what stands after FROM.
        keys: the spine's column -> the source's column; empty for a view without entities.
        timestamp: the source's column of the event time (an available time).
        created: the source's column of the recorded time, if it has one.
        ttl_us: how old a row may be, in microseconds; None for any age.
        features: the source's column and the name in the answer, in Feast's order.
    """

    name: str
    table: str
    relation: sql.Composable
    keys: Mapping[str, str]
    timestamp: str
    created: str | None
    ttl_us: int | None
    features: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class View:
    """A feature view whose columns are known to be there.

    Attributes: those of `Wanted`, and
        known_by: only rows that were recorded by this moment count (UTC); None where all do.
        between: only rows with an event time from the first moment to the second, both included.
    """

    name: str
    relation: sql.Composable
    keys: Mapping[str, Column]
    timestamp: Column
    created: Column | None
    ttl_us: int | None
    features: Sequence[tuple[Column, str]]
    known_by: datetime | None = None
    between: tuple[datetime, datetime] | None = None

    @property
    def outputs(self) -> list[str]:
        """What the features are called in the answer."""
        return [output for _, output in self.features]


def wanted(
    feature_views: Sequence[FeatureView], feature_refs: Sequence[str], *, full_feature_names: bool
) -> list[Wanted]:
    """What Feast asks of each view, with its mappings, aliases and projections resolved.

    Args:
        feature_views: Feast's.
        feature_refs: `view:feature`; those of on-demand views are theirs to compute.
        full_feature_names: whether a feature is called `view__feature` in the answer.

    Raises:
        FeatureError: a view is not on PostgreSQL, or names no event time.
    """
    views = {view.projection.name_to_use(): view for view in feature_views}
    own = [ref for ref in feature_refs if ref.rsplit(":", 1)[0] in views]
    grouped, _ = _get_requested_feature_views_to_features_dict(own, list(feature_views), [])
    found = [
        _wanted(view, features, full_feature_names=full_feature_names)
        for view, features in grouped.items()
    ]
    _refuse_duplicates(found)
    return found


def _wanted(view: FeatureView, features: Iterable[str], *, full_feature_names: bool) -> Wanted:
    source = view.batch_source
    name = view.projection.name_to_use()
    if not isinstance(source, PostgreSQLSource):
        raise FeatureError(
            f"feature view {name!r}: expected a PostgreSQLSource, found "
            f"{type(source).__name__ if source else 'no batch source'}: give it one, or read it with the "
            "offline store of its kind"
        )
    if not source.timestamp_field:
        raise FeatureError(
            f"feature view {name!r}: its source {source.name!r} names no event time: set timestamp_field"
        )
    # The mapping is source's column -> feature; the same names serve join keys and times.
    column = {feature: column for column, feature in source.field_mapping.items()}
    aliases = view.projection.join_key_map
    return Wanted(
        name=name,
        table=source._postgres_options._table,  # noqa: SLF001 - Feast has no other way to ask
        relation=sql.SQL(source.get_table_query_string()),
        keys={
            aliases.get(entity.name, entity.name): column.get(entity.name, entity.name)
            for entity in view.entity_columns
        },
        timestamp=column.get(source.timestamp_field, source.timestamp_field),
        created=column.get(source.created_timestamp_column, source.created_timestamp_column)
        or None,
        ttl_us=_age(view.ttl),
        features=[
            (column.get(feature, feature), f"{name}__{feature}" if full_feature_names else feature)
            for feature in features
        ],
    )


def _age(ttl: timedelta | None) -> int | None:
    """A view's TTL; for Feast zero is none."""
    if not ttl:
        return None
    microseconds = ttl // timedelta(microseconds=1)
    return microseconds if microseconds < _ENDLESS_US else None


def _refuse_duplicates(views: Iterable[Wanted]) -> None:
    origin: dict[str, str] = {}
    for view in views:
        for column, output in view.features:
            if output in origin:
                raise FeatureError(
                    f"feature view {view.name!r}: its column {column!r} and a feature of {origin[output]!r} would "
                    f"both be called {output!r}: ask with full_feature_names=True, or give a view an alias"
                )
            origin[output] = view.name


def resolved(
    connection: psycopg.Connection[Any],
    view: Wanted,
    *,
    known_at: KnownAt = None,
    by_created: bool = False,
    between: tuple[datetime, datetime] | None = None,
) -> View:
    """A view with its columns as the database has them.

    Args:
        connection: where its source is.
        view: what its definition says.
        known_at: read it as it was known at this moment (UTC); None reads it as known now.
        by_created: whether its created time is going to be asked for.
        between: only rows with an event time from the first moment to the second, both included.

    Raises:
        FeatureError: a column is not there or cannot be what it is to be, or the view cannot tell
            what was known when; it names the view, the column and the remedy.
        psycopg.Error: whatever else the server refuses.
    """
    replaced = known_at_relation(connection, view.table, known_at) if known_at else None
    relation = replaced or view.relation
    columns = _described(connection, view, relation)
    created = view.created
    if replaced is not None and created not in columns:
        # The function has settled what was known, and keeps no recorded time.
        created = None
    if known_at and replaced is None and created is None:
        raise FeatureError(
            f"feature view {view.name!r} cannot be read as known at {known_at:%Y-%m-%d %H:%M:%S%z}: its source "
            "has no recorded time: set created_timestamp_column, or write a function "
            f"{view.table or '<table>'}_as_known_at(timestamptz) beside its table"
        )
    if by_created and view.created is not None and created is None:
        raise FeatureError(
            f"feature view {view.name!r}: filter_by_created_timestamp asks for the column {view.created!r}, which "
            f"{view.table}_as_known_at does not return: return it there, or ask for one of the two"
        )
    timestamp = _column(columns, view, view.timestamp, "timestamp_field")
    recorded = (
        None if created is None else _column(columns, view, created, "created_timestamp_column")
    )
    for column, role in ((timestamp, "timestamp_field"), (recorded, "created_timestamp_column")):
        _refuse_no_time(view, column, role)
    return View(
        name=view.name,
        relation=relation,
        keys={
            key: _column(columns, view, column, f"join key {key}")
            for key, column in view.keys.items()
        },
        timestamp=timestamp,
        created=recorded,
        ttl_us=view.ttl_us,
        features=[
            (_column(columns, view, column, f"feature {output}"), output)
            for column, output in view.features
        ],
        known_by=known_at if replaced is None else None,
        between=between,
    )


def _described(
    connection: psycopg.Connection[Any], view: Wanted, relation: sql.Composable
) -> dict[str, Column]:
    try:
        return described(connection, relation)
    except psycopg.ProgrammingError as error:
        raise FeatureError(
            f"feature view {view.name!r}: PostgreSQL refused its source "
            f"({error.diag.message_primary}): correct its table or query, or `db_schema` under "
            "offline_store in feature_store.yaml"
        ) from error


def _column(columns: Mapping[str, Column], view: Wanted, name: str, role: str) -> Column:
    if name in columns:
        return columns[name]
    close = get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(columns)}."
    raise FeatureError(
        f"feature view {view.name!r}: its source has no column {name!r} ({role}): {hint} Correct the view, or map "
        "the name with field_mapping"
    )


def _refuse_no_time(view: Wanted, column: Column | None, role: str) -> None:
    if column is not None and not column.is_instant:
        raise FeatureError(
            f"feature view {view.name!r}: expected a time in its column {column.name!r} ({role}), found "
            f"{column.type_name}: make it timestamptz, or convert it in the source's query"
        )
