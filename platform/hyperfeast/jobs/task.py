"""What a worker does besides keeping the features current."""

from collections.abc import Callable
from dataclasses import dataclass

ABOVE_PARTITIONS = 500
"""A priority before all that is asked for by hand, which has 0 to 100."""

Progress = Callable[[int, int], None]
"""Told (done, total) between two parts of a job; raises where the job is to stop there."""


@dataclass(frozen=True)
class Task:
    """Work by name.

    Attributes:
        name: what the queue calls it.
        run: does it; takes what `Queue.ask` was given, after a `Progress` if it is stoppable.
        cron: when it runs by itself, in UTC; None for a task that only runs when asked.
        attempts: how often a job is tried before it counts as failed. What hyperfeast itself
            reports as final is not tried again.
        backoff: seconds before the second attempt; twice as many before the third, and so on.
        alone: whether two jobs of it never run at once. One that runs by itself always runs alone.
        stoppable: whether it takes a `Progress`, and can be stopped where it calls it.
        queue: where its jobs wait.
        priority: of its jobs; higher runs first.
        kept: whether a job that has succeeded stays on the list.
    """

    name: str
    run: Callable[..., object]
    cron: str | None = None
    attempts: int = 1
    backoff: float = 2.0
    alone: bool = False
    stoppable: bool = False
    queue: str = "upkeep"
    priority: int = ABOVE_PARTITIONS
    kept: bool = True

    @property
    def lock(self) -> str | None:
        """What two of its jobs may not hold at once."""
        return self.name if self.alone or self.cron is not None else None
