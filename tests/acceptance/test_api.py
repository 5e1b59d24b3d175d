"""The API as a process: answers, refusals, what is down, a clean stop."""

import http.client
import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import conninfo

from acceptance.shell import DemoRun, Shell
from hyperfeast.servers import EmbeddedServers, PostgresServer, RedisServer


@dataclass(frozen=True)
class Server:
    """A running `hyperfeast serve`."""

    url: str
    process: subprocess.Popen[str]

    def get(self, path: str) -> tuple[int, Any]:
        """Status and body."""
        return self._open(urllib.request.Request(self.url + path))  # noqa: S310

    def post(self, body: bytes | dict[str, Any], path: str = "/v1/predict") -> tuple[int, Any]:
        """Status and body."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._open(urllib.request.Request(self.url + path, data, headers))  # noqa: S310

    def refusal(self, path: str) -> tuple[int, Message]:
        """Status and headers of a GET that is refused, or of a prediction for /v1/predict."""
        data = b'{"symbols": ["AAPL"]}' if path == "/v1/predict" else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)  # noqa: S310
        with refused.value as error:
            return error.code, error.headers

    def _open(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                text = response.read().decode()
                is_json = response.headers["Content-Type"] == "application/json"
                return response.status, json.loads(text) if is_json else text
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def server(demo: DemoRun) -> Iterator[Server]:
    with _serving(demo.shell) as server:
        yield server


@pytest.fixture(scope="module")
def interrupted(demo: DemoRun) -> Iterator[Server]:
    """A server of its own for the tests that stop what it stands on."""
    with _serving(demo.shell) as server:
        assert server.post({"symbols": ["AAPL"]})[0] == 200
        yield server


@contextmanager
def _serving(shell: Shell) -> Iterator[Server]:
    process = shell.start("serve", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    yield Server(found[0], process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_prediction_is_answered_and_logged(server: Server, demo: DemoRun) -> None:
    status, body = server.post({"symbols": ["MSFT", "AAPL"]})
    assert status == 200
    assert [one["symbol"] for one in body["predictions"]] == ["MSFT", "AAPL"]
    rows = demo.database.fetch("SELECT * FROM signals WHERE request_id = %s", [body["request_id"]])
    logged = {row["symbol"]: row for row in rows}
    for one in body["predictions"]:
        assert logged[one["symbol"]]["features"] == one["features"]
        assert logged[one["symbol"]]["proba"] == one["proba"]
        assert str(logged[one["symbol"]]["model_id"]) == one["model_id"]


def test_the_same_answer_as_from_the_shell(server: Server, demo: DemoRun) -> None:
    _, body = server.post({"symbols": ["IBM"]})
    shell = demo.shell.json("predict", "IBM")
    assert shell[0]["proba"] == body["predictions"][0]["proba"]
    assert shell[0]["features"] == body["predictions"][0]["features"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"symbols": []}',
        b'{"symbols": [NaN]}',
        b'{"symbols": [1e999]}',
        b'{"symbols": ["AAPL"], "model": "x"}',
        b'{"symbols": ["A\\u0000"]}',
        b'{"symbols": ["AAPL", "AAPL"]}',
        b'{"symbols": ["NOPE"]}',
        b'{"symbols": ["x\'); DROP TABLE signals; --"]}',
        json.dumps({"symbols": ["A" * 33]}).encode(),
        json.dumps({"symbols": ["A"] * 1001}).encode(),
        b"\xff\xfe",
    ],
    ids=str,
)
def test_a_bad_request_is_422_in_one_form(server: Server, demo: DemoRun, body: bytes) -> None:
    before = _logged(demo)
    status, answer = server.post(body)
    assert status == 422, answer
    assert set(answer["error"]) >= {"type", "message"}
    assert _logged(demo) == before


def test_json_nested_ten_thousand_deep_is_refused(server: Server) -> None:
    status, _ = server.post(b'{"symbols": ' + b"[" * 10_000 + b"]" * 10_000 + b"}")
    assert status in (400, 422)


def test_a_large_body_is_413(server: Server) -> None:
    status, answer = server.post(b" " * (1 << 20) + b"{}")
    assert status == 413, answer


def test_a_large_body_that_does_not_say_its_length_is_413(server: Server) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    pieces = iter([b" " * (1 << 16)] * 17)
    connection.request("POST", "/v1/predict", pieces, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["type"]) == (413, "BodyTooLarge")
    connection.close()


def test_an_unknown_symbol_is_named_in_the_shell_too(demo: DemoRun) -> None:
    ran = demo.shell.hyperfeast("predict", "NOPE")
    assert ran.returncode == 2
    assert ran.stderr.startswith("error: unknown symbol 'NOPE': known are AAPL")
    assert ran.stderr.count("\n") == 1


def test_an_unknown_symbol_is_named_with_those_known(server: Server) -> None:
    _, answer = server.post({"symbols": ["AAPL", "NOPE"]})
    assert "unknown symbol 'NOPE'" in answer["error"]["message"]
    assert "MSFT" in answer["error"]["message"]


def test_an_unknown_path_and_method(server: Server) -> None:
    assert server.get("/v1/nothing")[0] == 404
    assert server.get("/v1/predict")[0] == 405


def test_health_readiness_and_models(server: Server) -> None:
    assert server.get("/healthz") == (200, {"status": "ok"})
    status, ready = server.get("/readyz")
    assert (status, ready["status"]) == (200, "ready")
    _, body = server.get("/v1/models")
    active = [one["name"] for one in body["models"] if one["is_active"]]
    assert sorted(active) == ["glucose_deviation", "market_direction"]


def test_metrics_count_what_was_answered(server: Server) -> None:
    server.post({"symbols": ["AAPL"]})
    status, text = server.get("/metrics")
    assert status == 200
    assert 'hyperfeast_requests_total{route="/v1/predict",status="200"}' in text
    assert 'hyperfeast_predictions_total{label="' in text
    assert 'hyperfeast_feature_age_seconds{feature_view="market_technical_v1"}' in text
    assert 'hyperfeast_feature_cache_reads_total{result="miss"}' in text
    assert 'hyperfeast_materialization_lag_seconds{feature_view="market_technical_v1"' in text


def test_the_documentation_names_the_routes(server: Server) -> None:
    _, schema = server.get("/openapi.json")
    assert set(schema["paths"]) == {
        "/v1/predict",
        "/v1/models",
        "/v1/candles",
        "/v1/metrics",
        "/healthz",
        "/readyz",
    }


def test_without_redis_it_says_so_and_answers_again(interrupted: Server, demo: DemoRun) -> None:
    before = _logged(demo)
    with _stopped(EmbeddedServers(demo.home).redis):
        _assert_unavailable(interrupted)
    _await_prediction(interrupted)
    assert interrupted.get("/readyz")[0] == 200
    assert _logged(demo) == before + 1


def test_without_postgresql_no_prediction_goes_unlogged(interrupted: Server, demo: DemoRun) -> None:
    before = _logged(demo)
    with _stopped(EmbeddedServers(demo.home).postgres):
        _assert_unavailable(interrupted)
    _await_prediction(interrupted)
    assert interrupted.get("/readyz")[0] == 200
    assert _logged(demo) == before + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"password": "wrong"}, "refused the user or the password"),
        ({"port": "1"}, "does not answer"),
    ],
)
def test_it_does_not_start_without_postgresql(
    demo: DemoRun, make_shell: Callable[..., Shell], change: dict[str, str], message: str
) -> None:
    dsn = conninfo.make_conninfo(demo.database.dsn, **change)
    process = make_shell(postgres_dsn=dsn, redis_url="redis://127.0.0.1:1/0").start(
        "serve", "--port", "0"
    )
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1, output
    assert re.fullmatch(rf"error: .*{message}.*\n", output), output


@contextmanager
def _stopped(server: PostgresServer | RedisServer) -> Iterator[None]:
    """Without this server; it comes back at the same address."""
    address = server.running()
    assert server.down()
    try:
        yield
    finally:
        assert server.up() == address


def _assert_unavailable(server: Server) -> None:
    for path in ("/v1/predict", "/readyz", "/v1/predict"):
        status, headers = server.refusal(path)
        assert (path, status) == (path, 503)
        assert int(headers["Retry-After"]) > 0
    assert server.get("/healthz") == (200, {"status": "ok"})
    assert server.get("/metrics")[0] == 200


def _await_prediction(server: Server) -> None:
    """Ask until one prediction is answered; connections come back with some delay."""
    deadline = time.monotonic() + 60
    while (status := server.post({"symbols": ["AAPL"]})[0]) != 200:
        assert status == 503
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _logged(demo: DemoRun) -> int:
    return int(demo.database.fetch("SELECT count(*) AS n FROM signals")[0]["n"])
