"""What Redis tells of keys that were written, whoever wrote them: its own tracking, in broadcasting mode.

Two connections: one hears, the other asks for it. Redis sends the name of every key that changes under the
prefixes asked for, of those that expire, and one message without names when it is emptied. While the
connections do not stand, nothing may be kept that a message could have ended.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

from redis import Redis

_log = logging.getLogger(__name__)

_HEARD_ON = b"__redis__:invalidate"
_DEFINITIONS = b"hyperfeast:definitions"
_POLL_S = 0.5
_PAUSE_S = 1.0


class Invalidations:
    """Listens on a thread of its own, from the first time that it is asked until `close`.

    Args:
        client: of one Redis, or of the one that a sentinel names. A cluster has no single place to listen at.
        project: whose definitions are meant.
        on_keys: called with the keys that changed; with None for all there are.
        on_definitions: called when definitions were applied somewhere.
    """

    def __init__(
        self,
        client: Redis,
        project: str,
        *,
        on_keys: Callable[[Iterable[bytes] | None], None],
        on_definitions: Callable[[], None],
    ) -> None:
        self._pool = client.connection_pool
        self._project = project
        self._on_keys = on_keys
        self._on_definitions = on_definitions
        self._wanted: set[bytes] = set()
        self._heard: frozenset[bytes] = frozenset()
        self._changed = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def hears(self, prefixes: AbstractSet[bytes]) -> bool:
        """Whether changes under all of these prefixes are being told; asks for them if not.

        What was read before the answer was True may have changed unheard.
        """
        if self._process != os.getpid():
            # A forked child has no listener.
            self._process, self._heard, self._thread = os.getpid(), frozenset(), None
        if prefixes <= self._heard:
            return True
        with self._changed:
            self._wanted |= prefixes
            is_listening = self._thread is not None and self._thread.is_alive()
            if not is_listening and not self._closing.is_set():
                self._thread = threading.Thread(
                    target=self._listen, name="hyperfeast invalidations", daemon=True
                )
                self._thread.start()
        return False

    def close(self) -> None:
        """Stop listening; returns when the thread has ended."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._until_lost()
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be kept, and it is tried again
                _log.warning("the cache of online features pauses: Redis is not heard: %s", error)
            finally:
                self._forget_all()
            self._closing.wait(_PAUSE_S)

    def _until_lost(self) -> None:
        # Connections as they are: a subscription that reconnects by itself would hear nothing from then on.
        with self._connection() as hearing, self._connection() as asking:
            ids = _answer(hearing, "CLIENT", "ID"), _answer(asking, "CLIENT", "ID")
            for channel in (_HEARD_ON, channel_of(self._project)):
                _answer(hearing, "SUBSCRIBE", channel)
            while not self._closing.is_set():
                self._ask(asking, *ids)
                self._hear(hearing)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection: Any = self._pool.get_connection()
        try:
            yield connection
        finally:
            connection.disconnect()
            self._pool.release(connection)

    def _hear(self, hearing: Any) -> None:
        """Take what comes within half a second, and no longer, however much it is."""
        until = time.monotonic() + _POLL_S
        while not self._closing.is_set() and (left := until - time.monotonic()) > 0:
            if hearing.can_read(timeout=left):
                self._take(hearing.read_response(disable_decoding=True))

    def _ask(self, asking: Any, listener: int, asker: int) -> None:
        """Ask for all prefixes anew if some are new, or if the connection is not the one that asked."""
        wanted = frozenset(self._wanted)
        if wanted == self._heard and _answer(asking, "CLIENT", "ID") == asker:
            return
        self._heard = frozenset()
        _answer(asking, "CLIENT", "TRACKING", "OFF")
        # Redis takes no prefix that begins with another, and tells the keys of both by the shorter one.
        asked = [one for one in wanted if not any(one.startswith(by) for by in wanted - {one})]
        prefixes = [part for one in asked for part in ("PREFIX", one)]
        _answer(asking, "CLIENT", "TRACKING", "ON", "REDIRECT", listener, "BCAST", *prefixes)
        self._on_keys(None)
        self._heard = wanted

    def _take(self, message: list[Any]) -> None:
        kind, channel, told = message
        if kind != b"message":
            return
        if channel == _HEARD_ON:
            self._on_keys(told)
        else:
            # That may take long, and nothing is heard meanwhile.
            self._forget_all()
            self._on_definitions()

    def _forget_all(self) -> None:
        self._heard = frozenset()
        self._on_keys(None)


def channel_of(project: str) -> bytes:
    """Where it is told that a project's definitions were applied."""
    return _DEFINITIONS + b":" + project.encode()


def _answer(connection: Any, *command: Any) -> Any:
    connection.send_command(*command)
    return connection.read_response(disable_decoding=True)
