"""One object that holds the platform together."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.servers import EmbeddedServers, Endpoints, found, in_use
from hyperfeast.settings import Settings, load
from hyperfeast.types import Timeframe

if TYPE_CHECKING:
    import polars as pl

    from hyperfeast.aggregates import RefreshReport
    from hyperfeast.baselines import BaselineRepository, WindowRefresh
    from hyperfeast.features.compute import Computation
    from hyperfeast.features.repo import FeatureRepo
    from hyperfeast.ingest import Backfilled, Candles, Ingested, Metrics, Mirror
    from hyperfeast.jobs import Queue
    from hyperfeast.lifecycle import Enforced
    from hyperfeast.models import ModelSpec
    from hyperfeast.monitoring import PlatformStatus
    from hyperfeast.quality import MissingRange
    from hyperfeast.quality import Result as QualityResult
    from hyperfeast.serving import Predictor
    from hyperfeast.sources import Source
    from hyperfeast.stores.feast_store import FeastStore
    from hyperfeast.training import TrainingResult

# When workers look after the data, UTC: at night for most, and not all at once.
_WINDOWS_AT, _CHECKED_AT, _EXPIRED_AT = "7 0 * * *", "17 2 * * *", "47 3 * * *"
_BACKFILL = "hyperfeast.backfill"

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
        return results

    def compute_features(
        self, name: str | None = None, *, progress: Callable[[str], None] | None = None
    ) -> list["Computation"]:
        """Compute one feature set, or all of them, and write what changed.

        Args:
            name: a declared feature set; None for all.
            progress: called with each set's name before it is computed.
        """
        from hyperfeast.features.compute import refresh

        sets = [self.repo.feature_set(name)] if name else list(self.repo.feature_sets.values())
        done = []
        for one in sets:
            if progress:
                progress(one.name)
            done.append(refresh(self.database, one))
        return done

    def materialize(self, start: datetime | None = None, end: datetime | None = None) -> list[str]:
        """Bring the newest row of every entity online, until now or `end` (UTC).

        Args:
            start: bring all rows since then (UTC); by default what is new, late or corrected since the last time.
            end: by default now.

        Raises:
            UsageError: the range is empty.
        """
        last = end or clock.now()
        if start is not None and start >= last:
            raise UsageError(f"nothing lies between --start {start} and --end {last}")
        return self.feast.materialize(start, last)

    def queue(self) -> "Queue":
        """The job queue, in the same database."""
        from hyperfeast.jobs import Queue, Task

        tasks = [
            Task("hyperfeast.refresh_baseline_windows", self.refresh_baseline_windows, _WINDOWS_AT),
            Task("hyperfeast.check_quality", self.check_quality, _CHECKED_AT),
            Task("hyperfeast.enforce_lifecycle", self.enforce_lifecycle, _EXPIRED_AT),
            Task(_BACKFILL, self._heal),
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
        from hyperfeast.features.bars import read_bars
        from hyperfeast.training import train

        return train(
            self.database,
            self.model_spec(name),
            read_bars(self.database, Timeframe.D1),
            self.feast.historical,
            self.settings.artifact_root,
            definition_hashes={
                one.name: one.definition_hash for one in self.repo.feature_sets.values()
            },
            git_commit=_git_commit(self.repo.folder),
        )

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

    def _follow(self, done: "Ingested", timeframe: str | None) -> None:
        """Aggregates are built on readings and on the finest bars."""
        if (done.inserted or done.corrected) and timeframe in (None, Timeframe.M1):
            self.refresh_aggregates()

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

    def _refresh(self) -> None:
        self.refresh_aggregates()
        self.compute_features()
        self.feast.apply()
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
