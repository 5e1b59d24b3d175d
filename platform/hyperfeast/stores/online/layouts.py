"""The commands that write a view's rows, in either layout: what Redis is asked, and what it is told.

`HashLayout` is Feast's: a hash an entity, a field a feature. `PackedLayout` is ours: a value a view and entity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha1
from typing import Any, ClassVar, Protocol

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from hyperfeast.stores.online import packed, wire
from hyperfeast.stores.online.encode import ArrayOfBytes, fixed, joined, timestamp_bytes
from hyperfeast.stores.online.resp import commands
from hyperfeast.stores.online.rows import NEVER, UNKNOWN, Micros, Rows

_MICROS = 1_000_000
_DISTINCT_TIMES = 4096
# Both moments, each as whole seconds and microseconds: what a script's 64-bit floats hold exactly.
_STAMP = np.dtype([("event", "<i8"), ("event_us", "<i4"), ("rec", "<i8"), ("rec_us", "<i4")])


class Layout(Protocol):
    """How a view's rows stand in Redis."""

    @property
    def script(self) -> bytes:
        """Compares and writes one row."""

    @property
    def puts_a_row(self) -> int:
        """How many commands `puts` has for a row."""

    def keys(self, rows: Rows) -> ArrayOfBytes:
        """Their keys in Redis."""

    def reads(self, keys: ArrayOfBytes) -> ArrayOfBytes:
        """The commands that fetch the stored times."""

    def times(self, replies: Sequence[Any]) -> tuple[Micros, Micros]:
        """Stored event times and times of recording, out of the replies; NEVER where there is none."""

    def puts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """The commands that write."""

    def scripts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """The calls of the script, which answers 1 if it wrote."""


@dataclass(frozen=True)
class HashLayout:
    """Feast's own.

    Attributes:
        view: its name in Redis.
        ttl_s: after how many seconds an entity expires; 0 for never.
    """

    view: str
    ttl_s: int

    script: ClassVar[bytes] = b"""\
local function moment(raw) -- of a protobuf Timestamp: whole seconds, microseconds
  local parts, at = {[8] = 0, [16] = 0}, 1
  while at <= #raw do
    local field, value, inverse, scale, count, byte = raw:byte(at), 0, 0, 1, 0, 0
    repeat
      at, count = at + 1, count + 1
      byte = raw:byte(at)
      if count < 10 then
        value, inverse = value + byte % 128 * scale, inverse + (127 - byte % 128) * scale
      end
      scale = scale * 128
    until byte < 128
    parts[field] = count == 10 and -inverse - 1 or value
    at = at + 1
  end
  return parts[8], math.floor(parts[16] / 1000)
end

local function newer(a, a_us, b, b_us) return a > b or (a == b and a_us > b_us) end

local stamp = '<i8i4i8i4'
local event, event_us, rec, rec_us = struct.unpack(stamp, ARGV[3])
local stored = redis.call('HMGET', KEYS[1], ARGV[1], ARGV[2])
if stored[1] then
  local s, s_us = moment(stored[1])
  if newer(s, s_us, event, event_us) then return 0 end
  if s == event and s_us == event_us and stored[2] then
    local of, of_us, r, r_us = struct.unpack(stamp, stored[2])
    if of == event and of_us == event_us and newer(r, r_us, rec, rec_us) then return 0 end
  end
end
for i = 5, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if ARGV[4] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
return 1
"""

    @property
    def puts_a_row(self) -> int:
        """How many commands `puts` has for a row."""
        return 2 if self.ttl_s else 1

    def keys(self, rows: Rows) -> ArrayOfBytes:
        """The entities' own: all views of an entity share a hash."""
        return rows.keys

    def reads(self, keys: ArrayOfBytes) -> ArrayOfBytes:
        """The commands that fetch the stored times."""
        return commands(b"HMGET", keys, *self._time_fields)

    def times(self, replies: Sequence[Any]) -> tuple[Micros, Micros]:
        """Stored times; that of recording counts only for the event for which it was written."""
        events = np.array([_micros(reply[0]) for reply in replies], np.int64)
        recorded = np.full(len(replies), NEVER)
        known = [at for at, reply in enumerate(replies) if reply[1]]
        stamps = np.frombuffer(b"".join(replies[at][1] for at in known), _STAMP)
        same = stamps["event"] * _MICROS + stamps["event_us"] == events[known]
        recorded[known] = np.where(same, stamps["rec"] * _MICROS + stamps["rec_us"], NEVER)
        return events, recorded

    def puts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """An HSET a row, and its EXPIRE if there is one."""
        puts = commands(b"HSET", keys, *self._fields(rows))
        if not self.ttl_s:
            return puts
        return joined([puts, commands(b"EXPIRE", keys, b"%d" % self.ttl_s)])

    def scripts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """The calls of the script."""
        times = (*self._time_fields, _stamps(rows), b"%d" % self.ttl_s)
        return commands(b"EVALSHA", _sha(self.script), b"1", keys, *times, *self._fields(rows))

    @property
    def _time_fields(self) -> tuple[bytes, bytes]:
        return wire.timestamp_field(self.view), wire.recorded_field(self.view)

    def _fields(self, rows: Rows) -> list[bytes | ArrayOfBytes]:
        """Field, value, … as HSET takes them."""
        event, recorded = self._time_fields
        fields: list[bytes | ArrayOfBytes] = [event, timestamp_bytes(rows.event)]
        if not np.isin(rows.recorded, (UNKNOWN, NEVER)).all():
            # Nothing is known to be stored of a row that does not say when it was recorded.
            known = np.where(rows.recorded == UNKNOWN, NEVER, rows.recorded)
            fields += [recorded, _stamps(replace(rows, recorded=known))]
        for name, column in rows.values.items():
            fields += [wire.field_hash(self.view, name), column]
        return fields


@dataclass(frozen=True)
class PackedLayout:
    """One value a view and entity.

    Attributes:
        view: its name in Redis.
        schema: its features.
        ttl_s: after how many seconds a value expires; 0 for never.
    """

    view: str
    schema: packed.Schema
    ttl_s: int

    puts_a_row: ClassVar[int] = 1

    script: ClassVar[bytes] = b"""\
local stored = redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])
if #stored == 16 then
  local old = {struct.unpack('>I4I4I4I4', stored)}
  local new = {struct.unpack('>I4I4I4I4', ARGV[3])}
  for i = 1, 4 do
    if old[i] > new[i] then return 0 end
    if old[i] < new[i] then break end
  end
end
redis.call('SET', KEYS[1], unpack(ARGV, 4))
return 1
"""

    def keys(self, rows: Rows) -> ArrayOfBytes:
        """The view's own."""
        return joined([packed.key_head(self.view), rows.keys])

    def reads(self, keys: ArrayOfBytes) -> ArrayOfBytes:
        """The commands that fetch the stored times."""
        return commands(b"GETRANGE", keys, *_TIMES_AT)

    def times(self, replies: Sequence[Any]) -> tuple[Micros, Micros]:
        """Stored times."""
        stored = np.full((len(replies), 2), NEVER)
        known = [at for at, reply in enumerate(replies) if reply]
        biased = np.frombuffer(b"".join(replies[at] for at in known), ">u8").astype(np.uint64)
        stored[known] = (biased ^ _BIAS).view(np.int64).reshape(-1, 2)
        return stored[:, 0], stored[:, 1]

    def puts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """A SET a row."""
        return commands(b"SET", keys, *self._value(rows))

    def scripts(self, keys: ArrayOfBytes, rows: Rows) -> ArrayOfBytes:
        """The calls of the script."""
        moments = np.stack([rows.event, rows.recorded], axis=1).view(np.uint64) ^ _BIAS
        stamps = fixed(moments.astype(">u8").view(np.uint8))
        call = (b"EVALSHA", _sha(self.script), b"1", keys, *_TIMES_AT, stamps)
        return commands(*call, *self._value(rows))

    def _value(self, rows: Rows) -> list[bytes | ArrayOfBytes]:
        """What SET takes after the key."""
        recorded = np.where(rows.recorded == UNKNOWN, NEVER, rows.recorded)
        nothing = fixed(np.empty((len(rows), 0), np.uint8))
        columns = [rows.values.get(name, nothing) for name, _ in self.schema.features]
        value = packed.pack(self.schema, columns, rows.event, recorded)
        return [value, b"EX", b"%d" % self.ttl_s] if self.ttl_s else [value]


_BIAS = np.uint64(1 << 63)
_TIMES_AT = (b"%d" % packed.EVENT_AT, b"%d" % (packed.HEADER_BYTES - 1))


@lru_cache(_DISTINCT_TIMES)
def _micros(moment: bytes | None) -> int:
    """A stored event time; entities of one bar have the same."""
    return NEVER if moment is None else int(Timestamp.FromString(moment).ToMicroseconds())


def _stamps(rows: Rows) -> ArrayOfBytes:
    """The rows' times, as the script and the `_rec` field hold them."""
    stamps: NDArray[Any] = np.empty(len(rows), _STAMP)
    stamps["event"], stamps["event_us"] = np.divmod(rows.event, _MICROS)
    stamps["rec"], stamps["rec_us"] = np.divmod(rows.recorded, _MICROS)
    return fixed(stamps.view(np.uint8).reshape(len(rows), _STAMP.itemsize))


def _sha(script: bytes) -> bytes:
    return sha1(script, usedforsecurity=False).hexdigest().encode()
