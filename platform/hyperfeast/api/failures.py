"""Errors as HTTP answers: one form, `{"error": {"type", "message"}}`, never a value or a secret."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hyperfeast.api.bodies import BodyTooLarge
from hyperfeast.errors import (
    DataError,
    FeatureError,
    HyperfeastError,
    IdempotencyConflict,
    NoModel,
    SchemaError,
    ServerError,
    UsageError,
)

_RETRY_AFTER_S = "5"
# The first that fits counts.
_STATUS: list[tuple[type[HyperfeastError], int]] = [
    (UsageError, 422),
    (IdempotencyConflict, 409),
    (DataError, 422),
    (NoModel, 503),
    (FeatureError, 503),
    (SchemaError, 503),
    (ServerError, 503),
    (HyperfeastError, 500),
]


def install(api: FastAPI) -> None:
    """Map every error that a route can raise."""
    api.add_exception_handler(HyperfeastError, _ours)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(BodyTooLarge, _too_large)
    api.add_exception_handler(ClientDisconnect, _left)
    api.add_exception_handler(Exception, _unexpected)


def answer(
    status: int,
    kind: str,
    message: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """An error's answer; a 503 says when to try again."""
    all_headers = dict(headers or {})
    if status == 503:  # noqa: PLR2004
        all_headers["Retry-After"] = _RETRY_AFTER_S
    return JSONResponse({"error": {"type": kind, "message": message, **more}}, status, all_headers)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    kind, message = type(error).__name__, str(error)
    if status >= 500:  # noqa: PLR2004
        structlog.get_logger().warning(
            "not answered", route=request.url.path, error=kind, message=message
        )
    return answer(status, kind, message)


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
    return answer(error.status_code, "HTTPError", str(error.detail), headers=error.headers)


async def _too_large(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, BodyTooLarge):
        raise error
    return answer(error.status_code, "BodyTooLarge", str(error.detail))


async def _left(_: Request, __: Exception) -> JSONResponse:
    """Nobody hears it; it is counted."""
    return answer(400, "ClientDisconnect", "the connection was closed before the request was whole")


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    structlog.get_logger().error("unexpected error", route=request.url.path, exc_info=error)
    return answer(500, "InternalError", "this is a fault of hyperfeast; the log says where")
