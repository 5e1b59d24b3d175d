"""A procrastinate queue: one task keeps the features current, others keep the data in order.

A failed refresh is not retried: the next tick is the retry. A worker that dies leaves its job
"doing", and with it the lock that lets only one refresh run at a time; every worker therefore ends
the jobs of workers whose heartbeats stopped.
"""

import asyncio
import json
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Status
from psycopg import conninfo

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, HyperfeastError, ServerError
from hyperfeast.jobs.task import Task
from hyperfeast.sqlfiles import query

_log = logging.getLogger(__name__)

_EVERY_FIVE_MINUTES = "*/5 * * * *"
_TASK = "hyperfeast.refresh"
# Of its own, so that `--once` runs the refresh and nothing else that waits.
_REFRESHES, _OTHERS = "default", "upkeep"
# A long backfill does not hold the refresh up.
_AT_ONCE = 2
_POLL_S = 0.5
_BEATS_BEFORE_DEATH = 3
_UNFINISHED = (Status.TODO, Status.DOING)


class _ExpectedFailures(logging.Filter):
    """What hyperfeast itself reports says what to do: one line, and where it came from for debugging only."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HyperfeastError) and not _log.isEnabledFor(logging.DEBUG):
            flat = " ".join(f"{type(error).__name__}: {error}".split())
            record.msg, record.args = f"{record.getMessage()}: {flat}", None
            record.exc_info = record.exc_text = None
        return True


_EXPECTED_FAILURES = _ExpectedFailures()


class Queue:
    """The queue of one database.

    Args:
        database: where the queue is.
        refresh: computes the features of what was ingested and brings them online.
        tasks: what workers do besides, on their schedules or when asked.
        dead_after: seconds without a heartbeat after which a worker counts as dead and its job as
            failed; the same for all workers of a database.
    """

    def __init__(
        self,
        database: Database,
        refresh: Callable[[], None],
        tasks: Sequence[Task] = (),
        *,
        dead_after: float = 30.0,
    ) -> None:
        self._database = database
        self._dead_after = dead_after
        self._failure: Exception | None = None
        logging.getLogger("procrastinate.worker").addFilter(_EXPECTED_FAILURES)
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                conninfo=conninfo.make_conninfo(database.dsn, application_name="hyperfeast worker")
            )
        )

        @self._app.task(name=_TASK, queueing_lock=_TASK, lock=_TASK)
        def refresh_features(timestamp: int | None = None) -> None:  # noqa: ARG001
            """Run the refresh; procrastinate passes the tick that asked for it."""
            self._failure = None
            try:
                refresh()
            except Exception as error:
                self._failure = error
                raise

        self._refresh = refresh_features
        self._others = {task.name: self._registered(task) for task in tasks}
        self._schedules = {task.name: task.cron for task in tasks if task.cron is not None}

    def ask(self, name: str, calls: Sequence[Mapping[str, Any]]) -> int:
        """Ask for a task once for each set of arguments; a call that waits already is not asked for twice.

        Args:
            name: of one of the tasks.
            calls: the arguments of each call, which JSON can hold.

        Returns:
            How many were asked for anew.
        """
        return asyncio.run(self._ask_others(name, calls))

    def work(self, *, once: bool = False) -> None:
        """Refresh at every tick until SIGTERM or Ctrl-C; a refresh that has begun is finished.

        Must be called in the main thread, which is where signals arrive.

        Args:
            once: ask for one refresh and return when it has succeeded. While another worker refreshes,
                it waits; a worker that died holds it up for `dead_after` seconds at most.

        Raises:
            HyperfeastError: with `once`, what the refresh itself raised.
            FeatureError: with `once`, the refresh raised something else, failed in another worker, or
                was stopped before its end.
            ServerError: the database fails, or the worker ended though nobody stopped it.
        """
        try:
            asyncio.run(self._work_once() if once else self._work())
        except (ConnectorException, psycopg.OperationalError) as error:
            raise ServerError(
                f"the job queue in {self._database.address} failed: {error.__cause__ or error}; "
                "look at the server with `hyperfeast status`, then start the worker again"
            ) from error

    async def _work(self) -> None:
        self._app.periodic(cron=_EVERY_FIVE_MINUTES)(self._refresh)
        for name, cron in self._schedules.items():
            self._app.periodic(cron=cron)(self._others[name])
        async with self._app.open_async():
            await self._prepare()
            burying = asyncio.create_task(self._keep_burying())
            stopped = await _stoppable(self._run_worker(wait=True))
            burying.cancel()
        if not stopped:
            raise ServerError(
                f"the worker lost its queue in {self._database.address}: its log says how; "
                "start it again"
            )

    async def _work_once(self) -> None:
        async with self._app.open_async():
            await self._prepare()
            job = await self._ask()
            await _stoppable(self._see_through(job))
            self._judge(job, await self._app.job_manager.get_job_status_async(job))

    async def _see_through(self, job: int) -> None:
        """Run the job as soon as no other refresh runs, or wait until another worker ran it."""
        told = False
        while await self._app.job_manager.get_job_status_async(job) in _UNFINISHED:
            await self._bury()
            running = await self._app.job_manager.list_jobs_async(task=_TASK, status="doing")
            if not list(running):
                await self._run_worker(wait=False, queues=(_REFRESHES,))
                continue
            if not told:
                _log.warning("another worker is refreshing, or died doing so: waiting for its end")
                told = True
            await asyncio.sleep(_POLL_S)

    async def _run_worker(
        self, *, wait: bool, queues: Sequence[str] = (_REFRESHES, _OTHERS)
    ) -> None:
        await self._app.run_worker_async(
            queues=list(queues),
            wait=wait,
            concurrency=_AT_ONCE if wait else 1,
            install_signal_handlers=False,
            update_heartbeat_interval=self._dead_after / _BEATS_BEFORE_DEATH,
            stalled_worker_timeout=self._dead_after,
        )

    def _registered(self, task: Task) -> procrastinate.tasks.Task[Any, Any, Any]:
        """A scheduled task takes the tick that asked for it, which it does not need, and runs alone."""

        def run(timestamp: int | None = None, **arguments: Any) -> None:  # noqa: ARG001
            task.run(**arguments)

        lock = task.name if task.cron is not None else None
        register = self._app.task(name=task.name, queue=_OTHERS, lock=lock, queueing_lock=lock)
        return register(run)

    async def _ask_others(self, name: str, calls: Sequence[Mapping[str, Any]]) -> int:
        asked = 0
        async with self._app.open_async():
            await self._prepare()
            for arguments in calls:
                lock = f"{name}:{json.dumps(arguments, sort_keys=True)}"
                try:
                    await self._others[name].configure(queueing_lock=lock).defer_async(**arguments)
                except AlreadyEnqueued:
                    continue
                asked += 1
        return asked

    async def _ask(self) -> int:
        """The id of a job that has not begun, so that it sees all that is ingested by now."""
        while True:
            try:
                return await self._refresh.defer_async()
            except AlreadyEnqueued:
                waiting = await self._app.job_manager.list_jobs_async(
                    queueing_lock=_TASK, status="todo"
                )
                for job in waiting:
                    if job.id is not None:
                        return job.id

    def _judge(self, job: int, status: Status) -> None:
        if status is Status.SUCCEEDED:
            return
        if status in _UNFINISHED:
            raise FeatureError(
                f"stopped before the refresh was done (job {job} is {status.value}): "
                "run `hyperfeast worker --once` again"
            )
        if isinstance(self._failure, HyperfeastError):
            raise self._failure
        if self._failure is not None:
            raise FeatureError(
                f"the refresh failed with {type(self._failure).__name__}: {self._failure}; "
                "the log has the traceback. Put it right and run `hyperfeast worker --once` again"
            ) from self._failure
        raise FeatureError(
            f"the refresh {status.value} in another worker (job {job}): that worker's log says why. "
            "Run `hyperfeast worker --once` again"
        )

    async def _keep_burying(self) -> None:
        while True:
            try:
                await self._bury()
            except ConnectorException as error:
                # A database that stays away ends the worker by its heartbeat.
                _log.warning("cannot look for dead workers: %s", error.__cause__ or error)
            await asyncio.sleep(self._dead_after)

    async def _bury(self) -> None:
        """End the jobs of dead workers as failed: they hold the lock."""
        manager = self._app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=self._dead_after):
            try:
                await manager.finish_job(job, status=Status.FAILED, delete_job=False)
            except ConnectorException:
                # Another worker may have ended it between the two statements.
                if job.id and await manager.get_job_status_async(job.id) is Status.DOING:
                    raise
            else:
                _log.warning("job %s counts as failed: its worker is dead", job.id)

    async def _prepare(self) -> None:
        """Create procrastinate's own tables where they are missing."""
        if self._is_prepared():
            return
        try:
            await self._app.schema_manager.apply_schema_async()
        except ConnectorException:
            # Another worker may have created them in the meantime.
            if not self._is_prepared():
                raise

    def _is_prepared(self) -> bool:
        return self._database.fetch(query("jobs", "table"))[0]["jobs"] is not None


async def _stoppable(work: Coroutine[Any, Any, None]) -> bool:
    """Await work that the first SIGTERM or SIGINT cancels; whether one did. A second one kills."""
    loop, task = asyncio.get_running_loop(), asyncio.create_task(work)
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}

    def release() -> None:
        for one, handler in before.items():
            if loop.remove_signal_handler(one):
                signal.signal(one, handler)

    def stop() -> None:
        release()
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
