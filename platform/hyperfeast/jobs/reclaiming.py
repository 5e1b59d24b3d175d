"""The jobs of workers that died or froze go to others."""

import logging
from collections.abc import Callable
from datetime import timedelta

from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job

from hyperfeast.jobs.manager import FencedManager
from hyperfeast.jobs.retry import Backoff
from hyperfeast.sqlfiles import query

_log = logging.getLogger(__name__)


class Reclaimer:
    """Gives jobs up whose worker was not heard of for a while: every worker does so for all of them.

    Args:
        manager: of the jobs.
        strategy: when a job of a task is tried again; None for a task whose jobs are not.
        dead_after: seconds without a heartbeat.
    """

    def __init__(
        self,
        manager: FencedManager,
        strategy: Callable[[str], Backoff | None],
        *,
        dead_after: float,
    ) -> None:
        self._manager = manager
        self._strategy = strategy
        self._dead_after = dead_after

    async def reclaim(self) -> None:
        """End the sessions of dead workers, with the locks that they hold, then their attempts."""
        connector = self._manager.connector
        rows = await connector.execute_query_all_async(
            query=query("jobs", "stalled"), dead_after=self._dead_after
        )
        for worker in {row["worker"] for row in rows if row["worker"]}:
            await connector.execute_query_one_async(
                query=query("jobs", "end_sessions"), worker=worker
            )
        for row in rows:
            await self._give_up(Job.from_row(row), row["worker"])

    async def _give_up(self, job: Job, worker: str | None) -> None:
        strategy = self._strategy(job.task_name)
        again = strategy is not None and strategy.is_left(job) and not job.abort_requested
        # Once may be an accident of the machine; a job that takes its workers with it waits like one that fails.
        wait = strategy.wait(job) if strategy and job.attempts else timedelta(0)
        why = f"the worker died or froze: {worker or 'it'} was not heard of for {self._dead_after:g} s"
        try:
            ended = await self._manager.give_up(job, why, wait=wait if again else None)
        except ConnectorException as error:
            _log.warning("job %s cannot be reclaimed: %s", job.id, error.__cause__ or error)
            return
        if ended:
            became = "waits for another worker" if again else "counts as failed"
            _log.warning("job %s %s: its worker is dead", job.id, became)
