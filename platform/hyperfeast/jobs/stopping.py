"""How a worker is stopped: what runs is finished, or handed back where that is possible."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


async def stoppable(
    work: Coroutine[Any, Any, None], when_stopped: Callable[[], None] | None = None
) -> bool:
    """Await work that the first SIGTERM or SIGINT cancels; whether one did. A second one kills.

    Args:
        work: what to await.
        when_stopped: called at the signal.
    """
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def release() -> None:
        for one, handler in before.items():
            if loop.remove_signal_handler(one):
                signal.signal(one, handler)

    def stop() -> None:
        release()
        if when_stopped:
            when_stopped()
        task.cancel()

    for one in before:
        loop.add_signal_handler(one, stop)
    try:
        await task
    except asyncio.CancelledError:
        return True
    finally:
        release()
    return False


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Await all of them; when one ends, the others are canceled, and what they have begun is awaited."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
