"""Deleting a view's rows, and an entity's, from Redis: exactly those of one project.

Feast's own search is a pattern: the join keys' names, and the project's at the end. It also finds the keys
of a project whose name ends with this one's, and takes `*`, `?` and `[` in a name or its length for wildcards.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from feast.infra.key_encoding_utils import serialize_entity_key_prefix

from hyperfeast.stores.online import packed, wire

_AT_ONCE = 1000
_WILDCARDS = re.compile(rb"([*?\[\]\\])")
# In one step, since another view's row may be written to the same hash at any moment. A hash that no other view
# has a time in goes as a whole, and with it fields of features that the view had once.
_DELETE = b"""\
local mine, others = false, false
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if name == ARGV[1] then mine = true
  elseif name:sub(1, 4) == '_ts:' then others = true end
end
if mine and not others then return redis.call('DEL', KEYS[1]) end
if mine then
  for i = 1, #ARGV, 1000 do
    redis.call('HDEL', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
end
return 0
"""


def entity_keys(
    client: Any, join_keys: Sequence[str], project: str, head: bytes = b""
) -> Iterator[bytes]:
    """The stored keys of the entities with these join keys.

    Args:
        client: of redis-py.
        join_keys: their names.
        project: the Feast project.
        head: what stands before the entity's own key.
    """
    prefix = head + serialize_entity_key_prefix(list(join_keys))
    tail = project.encode()
    pattern = _WILDCARDS.sub(rb"\\\1", prefix) + b"*" + _WILDCARDS.sub(rb"\\\1", tail)
    for key in client.scan_iter(pattern, count=_AT_ONCE):
        if _after_values(key, len(prefix), len(join_keys)) == tail:
            yield key


def delete_view(
    client: Any, view: str, features: Sequence[str], join_keys: Sequence[str], project: str
) -> None:
    """Delete a view's fields from the hashes of all entities, and hashes that hold no other view.

    Args:
        client: of redis-py.
        view: its name in Redis.
        features: their names.
        join_keys: of its entities.
        project: the Feast project.
    """
    times = (wire.timestamp_field(view), wire.recorded_field(view))
    fields = [*times, *(wire.field_hash(view, name) for name in features)]
    keys = entity_keys(client, join_keys, project)
    while some := list(islice(keys, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.execute_command("EVAL", _DELETE, 1, key, *fields)
            pipe.execute()


def delete_packed_view(client: Any, view: str, join_keys: Sequence[str], project: str) -> None:
    """Delete a view's packed values."""
    delete(client, entity_keys(client, join_keys, project, packed.key_head(view)))


def delete(client: Any, keys: Iterator[bytes]) -> None:
    """Delete keys, some at a time."""
    while some := list(islice(keys, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.delete(key)
            pipe.execute()


def _after_values(key: bytes, at: int, values: int) -> bytes | None:
    """What follows a key's values; None if it has no such values."""
    for _ in range(values):
        if len(key) < at + 8:
            return None
        at += 8 + struct.unpack_from("<I", key, at + 4)[0]
    return key[at:] if at <= len(key) else None
