"""What a worker does besides keeping the features current."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """Work by name.

    Attributes:
        name: what the queue calls it.
        run: does it; takes what `Queue.ask` was given.
        cron: when it runs by itself, in UTC; None for a task that only runs when asked.
    """

    name: str
    run: Callable[..., object]
    cron: str | None = None
