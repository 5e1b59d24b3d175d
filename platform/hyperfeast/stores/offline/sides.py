"""The spine's side of a join: its keys as they are compared, its entities numbered, its rows sorted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from hyperfeast.errors import FeatureError
from hyperfeast.stores.offline import lookup
from hyperfeast.stores.offline.asof import Integers, Moments, sorted_moments
from hyperfeast.stores.offline.columns import Chunks
from hyperfeast.stores.offline.entities import Entities, key_values
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.spine import Spine


@dataclass(frozen=True)
class Side:
    """The spine's side of a merge for one set of join keys.

    Attributes:
        entities: the spine's entities.
        moments: its rows, sorted.
        times: int64[rows], the moments in the spine's order.
        timeless: where a moment is missing.
    """

    entities: Entities
    moments: Moments
    times: Integers
    timeless: NDArray[np.bool_] | None


def side(spine: Spine, keys: Sequence[Chunks]) -> Side:
    """Number and sort the spine's rows by some of its columns, as `entities.key_values` gives them."""
    entities = Entities(keys, spine.rows)
    moments = sorted_moments(entities.codes, entities.count, spine.moments, spine.timeless)
    return Side(entities, moments, spine.moments, spine.timeless)


def key_columns(block: Spine, views: Sequence[View]) -> dict[tuple[str, str], Chunks]:
    """(the spine's column, kind of key) -> its values as they are compared.

    Raises:
        FeatureError: a join key is no column of the spine, cannot be compared with the view's, or a
            feature is called as a column of the spine.
    """
    found: dict[tuple[str, str], Chunks] = {}
    names = block.table.column_names
    for view in views:
        for key, column in view.keys.items():
            if key not in names:
                raise FeatureError(
                    f"feature view {view.name!r}: the spine (entity_df) has no column {key!r}, which is its "
                    f"join key; it has {', '.join(names)}: add the column, or rename the one that is meant"
                )
            if (key, column.kind) not in found:
                found[key, column.kind] = key_values(
                    block.table.column(key), key, view.name, column
                )
        taken = next((output for output in view.outputs if output in names), None)
        if taken is not None:
            raise FeatureError(
                f"feature view {view.name!r}: its feature and a column of the spine (entity_df) are both "
                f"called {taken!r}: ask with full_feature_names=True, or rename the spine's column"
            )
    return found


class Sides:
    """A block of the spine, sorted once for each set of join keys.

    Args:
        block: a part of the spine.
        keys: what `key_columns` gives for it.
    """

    def __init__(self, block: Spine, keys: Mapping[tuple[str, str], Chunks]) -> None:
        self.block, self.keys = block, keys
        self._made: dict[tuple[tuple[str, str], ...], Side] = {}
        self._uniques: dict[tuple[str, str], Any] = {}

    def of(self, view: View) -> Side:
        """The side that a view is merged with."""
        names = tuple((key, column.kind) for key, column in view.keys.items())
        if names not in self._made:
            self._made[names] = side(self.block, [self.keys[name] for name in names])
        return self._made[names]

    def only(self, view: View, most: int) -> sql.Composable | None:
        """The condition that a row is of the spine's entities; None where these are many, or have many keys."""
        if len(view.keys) != 1:
            return None
        ((key, column),) = view.keys.items()
        unique = self._unique(key, column.kind)
        if (
            len(unique) > most
            or column.kind in ("instant", "bool")
            or column.type_name == "numeric"
        ):
            return None
        values = sql.SQL(", ").join(sql.Literal(value) for value in unique.to_pylist())
        own = column.key if lookup.needs_cast(column) else column.identifier
        array = sql.SQL("ARRAY[{}]::{}").format(values, lookup.array_type(column))
        return sql.SQL("{} = ANY ({})").format(own, array)

    def _unique(self, key: str, kind: str) -> Any:
        if (key, kind) not in self._uniques:
            self._uniques[key, kind] = self.keys[key, kind].unique().drop_null()
        return self._uniques[key, kind]

    @cached_property
    def middle(self) -> int:
        """Where the row stands whose moment is the median; rows without one are left out."""
        block = self.block
        present = (
            np.arange(block.rows) if block.timeless is None else np.flatnonzero(~block.timeless)
        )
        middle = len(present) // 2
        return int(present[np.argpartition(block.moments[present], middle)[middle]])
