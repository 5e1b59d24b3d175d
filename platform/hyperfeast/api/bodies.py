"""The bytes of a request: how many may come, and how they are read without waiting or unpacking more."""

import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import anyio
import anyio.lowlevel
from fastapi import HTTPException, Request
from starlette.status import HTTP_408_REQUEST_TIMEOUT, HTTP_415_UNSUPPORTED_MEDIA_TYPE

from hyperfeast.errors import DataError

# A body that comes more slowly than this holds a place that others wait for.
_COMPLETE_WITHIN_S = 60

_PIECE_BYTES = 1 << 20
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class BodyLimit:
    """How large a body may be.

    Attributes:
        max_bytes: as it comes, and after it is decompressed.
        advice: what the sender of a larger one is told.
    """

    max_bytes: int
    advice: str


class BodyTooLarge(HTTPException):
    """More came than a request may have."""

    def __init__(self, limit: BodyLimit) -> None:
        super().__init__(413, limit.advice)


async def read(request: Request, limit: BodyLimit) -> bytes:
    """The whole body, decompressed.

    Raises:
        BodyTooLarge: it is larger than the limit, once unpacked; the rest of it is left unread.
        HTTPException: 415 for an encoding other than gzip, 408 for a body that takes over a minute.
        DataError: it is no gzip stream, or one that is cut off.
        ClientDisconnect: the sender left.
    """
    pieces, size = [], 0
    try:
        with anyio.fail_after(_COMPLETE_WITHIN_S):
            async for piece in _unpacked(request, limit):
                size += len(piece)
                if size > limit.max_bytes:
                    raise BodyTooLarge(limit)
                pieces.append(piece)
    except TimeoutError:
        raise HTTPException(
            HTTP_408_REQUEST_TIMEOUT,
            f"the body did not come within {_COMPLETE_WITHIN_S} seconds: send less at a time",
        ) from None
    return b"".join(pieces)


def _unpacked(request: Request, limit: BodyLimit) -> AsyncIterator[bytes]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return aiter(request.stream())
    if encoding == "gzip":
        return _gunzipped(request, limit)
    raise HTTPException(
        HTTP_415_UNSUPPORTED_MEDIA_TYPE,
        f"Content-Encoding {encoding[:40]!r} is not read: expected gzip, or none",
    )


async def _gunzipped(request: Request, limit: BodyLimit) -> AsyncIterator[bytes]:
    stream = _Gunzip(min(_PIECE_BYTES, limit.max_bytes + 1))
    async for chunk in request.stream():
        for piece in stream.feed(chunk):
            yield piece
            # A few bytes may unpack to megabytes: other requests get their turn between two pieces.
            await anyio.lowlevel.checkpoint()
    stream.finish()


class _Gunzip:
    """A gzip stream, member by member, in pieces that are never larger than asked for."""

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What the chunk unpacks to.

        Raises:
            DataError: it is no gzip.
        """
        while chunk:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            self._begun = True
            try:
                piece = self._member.decompress(chunk, self._piece_bytes)
            except zlib.error as error:
                raise DataError(f"the body is no gzip stream: {error}") from None
            if piece:
                yield piece
            chunk = self._member.unconsumed_tail or self._member.unused_data

    def finish(self) -> None:
        """Refuse a stream that is cut off.

        Raises:
            DataError: it is.
        """
        if self._begun and not self._member.eof:
            raise DataError("the gzip stream of the body ends too early: send it whole")
