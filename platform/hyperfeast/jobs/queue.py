"""A procrastinate queue: one task keeps the features current, others do what they are asked for.

A failed refresh is not retried: the next tick is the retry. Other jobs are tried as often as their task
says. A worker that dies or freezes leaves its jobs "doing"; every worker therefore reclaims the jobs of
workers whose heartbeats stopped (`reclaiming`), and whoever wakes up finds its job taken (`lease`,
`manager`).
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import procrastinate
import psycopg
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, JobAborted
from procrastinate.jobs import Status
from psycopg import conninfo

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, HyperfeastError, SchemaError, ServerError
from hyperfeast.jobs import arrivals
from hyperfeast.jobs.asking import Asked, Call, put
from hyperfeast.jobs.failures import shorten_expected
from hyperfeast.jobs.lease import Lease, LeasedDatabase, leased, worker_name
from hyperfeast.jobs.manager import FencedManager
from hyperfeast.jobs.reclaiming import Reclaimer
from hyperfeast.jobs.retry import Backoff, HandedBack
from hyperfeast.jobs.stopping import stoppable, together
from hyperfeast.jobs.task import Progress, Task
from hyperfeast.sqlfiles import query

_log = logging.getLogger(__name__)

_EVERY_FIVE_MINUTES = "*/5 * * * *"
_TASK = "hyperfeast.refresh"
# Of its own, so that `--once` runs the refresh and nothing else that waits.
_REFRESHES = "default"
# A long backfill does not hold the refresh up.
_AT_ONCE = 2
_POLL_S = 0.5
_FETCH_S, _ABORT_S = 1.0, 2.0
_BEATS_BEFORE_DEATH = 3
_MOST_CONNECTIONS = 8
_UNFINISHED = (Status.TODO, Status.DOING)


class Queue:
    """The queue of one database.

    Args:
        database: where the queue is. With a `LeasedDatabase`, what jobs write is fenced too.
        refresh: computes the features of what was ingested and brings them online.
        tasks: what workers do besides, on their schedules or when asked.
        dead_after: seconds without a heartbeat after which a worker counts as dead and its jobs are
            given to others; the same for all workers of a database.
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
        self._stopping = threading.Event()
        shorten_expected()
        name = database.name if isinstance(database, LeasedDatabase) else worker_name()
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                conninfo=conninfo.make_conninfo(database.dsn, application_name=name),
                min_size=1,
                max_size=_MOST_CONNECTIONS,
            )
        )
        ticking = Task(
            _TASK,
            self._remembering(refresh),
            _EVERY_FIVE_MINUTES,
            queue=_REFRESHES,
            priority=arrivals.URGENT,
        )
        self._tasks = {task.name: task for task in (ticking, *tasks)}
        self._strategies = {
            task.name: Backoff(task.attempts, task.backoff)
            for task in self._tasks.values()
            if task.attempts > 1
        }
        self._registered = {task.name: self._register(task) for task in self._tasks.values()}
        self._manager = FencedManager(self._app.connector, name, self._is_kept)
        self._app.job_manager = self._manager
        self._reclaimer = Reclaimer(self._manager, self._strategies.get, dead_after=dead_after)

    def ask(self, name: str, calls: Sequence[Mapping[str, Any]]) -> int:
        """Ask for a task once for each set of arguments; a call that waits already is not asked for twice.

        Args:
            name: of one of the tasks.
            calls: the arguments of each call, which JSON can hold.

        Returns:
            How many were asked for anew.
        """
        return sum(one.is_new for one in self.submit(name, calls))

    def submit(
        self,
        name: str,
        calls: Sequence[Mapping[str, Any]],
        *,
        queue: str | None = None,
        priority: int | None = None,
    ) -> list[Asked]:
        """Ask for a task once for each set of arguments, and say which jobs do it.

        Args:
            name: of one of the tasks.
            calls: the arguments of each call, which JSON can hold.
            queue: where they wait; by default the task's.
            priority: higher runs first; by default the task's. A job that waits already is raised to it.
        """
        task = self._tasks[name]
        asked = [
            Call(
                name,
                arguments,
                queue or task.queue,
                task.priority if priority is None else priority,
                task.lock,
                task.lock,
            )
            for arguments in calls
        ]
        if not self._is_prepared():
            asyncio.run(self._set_up())
        return put(self._database, asked) if asked else []

    def is_stoppable(self, name: str) -> bool:
        """Whether a running job of that task can be stopped."""
        return name in self._tasks and self._tasks[name].stoppable

    def work(
        self, *, once: bool = False, queues: Sequence[str] = (), concurrency: int = _AT_ONCE
    ) -> None:
        """Refresh at every tick, and do what is asked for, until SIGTERM or Ctrl-C.

        A job that can be stopped is handed back then; any other that has begun is finished. Must be called
        in the main thread, which is where signals arrive.

        Args:
            once: ask for one refresh and return when it has succeeded. While another worker refreshes,
                it waits; a worker that died holds it up for `dead_after` seconds and a third at most.
            queues: do nothing but what waits in these; by default everything.
            concurrency: how many jobs at a time, apart from what was just taken in.

        Raises:
            HyperfeastError: with `once`, what the refresh itself raised.
            FeatureError: with `once`, the refresh raised something else, failed in another worker, or
                was stopped before its end.
            ServerError: the database fails, or the worker ended though nobody stopped it.
        """
        try:
            asyncio.run(self._work_once() if once else self._work(queues, concurrency))
        except (ConnectorException, psycopg.OperationalError) as error:
            raise ServerError(
                f"the job queue in {self._database.address} failed: {error.__cause__ or error}; "
                "look at the server with `hyperfeast status`, then start the worker again"
            ) from error

    async def _work(self, queues: Sequence[str], concurrency: int) -> None:
        lanes: list[Coroutine[Any, Any, None]]
        if queues:
            lanes = [self._run_worker(queues, concurrency)]
        else:
            self._schedule()
            lanes = [self._run_worker(None, concurrency), self._run_worker((arrivals.QUEUE,), 1)]
        try:
            await self._open_and(lanes)
        finally:
            for lane in lanes:
                lane.close()

    async def _open_and(self, lanes: Sequence[Coroutine[Any, Any, None]]) -> None:
        async with self._app.open_async():
            await self._prepare()
            stopped = await stoppable(together(*lanes, self._keep_reclaiming()), self._stopping.set)
        if not stopped:
            raise ServerError(
                f"the worker lost its queue in {self._database.address}: its log says how; "
                "start it again"
            )

    def _schedule(self) -> None:
        for task in self._tasks.values():
            if task.cron is not None:
                self._app.periodic(cron=task.cron)(self._registered[task.name])

    async def _work_once(self) -> None:
        async with self._app.open_async():
            await self._prepare()
            job = await self._ask()
            await stoppable(self._see_through(job), self._stopping.set)
            self._judge(job, await self._manager.get_job_status_async(job))

    async def _see_through(self, job: int) -> None:
        """Run the job as soon as no other refresh runs, or wait until another worker ran it."""
        told = False
        while await self._manager.get_job_status_async(job) in _UNFINISHED:
            await self._reclaimer.reclaim()
            running = await self._manager.list_jobs_async(task=_TASK, status="doing")
            if not list(running):
                await self._run_worker((_REFRESHES,), 1, wait=False)
                continue
            if not told:
                _log.warning("another worker is refreshing, or died doing so: waiting for its end")
                told = True
            await asyncio.sleep(_POLL_S)

    async def _run_worker(
        self, queues: Sequence[str] | None, concurrency: int, *, wait: bool = True
    ) -> None:
        await self._app.run_worker_async(
            queues=queues,  # type: ignore[arg-type]  # None is every queue
            wait=wait,
            concurrency=concurrency,
            install_signal_handlers=False,
            fetch_job_polling_interval=_FETCH_S,
            abort_job_polling_interval=_ABORT_S,
            update_heartbeat_interval=self._dead_after / _BEATS_BEFORE_DEATH,
            stalled_worker_timeout=self._dead_after,
        )

    def _register(self, task: Task) -> procrastinate.tasks.Task[Any, Any, Any]:
        """A scheduled task is given the tick that asked for it, which it does not need."""

        def run(
            context: procrastinate.JobContext,
            /,
            timestamp: int | None = None,  # noqa: ARG001
            **arguments: Any,
        ) -> None:
            job = context.job
            if job.id is None:
                raise TypeError("a job without an id was never in the queue")
            try:
                with leased(Lease(job.id, job.attempts)):
                    if task.stoppable:
                        task.run(self._progress(context), **arguments)
                    else:
                        task.run(**arguments)
            except JobAborted:
                raise
            except BaseException as error:
                self._manager.note(job.id, error)
                raise

        return self._app.task(
            name=task.name,
            queue=task.queue,
            priority=task.priority,
            lock=task.lock,
            queueing_lock=task.lock,
            retry=self._strategies.get(task.name, False),
            pass_context=True,
        )(run)

    def _progress(self, context: procrastinate.JobContext) -> Progress:
        """Called in the job's thread; the loop that runs the worker waits for it."""
        loop = self._loop

        def progress(done: int, total: int) -> None:
            written = self._manager.progress(context.job, done, total)
            asyncio.run_coroutine_threadsafe(written, loop).result()
            if done == total:
                return
            if context.should_abort():
                raise JobAborted
            if self._stopping.is_set():
                raise HandedBack

        return progress

    def _remembering(self, refresh: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            self._failure = None
            try:
                refresh()
            except Exception as error:
                self._failure = error
                raise

        return run

    async def _ask(self) -> int:
        """The id of a job that has not begun, so that it sees all that is ingested by now."""
        while True:
            try:
                return await self._registered[_TASK].defer_async()
            except AlreadyEnqueued:
                waiting = await self._manager.list_jobs_async(queueing_lock=_TASK, status="todo")
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
            f"the refresh {status.value} in another worker: `hyperfeast jobs show {job}` says why. "
            "Run `hyperfeast worker --once` again"
        )

    async def _keep_reclaiming(self) -> None:
        while True:
            try:
                await self._reclaimer.reclaim()
            except ConnectorException as error:
                # A database that stays away ends the worker by its heartbeat.
                _log.warning("cannot look for dead workers: %s", error.__cause__ or error)
            await asyncio.sleep(self._dead_after / _BEATS_BEFORE_DEATH)

    async def _set_up(self) -> None:
        async with self._app.open_async():
            await self._prepare()

    async def _prepare(self) -> None:
        """Create procrastinate's own tables where they are missing."""
        self._loop = asyncio.get_running_loop()
        if self._is_prepared():
            return
        try:
            await self._app.schema_manager.apply_schema_async()
        except ConnectorException:
            # Another worker may have created them in the meantime.
            if not self._is_prepared():
                raise

    def _is_prepared(self) -> bool:
        found = self._database.fetch(query("jobs", "table"))[0]
        if found["attempts"] is None:
            raise SchemaError(
                f"{self._database.address} has no table job_attempts: run `hyperfeast migrate`"
            )
        return found["jobs"] is not None

    def _is_kept(self, name: str) -> bool:
        return name not in self._tasks or self._tasks[name].kept
