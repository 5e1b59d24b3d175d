"""The API as a process: answers, refusals, what is down, a clean stop."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from acceptance.shell import DemoRun


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

    def _open(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                text = response.read().decode()
                is_json = response.headers["Content-Type"] == "application/json"
                return response.status, json.loads(text) if is_json else text
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def server(demo: DemoRun) -> Iterator[Server]:
    process = demo.shell.start("serve", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    yield Server(found[0], process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
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
    assert [one["is_active"] for one in body["models"]].count(True) == 1


def test_metrics_count_what_was_answered(server: Server) -> None:
    server.post({"symbols": ["AAPL"]})
    status, text = server.get("/metrics")
    assert status == 200
    assert 'hyperfeast_requests_total{route="/v1/predict",status="200"}' in text
    assert 'hyperfeast_predictions_total{label="' in text
    assert 'hyperfeast_feature_age_seconds{feature_view="market_technical_v1"}' in text


def test_the_documentation_names_the_routes(server: Server) -> None:
    _, schema = server.get("/openapi.json")
    assert set(schema["paths"]) == {"/v1/predict", "/v1/models", "/healthz", "/readyz"}


def _logged(demo: DemoRun) -> int:
    return int(demo.database.fetch("SELECT count(*) AS n FROM signals")[0]["n"])
