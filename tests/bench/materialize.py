"""50,000 entities x 20 features from PostgreSQL to Redis: against Feast's own way, and against bare commands.

The peer of `vs-wire` sends the very commands that put these rows there, encoded before the clock runs, down one
socket as fast as Redis takes them: no database, no encoding, no comparison with what is stored.
"""

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from redis.connection import parse_url

from bench.harness import Figure, Task, Turns, alternate, must_equal, stopwatch
from bench.latest import Latest, materialize
from bench.servers import describe, migrated, redis, settle

_ENTITIES = 50_000
_TIMEOUT_S = 60
_A_READ = 1 << 16


def run(task: Task) -> Iterator[Figure]:
    """The cases vs-feast, vs-wire, packed and packed-vs-wire."""
    with (
        tempfile.TemporaryDirectory(prefix="hyperfeast-bench-") as folder,
        migrated() as database,
        redis() as url,
    ):
        latest = Latest(database, url, Path(folder), task.rows or _ENTITIES)
        latest.create()
        task.say(f"{describe(database)}: {latest.entities:,} entities x 20 features")
        ours, stock = _bringing(latest, "ours"), _bringing(latest, "stock")
        packed = _bringing(latest, "ours", layout="packed")
        commands = _equal_commands(latest, ours, stock)
        values = _packed_commands(latest, packed, ours)
        settle(database)
        rounds = task.rounds
        yield _figure(latest, "vs-feast", alternate(ours, stock, rounds=rounds))
        yield _figure(latest, "vs-wire", alternate(ours, _sending(latest, commands), rounds=rounds))
        yield _figure(latest, "packed", alternate(packed, stock, rounds=rounds))
        yield _figure(
            latest, "packed-vs-wire", alternate(packed, _sending(latest, values), rounds=rounds)
        )


def _bringing(latest: Latest, whose: Any, **options: Any) -> Callable[[], float]:
    """Seconds to bring all online, into an empty Redis."""
    store = latest.store(whose, **options)

    def seconds() -> float:
        latest.empty()
        return stopwatch(lambda: materialize(store))

    return seconds


def _equal_commands(latest: Latest, ours: Callable[[], float], stock: Callable[[], float]) -> bytes:
    """The commands that write what both have written, byte for byte the same."""
    stock()
    feasts = latest.hashes()
    ours()
    written = latest.hashes()
    must_equal(len(feasts), latest.entities, "keys in Redis")
    must_equal(written == feasts, True, "the hashes of ours are Feast's, byte for byte:")
    return b"".join(
        _command(b"HSET", key, *(part for field in fields.items() for part in field))
        for key, fields in written.items()
    )


def _packed_commands(
    latest: Latest, packed: Callable[[], float], ours: Callable[[], float]
) -> bytes:
    """The commands that write the packed values, which serve what the hashes do."""
    ours()
    served = latest.served("ours")
    packed()
    must_equal(latest.served("ours", layout="packed") == served, True, "what packed values serve:")
    values = latest.values()
    must_equal(len(values), latest.entities, "packed values in Redis")
    return b"".join(_command(b"SET", key, value) for key, value in values.items())


def _sending(latest: Latest, commands: bytes) -> Callable[[], float]:
    """Seconds that Redis takes for the commands, into an empty Redis."""

    def seconds() -> float:
        latest.empty()
        with _connected(latest.redis_url) as connection:
            return stopwatch(lambda: _exchange(connection, commands, latest.entities))

    return seconds


def _connected(url: str) -> socket.socket:
    parts: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    connection = socket.create_connection((parts["host"], parts["port"]), _TIMEOUT_S)
    _exchange(connection, _command(b"AUTH", str(parts["password"]).encode()), 1)
    return connection


def _exchange(connection: socket.socket, commands: bytes, replies: int) -> None:
    """Send while reading: each command has a reply of one line."""
    sender = threading.Thread(target=connection.sendall, args=(commands,))
    sender.start()
    while replies > 0:
        read = connection.recv(_A_READ)
        if not read or read.startswith(b"-") or b"\n-" in read:
            raise RuntimeError(f"Redis refused a bench's command: {read[:200]!r}")
        replies -= read.count(b"\n")
    sender.join()


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(
        b"$%d\r\n%b\r\n" % (len(part), part) for part in parts
    )


def _figure(latest: Latest, case: str, both: Turns) -> Figure:
    return Figure(
        bench="materialize",
        case=case,
        rows=latest.entities,
        ours_s=both.ours_s,
        peer_s=both.peer_s,
        ratio=both.ratio,
        note=f"{latest.entities / both.ours_s:,.0f} rows/s; {both.note}",
    )
