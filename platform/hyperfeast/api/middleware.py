"""What holds for every request: its body has a limit, and its answer is counted."""

import time

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperfeast.api.metrics import Metrics

_MAX_BODY_BYTES = 1 << 20


class BodyTooLarge(HTTPException):
    """More bytes came than a request may have."""

    def __init__(self) -> None:
        super().__init__(413, f"at most {_MAX_BODY_BYTES:,} bytes")


class Observed:
    """Counts each answer and its time, and stops reading a body that is too large.

    The bytes are counted as they come: a chunked body does not say beforehand how long it is.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; errors pass back, counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # An error that gets this far is answered as a 500 further out.
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, _limited(receive), noting)
        finally:
            self._metrics.request(scope, status, time.perf_counter() - started)


def _limited(receive: Receive) -> Receive:
    """The same messages, until their bodies are too large together.

    Raises:
        BodyTooLarge: to whoever reads on; the route that it passes through makes it the answer.
    """
    received = 0

    async def counting() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > _MAX_BODY_BYTES:
            raise BodyTooLarge
        return message

    return counting
