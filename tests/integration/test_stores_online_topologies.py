"""Writing to a cluster of two nodes, and to the master that a sentinel names."""

import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from feast import RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStore
from redis.backoff import NoBackoff
from redis.retry import Retry

from hyperfeast.servers.binaries import valkey_binary
from hyperfeast.servers.ports import free_port
from hyperfeast.stores.online import resp, write
from hyperfeast.stores.online.store import FastRedisOnlineStore
from online_views import EVENT, OURS, entity, table, view

_ENTITIES = 200
_LAST_SLOT = 16383
_LAST_PORT = 65_535


def _start(folder: Path, *options: str) -> tuple[int, subprocess.Popen[bytes]]:
    # Nodes of a cluster talk to each other 10,000 ports above.
    while (port := free_port(None)) > _LAST_PORT - 10_000:
        pass
    folder.mkdir()
    command = [valkey_binary(), *options, "--port", str(port), "--dir", folder, "--save", ""]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _until(lambda: _answers(port))
    return port, server


def _answers(port: int) -> bool:
    # Without its own patience: whoever asks asks again.
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError


def _repo(kind: str, **keys: Any) -> RepoConfig:
    return RepoConfig(
        project="shop",
        provider="local",
        registry="unused.db",
        online_store={"type": kind, **keys},
        entity_key_serialization_version=3,
    )


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[int]]:
    """The ports of two nodes that share the slots."""
    nodes = [
        _start(tmp_path / str(number), "--cluster-enabled", "yes", "--cluster-config-file", "nodes")
        for number in range(2)
    ]
    ports = [port for port, _ in nodes]
    clients = [redis.Redis(port=port) for port in ports]
    half = _LAST_SLOT // 2
    for client, first, last in zip(clients, (0, half + 1), (half, _LAST_SLOT), strict=True):
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1])
    _until(lambda: all(b"cluster_state:ok" in _state(client) for client in clients))
    yield ports
    for client in clients:
        client.close()
    for _, server in nodes:
        server.kill()
        server.wait()


def _state(client: Any) -> bytes:
    found = client.execute_command("CLUSTER", "INFO")
    return (
        found
        if isinstance(found, bytes)
        else str(found).replace("'", "").replace(": ", ":").encode()
    )


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[int]:
    """The port of a sentinel that watches one master, `mymaster`."""
    master, server = _start(tmp_path / "master")
    folder = tmp_path / "sentinel"
    folder.mkdir()
    port = free_port(None)
    written = folder / "sentinel.conf"
    written.write_text(
        f"port {port}\ndir {folder}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n"
    )
    watcher = subprocess.Popen([valkey_binary(), written, "--sentinel"], stdout=subprocess.DEVNULL)
    _until(lambda: _answers(port))
    yield port
    for process in (watcher, server):
        process.kill()
        process.wait()


def _writes_and_is_read(ours: RepoConfig, theirs: RepoConfig) -> None:
    store = FastRedisOnlineStore()

    def write(second: int, close: float, entities: int) -> Any:
        rows = [
            {"symbol": f"S{n}", "ts": EVENT + timedelta(seconds=second), "close": close}
            for n in range(entities)
        ]
        return store.write_arrow(ours, view(), [table(rows)], timestamp_field="ts")

    assert write(1, 1.0, _ENTITIES).rows == _ENTITIES
    assert write(0, 2.0, _ENTITIES).kept == _ENTITIES
    assert write(1, 3.0, 50).rows == 50

    keys = [entity(f"S{number}") for number in range(_ENTITIES)]
    found = RedisOnlineStore().online_read(theirs, view(), keys)
    assert [values["close"].double_val for _, values in found if values] == [3.0] * 50 + [1.0] * 150
    assert store.online_read(ours, view(), keys) == found
    store.update(ours, [view()], [], [], [], partial=False)
    assert not any(
        moment.timestamp() for moment, _ in store.online_read(ours, view(), keys) if moment
    )


def test_a_cluster(cluster: list[int]) -> None:
    address = {"redis_type": "redis_cluster", "connection_string": f"127.0.0.1:{cluster[0]}"}

    _writes_and_is_read(_repo(OURS, **address), _repo("redis", **address))


def test_a_clusters_nodes_work_at_once(cluster: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All are sent theirs before any is waited for, as long as each has some."""
    monkeypatch.setattr(write, "_SCRIPT_ROWS", 16)
    done: list[tuple[str, resp.Channel]] = []
    send, replies = resp.Channel.send, resp.Channel.replies

    def sent(channel: resp.Channel, *buffers: Any) -> None:
        done.append(("send", channel))
        send(channel, *buffers)

    def replied(channel: resp.Channel, count: int) -> list[Any]:
        done.append(("replies", channel))
        return replies(channel, count)

    monkeypatch.setattr(resp.Channel, "send", sent)
    monkeypatch.setattr(resp.Channel, "replies", replied)
    address = {"redis_type": "redis_cluster", "connection_string": f"127.0.0.1:{cluster[0]}"}
    _writes_and_is_read(_repo(OURS, **address), _repo("redis", **address))

    turns = [done[at : at + 4] for at in range(0, len(done), 4)]
    assert len(turns) > 10
    for turn in turns:
        assert [what for what, _ in turn] == ["send", "send", "replies", "replies"]
        assert turn[0][1] is turn[2][1] is not turn[1][1]
        assert turn[1][1] is turn[3][1]


def test_a_slot_that_moved_is_found_again(cluster: list[int]) -> None:
    repo = _repo(OURS, redis_type="redis_cluster", connection_string=f"127.0.0.1:{cluster[0]}")
    store = FastRedisOnlineStore()
    rows = table([{"symbol": "S0", "ts": EVENT, "close": 1.0}])
    store.write_arrow(repo, view(), [rows], timestamp_field="ts")
    nodes = [redis.Redis(port=port) for port in cluster]
    holder = next(at for at, node in enumerate(nodes) if node.dbsize())
    (key,) = nodes[holder].keys("*")
    slot = nodes[0].execute_command("CLUSTER", "KEYSLOT", key)
    nodes[holder].delete(key)
    other = str(nodes[1 - holder].execute_command("CLUSTER", "MYID"), "ascii")
    for node in (nodes[1 - holder], nodes[holder]):
        node.execute_command("CLUSTER", "SETSLOT", slot, "NODE", other)

    assert store.write_arrow(repo, view(), [rows], timestamp_field="ts").rows == 1

    assert [node.dbsize() for node in nodes] == ([0, 1] if holder == 0 else [1, 0])


def test_the_master_behind_a_sentinel(sentinel: int) -> None:
    address = {"redis_type": "redis_sentinel", "connection_string": f"127.0.0.1:{sentinel}"}

    _writes_and_is_read(_repo(OURS, **address), _repo("redis", **address))
