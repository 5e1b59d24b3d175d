"""One object that holds the platform together."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
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
    from hyperfeast.features.compute import Computation
    from hyperfeast.features.repo import FeatureRepo
    from hyperfeast.jobs import Queue
    from hyperfeast.models import ModelSpec
    from hyperfeast.monitoring import PlatformStatus
    from hyperfeast.serving import Predictor
    from hyperfeast.stores.feast_store import FeastStore
    from hyperfeast.training import TrainingResult

# Before any row: everything that was ever computed is brought online.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


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

    def materialize(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        progress: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Bring the newest row of every entity online; by default of all time until now (UTC).

        Raises:
            UsageError: the range is empty.
        """
        first, last = start or _BEGINNING, end or clock.now()
        if first >= last:
            raise UsageError(f"nothing lies between --start {first} and --end {last}")
        return self.feast.materialize(first, last, progress=progress)

    def queue(self) -> "Queue":
        """The job queue, in the same database."""
        from hyperfeast.jobs import Queue

        return Queue(self.database, self._refresh)

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

    def _refresh(self) -> None:
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
