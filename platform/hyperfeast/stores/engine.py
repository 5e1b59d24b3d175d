"""Feast's compute engine that brings views online as Arrow: from PostgreSQL by columns, to Redis by columns.

`feast materialize` and `materialize-incremental` hand over all views at once. Each is read, encoded and
written in batches, several views at a time. A view's watermark moves when its last row is in, and not
before: a run that breaks off is repeated for the views that it did not finish, and writing a row twice
changes nothing. Views that Python transforms, and stores other than ours, are left to Feast's engine.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from feast import BatchFeatureView, FeatureStore, FeatureView, RepoConfig, StreamFeatureView
from feast.entity import Entity
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.dag.context import ColumnInfo
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.utils import _get_column_names, make_tzaware
from prometheus_client import Counter, Gauge
from pydantic import PositiveInt, StrictStr

from hyperfeast import clock
from hyperfeast.errors import FeatureError, HyperfeastError
from hyperfeast.stores.configuration import PluginConfig
from hyperfeast.stores.failures import together
from hyperfeast.stores.markers import Marker, Markers
from hyperfeast.stores.offline.latest import QueryJob
from hyperfeast.stores.offline.store import TimescaleOfflineStore
from hyperfeast.stores.online import wire
from hyperfeast.stores.online.exchange import translated
from hyperfeast.stores.online.reading import reader_of
from hyperfeast.stores.online.store import FastRedisOnlineStore

_log = logging.getLogger(__name__)

_LABELS = ("project", "feature_view")
_LAG = Gauge(
    "hyperfeast_materialization_lag_seconds",
    "Between the newest event that is served of a view and now.",
    _LABELS,
)
_NEWEST = Gauge(
    "hyperfeast_materialization_newest_event_timestamp_seconds",
    "The newest event that is served of a view.",
    _LABELS,
)
_ROWS = Counter(
    "hyperfeast_materialization_rows",
    "Rows that were read for a view, by whether they were written, or kept back as older.",
    (*_LABELS, "outcome"),
)
_RUNS = Counter(
    "hyperfeast_materialization_runs",
    "Bringings of a view online, by how they ended.",
    (*_LABELS, "outcome"),
)


class ArrowComputeEngineConfig(PluginConfig):
    """The section `batch_engine`."""

    section: ClassVar[str] = "batch_engine"

    type: StrictStr = "hyperfeast.stores.ArrowComputeEngine"
    workers: PositiveInt = min(4, os.cpu_count() or 1)
    """How many views are brought online at a time, each over connections of its own."""


@dataclass(frozen=True)
class ArrowMaterializationJob(MaterializationJob):
    """How the bringing of one view online ended.

    Attributes:
        task: what was asked.
        failure: why it did not succeed; None where it did.
    """

    task: MaterializationTask
    failure: HyperfeastError | None = None

    def status(self) -> MaterializationJobStatus:
        """SUCCEEDED or ERROR: a job is over when it is handed out."""
        failed = self.failure is not None
        return MaterializationJobStatus.ERROR if failed else MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        """Why it did not succeed."""
        return self.failure

    def should_be_retried(self) -> bool:
        """Whether the same can succeed later with nothing changed."""
        return self.failure is not None and self.failure.retryable

    def job_id(self) -> str:
        """The view and its range."""
        task = self.task
        return f"{task.feature_view.name}-{task.start_time}-{task.end_time}"

    def url(self) -> str | None:
        """None: there is nothing to look at."""
        return None


class ArrowComputeEngine(ComputeEngine):
    """Brings views online as Arrow. Feast makes it out of the section `batch_engine`.

    Raises:
        UsageError: at construction, for a wrong key of the section.
    """

    def __init__(
        self,
        *,
        repo_config: RepoConfig,
        offline_store: OfflineStore,
        online_store: OnlineStore,
        **section: Any,
    ) -> None:
        super().__init__(
            repo_config=repo_config, offline_store=offline_store, online_store=online_store
        )
        self.config = ArrowComputeEngineConfig(**section)
        self._feasts = LocalComputeEngine(
            repo_config=repo_config, offline_store=offline_store, online_store=online_store
        )

    @property
    def supports_batch(self) -> bool:
        """True: all views come at once, and one that fails does not stop the others."""
        return True

    @property
    def applies_materialization(self) -> bool:
        """True: a view's watermark moves as soon as the view is online, not when all are."""
        return True

    def update(
        self,
        project: str,
        views_to_delete: Sequence[BatchFeatureView | StreamFeatureView | FeatureView],
        views_to_keep: Sequence[Any],  # noqa: ARG002
        entities_to_delete: Sequence[Entity],  # noqa: ARG002
        entities_to_keep: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Forget what is said to be online of the views that go."""
        self._forget(project, views_to_delete)

    def teardown_infra(
        self,
        project: str,
        fvs: Sequence[BatchFeatureView | StreamFeatureView | FeatureView],
        entities: Sequence[Entity],  # noqa: ARG002
    ) -> None:
        """Forget what is said to be online."""
        self._forget(project, fvs)

    def materialize(
        self,
        registry: BaseRegistry,
        tasks: MaterializationTask | list[MaterializationTask],
        **kwargs: Any,
    ) -> list[MaterializationJob]:
        """Bring views online: the newest row of each entity in its view's range, and late rows.

        A range is widened to the past where Redis lacks what the registry says it has.

        Args:
            registry: where the watermarks of the views of a list are kept. That of a single task is
                the caller's to move.
            tasks: one or more views with their ranges.
            **kwargs: for Feast's own engine.

        Returns:
            One job a task, in their order; those that failed hold an error that names the view.
        """
        if isinstance(tasks, MaterializationTask):
            return [self._one(registry, tasks, **kwargs)]
        jobs: dict[int, ArrowMaterializationJob] = {}
        for place, job in self._in_parallel(registry, tasks, **kwargs):
            if job.error() is None:
                task = tasks[place]
                registry.apply_materialization(
                    task.feature_view, task.project, task.start_time, task.end_time
                )
            jobs[place] = job
        return _with_all_failures([jobs[place] for place in range(len(tasks))])

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> Any:
        """As Feast's own engine: point-in-time joins are the offline store's."""
        return self._feasts.get_historical_features(registry, task)

    def _in_parallel(
        self, registry: BaseRegistry, tasks: Sequence[MaterializationTask], **kwargs: Any
    ) -> Iterator[tuple[int, ArrowMaterializationJob]]:
        """The jobs as they end, each with its task's place. Feast's registry and engine stay in this thread."""
        stop = Event()
        ours = [place for place, task in enumerate(tasks) if self._is_ours(task.feature_view)]
        with ThreadPoolExecutor(self.config.workers, "materialize") as threads:
            try:
                columns = {place: _columns(registry, tasks[place]) for place in ours}
                running = {
                    threads.submit(self._brought, tasks[place], columns[place], stop): place
                    for place in ours
                }
                for ended in as_completed(running):
                    yield running[ended], ended.result()
                for place in sorted({*range(len(tasks))} - {*ours}):
                    yield place, self._left_to_feast(registry, tasks[place], **kwargs)
            finally:
                # Else an interrupted run would wait for the views that are under way.
                stop.set()
                threads.shutdown(cancel_futures=True)

    def _one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> ArrowMaterializationJob:
        if self._is_ours(task.feature_view):
            return self._brought(task, _columns(registry, task), Event())
        return self._left_to_feast(registry, task, **kwargs)

    def _is_ours(self, view: FeatureView) -> bool:
        """Whether rows go from table to Redis as they are: then they can go as Arrow.

        Feast would also write rows of a view with `offline=True` back to the table that they come from.
        """
        return (
            isinstance(self.offline_store, TimescaleOfflineStore)
            and isinstance(self.online_store, FastRedisOnlineStore)
            and isinstance(view.batch_source, PostgreSQLSource)
            and not isinstance(view, StreamFeatureView)
            and not getattr(view, "feature_transformation", None)
            and not getattr(view, "aggregations", None)
            and not view.source_views
            and not view.enable_validation
            and view.online
        )

    def _brought(
        self, task: MaterializationTask, columns: ColumnInfo, stop: Event
    ) -> ArrowMaterializationJob:
        with self._judged(task) as verdict, self._marked(task) as marked:
            read = self.offline_store.pull_latest_from_table_or_query(
                config=self.repo_config,
                data_source=task.feature_view.batch_source,
                join_key_columns=columns.join_keys,
                feature_name_columns=columns.feature_cols,
                timestamp_field=columns.ts_col,
                created_timestamp_column=columns.created_ts_col,
                start_date=marked.start,
                end_date=task.end_time,
            )
            with _progress(task, read) as progress, read.to_arrow_reader() as reader:
                batches = _Batches(reader, columns, stop)

                def written_to(rows: int) -> None:
                    marked.step()
                    progress(rows)

                written = self.online_store.write_arrow(
                    self.repo_config,
                    task.feature_view,
                    batches,
                    timestamp_field=columns.timestamp_column,
                    created_field=columns.created_timestamp_column,
                    progress=written_to,
                )
            marked.newest = batches.newest
            _ROWS.labels(*_labels(task), "written").inc(written.rows)
            _ROWS.labels(*_labels(task), "kept").inc(written.kept)
        return verdict.job

    def _left_to_feast(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> ArrowMaterializationJob:
        with self._judged(task) as verdict, self._marked(task) as marked:
            widened = replace(task, start_time=marked.start)
            (job,) = self._feasts.materialize(registry, widened, **kwargs)
            if job.status() == MaterializationJobStatus.ERROR:
                raise job.error() or FeatureError("Feast's own engine does not say why")
        return verdict.job

    @contextmanager
    def _judged(self, task: MaterializationTask) -> Iterator["_Verdict"]:
        """Whatever goes wrong with a view goes into its job, and does not stop the others."""
        verdict = _Verdict(ArrowMaterializationJob(task))
        try:
            yield verdict
        except Exception as error:  # noqa: BLE001 - Feast raises what a job holds
            verdict.job = ArrowMaterializationJob(task, _with_view(task, error))
        outcome = "failed" if verdict.job.failure else "succeeded"
        _RUNS.labels(*_labels(task), outcome).inc()

    @contextmanager
    def _marked(self, task: MaterializationTask) -> Iterator["_Marked"]:
        """From where to read, by what Redis is known to hold; what it holds afterwards is noted in it."""
        start, end = make_tzaware(task.start_time), make_tzaware(task.end_time)
        now = clock.now()
        if not isinstance(self.online_store, FastRedisOnlineStore):
            yield _Marked(start)
            return
        view = task.feature_view
        name = wire.versioned_name(view, self.repo_config)
        with translated(self.repo_config.online_store):
            markers = self._markers(task.project)
            marked = _Marked(markers.start_for(view, name, start))
            if marked.start < start:
                why = (
                    "an earlier run's end lies in the future"
                    if start > now
                    else "Redis lacks what the registry says was brought online"
                )
                _log.warning(
                    "feature view %s: %s: reading it again from %s", view.name, why, marked.start
                )
            with markers.run(name) as run:
                marked.step = run.step
                yield marked
                # What comes later was not there to be read: the next run has to look for it.
                _show_lag(_labels(task), run.finish(min(end, now), marked.newest))

    def _markers(self, project: str) -> Markers:
        return Markers(self.online_store.client(self.repo_config), project)

    def _forget(self, project: str, views: Sequence[FeatureView]) -> None:
        if not views or not isinstance(self.online_store, FastRedisOnlineStore):
            return
        with translated(self.repo_config.online_store):
            markers = self._markers(project)
            for view in views:
                markers.forget(wire.versioned_name(view, self.repo_config))


@dataclass
class _Verdict:
    """How a view's job ended, as far as is known."""

    job: ArrowMaterializationJob


@dataclass
class _Marked:
    """From where a view is read, what to call after each step, and the newest event that was found, if any was."""

    start: datetime
    step: Callable[[], None] = lambda: None
    newest: datetime | None = None


class _Batches:
    """The batches of a reader under the features' names, and the newest event time that passed."""

    def __init__(self, reader: pa.RecordBatchReader, columns: ColumnInfo, stop: Event) -> None:
        mapping = columns.field_mapping or {}
        self._reader = reader
        self._names = [mapping.get(name, name) for name in reader.schema.names]
        self._timestamp = columns.timestamp_column
        self._stop = stop
        self.newest: datetime | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._reader:
            if self._stop.is_set():
                raise CancelledError
            named = batch.rename_columns(self._names)
            latest = pc.max(named[self._timestamp]).as_py()
            if latest is not None:
                at = make_tzaware(latest)
                self.newest = max(at, self.newest) if self.newest else at
            yield named


def _columns(registry: BaseRegistry, task: MaterializationTask) -> ColumnInfo:
    view = task.feature_view
    entities = [registry.get_entity(name, task.project) for name in view.entities]
    keys, features, timestamp, created = _get_column_names(view, entities)
    return ColumnInfo(keys, features, timestamp, created or None, view.batch_source.field_mapping)


@contextmanager
def _progress(task: MaterializationTask, read: QueryJob) -> Iterator[Callable[[int], Any]]:
    """A bar as Feast has it, over as many rows as the server expects."""
    if task.tqdm_builder is None:
        yield lambda _: None
        return
    with task.tqdm_builder(read.expected_rows) as bar:
        bar.set_description(task.feature_view.name)
        yield bar.update
        bar.total = bar.n
        bar.refresh()


def show_lags(store: FeatureStore) -> None:
    """Set the gauges of every view by what Redis is known to hold, whichever process brought it there.

    Args:
        store: whose online store is `hyperfeast.stores.FastRedisOnlineStore`.

    Raises:
        ServerUnreachable: Redis does not answer.
    """
    with translated(store.config.online_store):
        markers = Markers(reader_of(store).client(store.config), store.project)
        for view in store.list_batch_feature_views(allow_cache=True):
            marker = markers.of(wire.versioned_name(view, store.config))
            if marker is not None:
                _show_lag((store.project, view.name), marker)


def _show_lag(labels: tuple[str, str], marker: Marker) -> None:
    if marker.newest is None:
        return
    newest = marker.newest.timestamp()
    _NEWEST.labels(*labels).set(newest)
    # It grows while nothing happens: it is worked out when it is read.
    _LAG.labels(*labels).set_function(lambda: time.time() - newest)


def _labels(task: MaterializationTask) -> tuple[str, str]:
    return task.project, task.feature_view.name


def _with_view(task: MaterializationTask, error: Exception) -> HyperfeastError:
    kind = type(error) if isinstance(error, HyperfeastError) else FeatureError
    remedy = (
        "The same command again goes on from there"
        if kind.retryable
        else "Correct that, then run it again: it goes on from there"
    )
    named = kind(
        f"feature view {task.feature_view.name} was not brought online up to {task.end_time}, and its "
        f"watermark has not moved: {error}. {remedy}"
    )
    named.__cause__ = error
    return named


def _with_all_failures(jobs: list[ArrowMaterializationJob]) -> list[MaterializationJob]:
    """Feast raises the first error alone: let it say all."""
    failures = [job.failure for job in jobs if job.failure]
    if not failures:
        return [*jobs]
    error = together(failures, f"{len(failures)} of {len(jobs)} feature views failed: ")
    return [replace(job, failure=error) if job.failure else job for job in jobs]
