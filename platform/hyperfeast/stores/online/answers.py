"""What was read as numbers in NumPy, and as Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError
from hyperfeast.stores.online.asked import Asked
from hyperfeast.stores.online.plan import Plan
from hyperfeast.stores.online.views import Found


@dataclass(frozen=True)
class OnlineMatrix:
    """Features of n entities as numbers.

    Attributes:
        values: n x k; NaN where a value is missing, never 0. Booleans are 0 and 1, times seconds since
            1970, integers beyond 2**53 rounded.
        features: the k names, in the order in which they were asked for.
        event_timestamps: n x v, UTC, microseconds: from when each view's row was knowable; NaT where
            there is no row.
        views: the v names.
        view_of: k; the position in `views` of each feature's view.
        ttls: v; how old a row of each view may be, None if it does not matter.
    """

    values: NDArray[np.float64]
    features: tuple[str, ...]
    event_timestamps: NDArray[np.datetime64]
    views: tuple[str, ...]
    view_of: NDArray[np.intp]
    ttls: tuple[timedelta | None, ...]

    def statuses(self, now: datetime | None = None) -> NDArray[np.int8]:
        """Feast's status of each value: n x k, numbers of `feast.protos.feast.serving.FieldStatus`.

        NOT_FOUND (3) without a row; OUTSIDE_MAX_AGE (4) if the row is older than the view's TTL;
        NULL_VALUE (2) if the value is missing, or NaN; else PRESENT (1).

        Args:
            now: the moment at which ages are taken; by default this one.
        """
        moment = np.datetime64(
            (now or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None), "us"
        )
        ages = moment - self.event_timestamps
        out = np.where(np.isnan(self.values), FieldStatus.NULL_VALUE, FieldStatus.PRESENT)
        for view, ttl in enumerate(self.ttls):
            mine = self.view_of == view
            if ttl is not None:
                too_old = ages[:, view] > np.timedelta64(ttl)
                out[np.ix_(too_old, mine)] = FieldStatus.OUTSIDE_MAX_AGE
            absent = np.isnat(self.event_timestamps[:, view])
            out[np.ix_(absent, mine)] = FieldStatus.NOT_FOUND
        return out.astype(np.int8)


def matrix(plan: Plan, asked: Asked, found: Sequence[Found]) -> OnlineMatrix:
    """The features as numbers.

    Args:
        plan: of the request.
        asked: its entities.
        found: what was read of each view, a row for each distinct entity.

    Raises:
        DataError: a value is stored that is not a number.
    """
    parts, times = [], []
    for read, index in zip(found, asked.indexes, strict=True):
        part, moments = read.matrix(), read.times()
        parts.append(part if index is None else part[index])
        times.append(moments if index is None else moments[index])
    values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if plan.permutation is not None:
        values = values[:, plan.permutation]
    moments = times[0][:, None] if len(times) == 1 else np.stack(times, axis=1)
    return OnlineMatrix(values, plan.names, moments, plan.view_names, plan.view_of, plan.ttls)


def refuse_what_is_no_number(plan: Plan) -> None:
    """Refuse a matrix of texts, lists and the like, before anything is read.

    Raises:
        FeatureError: a feature's type is not a number.
    """
    if plan.no_numbers:
        view, feature, kind = plan.no_numbers[0]
        raise FeatureError(
            f"feature view {view!r}: {feature!r} is {kind.name}, and a matrix holds numbers: leave it out, "
            "or read it with online_arrow()"
        )


def table(plan: Plan, asked: Asked, found: Sequence[Found], *, event_timestamps: bool) -> pa.Table:
    """The request's entity columns and the features, in the order in which they were asked for, as Arrow.

    Args:
        plan: of the request.
        asked: its entities.
        found: what was read of each view, a row for each distinct entity.
        event_timestamps: whether to add `<view>__event_timestamp` for each view.

    Raises:
        DataError: a value is stored that is not of its feature's type.
    """
    out: dict[str, Any] = {
        name: values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        for name, values in asked.columns.items()
    }
    for name, (view, feature) in zip(plan.names, plan.order, strict=True):
        out[name] = _spread(found[view].column(feature), asked.indexes[view])
    if event_timestamps:
        for name, read, index in zip(plan.view_names, found, asked.indexes, strict=True):
            times = pa.array(read.times()).cast(pa.timestamp("us", "UTC"))
            out[f"{name}__event_timestamp"] = _spread(times, index)
    return pa.table(out)


def _spread(column: "pa.Array[Any]", index: NDArray[np.intp] | None) -> "pa.Array[Any]":
    return column if index is None else column.take(index)
