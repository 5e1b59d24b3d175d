"""Every stored entity that has a value among its keys, such as a user's id, in both layouts and all views.

It is looked for by the bytes that stand for the value in a key, so that views which nobody defines any more
are found as well. Another project's keys are left alone.
"""

import struct
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from feast import FeatureStore
from feast.value_type import ValueType

from hyperfeast.stores.online.reading import reader_of

_AT_ONCE = 1000
_PACKED = b"_packed\0"
_LENGTH, _HEAD = struct.Struct("<I"), struct.Struct("<II")
# What Feast writes of each type that a join key may have.
_READ: dict[int, Callable[[bytes], str | int | bytes]] = {
    ValueType.STRING.value: bytes.decode,
    ValueType.BYTES.value: bytes,
    ValueType.INT32.value: lambda written: int(struct.unpack("<i", written)[0]),
    ValueType.INT64.value: lambda written: int(struct.unpack("<q", written)[0]),
    ValueType.UNIX_TIMESTAMP.value: lambda written: int(struct.unpack("<q", written)[0]),
}


def keys_of(store: FeatureStore, value: str) -> Iterator[bytes]:
    """The keys in Redis of all entities with this text among their values.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.
        value: without characters that mean something in a pattern.
    """
    client = _client(store)
    project = store.project.encode()
    text = value.encode()
    for key in client.scan_iter(b"*" + text + b"*" + project, count=_AT_ONCE):
        if value in _entity(key, project).values():
            yield key


def forget(store: FeatureStore, value: str) -> int:
    """Delete these keys; how many there were."""
    client, gone = _client(store), 0
    keys = keys_of(store, value)
    while some := list(islice(keys, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.delete(key)
            gone += sum(pipe.execute())
    return gone


def rows_of(store: FeatureStore, value: str) -> Iterator[dict[str, Any]]:
    """What Feast serves of these entities: view, keys, and the features by name."""
    project = store.project.encode()
    entities = {tuple(_entity(key, project).items()) for key in keys_of(store, value)}
    views = [view for view in store.list_feature_views() if view.online]
    for entity in sorted(entities, key=repr):
        keys = dict(entity)
        for view in views:
            if set(view.join_keys) == set(keys):
                served = store.get_online_features(
                    features=[f"{view.name}:{field.name}" for field in view.features],
                    entity_rows=[keys],
                ).to_dict()
                row = {name: values[0] for name, values in served.items() if name not in keys}
                yield {"view": view.name, "keys": keys, "features": row}


def _client(store: FeatureStore) -> Any:
    return reader_of(store).client(store.config)


def _entity(key: bytes, project: bytes) -> dict[str, str | int | bytes]:
    """Names and values of an entity, out of its key in Redis; nothing if it is the key of something else."""
    try:
        # A packed value's key begins with the layout's and the view's name, each ended by a zero byte.
        at = key.index(b"\0", len(_PACKED)) + 1 if key.startswith(_PACKED) else 0
        (count,) = _LENGTH.unpack_from(key, at)
        parts, at = _parts(key, at + _LENGTH.size, 2 * count)
        if key[at:] != project:
            return {}
        names = [written.decode() for _, written in parts[:count]]
        values = [_READ[kind](written) for kind, written in parts[count:]]
    except (struct.error, KeyError, ValueError):
        return {}
    return dict(zip(names, values, strict=True))


def _parts(key: bytes, at: int, count: int) -> tuple[list[tuple[int, bytes]], int]:
    """So many types, each with what is written of it, and the place behind them."""
    parts: list[tuple[int, bytes]] = []
    while len(parts) < count:
        kind, length = _HEAD.unpack_from(key, at)
        at += _HEAD.size + length
        parts.append((kind, key[at - length : at]))
    return parts, at
