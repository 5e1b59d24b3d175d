"""Several workers on one machine: a process each, started again when it dies."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from types import FrameType

from hyperfeast.errors import ServerError
from hyperfeast.jobs.threads import shared_by

_log = logging.getLogger(__name__)

# Who dies sooner than this did not get to work: the next one waits, and is not tried for ever.
_STARTED_AFTER_S = 10.0
_TRIES = 5
_POLL_S = 0.2


def supervise(work: Callable[[], None], count: int) -> None:
    """Run a function in so many processes until SIGTERM or Ctrl-C, which each of them gets too.

    Must be called in the main thread. Processes end when this one is gone, however it went.

    Args:
        work: can be pickled; ends by SIGTERM after what it has begun.
        count: how many processes.

    Raises:
        ServerError: processes die as soon as they are started.
    """
    stopping = threading.Event()
    before = {
        number: signal.signal(number, _setting(stopping))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    places = [_Place(work, number) for number in range(count)]
    try:
        with shared_by(count):
            while not stopping.wait(_POLL_S):
                for place in places:
                    place.keep()
    finally:
        for place in places:
            place.stop()
        for place in places:
            place.join()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Place:
    """A process, and the one that takes its place."""

    def __init__(self, work: Callable[[], None], number: int) -> None:
        self._work = work
        self._number = number
        self._failures = 0
        self._wait_until = 0.0
        self._began = 0.0
        self._process: SpawnProcess | None = None

    def keep(self) -> None:
        """Start the process where there is none.

        Raises:
            ServerError: it has died again and again before it got to work.
        """
        if self._process is not None and self._process.exitcode is not None:
            self._note_death(self._process.exitcode)
        if self._process is None and time.monotonic() >= self._wait_until:
            # A forked process would share this one's signal handlers and, on some systems, its threads.
            self._process = multiprocessing.get_context("spawn").Process(
                target=_work_while_watched, args=(self._work,), name=f"worker {self._number}"
            )
            self._process.start()
            self._began = time.monotonic()

    def stop(self) -> None:
        """Let the process end after what it has begun."""
        if self._process is not None and self._process.is_alive():
            self._process.terminate()

    def join(self) -> None:
        """Wait for the end."""
        if self._process is not None:
            self._process.join()

    def _note_death(self, code: int) -> None:
        lasted = time.monotonic() - self._began
        self._process = None
        self._failures = 0 if lasted > _STARTED_AFTER_S else self._failures + 1
        if self._failures >= _TRIES:
            raise ServerError(
                f"worker process {self._number} ended {_TRIES} times in a row as soon as it was started, the "
                f"last time with exit code {code}: what it said stands above. Put that right, then start the "
                "worker again"
            )
        _log.warning("worker process %s ended with exit code %s: started again", self._number, code)
        self._wait_until = time.monotonic() + (2**self._failures - 1)


def _work_while_watched(work: Callable[[], None]) -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch the parent", daemon=True).start()
    work()


def _setting(event: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        event.set()

    return handle
