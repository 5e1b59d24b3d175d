"""The application without its servers: limits, errors and metrics of a request."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from hyperfeast.api import create
from hyperfeast.app import App
from hyperfeast.errors import ServerUnreachable

_TOO_LARGE = (1 << 20) + 1


@pytest.fixture
def api() -> FastAPI:
    return create(App(), "trend_5d")


def _ask(api: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    return asyncio.run(_asked(api, method, path, **options))


async def _asked(api: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **options)


async def _pieces(size: int) -> AsyncIterator[bytes]:
    piece = 1 << 16
    while size > 0:
        yield b" " * min(piece, size)
        size -= piece


def test_a_large_chunked_body_is_413(api: FastAPI) -> None:
    answer = _ask(api, "POST", "/v1/predict", content=_pieces(_TOO_LARGE))
    assert "content-length" not in answer.request.headers
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "BodyTooLarge"
    metrics = _ask(api, "GET", "/metrics").text
    assert 'hyperfeast_requests_total{route="/v1/predict",status="413"} 1.0' in metrics


def test_a_chunked_body_within_the_limit_is_read(api: FastAPI) -> None:
    answer = _ask(api, "POST", "/v1/predict", content=_pieces(_TOO_LARGE - 1))
    assert answer.status_code == 422


def test_an_endless_body_is_not_read_to_its_end(api: FastAPI) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < 100 << 20:
            taken += 1 << 16
            yield b" " * (1 << 16)

    assert _ask(api, "POST", "/v1/predict", content=endless()).status_code == 413
    assert taken <= 2 << 20


def test_a_content_length_that_is_no_number_is_no_fault_of_ours(api: FastAPI) -> None:
    headers = {"Content-Length": "many"}
    assert _ask(api, "POST", "/v1/predict", content=b"{", headers=headers).status_code == 422


def test_an_unexpected_error_is_answered_and_counted(api: FastAPI) -> None:
    def broken() -> None:
        raise RuntimeError("it broke")

    api.add_api_route("/broken", broken)
    answer = _ask(api, "GET", "/broken")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "InternalError"
    metrics = _ask(api, "GET", "/metrics").text
    assert 'hyperfeast_requests_total{route="/broken",status="500"} 1.0' in metrics
    assert 'hyperfeast_request_seconds_count{route="/broken"} 1.0' in metrics


def test_a_wrong_method_is_told_the_right_one(api: FastAPI) -> None:
    answer = _ask(api, "GET", "/v1/predict")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert answer.json()["error"]["type"] == "HTTPError"


def test_it_lives_while_every_thread_waits(api: FastAPI) -> None:
    async def ask_while_the_pool_is_full() -> httpx.Response:
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        started, done = threading.Event(), threading.Event()
        waiting = asyncio.create_task(_in_the_pool(started, done))
        try:
            await asyncio.to_thread(started.wait)
            return await asyncio.wait_for(_asked(api, "GET", "/healthz"), timeout=5)
        finally:
            done.set()
            await waiting

    assert asyncio.run(ask_while_the_pool_is_full()).json() == {"status": "ok"}


def test_what_is_down_is_logged_in_one_line(api: FastAPI) -> None:
    def unreachable() -> None:
        raise ServerUnreachable("PostgreSQL at db:5432/x does not answer")

    api.add_api_route("/unreachable", unreachable)
    with capture_logs() as lines:
        answer = _ask(api, "GET", "/unreachable")
        _ask(api, "GET", "/v1/predict")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert lines == [
        {
            "event": "not answered",
            "log_level": "warning",
            "route": "/unreachable",
            "error": "ServerUnreachable",
            "message": "PostgreSQL at db:5432/x does not answer",
        }
    ]


async def _in_the_pool(started: threading.Event, done: threading.Event) -> None:
    def wait() -> None:
        started.set()
        done.wait()

    await anyio.to_thread.run_sync(wait)
