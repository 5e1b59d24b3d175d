"""Feast, behind the few calls that the platform makes of it. Import it late: Feast takes seconds."""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

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
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.convert import Converted, convert
from hyperfeast.stores.online.read import online_matrix

# What the registry's path holds when it is to be the database in use.
_PLUGIN = "plugin=hyperfeast"
# Earlier than any row. Feast computes with it, so not the earliest that there is.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# The streams are the process's: two threads that redirect them would restore each other's.
_STREAMS = threading.RLock()


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
                entity_df=spine, features=self._store.get_feature_service(feature_service)
            ).to_arrow()
        features = [name for name in joined.column_names if name not in spine.columns]
        frame = pl.DataFrame(pl.from_arrow(joined.select(features)))
        return pl.concat([spine, frame], how="horizontal")

    def materialize(self, start: datetime | None, end: datetime) -> list[str]:
        """Bring the newest row of every entity of every view online.

        Args:
            start: only rows with start < event_timestamp (UTC). None goes on where each view's last run
                ended, late rows and corrections included; a view that was never online begins at the beginning.
            end: only rows with event_timestamp <= end (UTC).

        Returns:
            The names of the views.
        """
        with self._errors(), _quiet():
            views = [view for view in self._store.list_feature_views() if view.online]
            if not views:
                raise FeatureError(
                    "Feast knows no feature view to bring online: run `hyperfeast features apply` (or "
                    "`feast apply`)"
                )
            known = [] if start else [view.name for view in views if view.materialization_intervals]
            whole = [view.name for view in views if view.name not in known]
            if whole:
                self._store.materialize(start or _BEGINNING, end, feature_views=whole)
            if known:
                self._store.materialize_incremental(end, feature_views=known)
        return [view.name for view in views]

    def online(self, feature_service: str, entities: Sequence[Mapping[str, str]]) -> OnlineMatrix:
        """The served features of each entity, as numbers.

        Args:
            feature_service: whose features to read.
            entities: join key -> value, one mapping an entity.
        """
        with self._errors():
            service = self._store.get_feature_service(feature_service, allow_cache=True)
            return online_matrix(self._store, service, entities)

    def convert_online(
        self,
        to: Literal["feast", "packed"],
        *,
        views: Sequence[str] = (),
        remove_source: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Converted]:
        """Copy what is online into another layout: see `online.convert`."""
        with self._errors():
            return convert(
                self._store, to, views=views, remove_source=remove_source, progress=progress
            )

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
