"""A procrastinate queue whose one task keeps the features current."""

from collections.abc import Callable

import procrastinate
from procrastinate.exceptions import AlreadyEnqueued
from psycopg import conninfo

from hyperfeast.db import Database

_EVERY_FIVE_MINUTES = "*/5 * * * *"
_TASK = "hyperfeast.refresh"


class Queue:
    """The queue of one database.

    Args:
        database: where the queue is.
        refresh: computes the features of what was ingested and brings them online.
    """

    def __init__(self, database: Database, refresh: Callable[[], None]) -> None:
        self._database = database
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(
                conninfo=conninfo.make_conninfo(database.dsn, application_name="hyperfeast worker")
            )
        )

        @self._app.periodic(cron=_EVERY_FIVE_MINUTES)
        @self._app.task(
            name=_TASK,
            queueing_lock=_TASK,
            lock=_TASK,
            retry=procrastinate.RetryStrategy(max_attempts=3, wait=10),
        )
        def refresh_features(timestamp: int | None = None) -> None:  # noqa: ARG001
            """Run the refresh; procrastinate passes the tick that asked for it."""
            refresh()

        self._refresh = refresh_features

    def work(self, *, once: bool = False) -> None:
        """Run jobs until SIGTERM or Ctrl-C; a job that has begun is finished.

        Args:
            once: ask for one refresh, run what is waiting, and return.
        """
        self._prepare()
        with self._app.open():
            if once:
                self._ask()
            self._app.run_worker(wait=not once, concurrency=1)

    def _ask(self) -> None:
        try:
            self._refresh.defer()
        except AlreadyEnqueued:
            return

    def _prepare(self) -> None:
        """Create procrastinate's own tables where they are missing."""
        found = self._database.fetch("SELECT to_regclass('procrastinate_jobs') AS jobs")
        if found[0]["jobs"] is None:
            with self._app.open():
                self._app.schema_manager.apply_schema()
