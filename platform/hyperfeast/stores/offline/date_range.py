"""Features without a spine: of a date range.

With one view the answer is its rows of the range: `event_timestamp`, `created_timestamp` where the
source has one, the join keys, the features. With several, every (moment, entity) of any view's
row is a row of the answer, joined point in time with the rows of the range. What differs from Feast's
own PostgreSQL store:

- `filter_by_created_timestamp` counts: a row is left out that was recorded after its own event time
  (one view), or after the moment that it would be an answer for (several);
- of the rows of one entity and event time one is the answer: the one that was recorded last, if the source
  says so. Feast gives them all (one view), or any (several);
- join keys go through the field mapping and the aliases, as they do with a spine;
- views of different entities can be asked for at once: a row has NULL for the keys that it does not
  have, and no features of the views that need them. Feast mixes the columns up, or fails;
- the answer is ordered by event_timestamp and join keys.
"""

from collections.abc import Sequence

import pyarrow as pa
from psycopg import sql

from hyperfeast.sqlfiles import query
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.rows import held
from hyperfeast.stores.offline.spine import EVENT_TIMESTAMP

_CREATED_TIMESTAMP = "created_timestamp"


def schema(view: View) -> pa.Schema:
    """Of the answer with one view."""
    created = [(_CREATED_TIMESTAMP, pa.timestamp("us"))] if view.created else []
    return pa.schema(
        [
            (EVENT_TIMESTAMP, pa.timestamp("us")),
            *created,
            *((key, column.arrow) for key, column in view.keys.items()),
            *((output, column.arrow) for column, output in view.features),
        ]
    )


def query_of_one(view: View, *, by_created: bool) -> sql.Composed:
    """The rows of one view, with the columns of `schema`."""
    keys = [
        sql.SQL("{} AS {}").format(column.value, sql.Identifier(key))
        for key, column in view.keys.items()
    ]
    created = [
        sql.SQL("{}::timestamptz AS {}").format(
            column.identifier, sql.Identifier(_CREATED_TIMESTAMP)
        )
        for column in [view.created]
        if column is not None
    ]
    features = [
        sql.SQL("{} AS {}").format(column.value, sql.Identifier(output))
        for column, output in view.features
    ]
    columns = sql.SQL(", ").join([_event(view), *created, *keys, *features])
    order = sql.SQL(", ").join(map(sql.Identifier, [EVENT_TIMESTAMP, *view.keys]))
    condition = sql.SQL(" AND ").join(_conditions(view, by_created=by_created))
    identity = [column.identifier for column in view.keys.values()] + [view.timestamp.identifier]
    newest: list[sql.Composable] = [*identity]
    if view.created is not None:
        newest.append(sql.SQL("{} DESC NULLS LAST").format(view.created.identifier))
    return sql.SQL(query("point_in_time", "range_of_view")).format(
        identity=sql.SQL(", ").join(identity),
        columns=columns,
        relation=view.relation,
        condition=condition,
        newest=sql.SQL(", ").join(newest),
        order=order,
    )


def moments(views: Sequence[View], *, by_created: bool) -> sql.Composed:
    """Every moment and entity of a row of any view: the spine of several views."""
    types: dict[str, str] = {}
    for view in views:
        for key, column in view.keys.items():
            types.setdefault(key, column.type_name)
    each = [
        sql.SQL(query("point_in_time", "moments_of_view")).format(
            columns=sql.SQL(", ").join(
                [
                    _event(view),
                    *(
                        sql.SQL("{} AS {}").format(
                            view.keys[key].identifier
                            if key in view.keys
                            else sql.SQL("NULL::{}").format(sql.Identifier(type_name)),
                            sql.Identifier(key),
                        )
                        for key, type_name in types.items()
                    ),
                ]
            ),
            relation=view.relation,
            condition=sql.SQL(" AND ").join(_conditions(view, by_created=by_created)),
        )
        for view in views
    ]
    return sql.SQL(query("point_in_time", "spine_of_range")).format(
        moments=sql.SQL(" UNION ").join(each),
        order=sql.SQL(", ").join(map(sql.Identifier, [EVENT_TIMESTAMP, *types])),
    )


def _event(view: View) -> sql.Composed:
    return sql.SQL("{}::timestamptz AS {}").format(
        view.timestamp.identifier, sql.Identifier(EVENT_TIMESTAMP)
    )


def _conditions(view: View, *, by_created: bool) -> list[sql.Composable]:
    found = held(view)
    if by_created and view.created is not None:
        found.append(sql.SQL("{} <= {}").format(view.created.identifier, view.timestamp.identifier))
    return found
