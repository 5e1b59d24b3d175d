"""A view's rows that can match a spine: the conditions that tell, the query, and its result as numbers."""

from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import sql

from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.asof import Integers, Rows
from hyperfeast.stores.offline.columns import Array, Chunks, compute, conformed
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.spine import instant

_EVENT, _CREATED = "event", "created"


def rows_query(
    view: View, bounds: tuple[int, int], only: sql.Composable | None = None
) -> sql.Composed:
    """The rows of a view that can match a spine: keys, event time, created time, features.

    Args:
        view: whose rows.
        bounds: the spine's first and last moment, in microseconds since 1970.
        only: a further condition.
    """
    keys = [
        sql.SQL("{} AS {}").format(column.key, sql.Identifier(f"key_{number}"))
        for number, column in enumerate(view.keys.values())
    ]
    event = sql.SQL("{}::timestamptz AS {}").format(
        view.timestamp.identifier, sql.Identifier(_EVENT)
    )
    created = [
        sql.SQL("{}::timestamptz AS {}").format(column.identifier, sql.Identifier(_CREATED))
        for column in [view.created]
        if column is not None
    ]
    features = [
        sql.SQL("{} AS {}").format(column.value, sql.Identifier(f"f_{number}"))
        for number, (column, _) in enumerate(view.features)
    ]
    return sql.SQL(query("point_in_time", "rows")).format(
        columns=sql.SQL(", ").join([*keys, event, *created, *features]),
        relation=view.relation,
        condition=sql.SQL(" AND ").join([*conditions(view, bounds), *([only] if only else [])]),
    )


def conditions(view: View, bounds: tuple[int, int]) -> list[sql.Composable]:
    """What every row of a view fulfills that can match a spine row between two moments.

    Moments are written out, not computed by the server: it can tell which chunks of a hypertable they leave.
    """
    first, last = bounds
    oldest = None if view.ttl_us is None else instant(first - view.ttl_us)
    newest_event = instant(last)
    found: list[sql.Composable] = [
        sql.SQL("{} <= {}").format(view.timestamp.identifier, moment(newest_event))
        if newest_event
        else sql.SQL("{} IS NOT NULL").format(view.timestamp.identifier)
    ]
    if oldest is not None:
        found.append(sql.SQL("{} >= {}").format(view.timestamp.identifier, moment(oldest)))
    return found + held(view)


def held(view: View) -> list[sql.Composable]:
    """What a view's rows fulfill whatever the spine: its range, and what was known."""
    found: list[sql.Composable] = []
    if view.between is not None:
        first, last = map(moment, view.between)
        found.append(sql.SQL("{} BETWEEN {} AND {}").format(view.timestamp.identifier, first, last))
    if view.known_by is not None and view.created is not None:
        found.append(sql.SQL("{} <= {}").format(view.created.identifier, moment(view.known_by)))
    return found


def moment(value: Any) -> sql.Composable:
    """A moment written out, with its zone."""
    return sql.SQL("{}::timestamptz").format(sql.Literal(value.isoformat()))


def timed(view: View, rows: pa.Table | pa.RecordBatch, entities: Integers | None) -> Rows:
    """Rows of `rows_query` with their times as integers.

    Args:
        view: whose rows.
        rows: some of the result.
        entities: the entity of each, as `Entities.of` says.
    """
    events, eventless = _instants(rows.column(_EVENT))
    if view.created is None:
        return Rows(entities, events, eventless)
    created, unrecorded = _instants(rows.column(_CREATED))
    return Rows(entities, events, eventless, created, unrecorded)


def features(view: View, rows: pa.Table) -> list[Array | Chunks]:
    """The features of rows of `rows_query`, in the view's order."""
    return [
        _whole(conformed(rows.column(f"f_{number}"), column.arrow))
        for number, (column, _) in enumerate(view.features)
    ]


def _instants(column: Array | Chunks) -> tuple[Integers, NDArray[np.bool_] | None]:
    absent = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    counts = column.cast(pa.timestamp("us")).cast(pa.int64())
    if absent is not None:
        counts = compute.fill_null(counts, 0)
    return cast("Integers", counts.to_numpy()), absent


def _whole(column: Chunks) -> Array | Chunks:
    """One array, so that a position needs no search for its chunk; unless text is more than one can hold."""
    combined = column.combine_chunks()
    return (
        combined
        if not isinstance(combined, pa.ChunkedArray) or combined.num_chunks != 1
        else combined.chunk(0)
    )
