"""Reading ahead: a thread fetches the next items while the caller works on the last ones."""

import threading
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()
_POLL_S = 0.1


def ahead(items: Generator[Item, None, None], depth: int) -> Generator[Item, None, None]:
    """The items in their order, up to `depth` of them fetched before they are asked for.

    All of `items` runs in one other thread; its error is raised here. When the caller stops early,
    the thread ends after the item that it is fetching.
    """
    queue: Queue[Any] = Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_fetch, args=(items, queue, stopped), name="hyperfeast-ahead", daemon=True
    )
    thread.start()
    try:
        while (fetched := queue.get()) is not _END:
            if isinstance(fetched, _Failed):
                raise fetched.error
            yield fetched
    finally:
        stopped.set()
        thread.join()


@dataclass(frozen=True)
class _Failed:
    error: BaseException


def _fetch(
    items: Generator[Any, None, None], queue: "Queue[Any]", stopped: threading.Event
) -> None:
    try:
        with closing(items):
            for item in items:
                if not _put(item, queue, stopped):
                    return
        _put(_END, queue, stopped)
    except BaseException as error:  # noqa: BLE001 - raised again where the items are asked for
        _put(_Failed(error), queue, stopped)


def _put(item: Any, queue: "Queue[Any]", stopped: threading.Event) -> bool:
    """False where nobody waits for it any more."""
    while not stopped.is_set():
        with suppress(Full):
            queue.put(item, timeout=_POLL_S)
            return True
    return False
