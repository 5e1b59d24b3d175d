"""What was read as Feast's own response: its protobuf message is written around the values' own bytes.

Redis holds each value as the bytes of a protobuf message, and the response consists of those messages: so
they are put in place as they are, and the whole is parsed once. Most who ask want no message, but a dictionary
of values: where those are plain, it is made of the bytes, and the message only if somebody looks at it.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from feast.feature_view import DUMMY_ENTITY_ID
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus, GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType
from google.protobuf.timestamp_pb2 import Timestamp

from hyperfeast.stores.online.asked import Asked
from hyperfeast.stores.online.plan import Plan
from hyperfeast.stores.online.views import Cells, Found

_SHORT = 128
_LENGTHS = [bytes([length]) for length in range(_SHORT)]
# Field numbers of the messages, each with a length after it.
_METADATA, _RESULT = b"\x0a", b"\x12"
_NAMES, _NAME = b"\x0a", b"\x0a"
_VALUE, _STATUSES, _TIMESTAMP = b"\x0a", b"\x12", b"\x1a"
_PRESENT = bytes([FieldStatus.PRESENT])
_TAGS = {ValueType.STRING: b"\x12", ValueType.INT32: b"\x18", ValueType.INT64: b"\x20"}
# From here on a float64 of seconds, in which Feast holds event times, does not tell microseconds apart.
_EXACT_UNTIL_S = 1 << 32
_NANOS_IN_A_MICRO = 1_000


class Response(OnlineResponse):
    """Feast's response, equal to its own.

    As in Feast's own Redis store every feature is PRESENT, also one that has no value: such a value is
    empty. A view without a row has the timestamp zero.

    Args:
        plan: of the request.
        asked: its entities, whose values are plain.
        found: what was read of each view, a row for each distinct entity.
    """

    def __init__(self, plan: Plan, asked: Asked, found: Sequence[Found]) -> None:
        self._plan = plan
        self._asked = asked
        self._found = found
        self._feature_types = dict(plan.feature_types)

    @cached_property
    def proto(self) -> GetOnlineFeaturesResponse:
        """Feast's message."""
        message = _message(self._plan, self._asked, self._found)
        written: GetOnlineFeaturesResponse = OnlineResponse(message).proto
        return written

    def to_dict(self, include_event_timestamps: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """Name -> values, as Feast's own."""
        # A message that somebody has may be another by now.
        is_seen = "proto" in vars(self)
        columns = None if is_seen or include_event_timestamps else self._columns()
        if columns is None:
            columns = super().to_dict(include_event_timestamps)
        return columns

    def _columns(self) -> dict[str, list[Any]] | None:
        """None if Feast's own code has to read a value."""
        if not self._plan.is_plain:
            return None
        out = {name: [*values] for name, values in self._asked.columns.items()}
        out.pop(DUMMY_ENTITY_ID, None)
        views = zip(self._plan.views, self._found, self._asked.indexes, strict=True)
        for view, read, index in views:
            columns = read.plain()
            if columns is None:
                return None
            if index is not None:
                columns = [[column[at] for at in index] for column in columns]
            out.update(zip(view.outputs, columns, strict=True))
        return out


def _message(plan: Plan, asked: Asked, found: Sequence[Found]) -> GetOnlineFeaturesResponse:
    statuses = _delimited(_STATUSES, _PRESENT * asked.rows)
    no_time = (_TIMESTAMP + b"\x00") * asked.rows
    names = [*asked.columns]
    results = [
        _result(_key_values(plan.entity_types[name], values), statuses, no_time)
        for name, values in asked.columns.items()
    ]
    for view, read, index in zip(plan.views, found, asked.indexes, strict=True):
        names += view.outputs
        values, stamps = read.values(), [_as_feast(stamp) for stamp in read.stamps()]
        if index is not None:
            values, stamps = [values[at] for at in index], [stamps[at] for at in index]
        times = b"".join([_delimited(_TIMESTAMP, stamp) for stamp in stamps])
        results += [_result(column, statuses, times) for column in zip(*values, strict=True)]
    listed = b"".join([_delimited(_NAME, name.encode()) for name in names])
    metadata = _delimited(_METADATA, _delimited(_NAMES, listed))
    message: GetOnlineFeaturesResponse = GetOnlineFeaturesResponse.FromString(
        b"".join([metadata, *results])
    )
    return message


def _result(values: Iterable[bytes | None], statuses: bytes, times: bytes) -> bytes:
    """One feature's values."""
    written = b"".join([_delimited(_VALUE, value or b"") for value in values])
    return _delimited(_RESULT, written + statuses + times)


def _delimited(tag: bytes, content: bytes) -> bytes:
    length = len(content)
    return tag + (_LENGTHS[length] if length < _SHORT else _varint(length)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= _SHORT:
        out.append(number & (_SHORT - 1) | _SHORT)
        number >>= 7
    out.append(number)
    return bytes(out)


def _key_values(kind: ValueType, values: Cells) -> list[bytes]:
    tag = _TAGS[kind]
    if kind is ValueType.STRING:
        return [_delimited(tag, value.encode()) for value in values]
    return [tag + _varint(value & 0xFFFF_FFFF_FFFF_FFFF) for value in values]


def _as_feast(stamp: bytes | None) -> bytes:
    """An event time as Feast gives it back: it goes through a float of seconds, to a microsecond."""
    if not stamp:
        return b""
    moment = Timestamp.FromString(stamp)
    if 0 <= moment.seconds < _EXACT_UNTIL_S and not moment.nanos % _NANOS_IN_A_MICRO:
        return stamp
    rounded = Timestamp()
    rounded.FromDatetime(datetime.fromtimestamp(_seconds(stamp), tz=UTC))
    return bytes(rounded.SerializeToString())


def entity_rows(
    features: Sequence[str],
    values: Iterable[Sequence[bytes | None]],
    stamps: Iterable[bytes | None],
) -> list[tuple[datetime | None, dict[str, Value] | None]]:
    """Event time and values of each entity, as `online_read` of Feast's Redis store returns them.

    Where there is no row the time is 1970 and the values are empty.
    """
    if not features:
        return [(None, None) for _ in stamps]
    return [
        (
            datetime.fromtimestamp(_seconds(stamp or b""), tz=UTC),
            {
                name: Value.FromString(value or b"")
                for name, value in zip(features, row, strict=True)
            },
        )
        for row, stamp in zip(values, stamps, strict=True)
    ]


def _seconds(stamp: bytes) -> float:
    moment = Timestamp.FromString(stamp)
    return float(moment.seconds + moment.nanos / 1_000_000_000)
