"""Errors as HTTP answers: one form, `{"error": {"type", "message"}}`, never a value or a secret."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from hyperfeast.errors import (
    DataError,
    FeatureError,
    HyperfeastError,
    NoModel,
    ServerError,
    UsageError,
)

_RETRY_AFTER_S = "5"
# The first that fits counts.
_STATUS: list[tuple[type[HyperfeastError], int]] = [
    (UsageError, 422),
    (DataError, 422),
    (NoModel, 503),
    (FeatureError, 503),
    (ServerError, 503),
    (HyperfeastError, 500),
]


def install(api: FastAPI) -> None:
    """Map every error that a route can raise."""
    api.add_exception_handler(HyperfeastError, _ours)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _unexpected)


def answer(status: int, kind: str, message: str, **more: Any) -> JSONResponse:
    """An error's answer; a 503 says when to try again."""
    headers = {"Retry-After": _RETRY_AFTER_S} if status == 503 else None  # noqa: PLR2004
    return JSONResponse({"error": {"type": kind, "message": message, **more}}, status, headers)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    return answer(status, type(error).__name__, str(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """The rejected input is left out: a NaN in it is not JSON, and would make this a 500."""
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [
        {"where": ".".join(map(str, one["loc"])), "message": one["msg"]} for one in error.errors()
    ]
    return answer(422, "InvalidRequest", "the request is not of the documented form", fields=fields)


async def _http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return answer(error.status_code, "HTTPError", str(error.detail))


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    structlog.get_logger().error("unexpected error", route=request.url.path, exc_info=error)
    return answer(500, "InternalError", "this is a fault of hyperfeast; the log says where")
