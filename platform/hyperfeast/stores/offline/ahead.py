"""Reading ahead: a thread fetches the next items while the caller works on the last ones.

The caller waits in Python, not in a driver: an interrupt from the keyboard reaches it at once.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")

_END = object()
_POLL_S = 0.1


def ahead(
    items: Generator[Item, None, None], depth: int, cancel: Callable[[], None]
) -> Generator[Item, None, None]:
    """The items in their order, up to `depth` of them fetched before they are asked for.

    All of `items` runs in one other thread; its error is raised here. When the caller stops early,
    or is interrupted, what the thread waits for is canceled, and the thread ends first.

    Args:
        items: what to fetch.
        depth: how many may wait.
        cancel: makes the item that is being fetched fail.
    """
    queue: Queue[Any] = Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_fetch, args=(items, queue, stopped), name="hyperfeast-ahead", daemon=True
    )
    thread.start()
    try:
        while (fetched := _got(queue)) is not _END:
            yield _value(fetched, thread)
    except BaseException:
        stopped.set()
        while thread.is_alive():
            # Again, since it may have come before what it was to cancel.
            cancel()
            thread.join(_POLL_S)
        raise
    thread.join()


def awaited(work: Callable[[], Item], cancel: Callable[[], None]) -> Item:
    """What some work gives, done by another thread: an interrupt cancels it.

    Args:
        work: a call that waits in a driver.
        cancel: makes it fail.
    """

    def once() -> Generator[Item, None, None]:
        yield work()

    (result,) = ahead(once(), 1, cancel)
    return result


def _got(queue: "Queue[Any]") -> Any:
    """The next item. An interrupt that another thread has taken wakes nobody, hence the turns."""
    while True:
        with suppress(Empty):
            return queue.get(timeout=_POLL_S)


@dataclass(frozen=True)
class _Failed:
    error: BaseException


def _value(fetched: Any, thread: threading.Thread) -> Any:
    if isinstance(fetched, _Failed):
        # It was its last: there is nothing to cancel.
        thread.join()
        raise fetched.error
    return fetched


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
