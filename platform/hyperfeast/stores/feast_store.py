"""Feast, behind the few calls that the platform makes of it. Import it late: Feast takes seconds."""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import yaml
from feast import FeatureStore, RepoConfig
from feast.errors import FeastError
from feast.infra.registry.sql import SqlRegistry
from feast.repo_operations import extract_objects_for_apply_delete, parse_repo
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.stores.connection import postgres_config, redis_config, registry_url

# What the registry's path holds when it is to be the database in use.
_PLUGIN = "plugin=hyperfeast"
# The streams are the process's: two threads that redirect them would restore each other's.
_STREAMS = threading.RLock()


@dataclass(frozen=True)
class OnlineVector:
    """What the online store holds for one entity.

    Attributes:
        values: feature -> value; None where it is missing.
        event_timestamps: feature view -> from when its row was knowable (UTC); None where there is no row.
    """

    values: dict[str, float | None]
    event_timestamps: dict[str, datetime | None]


class FeastStore:
    """A Feast repository on given servers.

    Args:
        folder: the feature repository.
        postgres_dsn: the database with the features and the registry.
        redis_url: the online store.
    """

    def __init__(self, folder: Path, *, postgres_dsn: str, redis_url: str) -> None:
        self._folder = folder
        self._database = Database(postgres_dsn)
        self._redis_url = redis_url

    def apply(self) -> list[str]:
        """Register everything that the repository defines, as `feast apply` does.

        Returns:
            The names of the feature views and services.
        """
        with self._errors(), _in_folder(self._folder), _quiet():
            store = self._store
            contents = parse_repo(self._folder)
            to_apply, to_delete, _, _ = extract_objects_for_apply_delete(
                store.project, store.registry, contents
            )
            store.apply(to_apply, objects_to_delete=to_delete, partial=False)
        return [item.name for item in (*contents.feature_views, *contents.feature_services)]

    def historical(self, spine: pl.DataFrame, feature_service: str) -> pl.DataFrame:
        """Point-in-time features for every spine row.

        Args:
            spine: key columns and event_timestamp (UTC).
            feature_service: whose features to join.

        Returns:
            The spine's columns and the service's features, in the spine's order.
        """
        with self._errors():
            joined = self._store.get_historical_features(
                entity_df=spine.with_row_index("spine_row").to_pandas(),
                features=self._store.get_feature_service(feature_service),
            ).to_arrow()
        frame = pl.DataFrame(pl.from_arrow(joined)).sort("spine_row").drop("spine_row")
        features = [name for name in frame.columns if name not in spine.columns]
        return pl.concat([spine, frame.select(features)], how="horizontal")

    def materialize(
        self, start: datetime, end: datetime, *, progress: Callable[[str], None] | None = None
    ) -> list[str]:
        """Bring the newest rows of every view with start < event_timestamp <= end online.

        Args:
            start: UTC.
            end: UTC.
            progress: called with a view's name before it is brought online.

        Returns:
            The names of the views.
        """
        with self._errors():
            names = [view.name for view in self._store.list_feature_views()]
            if not names:
                raise FeatureError(
                    "Feast knows no feature view yet: run `hyperfeast features apply` (or `feast apply`)"
                )
            for name in names:
                if progress:
                    progress(name)
                with _quiet():
                    self._store.materialize(start, end, feature_views=[name])
        return names

    def online(
        self, feature_service: str, entities: Sequence[Mapping[str, str]]
    ) -> list[OnlineVector]:
        """The served vector of each entity, in their order.

        Args:
            feature_service: whose features to read.
            entities: join key -> value, one mapping an entity.
        """
        with self._errors():
            service = self._store.get_feature_service(feature_service, allow_cache=True)
            response = self._store.get_online_features(
                features=service,
                entity_rows=[dict(entity) for entity in entities],
                full_feature_names=True,
            ).proto
        columns = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        served = {
            (view.name_to_use(), feature.name): columns[f"{view.name_to_use()}__{feature.name}"]
            for view in service.feature_view_projections
            for feature in view.features
        }
        return [_vector(served, row) for row in range(len(entities))]

    def close(self) -> None:
        """Close the connections that a SQL registry keeps; another kind keeps none."""
        if "_store" in vars(self):
            registry = self._store.registry
            if isinstance(registry, SqlRegistry):
                registry.write_engine.dispose()
                registry.read_engine.dispose()
            del self._store

    @cached_property
    def _store(self) -> FeatureStore:
        written = yaml.safe_load((self._folder / "feature_store.yaml").read_text(encoding="utf-8"))
        written["offline_store"] = postgres_config(self._database.dsn) | written["offline_store"]
        written["online_store"] = redis_config(self._redis_url) | written["online_store"]
        if _PLUGIN in str(written["registry"]):
            written["registry"] |= {"path": registry_url(self._database.dsn)}
        with _quiet():
            return FeatureStore(config=RepoConfig(repo_path=self._folder, **written))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Feast's errors, and those of the libraries below it, in our words."""
        try:
            with self._database.translated(), cache.translated(self._redis_url), _unwrapped():
                yield
        except ValidationError as error:
            # Feast reads the sections of its configuration when it first needs them, not when it loads them.
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise FeatureError(
                f"{self._folder / 'feature_store.yaml'}: {where}: {first['msg']}"
            ) from None
        except FeastError as error:
            raise FeatureError(
                f"Feast: {error}. Has `hyperfeast features apply` (or `feast apply`) been run?"
            ) from error


@contextmanager
def _unwrapped() -> Iterator[None]:
    """The database's own error out of SQLAlchemy's."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        raise (cause if isinstance(cause, psycopg.Error) else error) from None


def _vector(served: Mapping[tuple[str, str], Any], row: int) -> OnlineVector:
    """One entity's row of Feast's columns, each of which has values and event_timestamps."""
    values: dict[str, float | None] = {}
    known_from: dict[str, datetime | None] = {}
    for (view, feature), column in served.items():
        value = column.values[row]
        kind = value.WhichOneof("val")
        values[feature] = None if kind in (None, "null_val") else getattr(value, kind)
        seconds = column.event_timestamps[row].seconds
        known_from[view] = datetime.fromtimestamp(seconds, UTC) if seconds else None
    return OnlineVector(values, known_from)


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Feast names the modules of a repository by their path from the working folder."""
    path = [*sys.path]
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path[:] = path


@contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints to both streams as it goes; the caller shows progress in its own way."""
    with (
        _STREAMS,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
