"""The entity rows of one request: their keys in Redis, each distinct one once."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hyperfeast.errors import UsageError
from hyperfeast.stores.online.plan import Plan
from hyperfeast.stores.online.views import Cells, is_plain

# One mapping a row (join key -> value), or one column a join key.
EntityRows: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Cells]


@dataclass(frozen=True)
class Asked:
    """The entities of a request.

    Attributes:
        columns: the request's, by name.
        rows: how many there are.
        keys: for each key group of the plan, the distinct keys.
        indexes: for each view of the plan, which of its group's keys each row has; None if each has its own.
    """

    columns: Mapping[str, Cells]
    rows: int
    keys: Sequence[Sequence[bytes]]
    indexes: "Sequence[NDArray[np.intp] | None]"


def asked(plan: Plan, entity_rows: EntityRows) -> Asked:
    """The entities of a request for numbers or Arrow.

    Raises:
        UsageError: rows have different keys, columns different lengths, or a join key is missing.
        DataError: a join key's value is missing, or is not of its type.
    """
    columns, rows = _columns(entity_rows)
    return _distinct(plan, columns, rows, [one.of_cells(columns, rows) for one in plan.groups])


def plainly_asked(plan: Plan, entity_rows: Any) -> Asked | None:
    """The entities of a request for Feast's response; None if Feast itself had better read the rows.

    That is so wherever Feast converts, completes, or refuses something: then it does, in its own way.
    """
    try:
        columns, rows = _columns(entity_rows)
    except (UsageError, AttributeError, TypeError):
        return None
    if not rows or not all(
        name in plan.join_keys
        and isinstance(values, list | tuple)
        and is_plain(values, plan.entity_types.get(name))
        for name, values in columns.items()
    ):
        return None
    if any(name not in columns for group in plan.groups for name in group.columns):
        return None
    return _distinct(plan, columns, rows, [one.of_plain(columns, rows) for one in plan.groups])


def _columns(entity_rows: EntityRows) -> tuple[dict[str, Cells], int]:
    """Entity rows as columns, and how many rows there are."""
    if isinstance(entity_rows, Mapping):
        columns = dict(entity_rows)
        for name, values in columns.items():
            if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
                raise UsageError(
                    f"entity rows: expected a list of values for {name!r}, found {values!r}: "
                    f"write {{{name!r}: [{values!r}]}}"
                )
        counts = {len(values) for values in columns.values()}
        if len(counts) > 1:
            raise UsageError(
                "expected columns of one length in the entity rows, found "
                + ", ".join(f"{name}: {len(values):,}" for name, values in columns.items())
            )
        return columns, counts.pop() if counts else 0
    names = entity_rows[0].keys() if entity_rows else ()
    if sum(map(len, entity_rows)) == len(names) * len(entity_rows):
        with suppress(KeyError):
            return {name: [row[name] for row in entity_rows] for name in names}, len(entity_rows)
    at, other = next((at, row) for at, row in enumerate(entity_rows) if row.keys() != names)
    raise UsageError(
        f"expected the same keys in all entity rows: the first has {', '.join(names)}; row {at} has "
        f"{', '.join(other)}"
    )


def _distinct(
    plan: Plan, columns: Mapping[str, Cells], rows: int, keys: Sequence[list[bytes]]
) -> Asked:
    distinct: list[Sequence[bytes]] = []
    indexes: list[NDArray[np.intp] | None] = [None] * len(plan.views)
    for group, mine in zip(plan.groups, keys, strict=True):
        places = dict.fromkeys(mine)
        if len(places) == rows:
            distinct.append(mine)
            continue
        places = {key: at for at, key in enumerate(places)}
        index = np.fromiter((places[key] for key in mine), np.intp, rows)
        distinct.append([*places])
        for view in group.views:
            indexes[view] = index
    return Asked(columns, rows, distinct, indexes)
