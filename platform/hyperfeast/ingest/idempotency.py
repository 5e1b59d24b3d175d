"""A request under a key: whoever sends it, how often and how many at once, it has one effect."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from hyperfeast.db import Database
from hyperfeast.errors import IdempotencyConflict, UsageError
from hyperfeast.sqlfiles import query

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Request:
    """A key, chosen by the sender, and the SHA-256 (hexadecimal) of what is sent under it.

    Raises:
        UsageError: the key is empty, too long or not printable, or the digest is none.
    """

    key: str
    body_sha256: str

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise UsageError(
                f"{self.key[:40]!r} is no idempotency key: expected 1 to 255 printable ASCII "
                "characters without spaces, such as a UUID"
            )
        if not _SHA256.fullmatch(self.body_sha256):
            raise UsageError(
                f"{self.body_sha256[:70]!r} is no SHA-256: expected 64 hexadecimal digits in lower case"
            )

    def check(self, body_sha256: str) -> None:
        """Refuse a key that stands for another body.

        Raises:
            IdempotencyConflict: it does.
        """
        if body_sha256 != self.body_sha256:
            raise IdempotencyConflict(
                f"the idempotency key {self.key!r} was used for other content: nothing was taken in; "
                "send this under a key of its own"
            )


def request(
    key: str | None, body_sha256: str | None, frame: pl.DataFrame, options: Mapping[str, Any]
) -> Request | None:
    """What is sent under a key, if there is one.

    Args:
        key: None if the sender gives none.
        body_sha256: of what was sent, where the caller knows it; else it is taken from the rest.
        frame: the rows.
        options: how they are to be read: the same rows read otherwise are another request.
    """
    return None if key is None else Request(key, body_sha256 or digest(frame, options))


def digest(frame: pl.DataFrame, options: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the options and of the frame's names, types and cells."""
    body = io.BytesIO()
    # The layout of strings by offsets: views would depend on how the frame was built.
    frame.rechunk().write_ipc_stream(body, compat_level=pl.CompatLevel.oldest())
    sha256 = hashlib.sha256(repr(sorted(options.items())).encode())
    sha256.update(body.getbuffer())
    return sha256.hexdigest()


@contextmanager
def held(database: Database, key: str) -> Iterator[None]:
    """Be the only sender of the key while the block runs; wait for another one that is."""
    with database.connect(autocommit=True) as holder:
        holder.execute(query("ingestion", "hold_key"), {"key": key})
        yield
