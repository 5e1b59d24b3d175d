"""The routes that take rows: bodies that are too large, packed, slow or of other kinds; what is answered."""

import asyncio
import gzip
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from hyperfeast.aggregates import RefreshReport
from hyperfeast.api import bodies, create
from hyperfeast.api.push import LIMIT, MAX_ROWS
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.errors import ServerUnreachable
from hyperfeast.settings import Settings

_JSON = {"Content-Type": "application/json"}
_GZIP = _JSON | {"Content-Encoding": "gzip"}
_ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
_BAR = {
    "symbol": "AAPL", "ts": "2024-01-02", "open": 2, "high": 3.5, "low": 1, "close": 3, "volume": 10,
}  # fmt: skip
_MINUTE = _BAR | {"ts": "2024-01-02T14:30:00Z"}
_OPTIONS = {"timeframe": "1d", "source": "feed-a"}
_READING = {
    "user_id": "123e4567-e89b-12d3-a456-426614174000", "metric": "hrv", "ts": "2024-01-02T07:00:00+01:00",
    "value": 52,
}  # fmt: skip


class _Recorded(App):
    """The platform, and how often its aggregates were refreshed."""

    refreshed = 0
    failure: Exception | None = None

    def refresh_aggregates(self, *, wait: bool = True) -> RefreshReport:
        # A sender does not wait for somebody else's refresh.
        assert not wait
        self.refreshed += 1
        if self.failure:
            raise self.failure
        return RefreshReport([], 0, 0, 0, 0.0)


@pytest.fixture
def api() -> FastAPI:
    """Without any server: what is asked of it does not get that far."""
    return create(App(), "trend_5d")


@pytest.fixture
def app(database: Database, redis_url: str, tmp_path: Path) -> Iterator[_Recorded]:
    settings = Settings(home=tmp_path, postgres_dsn=database.dsn, redis_url=redis_url)  # type: ignore[arg-type]
    with closing(_Recorded(settings, pool_size=4)) as app:
        yield app


@pytest.fixture
def serving(app: App) -> FastAPI:
    return create(app, "trend_5d")


def _post(
    api: FastAPI, content: Any, headers: dict[str, str], path: str = "/v1/candles"
) -> httpx.Response:
    return asyncio.run(_posted(api, content, headers, path))


async def _posted(api: FastAPI, content: Any, headers: dict[str, str], path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, content=content, headers=headers)


def _push(api: FastAPI, *rows: dict[str, Any], key: str = "", **options: Any) -> httpx.Response:
    """Bars as JSON."""
    body = json.dumps(_OPTIONS | options | {"rows": rows})
    return _post(api, body, _JSON | ({"Idempotency-Key": key} if key else {}))


async def _pieces(size: int, taken: list[int] | None = None) -> AsyncIterator[bytes]:
    piece = 1 << 16
    while size > 0:
        size -= piece
        if taken is not None:
            taken.append(piece)
        yield b" " * piece


def _assert_too_large(answer: httpx.Response) -> None:
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert error["type"] == "BodyTooLarge"
    assert "split it" in error["message"]


def test_a_body_that_says_that_it_is_too_large_is_not_waited_for(api: FastAPI) -> None:
    headers = _JSON | {"Content-Length": str(1 << 30)}
    # What is left of a refused body is read only after the answer.
    received: list[Any] = []

    async def ask() -> None:
        async def receive() -> Any:
            assert received
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            received.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/candles", "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }  # fmt: skip
        await api(scope, receive, send)

    asyncio.run(ask())
    assert received[0]["status"] == 413
    assert (b"connection", b"close") in received[0]["headers"]
    assert b"split it" in received[1]["body"]
    assert not received[-1].get("more_body")


def test_a_large_chunked_body_is_cut_off(api: FastAPI) -> None:
    taken: list[int] = []
    answer = _post(api, _pieces(1 << 30, taken), _JSON)
    _assert_too_large(answer)
    assert answer.headers["Connection"] == "close"
    assert sum(taken) <= 2 * LIMIT.max_bytes


def test_the_other_routes_keep_their_limit(api: FastAPI) -> None:
    assert _post(api, _pieces(2 << 20), _JSON, "/v1/predict").status_code == 413
    assert _post(api, _pieces(2 << 20), _JSON).status_code == 422


def test_a_gzip_bomb_is_cut_off(api: FastAPI) -> None:
    _assert_too_large(_post(api, gzip.compress(bytes(LIMIT.max_bytes + 1)), _GZIP))
    # As many bytes as the limit are read: what is in them is the next question.
    assert _post(api, gzip.compress(bytes(LIMIT.max_bytes)), _GZIP).status_code == 422


def test_members_of_gzip_follow_one_another(api: FastAPI) -> None:
    packed = gzip.compress(b'{"rows"', mtime=0) + gzip.compress(b"") + gzip.compress(b": [5]}")
    answer = _post(api, packed, _GZIP)
    assert "row 1 is a number" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "no gzip stream"),
        (gzip.compress(b'{"rows": []}', mtime=0)[:-6], "ends too early"),
        (gzip.compress(b'{"rows": []}', mtime=0) + b"more", "no gzip stream"),
        (gzip.compress(b'{"rows": []}', mtime=0)[:-5] + b"\0\0\0\0\0", "no gzip stream"),
        (b"", "no JSON"),
    ],
)
def test_damaged_gzip_is_refused(api: FastAPI, content: bytes, message: str) -> None:
    answer = _post(api, content, _GZIP)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "expected application/json or application/vnd.apache.arrow.stream"),
        ({"Content-Type": "text/csv"}, "'text/csv' is not read"),
        (_JSON | {"Content-Encoding": "br"}, "'br' is not read: expected gzip"),
        (_JSON | {"Content-Encoding": "gzip, gzip"}, "is not read: expected gzip"),
    ],
)
def test_other_kinds_of_bodies_are_415(api: FastAPI, headers: dict[str, str], message: str) -> None:
    answer = _post(api, b"{}", headers)
    assert answer.status_code == 415
    assert message in answer.json()["error"]["message"]


def test_a_body_that_comes_too_slowly_is_408(api: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)
        yield b"}"

    monkeypatch.setattr(bodies, "_COMPLETE_WITHIN_S", 0.05)
    begun = time.monotonic()
    answer = _post(api, slow(), _JSON)
    assert answer.status_code == 408
    assert time.monotonic() - begun < 25


def test_too_many_rows_are_413(api: FastAPI) -> None:
    _assert_too_large(_post(api, b'{"rows":[' + b"{}," * MAX_ROWS + b"{}]}", _JSON))


@pytest.mark.parametrize(
    ("path", "options", "wrong"),
    [
        ("/v1/candles", {"timefame": "1d"}, ["body.timefame", "body.timeframe"]),
        ("/v1/candles", {"timeframe": "2d"}, ["body.timeframe"]),
        ("/v1/candles", {"timeframe": "1d", "source": "a\0"}, ["body.source"]),
        ("/v1/candles", {"timeframe": "1d", "source": ""}, ["body.source"]),
        ("/v1/candles", {"timeframe": "1d", "source": 5}, ["body.source"]),
        ("/v1/candles", {"timeframe": "1d", "device": "x"}, ["body.device"]),
        ("/v1/metrics", {"timeframe": "1d"}, ["body.timeframe"]),
        ("/v1/metrics", {"user": "x"}, ["body.user"]),
        ("/v1/metrics", {"metric": "x" * 65}, ["body.metric"]),
        ("/v1/metrics", {"x" * 10_000: 1}, ["body." + "x" * 100]),
    ],
)
def test_options_are_refused_by_name(
    api: FastAPI, path: str, options: dict[str, Any], wrong: list[str]
) -> None:
    body = json.dumps({"source": "feed-a"} | options | {"rows": [_BAR]})
    answer = _post(api, body, _JSON, path)
    assert answer.status_code == 422
    assert sorted(one["where"] for one in answer.json()["error"]["fields"]) == sorted(wrong)


@pytest.mark.parametrize(
    ("query", "headers", "message"),
    [
        ("?timeframe=1d", _JSON, "'timeframe' is a query parameter"),
        ("?timeframe=1d&source=a&source=b", _ARROW, "comes twice"),
        ("?timeframe=1d&source=a", _ARROW, "no Arrow IPC stream"),
    ],
)
def test_options_have_one_place(
    api: FastAPI, query: str, headers: dict[str, str], message: str
) -> None:
    answer = _post(api, json.dumps({"rows": [_BAR]}), headers, "/v1/candles" + query)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


def test_unknown_query_parameters_are_refused_by_name(api: FastAPI) -> None:
    answer = _post(api, b"", _ARROW, "/v1/candles?timeframe=1d&source=a&timzone=UTC")
    assert [one["where"] for one in answer.json()["error"]["fields"]] == ["query.timzone"]


def test_both_bodies_are_documented(api: FastAPI) -> None:
    for path in ("/v1/candles", "/v1/metrics"):
        content = api.openapi()["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {_JSON["Content-Type"], _ARROW["Content-Type"]}
        assert "$ref" not in json.dumps(content)


def test_the_documented_example_is_taken(serving: FastAPI) -> None:
    for path in ("/v1/candles", "/v1/metrics"):
        content = serving.openapi()["paths"][path]["post"]["requestBody"]["content"]
        example = content["application/json"]["schema"]["example"]
        answer = _post(serving, json.dumps(example), _JSON, path)
        assert (answer.status_code, answer.json()["inserted"]) == (200, 1)


def test_rows_are_taken_in_and_counted(serving: FastAPI, database: Database) -> None:
    bad = _BAR | {"symbol": "x'; DROP TABLE signals;--"}
    answer = _push(serving, _BAR, bad)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["rows_in"], body["inserted"], body["quarantined"]) == (2, 1, 1)
    assert (body["refused"], body["replayed"]) == ({"symbol_format": 1}, False)
    row = database.fetch("SELECT o, h, source FROM candles")[0]
    assert row == {"o": 2.0, "h": 3.5, "source": "feed-a"}
    assert _push(serving, _BAR | {"open": 2.5}).json()["corrected"] == 1
    metrics = asyncio.run(_metrics(serving))
    for outcome, count in {"inserted": 1, "corrected": 1, "unchanged": 0, "quarantined": 1}.items():
        line = f'hyperfeast_ingested_rows_total{{outcome="{outcome}",table="candles"}} {count}.0'
        assert line in metrics


async def _metrics(api: FastAPI) -> str:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=api), base_url="http://test"
    ) as client:
        return (await client.get("/metrics")).text


def test_when_every_row_is_refused_it_is_422_with_the_rules(serving: FastAPI) -> None:
    answer = _push(serving, _BAR | {"close": "NaN"}, _BAR | {"ts": "9999-12-31"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["type"] == "RowsRefused"
    assert error["batch"]["refused"] == {"number_missing": 1, "time_range": 1}
    assert error["batch"]["batch_id"] in error["message"]


def test_json_gzip_and_arrow_are_one_and_the_same(serving: FastAPI) -> None:
    assert _push(serving, _BAR).json()["inserted"] == 1
    packed = gzip.compress(json.dumps(_OPTIONS | {"rows": [_BAR]}).encode())
    assert _post(serving, packed, _GZIP).json()["unchanged"] == 1
    body = io.BytesIO()
    pl.DataFrame([_BAR]).write_ipc_stream(body, compat_level=pl.CompatLevel.oldest())
    path = "/v1/candles?timeframe=1d&source=feed-a"
    assert _post(serving, body.getvalue(), _ARROW, path).json()["unchanged"] == 1
    packed = gzip.compress(body.getvalue())
    answer = _post(serving, packed, _ARROW | {"Content-Encoding": "gzip"}, path)
    assert answer.json()["unchanged"] == 1


def test_a_key_has_one_effect_and_one_body(serving: FastAPI, database: Database) -> None:
    first = _push(serving, _BAR, key="k1").json()
    again = _push(serving, _BAR, key="k1")
    assert again.status_code == 200
    assert _untimed(again.json()) == _untimed(first) | {"replayed": True}
    other = _push(serving, _BAR | {"open": 2.5}, key="k1")
    assert (other.status_code, other.json()["error"]["type"]) == (409, "IdempotencyConflict")
    # The same rows read otherwise are another body; compressed or not, they are the same one.
    assert _push(serving, _BAR, key="k1", tz="Asia/Tokyo").status_code == 409
    packed = gzip.compress(json.dumps(_OPTIONS | {"rows": [_BAR]}).encode())
    assert _post(serving, packed, _GZIP | {"Idempotency-Key": "k1"}).json()["replayed"]
    assert database.fetch("SELECT o FROM candles") == [{"o": 2.0}]
    assert _push(serving, _BAR, key="").status_code == 200
    assert _post(serving, packed, _GZIP | {"Idempotency-Key": "a b"}).status_code == 422
    metrics = asyncio.run(_metrics(serving))
    assert 'hyperfeast_ingested_rows_total{outcome="inserted",table="candles"} 1.0' in metrics


def _untimed(summary: dict[str, Any]) -> dict[str, Any]:
    """Without the time that it took: that is rounded where it is kept."""
    return {name: value for name, value in summary.items() if name != "seconds"}


def test_what_was_refused_under_a_key_stays_refused(serving: FastAPI) -> None:
    bad = _BAR | {"close": None}
    first, again = (_push(serving, bad, key="k2") for _ in range(2))
    assert (first.status_code, again.status_code) == (422, 422)
    stored, replayed = (_untimed(one.json()["error"]["batch"]) for one in (first, again))
    assert replayed == stored | {"replayed": True}


def test_aggregates_are_refreshed_when_their_rows_have_changed(
    serving: FastAPI, app: _Recorded
) -> None:
    _push(serving, _BAR)
    assert app.refreshed == 0
    _push(serving, _MINUTE, timeframe="1m", key="k3")
    assert app.refreshed == 1
    _push(serving, _MINUTE, timeframe="1m", key="k3")
    _push(serving, _MINUTE, timeframe="1m")
    assert app.refreshed == 1
    _push(serving, _MINUTE | {"open": 3}, timeframe="1m")
    assert app.refreshed == 2
    body = json.dumps({"source": "watch", "rows": [_READING]})
    assert _post(serving, body, _JSON, "/v1/metrics").status_code == 200
    assert app.refreshed == 3


def test_rows_are_in_even_if_their_aggregates_are_not_refreshed(
    serving: FastAPI, app: _Recorded
) -> None:
    app.failure = ServerUnreachable("PostgreSQL at db:5432/x does not answer")
    with capture_logs() as lines:
        answer = _push(serving, _MINUTE, timeframe="1m")
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
    assert [line["event"] for line in lines] == ["aggregates not refreshed"]


def test_a_database_that_does_not_answer_is_503(tmp_path: Path) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    settings = Settings(home=tmp_path, postgres_dsn=dsn, redis_url="redis://127.0.0.1:1/0")  # type: ignore[arg-type]
    answer = _push(create(App(settings), "trend_5d"), _BAR)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
