"""Rows by HTTP, to a real process: once each, whatever is sent, within bounded memory."""

import gzip
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from psycopg import conninfo, sql

from acceptance.shell import ROOT, shell
from hyperfeast.db import Database
from hyperfeast.servers import Endpoints

_DATABASE = "push_acceptance"
_MIB = 1 << 20
_MOST_GROWTH = 50 * _MIB
_JSON = {"Content-Type": "application/json"}
_ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


@dataclass(frozen=True)
class Pushed:
    """A running `hyperfeast serve`, and the database behind it."""

    url: str
    process: subprocess.Popen[str]
    database: Database

    @property
    def address(self) -> str:
        return urlsplit(self.url).netloc

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """Status and answer."""
        request = urllib.request.Request(self.url + path, body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def candles(self, *rows: dict[str, Any], key: str = "", **options: Any) -> tuple[int, Any]:
        """Push bars as JSON."""
        body = {"timeframe": "1d", "source": "feed-a"} | options | {"rows": rows}
        headers = _JSON | ({"Idempotency-Key": key} if key else {})
        return self.post("/v1/candles", json.dumps(body).encode(), headers)

    def stored(self) -> dict[str, int]:
        """How many rows each table has that a push could write to."""
        tables = ("candles", "user_baseline_raw", "quarantine", "instruments", "ingest_batches")
        return {
            name: self.database.fetch(f"SELECT count(*) AS n FROM {name}")[0]["n"]  # type: ignore[arg-type]
            for name in tables
        }

    def resident(self) -> int:
        """Bytes of memory that the process has."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@pytest.fixture(scope="module")
def served(
    _template: Database, endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pushed]:
    """On a database where no model was ever trained."""
    with _template.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template_hyperfeast").format(
                sql.Identifier(_DATABASE)
            )
        )
    database = Database(conninfo.make_conninfo(_template.dsn, dbname=_DATABASE))
    folder = tmp_path_factory.mktemp("push")
    in_folder = shell(
        folder,
        home=str(folder / "home"),
        postgres_dsn=database.dsn,
        redis_url=endpoints.redis_url,
    )
    process = in_folder.start("serve", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[\w.:]+", line)
    assert found, line
    yield Pushed(found[0], process, database)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def bar(symbol: str = "AAPL", ts: Any = "2024-01-02", **other: Any) -> dict[str, Any]:
    """A good daily bar, but for what is given."""
    cells = {"open": 2, "high": 3.5, "low": 1, "close": 3, "volume": 10}
    return {"symbol": symbol, "ts": ts} | cells | other


def test_rows_are_pushed_where_no_model_was_trained(served: Pushed) -> None:
    status, answer = served.candles(bar("NEW"), bar("NEW", "2024-01-03"))
    assert (status, answer["inserted"]) == (200, 2)
    status, answer = served.post("/v1/predict", b'{"symbols": ["NEW"]}', _JSON)
    assert (status, answer["error"]["type"]) == (503, "NoModel")


def test_a_batch_of_minutes_is_seen_in_its_aggregates(served: Pushed) -> None:
    minutes = [bar("MIN", f"2024-01-02T14:3{n}:00Z") for n in range(5)]
    assert served.candles(*minutes, timeframe="1m")[0] == 200
    found = "SELECT n, h FROM candles_5m WHERE symbol = 'MIN'"
    assert served.database.fetch(found) == [{"n": 5, "h": 3.5}]
    status, answer = served.candles(minutes[0] | {"high": 9}, timeframe="1m")
    assert (status, answer["corrected"]) == (200, 1)
    assert served.database.fetch(found) == [{"n": 5, "h": 9.0}]


def test_fifty_at_once_under_one_key_have_one_effect(served: Pushed) -> None:
    rows = [bar("FIFTY", f"2023-03-{day:02}") for day in range(1, 11)]
    with ThreadPoolExecutor(50) as senders:
        answers = list(senders.map(lambda _: served.candles(*rows, key="fifty"), range(50)))
    assert {status for status, _ in answers} == {200}
    assert [answer["replayed"] for _, answer in answers].count(False) == 1
    assert len({answer["batch_id"] for _, answer in answers}) == 1
    assert {answer["inserted"] for _, answer in answers} == {10}
    ours = "SELECT count(*) AS n FROM ingest_batches WHERE idempotency_key = 'fifty'"
    assert served.database.fetch(ours) == [{"n": 1}]
    status, answer = served.candles(bar("OTHER"), key="fifty")
    assert (status, answer["error"]["type"]) == (409, "IdempotencyConflict")


def test_an_answer_that_is_lost_is_given_again(served: Pushed) -> None:
    body = json.dumps(
        {"timeframe": "1d", "source": "x", "rows": [bar("LOST"), bar("LOST", "2024-01-03")]}
    ).encode()
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/candles HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Idempotency-Key: lost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
    deadline = time.monotonic() + 30
    while not served.database.fetch("SELECT 1 FROM candles WHERE symbol = 'LOST'"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    status, answer = served.post("/v1/candles", body, _JSON | {"Idempotency-Key": "lost"})
    assert (status, answer["inserted"], answer["replayed"]) == (200, 2, True)


_HOSTILE_BODIES = [
    b"",
    b"{",
    b"[]",
    b"\xff\xfe",
    b'{"timeframe": "1d", "source": "x", "rows": [NaN]}',
    b'{"timeframe": "1d", "source": "x", "rows": [{"symbol": "A", "ts": 1e999}]}',
    b'{"timeframe": "1d", "source": "x", "rows": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"timeframe": "1d", "source": "x", "rows": [{"symbol": "A", "symbol": "B"}]}',
    b'{"timeframe": "1d", "source": "x\\u0000", "rows": [{"symbol": "A"}]}',
    b'{"timeframe": "1d", "source": "x", "tz": "Mars/Base", "rows": [{"symbol": "A"}]}',
    b'{"timeframe": "1d", "source": "x", "calendar": "\';--", "rows": [{"symbol": "A"}]}',
    b'{"timeframe": "1d", "source": "x", "symbol": "\';--", "rows": [{"ts": "2024-01-02"}]}',
    b'{"timeframe": "1d", "source": "x", "rows": [{"symbol": "A", "ts": "2024-01-02"}]}',
    b'{"timeframe": "1d", "source": "x", "rows": [1, 2]}',
]


@pytest.mark.parametrize("body", _HOSTILE_BODIES, ids=lambda body: str(body)[:40])
def test_what_is_no_push_is_422_and_nothing_is_stored(served: Pushed, body: bytes) -> None:
    for path in ("/v1/candles", "/v1/metrics"):
        for headers in (_JSON, _ARROW):
            before = served.stored()
            status, answer = served.post(path, body, headers)
            assert status == 422, answer
            assert set(answer["error"]) >= {"type", "message"}
            assert served.stored() == before


_HOSTILE_CELLS: list[dict[str, Any]] = [
    {"open": "NaN"},
    {"open": "Infinity"},
    {"open": "1e999"},
    {"open": True},
    {"open": 10**300},
    {"volume": 2**64 - 1},
    {"volume": 10**25},
    {"close": None},
    {"close": "\0"},
    {"symbol": "A\0"},
    {"symbol": None},
    {"symbol": 5.5e300},
    {"ts": "9999-12-31"},
    {"ts": 99_999_999_999},
    {"ts": 1_704_153_600_000_000_000_000},
    {"ts": -(2**63)},
    {"ts": "2024-02-30"},
    {"ts": "\0"},
    {"ts": None},
    {"vwap": "x" * 100_000},
]


def test_hostile_cells_are_quarantined_one_by_one(served: Pushed) -> None:
    good = [bar("GOOD", f"2022-05-{day:02}") for day in range(1, 11)]
    before = served.stored()
    status, answer = served.candles(
        *good,
        *({**bar("BAD", f"2022-06-{n + 1:02}"), **one} for n, one in enumerate(_HOSTILE_CELLS)),
    )
    assert status == 200, answer
    assert (answer["inserted"], answer["quarantined"]) == (len(good), len(_HOSTILE_CELLS))
    after = served.stored()
    assert after["candles"] == before["candles"] + len(good)
    assert after["quarantine"] == before["quarantine"] + len(_HOSTILE_CELLS)
    for one in _HOSTILE_CELLS[::6]:
        status, answer = served.candles(bar("BAD") | one)
        assert (status, answer["error"]["type"]) == (422, "RowsRefused"), (one, answer)
    assert served.stored()["candles"] == after["candles"]


def test_sql_in_symbols_stays_outside(served: Pushed) -> None:
    served.database.execute("CREATE TABLE IF NOT EXISTS sentinel AS SELECT 'here' AS mark")
    names = [
        "x'; DROP TABLE sentinel;--",
        'x"; DROP TABLE sentinel;--',
        "$$; DROP TABLE sentinel;--",
        "%s",
        "{0}",
        "A" * 33,
        "é" * 64,
        "A\0B",
        "A\nB",
        "",
        " AAPL",
        "A';--\0",
        "../AAPL",
        "AAPL\u202e",
    ]
    names += [f"x{n}'; DROP TABLE sentinel;--" for n in range(500 - len(names))]
    before = served.stored()
    status, answer = served.candles(*map(bar, names))
    assert (status, answer["error"]["batch"]["refused"]) == (422, {"symbol_format": 500})
    for name in names[:14]:
        for option in ("symbol", "calendar", "tz"):
            row = {key: value for key, value in bar().items() if key != "symbol"}
            assert served.candles(row, **{option: name})[0] == 422
    readings = [
        {"user_id": name, "metric": name, "ts": "2024-01-02", "value": 1, "device": name}
        for name in names
    ]
    body = json.dumps({"source": "x'; DROP TABLE sentinel;--", "rows": readings}).encode()
    status, answer = served.post("/v1/metrics", body, _JSON)
    assert (status, answer["error"]["batch"]["refused"]) == (422, {"user_id_format": 500})
    assert served.database.fetch("SELECT mark FROM sentinel") == [{"mark": "here"}]
    after = served.stored()
    assert {name: after[name] - before[name] for name in ("candles", "instruments")} == {
        "candles": 0,
        "instruments": 0,
    }
    assert served.candles(bar("CONTROL"))[1]["inserted"] == 1


def _raw(served: Pushed, headers: dict[str, str], pieces: Iterator[bytes]) -> tuple[int, Any, int]:
    """Send pieces until the server has enough: status, answer, and the bytes that it took."""
    connection = http.client.HTTPConnection(served.address, timeout=60)
    connection.putrequest("POST", "/v1/candles")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    sent = 0
    try:
        for piece in pieces:
            connection.send(piece)
            sent += len(piece)
    except OSError:
        pass
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read()), sent
    connection.close()
    return found


def _chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)


def _spaces(total: int) -> Iterator[bytes]:
    return repeat(b" " * _MIB, total // _MIB)


def _bomb(total: int) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in _spaces(total):
        yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def _grown(served: Pushed, send: Callable[[], None]) -> int:
    """How much the process grew at most while something was sent."""
    before = most = served.resident()
    with ThreadPoolExecutor(1) as sender:
        sending = sender.submit(send)
        while not sending.done():
            most = max(most, served.resident())
            time.sleep(0.005)
        sending.result()
    return max(most, served.resident()) - before


def test_a_gibibyte_is_413_and_takes_no_memory(served: Pushed) -> None:
    served.candles(bar("WARM"))

    def announced() -> None:
        headers = _JSON | {"Content-Length": str(1 << 30)}
        status, answer, sent = _raw(served, headers, _spaces(1 << 30))
        assert (status, answer["error"]["type"]) == (413, "BodyTooLarge")
        assert "split it" in answer["error"]["message"]
        assert sent < 128 * _MIB

    def unannounced() -> None:
        headers = _JSON | {"Transfer-Encoding": "chunked"}
        status, answer, sent = _raw(served, headers, _chunked(_spaces(1 << 30)))
        assert (status, answer["error"]["type"]) == (413, "BodyTooLarge")
        assert 32 * _MIB < sent < 128 * _MIB

    for send in (announced, unannounced):
        assert _grown(served, send) < _MOST_GROWTH


def test_a_body_that_only_announces_itself_is_refused_at_once(served: Pushed) -> None:
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/candles HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1073741824\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(20).startswith(b"HTTP/1.1 413")


def test_a_gzip_bomb_is_413_and_takes_no_memory(served: Pushed) -> None:
    served.candles(bar("WARM"))
    packed = gzip.compress(b" " * (256 * _MIB), 9)
    assert len(packed) < _MIB

    def whole() -> None:
        status, answer = served.post("/v1/candles", packed, _JSON | {"Content-Encoding": "gzip"})
        assert (status, answer["error"]["type"]) == (413, "BodyTooLarge")

    def streamed() -> None:
        headers = _JSON | {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
        status, answer, _ = _raw(served, headers, _chunked(_bomb(1 << 30)))
        assert (status, answer["error"]["type"]) == (413, "BodyTooLarge")

    for send in (whole, streamed):
        assert _grown(served, send) < _MOST_GROWTH


def test_a_body_a_little_too_large_is_answered_to_any_client(served: Pushed) -> None:
    status, answer = served.post("/v1/candles", b" " * (33 * _MIB), _JSON)
    assert (status, answer["error"]["type"]) == (413, "BodyTooLarge")


def test_others_are_answered_while_a_large_body_is_worked_on(served: Pushed) -> None:
    rows = [bar(f"S{n}", f"2021-{month:02}-01") for n in range(2_000) for month in range(1, 11)]
    with ThreadPoolExecutor(1) as sender:
        pushing, sent = sender.submit(served.candles, *rows), time.monotonic()
        slowest = 0.0
        while not pushing.done():
            begun = time.monotonic()
            with urllib.request.urlopen(served.url + "/healthz", timeout=30) as answer:  # noqa: S310
                assert answer.status == 200
            slowest = max(slowest, time.monotonic() - begun)
    assert pushing.result()[1]["inserted"] == 20_000
    assert slowest < max(5, (time.monotonic() - sent) / 2)


def _examples(language: str) -> list[str]:
    text = (ROOT / "docs" / "http.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    ("language", "command"), [("sh", ["bash", "-c"]), ("python", [sys.executable, "-c"])]
)
def test_the_documented_examples_run(
    served: Pushed, tmp_path: Path, language: str, command: list[str]
) -> None:
    examples = _examples(language)
    assert examples
    for example in examples:
        ran = subprocess.run(
            [*command, example.replace("http://127.0.0.1:8000", served.url)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert json.loads(ran.stdout)["inserted"] == 2
