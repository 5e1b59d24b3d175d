"""The online store's writing under fire: races, a Redis that hangs, dies or is full, hostile names, secrets."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from feast.infra.online_stores.redis import RedisOnlineStore
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Float64
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from hyperfeast.errors import AccessDenied, HyperfeastError, ServerError, ServerUnreachable
from hyperfeast.servers.binaries import valkey_binary
from hyperfeast.servers.ports import free_port
from hyperfeast.stores.online import resp
from hyperfeast.stores.online.store import FastRedisOnlineStore
from online_views import EVENT, config, entity, stock_read, table, view

_PASSWORD = "tops3cret"
_ENTITIES = 300
_SECOND = timedelta(seconds=1)


class _Redis:
    """A Redis of this test's own, to be frozen, killed and filled."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port(None)
        command = [
            valkey_binary(),
            "--port",
            str(self.port),
            "--save",
            "",
            "--dir",
            folder,
            *options,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def url(self, password: str = "") -> str:
        return (
            f"redis://:{password}@127.0.0.1:{self.port}/0"
            if password
            else f"redis://127.0.0.1:{self.port}/0"
        )

    def wait(self, password: str | None = None) -> "redis.Redis[bytes]":
        # While it starts it is asked anew at once, and not after a second and more.
        client = redis.Redis(
            port=self.port, password=password, retry=Retry(ConstantBackoff(0.02), 3)
        )
        for _ in range(600):
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(0.05)
            else:
                return client
        raise AssertionError

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[_Redis]:
    """A Redis of one's own."""
    server = _Redis(tmp_path)
    server.wait().close()
    yield server
    server.stop()


def _rows(second: int, close: float, entities: int = _ENTITIES) -> Any:
    rows = [
        {"symbol": f"S{n}", "ts": EVENT + second * _SECOND, "close": close} for n in range(entities)
    ]
    return table(rows)


def _write(repo: Any, batch: Any, store: FastRedisOnlineStore | None = None) -> Any:
    return (store or FastRedisOnlineStore()).write_arrow(
        repo, view(), [batch], timestamp_field="ts"
    )


# Four processes write the same entities at the same moments, in orders of their own, and say what they wrote.
_WRITERS = """
import json, os, random, sys
from datetime import timedelta
from multiprocessing import Barrier
from hyperfeast.stores.online import write
from hyperfeast.stores.online.store import FastRedisOnlineStore
from online_views import EVENT, config, table, view

url, layout, entities = sys.argv[1], sys.argv[2], int(sys.argv[3])
script, lost = write._write_by_script, []

def counted(*arguments):
    lost.append(True)
    return script(*arguments)

write._write_by_script = counted

def writer(seed):
    dice, repo, ledger = random.Random(seed), config(url, layout=layout), []
    for turn in range(40):
        together.wait(150)
        second, recorded = dice.randrange(20), dice.randrange(1000) * 100_000 + seed * 100 + turn
        close = seed * 1000.0 + turn
        rows = [
            {"symbol": f"S{n}", "ts": EVENT + timedelta(seconds=second), "close": close,
             "rec": EVENT + timedelta(microseconds=recorded)}
            for n in dice.sample(range(entities), entities)
        ]
        FastRedisOnlineStore().write_arrow(
            repo, view(), [table(rows)], timestamp_field="ts", created_field="rec"
        )
        ledger.append([second, recorded, close])
    os.write(results, (json.dumps([len(lost), ledger]) + "\\n").encode())
    os._exit(0)

together, (reading, results) = Barrier(4), os.pipe()
children = [os.fork() or writer(seed) for seed in range(4)]
for child in children:
    assert os.waitpid(child, 0)[1] == 0
os.close(results)
print(os.fdopen(reading).read())
"""


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_of_several_writers_the_newest_wins_always(own: _Redis, layout: str) -> None:
    """M4: four processes write the same entities at once; transactions are lost, and no row is."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _WRITERS, own.url(), layout, str(_ENTITIES)],
        env=environment, capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip

    reports = _reports(said)
    _, _, close = max(tuple(row) for _, ledger in reports for row in ledger)
    assert len(reports) == 4
    assert sum(lost for lost, _ in reports) > 0, "no two writers met: this shows nothing"
    assert _closes(own, layout) == [close] * _ENTITIES


def _reports(said: str) -> list[Any]:
    """How many transactions each writer lost, and what it wrote."""
    return [json.loads(line) for line in said.splitlines() if line]


def _closes(own: _Redis, layout: str) -> list[float]:
    keys = [entity(f"S{number}") for number in range(_ENTITIES)]
    found = FastRedisOnlineStore().online_read(config(own.url(), layout=layout), view(), keys)
    return [values["close"].double_val for _, values in found if values]


def test_another_writers_row_between_reading_and_writing_is_not_lost(own: _Redis) -> None:
    """M4, in slow motion: Feast's own store writes a newer row when ours has read the times already."""
    newer = [(entity("S7"), {"close": Value(double_val=9.0)}, EVENT + 5 * _SECOND, None)]
    send, sent = resp.Channel.send, []

    def interrupted(channel: resp.Channel, *buffers: Any) -> None:
        if bytes(buffers[0]).startswith(b"*1\r\n$5\r\nMULTI"):
            sent.append(True)
            theirs = config(own.url(), kind="redis")
            RedisOnlineStore().online_write_batch(theirs, view(), newer, None)
        send(channel, *buffers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resp.Channel, "send", interrupted)
        written = _write(config(own.url()), _rows(1, 1.0, 100))

    assert sent
    assert (written.rows, written.kept) == (99, 1)
    found = stock_read(own.url(), ["S7", "S8"])
    assert [values["close"].double_val for _, values in found if values] == [9.0, 1.0]


def test_another_views_row_is_not_lost_while_a_view_is_deleted(own: _Redis) -> None:
    """Before each round trip of the deletion, another view's row comes to an entity that had only the first's."""
    other, repo, writer = view("other"), config(own.url()), FastRedisOnlineStore()
    _write(repo, _rows(0, 1.0, 10))
    execute, sent = redis.client.Pipeline.execute, []

    def interrupted(pipe: Any) -> Any:
        rows = table([{"symbol": f"S{len(sent)}", "ts": EVENT, "close": 2.0}])
        writer.write_arrow(repo, other, [rows], timestamp_field="ts")
        sent.append(True)
        return execute(pipe)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis.client.Pipeline, "execute", interrupted)
        FastRedisOnlineStore().delete_table(repo, view())

    assert sent
    keys = [f"S{number}" for number in range(10)]
    kept = [
        values["close"].double_val for _, values in stock_read(own.url(), keys, other) if values
    ]
    assert kept == [2.0] * len(sent) + [0.0] * (10 - len(sent))
    assert not any(moment.timestamp() for moment, _ in stock_read(own.url(), keys) if moment)
    with own.wait() as client:
        assert client.dbsize() == len(sent)


def test_a_frozen_redis_is_an_error_within_the_timeout(own: _Redis) -> None:
    """M1; and once it goes on, the same call succeeds."""
    repo, store = (
        config(own.url(), connection_string=f"127.0.0.1:{own.port},socket_timeout=1"),
        FastRedisOnlineStore(),
    )
    _write(repo, _rows(0, 1.0), store)
    own.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()

    with pytest.raises(ServerUnreachable, match=f"127.0.0.1:{own.port}"):
        _write(repo, _rows(1, 2.0), store)

    assert 0.9 < time.monotonic() - started < 30
    own.process.send_signal(signal.SIGCONT)
    assert _write(repo, _rows(1, 2.0), store).rows == _ENTITIES
    assert _closes(own, "feast") == [2.0] * _ENTITIES


def test_a_redis_that_comes_back_is_written_to_without_an_error(
    own: _Redis, tmp_path: Path
) -> None:
    """M2: the connections out of the pool are dead, and so are their scripts."""
    repo, store = config(own.url()), FastRedisOnlineStore()
    _write(repo, _rows(0, 1.0), store)
    own.stop()
    again = _Redis(tmp_path, port=own.port)
    try:
        again.wait().close()

        assert _write(repo, _rows(1, 2.0), store).rows == _ENTITIES
        assert _write(repo, _rows(2, 3.0, 5), store).rows == 5
    finally:
        again.stop()


def test_a_dead_redis_is_an_error_soon(own: _Redis) -> None:
    own.stop()
    started = time.monotonic()

    with pytest.raises(ServerUnreachable):
        _write(config(own.url()), _rows(0, 1.0))

    assert time.monotonic() - started < 20


@pytest.mark.parametrize("entities", [20_000, 20], ids=["transactions", "script"])
def test_a_full_redis_is_said_and_every_row_is_whole(own: _Redis, entities: int) -> None:
    """M3: half-way, each row is old, new or not there, never a mixture; with room the same call completes."""
    client, repo = own.wait(), config(own.url())
    _write_wide(repo, 1.0, 0, entities // 2)
    before = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", before + (before // 3 if entities > 1000 else 0))

    with pytest.raises(ServerError, match=r"'wide': Redis is full.*maxmemory"):
        _write_wide(repo, 2.0, 1, entities)

    found = stock_read(own.url(), [f"S{number}" for number in range(entities)], _WIDE)
    rows = [{value.double_val for value in values.values()} for _, values in found if values]
    assert all(len(row) == 1 for row in rows)
    if entities > 1000:
        assert 0 < sum(row == {2.0} for row in rows) < entities
    client.config_set("maxmemory", 0)
    assert _write_wide(repo, 2.0, 1, entities).rows == entities
    client.close()


_WIDE = view("wide", {f"f{number}": Float64 for number in range(10)})


def _write_wide(repo: Any, value: float, second: int, entities: int) -> Any:
    columns = {field.name: [value] * entities for field in _WIDE.features}
    keys = _rows(second, value, entities).drop_columns(["close"]).to_pydict()
    batch = pa.RecordBatch.from_pydict(keys | columns)
    return FastRedisOnlineStore().write_arrow(repo, _WIDE, [batch], timestamp_field="ts")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[_Redis]:
    """A Redis that asks for a password."""
    server = _Redis(tmp_path, "--requirepass", _PASSWORD)
    server.wait(_PASSWORD).close()
    yield server
    server.stop()


def test_no_secret_in_any_message_log_or_repr(
    guarded: _Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """X2; with the right password it works, so that the messages are those of a real login."""
    caplog.set_level(logging.DEBUG)
    assert _write(config(guarded.url(_PASSWORD)), _rows(0, 1.0)).rows == _ENTITIES
    wrong = config(guarded.url("wr0ng" + _PASSWORD))
    said = [repr(wrong.online_store), str(wrong.online_store)]

    with pytest.raises(AccessDenied) as refused:
        _write(wrong, _rows(1, 2.0))
    said += _everything_said(refused.value)
    guarded.stop()
    with pytest.raises(ServerUnreachable) as gone:
        _write(config(guarded.url(_PASSWORD)), _rows(1, 2.0))
    said += _everything_said(gone.value)

    assert not [text for text in [*said, caplog.text] if _PASSWORD in text]


def _everything_said(error: BaseException) -> list[str]:
    """An error's message and repr, and those of what it came from."""
    causes = [cause for cause in (error.__cause__, error.__context__) if cause is not None]
    return [
        str(error),
        repr(error),
        *(text for cause in causes for text in _everything_said(cause)),
    ]


_HOSTILE = [
    "'; DROP TABLE x; --",
    "a\r\nFLUSHALL\r\n",
    "*1\r\n$8\r\nFLUSHALL\r\n",
    "nul\x00byte",
    "*?[a-z]\\",
    "_ts:bars",
    "ünïcode\u2028",
    "x" * 5000,
    "",
]


@pytest.mark.parametrize("layout", ["feast", "packed"])
def test_hostile_names_are_only_names(own: _Redis, layout: str) -> None:
    """X3: in a symbol, a feature, a view, a project; what stood there before still stands."""
    client = own.wait()
    client.set("sentinel", "untouched")
    store = FastRedisOnlineStore()
    for at, name in enumerate(_HOSTILE):
        of = view(f"v{at} {name}", {f"f {name}": Float64})
        repo = config(own.url(), project=f"p{at}", layout=layout)
        batch = pa.RecordBatch.from_pydict(
            {
                "symbol": _HOSTILE,
                "ts": pa.array([EVENT] * len(_HOSTILE)),
                f"f {name}": [float(number) for number in range(len(_HOSTILE))],
            }
        )

        store.write_arrow(repo, of, [batch], timestamp_field="ts")

        found = store.online_read(repo, of, [entity(symbol) for symbol in _HOSTILE])
        assert [values[f"f {name}"].double_val for _, values in found if values] == [
            float(number) for number in range(len(_HOSTILE))
        ]
        if layout == "feast":
            assert found == stock_read(own.url(), _HOSTILE, of, project=f"p{at}")
    assert client.dbsize() == 1 + len(_HOSTILE) ** 2

    for at, name in enumerate(_HOSTILE):
        repo = config(own.url(), project=f"p{at}", layout=layout)
        store.update(
            repo, [view(f"v{at} {name}", {f"f {name}": Float64})], [], [], [], partial=False
        )

    assert client.keys("*") == [b"sentinel"]
    client.close()


def test_errors_are_ours_alone(own: _Redis) -> None:
    """A key of another kind in the way is an error of the server, and no error of redis-py."""
    client = own.wait()
    _write(config(own.url()), _rows(0, 1.0, 1))
    (key,) = client.keys("*")
    client.delete(key)
    client.set(key, "a string")

    with pytest.raises(HyperfeastError, match="WRONGTYPE"):
        _write(config(own.url()), _rows(0, 1.0, 1))
    client.close()
