"""One object that holds the platform together."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, ServerError, UsageError
from hyperfeast.servers import EmbeddedServers, Endpoints, found, in_use
from hyperfeast.settings import Settings, load
from hyperfeast.types import Timeframe

if TYPE_CHECKING:
    from uuid import UUID

    import polars as pl

    from hyperfeast.aggregates import RefreshReport
    from hyperfeast.app.applying import FeaturesApplied
    from hyperfeast.baselines import BaselineRepository, WindowRefresh
    from hyperfeast.features.compute import Computation
    from hyperfeast.features.plan import Step as FeatureStep
    from hyperfeast.features.repo import FeatureRepo
    from hyperfeast.ingest import Backfilled, Candles, Ingested, Metrics, Mirror
    from hyperfeast.jobs import Progress as JobProgress
    from hyperfeast.jobs import Queue, Task
    from hyperfeast.jobs.asking import Asked
    from hyperfeast.jobs.engines import Engine
    from hyperfeast.jobs.listing import Job
    from hyperfeast.jobs.partition import Partition
    from hyperfeast.lifecycle import Enforced
    from hyperfeast.models import ModelSpec
    from hyperfeast.monitoring import PlatformStatus
    from hyperfeast.quality import FeatureQuality, Label, MissingRange
    from hyperfeast.quality import Result as QualityResult
    from hyperfeast.serving import Predictor
    from hyperfeast.sources import Source
    from hyperfeast.stores.feast_store import FeastStore
    from hyperfeast.training import HistoricalFeatures, TrainingResult
    from hyperfeast.users import Exported, Forgotten

# When workers look after the data, UTC: at night for most, and not all at once.
_WINDOWS_AT, _CHECKED_AT, _EXPIRED_AT = "7 0 * * *", "17 2 * * *", "47 3 * * *"
_FORGOTTEN_AT = "27 3 * * *"
_BACKFILL, _COMPUTE = "hyperfeast.backfill", "hyperfeast.compute"
# Seconds until the second attempt; twice as many until the third, and so on: a minute for all of them.
_ATTEMPTS, _BACKOFF_S = 5, 4.0

Progress = Callable[[int, int], None]


class App:
    """The platform on the servers that the settings name, or on the embedded ones.

    Every part is made when it is first asked for: what needs no Feast does not wait for it.
    """

    def __init__(self, settings: Settings | None = None, *, pool_size: int = 0) -> None:
        self.settings = settings or load()
        self._pool_size = pool_size

    @cached_property
    def endpoints(self) -> Endpoints:
        """Where PostgreSQL and Redis are; embedded ones are started if need be."""
        return in_use(self.settings.home, postgres_dsn=self._dsn, redis_url=self._url)

    @property
    def embedded(self) -> EmbeddedServers:
        """The embedded servers of this home, whether they are in use or not."""
        return EmbeddedServers(self.settings.home)

    @cached_property
    def database(self) -> Database:
        """The database in use."""
        return Database(self.endpoints.postgres_dsn, pool_size=self._pool_size)

    @property
    def mirror(self) -> "Mirror | None":
        """Where rows that are taken in are written a second time, if anywhere."""
        from hyperfeast.ingest import Mirror

        folder = self.settings.dual_write
        return None if folder is None else Mirror(folder)

    @cached_property
    def baselines(self) -> "BaselineRepository":
        """Where baselines are kept."""
        from hyperfeast.baselines import DualBaselineRepository

        stores = [self.baseline_store(folder) for folder in self.settings.baseline_stores]
        return stores[0] if len(stores) == 1 else DualBaselineRepository(*stores)

    def baseline_store(self, folder: Path | None) -> "BaselineRepository":
        """The repository of baselines in a folder; None for the one in the database."""
        from hyperfeast.baselines import FileBaselineRepository, TimescaleBaselineRepository

        if folder is None:
            return TimescaleBaselineRepository(self.database)
        return FileBaselineRepository(folder)

    def export_user(
        self, user_id: "UUID", path: Path, *, progress: Progress | None = None
    ) -> "Exported":
        """Write everything of a user into a ZIP of JSON lines: see `users.export_user`."""
        from hyperfeast.users import export_user

        return export_user(
            self.database,
            user_id,
            path,
            online=self.feast,
            baselines=self._baseline_files,
            copies_in=self.settings.dual_write,
            progress=progress,
        )

    def forget_user(self, user_id: "UUID", *, progress: Progress | None = None) -> "Forgotten":
        """Delete everything of a user, with a receipt in `audit_log`: see `users.forget_user`."""
        from hyperfeast.users import forget_user

        return forget_user(
            self.database,
            user_id,
            online=self.feast,
            baselines=self._baseline_files,
            copies_in=self.settings.dual_write,
            progress=progress,
        )

    @property
    def _baseline_files(self) -> "list[BaselineRepository]":
        return [self.baseline_store(one) for one in self.settings.baseline_stores if one]

    @cached_property
    def repo(self) -> "FeatureRepo":
        """The team's declarations."""
        from hyperfeast.features.repo import FeatureRepo

        return FeatureRepo(self.settings.feature_repo)

    @cached_property
    def feast(self) -> "FeastStore":
        """Feast on the servers in use. Importing it takes seconds."""
        from hyperfeast.stores.feast_store import FeastStore

        return FeastStore(
            self.repo.folder,
            postgres_dsn=self.endpoints.postgres_dsn,
            redis_url=self.endpoints.redis_url,
            # For a process that serves: another ends before it would ask twice.
            cache_s=self.settings.cache_seconds if self._pool_size else 0,
        )

    def close(self) -> None:
        """Close the connections that are kept: the pool's and those of Feast's registry."""
        if "feast" in vars(self):
            self.feast.close()
        if "database" in vars(self):
            self.database.close()

    def status(self) -> "PlatformStatus":
        """Servers, schema, tables. Starts nothing."""
        from hyperfeast.monitoring import status

        dsn, url = found(self.settings.home, postgres_dsn=self._dsn, redis_url=self._url)
        return status(Database(dsn) if dsn else None, url, self.repo.feature_sets)

    def ingest(
        self,
        frames: "Iterable[pl.DataFrame]",
        intake: "Candles | Metrics",
        *,
        rows: int = 0,
        progress: Progress | None = None,
    ) -> "Ingested":
        """Take in a stream of frames, and bring the aggregates up to date with what they changed.

        Args:
            frames: each becomes a batch that is whole or absent.
            intake: what the rows are.
            rows: how many are expected, if anybody knows.
            progress: told (rows stored, rows expected).
        """
        from hyperfeast.ingest import ingest_stream

        done = ingest_stream(
            self.database, frames, intake, rows=rows, mirror=self.mirror, progress=progress
        )
        self._follow(done, intake.timeframe)
        return done

    def backfill(
        self,
        source: "Source",
        symbols: Sequence[str],
        *,
        timeframe: Timeframe,
        start: datetime,
        end: datetime,
        calendar: str | None = None,
        workers: int = 1,
        again: bool = False,
        progress: Progress | None = None,
    ) -> "Backfilled":
        """Take in the history of many instruments, and bring the aggregates up to date with it.

        The arguments are those of `ingest.backfill_candles`.
        """
        from hyperfeast.ingest import backfill_candles

        done = backfill_candles(
            self.database,
            source,
            symbols,
            timeframe=timeframe,
            start=start,
            end=end,
            calendar=calendar,
            workers=workers,
            again=again,
            mirror=self.mirror,
            progress=progress,
        )
        self._follow(done.ingested, timeframe)
        return done

    def enqueue_backfill(self, ranges: "Sequence[MissingRange]", source: str | None = None) -> int:
        """Ask the workers to fetch what is missing; how many ranges were not asked for already.

        Args:
            ranges: of candles.
            source: where from; by default where each instrument's newest bars came from.

        Raises:
            UsageError: a range that no source can be asked for.
        """
        from hyperfeast import sources
        from hyperfeast.ingest import newest_sources

        series = {(one.key, str(one.tf)) for one in ranges if one.tf is not None}
        known = {} if source else newest_sources(self.database, series)
        calls = []
        for one in ranges:
            if one.tf is None:
                raise UsageError(
                    f"{one.key} is a device's series: only candles can be fetched again"
                )
            spec = source or known.get((one.key, str(one.tf)), "nowhere")
            # What a sender calls itself is anybody's text: only a vendor's name is taken at its word.
            if source is None and not sources.is_vendor(spec):
                raise UsageError(
                    f"{one.key} {one.tf} comes from {spec!r}, which cannot be asked again: say where to heal from "
                    "with --source"
                )
            calls.append(
                {
                    # A worker may stand in another folder than whoever asks.
                    "source": sources.source(spec).name,
                    "symbol": one.key,
                    "tf": str(one.tf),
                    "start": one.since.isoformat(),
                    "end": one.until.isoformat(),
                }
            )
        return self.queue().ask(_BACKFILL, calls)

    def refresh_aggregates(self, *, wait: bool = True) -> "RefreshReport":
        """Bring the aggregates up to date with every change that was marked.

        Args:
            wait: for another refresh that runs; else leave what is marked to it and to the next one.
        """
        from hyperfeast.aggregates import refresh

        return refresh(self.database, wait=wait)

    def refresh_baseline_windows(
        self, *, progress: Progress | None = None
    ) -> "list[WindowRefresh]":
        """Bring the current window of every user's metrics up to date, from current daily sums."""
        from hyperfeast.baselines import refresh_windows

        self.refresh_aggregates()
        return refresh_windows(self.database, progress=progress)

    def enforce_lifecycle(
        self, *, compress_now: bool = False, progress: Progress | None = None
    ) -> "list[Enforced]":
        """Drop what has expired under what is in force, once the aggregates know of it."""
        from hyperfeast.lifecycle import enforce

        return enforce(
            self.database,
            refresh=self.refresh_aggregates,
            compress_now=compress_now,
            progress=progress,
        )

    def check_quality(self, *, progress: Progress | None = None) -> "list[QualityResult]":
        """Check the data against what is declared, flag outliers, and record what was found."""
        from hyperfeast.quality import check, flag_outliers, sync_calendars

        sync_calendars(self.database)
        results = check(self.database, self.repo.feature_sets.values(), progress=progress)
        flag_outliers(self.database)
        return [*results, *self.check_features()]

    def check_features(self) -> "list[QualityResult]":
        """Check what was computed: missing, out of bounds, stale, leaking; record what was found."""
        from hyperfeast.quality import check_features

        return check_features(self.database, self.repo.feature_sets.values(), self._model_labels())

    def measure_features(
        self, name: str | None = None, *, progress: Progress | None = None
    ) -> "list[FeatureQuality]":
        """The quality of what was computed.

        Args:
            name: a declared feature set, all versions of it, or `<set>_v<version>` for one; None for all.
            progress: told (sets done, sets in all).
        """
        from hyperfeast.quality import measure

        sets, labels, found = self.repo.chosen(name), self._model_labels(), []
        for done, one in enumerate(sets):
            if progress:
                progress(done, len(sets))
            found.append(measure(self.database, one, labels))
        return found

    def compute_features(
        self,
        name: str | None = None,
        *,
        full: bool = False,
        online: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> list["Computation"]:
        """Compute what changed of one feature set, or of all of them, and write what differs.

        Args:
            name: a declared feature set, all versions of it, or `<set>_v<version>` for one; None for all.
            full: compute everything again.
            online: bring what was written online at once; else the next `materialize` does.
            progress: called with each set's name and version before it is computed.

        Raises:
            FeatureError: a rule was changed under its version, or a table is not what is declared.
        """
        from hyperfeast.features.compute import refresh
        from hyperfeast.features.plan import prepare

        sets = self.repo.chosen(name)
        prepare(self.database, list(self.repo.feature_sets.values()), sets)
        done = []
        for one in sets:
            if progress:
                progress(one.view)
            done.append(refresh(self.database, one, full=full))
            if online:
                self._bring_online(one.view, done[-1].newest)
        return done

    def submit_features(
        self,
        name: str,
        keys: Sequence[str] | None = None,
        *,
        full: bool = False,
        queue: str | None = None,
        priority: int = 0,
    ) -> "list[tuple[Partition, Asked]]":
        """Ask the workers to compute a set: one job a partition of it. What waits already waits once.

        Args:
            name: a declared feature set, all versions of it, or `<set>_v<version>` for one.
            keys: of these symbols, or users, alone.
            full: all rows, or only those whose source has changed.
            queue: where the jobs wait; by default in `compute`.
            priority: 0 to 100; higher runs first.

        Raises:
            UsageError: no such set, or a key that is not known.
            FeatureError: a rule was changed under its version, or a table is not what is declared.
        """
        cut = self._partitions(name, keys, full=full)
        calls = [one.arguments() for one in cut]
        asked = self.queue().submit(_COMPUTE, calls, queue=queue, priority=priority)
        return list(zip(cut, asked, strict=True))

    def cancel_job(self, job_id: int) -> "Job":
        """Cancel a job that waits, or ask one that runs to stop; the job as it is then.

        Raises:
            UsageError: there is none of that id, it has ended, or it cannot be stopped.
        """
        from hyperfeast.jobs.changing import cancel
        from hyperfeast.jobs.listing import job

        stoppable = self.queue().is_stoppable(job(self.database, job_id).task)
        return cancel(self.database, job_id, stoppable=stoppable)

    def compute_partitions(
        self,
        name: str,
        keys: Sequence[str] | None = None,
        *,
        full: bool = False,
        engine: "Engine",
        workers: int = 1,
        progress: Progress | None = None,
    ) -> "list[Computation]":
        """Compute a set now, in partitions, without the queue.

        Args:
            name: a declared feature set, all versions of it, or `<set>_v<version>` for one.
            keys: of these symbols, or users, alone.
            full: all rows, or only those whose source has changed.
            engine: where: in this process, on processes of this machine, or on Ray.
            workers: how many at a time.
            progress: told (keys done, keys in all).

        Raises:
            The same as `submit_features`, and what a partition raises.
        """
        from hyperfeast.jobs.engines import run
        from hyperfeast.jobs.partition import Site

        return run(
            Site(self.endpoints.postgres_dsn, self.repo.folder),
            self._partitions(name, keys, full=full),
            engine=engine,
            workers=workers,
            progress=progress or (lambda _done, _total: None),
        )

    def plan_features(self) -> "list[FeatureStep]":
        """What `apply_features` would change in the database. Changes nothing."""
        from hyperfeast.features.plan import plan

        return plan(self.database, list(self.repo.feature_sets.values()))

    def apply_features(self, say: Callable[[str], None] = lambda _: None) -> "FeaturesApplied":
        """Put the declared feature sets into effect: see `app.applying`."""
        from hyperfeast.app.applying import apply_features

        return apply_features(self, say)

    def materialize(self, start: datetime | None = None, end: datetime | None = None) -> list[str]:
        """Bring the newest row of every entity online, until now or `end` (UTC).

        Args:
            start: bring all rows since then (UTC); by default what is new, late or corrected since the last time.
            end: by default now.

        Raises:
            UsageError: the range is empty, or ends in the future.
        """
        now = clock.now()
        last = end or now
        if last > now:
            raise UsageError(
                f"--end {last} lies in the future: leave it out to bring everything online until now"
            )
        if start is not None and start >= last:
            raise UsageError(f"nothing lies between --start {start} and --end {last}")
        return self.feast.materialize(start, last)

    def show_lags(self) -> None:
        """Set the gauges of how far behind each view is in Redis, once Feast is loaded: a scrape does not wait."""
        if "feast" in vars(self):
            with suppress(ServerError):
                self.feast.show_lags()

    def queue(self) -> "Queue":
        """The job queue, in the same database."""
        return self._queue([])

    def worker(self) -> "Queue":
        """The job queue, for a process that works on it: what its jobs write is fenced.

        Raises:
            FeatureError: a module of the feature repository does not import.
        """
        from hyperfeast.jobs import LeasedDatabase, Task, worker_name

        self.database = LeasedDatabase(self.endpoints.postgres_dsn, name=worker_name())
        return self._queue(
            [
                Task(f"{_COMPUTE}.{view}", partial(self.submit_features, view), one.cron)
                for view, one in self.repo.feature_sets.items()
                if one.cron is not None
            ]
        )

    def announce(self) -> None:
        """Ask the workers at once for what was taken in."""
        from hyperfeast.jobs import announce

        announce(self.database)

    def _queue(self, more: "Sequence[Task]") -> "Queue":
        from hyperfeast.jobs import Queue, Task, arrivals
        from hyperfeast.jobs.changing import forget

        tasks = [
            *more,
            Task(
                arrivals.TASK,
                self._bring_arrivals,
                alone=True,
                queue=arrivals.QUEUE,
                priority=arrivals.URGENT,
                kept=False,
            ),
            Task(
                _COMPUTE,
                self._compute_partition,
                attempts=_ATTEMPTS,
                backoff=_BACKOFF_S,
                stoppable=True,
                queue="compute",
                priority=0,
            ),
            Task("hyperfeast.forget_jobs", partial(forget, self.database), _FORGOTTEN_AT),
            Task("hyperfeast.refresh_baseline_windows", self.refresh_baseline_windows, _WINDOWS_AT),
            Task("hyperfeast.check_quality", self.check_quality, _CHECKED_AT),
            Task("hyperfeast.enforce_lifecycle", self.enforce_lifecycle, _EXPIRED_AT),
            Task(_BACKFILL, self._heal, attempts=_ATTEMPTS, backoff=_BACKOFF_S, priority=0),
        ]
        return Queue(self.database, self._refresh, tasks)

    def model_spec(self, name: str) -> "ModelSpec":
        """A declared model by name.

        Raises:
            UsageError: none of that name; the message lists those there are.
        """
        from hyperfeast.models import ModelSpec

        specs = self.repo.declared(ModelSpec)
        if name not in specs:
            raise UsageError(
                f"no model {name!r} in {self.repo.folder}: it declares "
                f"{', '.join(sorted(specs)) or 'none'}"
            )
        return specs[name]

    def train(self, name: str) -> "TrainingResult":
        """Train a declared model on the features in the offline store, as they are known now."""
        from hyperfeast.training import train

        spec = self.model_spec(name)
        rows, historical_features = self._training_rows(spec)
        return train(
            self.database,
            spec,
            rows,
            historical_features,
            self.settings.artifact_root,
            definition_hashes={
                one.view: one.definition_hash for one in self.repo.feature_sets.values()
            },
            git_commit=_git_commit(self.repo.folder),
        )

    def _training_rows(self, spec: "ModelSpec") -> "tuple[pl.DataFrame, HistoricalFeatures]":
        """What a model's labels are read from, and the join of its features."""
        from hyperfeast.features.bars import read_bars
        from hyperfeast.models import Deviation
        from hyperfeast.training import ends_of_days, of_entities

        match spec.label:
            case Deviation() as label:
                feature_set = self.repo.feature_set(label.feature_set)
                join = of_entities(self.feast.historical, feature_set.key_columns)
                return ends_of_days(self.database, feature_set, label), join
            case _:
                return read_bars(self.database, Timeframe.D1), self.feast.historical

    def predictor(self, name: str) -> "Predictor":
        """The active version of a model, loaded and checked.

        Raises:
            UsageError: no such model is declared.
            NoModel: none was trained yet.
            ArtifactDamaged: its file is not the one that was registered.
        """
        from hyperfeast.models import Booster, active, load_artifact
        from hyperfeast.serving import Predictor

        spec = self.model_spec(name)
        model = active(self.database, name)
        artifact = load_artifact(
            self.settings.artifact_root, model.artifact_path, model.artifact_sha256
        )
        booster = Booster(artifact, model.feature_columns)
        return Predictor(self.database, self.feast, model, booster, freshness=spec.freshness)

    def _model_labels(self) -> "list[Label]":
        """The returns that declared models are to foresee; nothing where daily bars cannot be read."""
        from hyperfeast.features.bars import read_bars
        from hyperfeast.models import ModelSpec
        from hyperfeast.quality import Label
        from hyperfeast.training.labels import direction

        specs = [one for one in self.repo.declared(ModelSpec).values() if one.label == "direction"]
        if not specs:
            return []
        try:
            bars = read_bars(self.database, Timeframe.D1)
        except FeatureError:
            # A bar of no session: the checks of the candles say so.
            return []
        return [Label(one.name, one.horizon, direction(bars, one.horizon)) for one in specs]

    def _follow(self, done: "Ingested", timeframe: str | None) -> None:
        """Aggregates are built on readings and on the finest bars; the rest is the workers'."""
        if not done.inserted and not done.corrected:
            return
        if timeframe in (None, Timeframe.M1):
            self.refresh_aggregates()
        self.announce()

    def _heal(self, *, source: str, symbol: str, tf: str, start: str, end: str) -> None:
        from hyperfeast import sources

        done = self.backfill(
            sources.source(source),
            [symbol],
            timeframe=Timeframe(tf),
            start=datetime.fromisoformat(start),
            end=datetime.fromisoformat(end),
            again=True,
        )
        for failure in done.failures:
            raise failure.error

    def _partitions(
        self, name: str, keys: Sequence[str] | None, *, full: bool
    ) -> "list[Partition]":
        from hyperfeast.features.plan import prepare
        from hyperfeast.jobs.partition import partitions

        sets = self.repo.chosen(name)
        prepare(self.database, list(self.repo.feature_sets.values()), sets)
        return [
            partition
            for one in sets
            for partition in partitions(self.database, one, keys, full=full)
        ]

    def _compute_partition(self, progress: "JobProgress", **arguments: Any) -> None:
        from hyperfeast.jobs.partition import Partition, compute

        partition = Partition.of(arguments)
        declared = partition.declared(self.repo)
        done = compute(self.database, declared, partition, progress)
        self._bring_online(declared.view, done.newest)

    def _bring_online(self, view: str, rows: "pl.DataFrame") -> None:
        # Feast takes seconds to load: not for nothing.
        if rows.height:
            self.feast.bring_online(view, rows)

    def _bring_arrivals(self) -> None:
        self.refresh_aggregates()
        self.compute_features(online=True)

    def _refresh(self) -> None:
        self.refresh_aggregates()
        self.compute_features()
        self.feast.apply(ready=lambda _: self.materialize())
        self.materialize()

    @property
    def _dsn(self) -> str | None:
        secret = self.settings.postgres_dsn
        return secret.get_secret_value() if secret else None

    @property
    def _url(self) -> str | None:
        secret = self.settings.redis_url
        return secret.get_secret_value() if secret else None


def _git_commit(folder: Path) -> str | None:
    """The commit that a folder is at; None where there is no git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
