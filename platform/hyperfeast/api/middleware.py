"""What holds for every request: its body has a limit, and its answer is counted."""

import time
from collections.abc import Mapping

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperfeast.api.bodies import BodyLimit, BodyTooLarge
from hyperfeast.api.metrics import Metrics

_DEFAULT_LIMIT = BodyLimit(1 << 20, f"at most {1 << 20:,} bytes")

# How long the rest of a refused body is thrown away, so that its sender comes to read the answer.
_LINGER_S = 5


class Observed:
    """Counts each answer and its time, and stops reading a body that is too large.

    A body that says beforehand that it is too large is refused unread; the bytes of one that does not are
    counted as they come. A connection whose request was answered before it was read is closed.

    Args:
        app: what answers.
        metrics: where the answers are counted.
        limits: path -> how large its bodies may be; 1 MiB elsewhere.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, limits: Mapping[str, BodyLimit]) -> None:
        self._app = app
        self._metrics = metrics
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; errors pass back, counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        body = _Body(Headers(scope=scope), receive, self._limits.get(scope["path"], _DEFAULT_LIMIT))
        # An error that gets this far is answered as a 500 further out.
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await body.answered(message, send)

        try:
            await self._app(scope, body.receive, noting)
        finally:
            self._metrics.request(scope, status, time.perf_counter() - started)


class _Body:
    """The body of one request, counted as it is received."""

    def __init__(self, headers: Headers, receive: Receive, limit: BodyLimit) -> None:
        declared = headers.get("content-length", "")
        self._declared = int(declared) if declared.isdecimal() else 0
        self._unread = self._declared > 0 or "transfer-encoding" in headers
        self._receive = receive
        self._limit = limit
        self._received = 0
        self._closing = False

    async def receive(self) -> Message:
        """The next message.

        Raises:
            BodyTooLarge: to whoever reads on; the route that it passes through makes it the answer.
        """
        if self._declared > self._limit.max_bytes:
            raise BodyTooLarge(self._limit)
        message = await self._next()
        if self._received > self._limit.max_bytes:
            raise BodyTooLarge(self._limit)
        return message

    async def answered(self, message: Message, send: Send) -> None:
        """Send a part of the answer; after the last one the connection is closed if the body is unread."""
        if message["type"] == "http.response.start" and self._unread:
            self._closing = True
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        if self._closing and _is_last(message):
            # Closed with bytes on their way, a connection is reset, and the answer may be lost with it.
            await send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    async def _linger(self) -> None:
        """Throw away what still comes, up to twice the limit in all."""
        with anyio.move_on_after(_LINGER_S):
            while self._unread and self._received < 2 * self._limit.max_bytes:
                await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._unread = self._unread and message.get("more_body", False)
        return message


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)
