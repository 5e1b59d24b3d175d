"""Feast, behind the few calls that the platform makes of it. Import it late: Feast takes seconds."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
import psycopg
import yaml
from feast import Entity, FeatureStore, FeatureView, RepoConfig
from feast.errors import FeastError, FeatureViewNotFoundException
from feast.infra.registry.sql import SqlRegistry
from feast.repo_operations import extract_objects_for_apply_delete, parse_repo
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from hyperfeast import cache
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, HyperfeastError, ServerError
from hyperfeast.stores.connection import postgres_config, redis_config, registry_url
from hyperfeast.stores.engine import show_lags
from hyperfeast.stores.failures import together
from hyperfeast.stores.local_mirror import Mirrored, pull
from hyperfeast.stores.online.answers import OnlineMatrix
from hyperfeast.stores.online.convert import Converted, convert
from hyperfeast.stores.online.hot import HotVectors
from hyperfeast.stores.online.invalidation import channel_of
from hyperfeast.stores.online.people import forget, rows_of
from hyperfeast.stores.online.read import online_matrix
from hyperfeast.stores.online.store import FastRedisOnlineStore
from hyperfeast.stores.quiet import quiet
from hyperfeast.stores.registry_plan import RegistryPlan, registry_plan

# What the registry's path holds when it is to be the database in use.
_PLUGIN = "plugin=hyperfeast"
# Earlier than any row. Feast computes with it, so not the earliest that there is.
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# A day's, of a worker that runs once an hour.
_MOST_INTERVALS = 24


class FeastStore:
    """A Feast repository on given servers.

    Args:
        folder: the feature repository.
        postgres_dsn: the database with the features and the registry.
        redis_url: the online store.
        cache_s: how many seconds what was read online may be served from this process's memory; 0 for never.
    """

    def __init__(
        self, folder: Path, *, postgres_dsn: str, redis_url: str, cache_s: float = 0
    ) -> None:
        self._folder = folder
        self._cache_s = cache_s
        self._database = Database(postgres_dsn)
        self._redis_url = redis_url
        self._making = threading.RLock()

    def apply(self, *, ready: Callable[[Sequence[str]], object] | None = None) -> list[str]:
        """Register everything that the repository defines, as `feast apply` does.

        Args:
            ready: called with the names of views before a service that serves others is switched to them
                and nothing of them is online: it brings them online. Without, services are switched at once.

        Returns:
            The names of the feature views and services.
        """
        if ready and (awaited := self.plan().awaited):
            self._register(only=awaited)
            ready(awaited)
        return self._register()

    def _register(self, *, only: Sequence[str] = ()) -> list[str]:
        """Everything; or only these views and the entities, so that what is served stays as it is."""
        with self._errors(), _in_folder(self._folder), quiet():
            store = self._store
            contents = parse_repo(self._folder)
            to_apply, to_delete, _, _ = extract_objects_for_apply_delete(
                store.project, store.registry, contents
            )
            if only:
                store.apply([one for one in to_apply if _is_entity_or_view(one, only)])
            else:
                store.apply(to_apply, objects_to_delete=to_delete, partial=False)
        # Who cannot be told reads the registry again when its time is up.
        with contextlib.suppress(ServerError), cache.connect(self._redis_url) as redis:
            redis.publish(channel_of(store.project), b"")
        return [item.name for item in (*contents.feature_views, *contents.feature_services)]

    def plan(self) -> RegistryPlan:
        """What `apply` would change. Changes nothing."""
        with self._errors(), _in_folder(self._folder), quiet():
            return registry_plan(self._store, parse_repo(self._folder))

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

        Raises:
            FeatureError: there is no view, or some failed; the others are online. It names each.
            ServerError: a server failed; likewise.
        """
        with self._errors(), quiet():
            views = [view for view in self._store.list_feature_views() if view.online]
        if not views:
            raise FeatureError(
                "Feast knows no feature view to bring online: run `hyperfeast features apply` (or "
                "`feast apply`)"
            )
        known = [] if start else [view.name for view in views if view.materialization_intervals]
        whole = [view.name for view in views if view.name not in known]
        failures: list[HyperfeastError] = []
        if whole:
            with _kept(failures, whole), self._errors(), quiet():
                self._store.materialize(start or _BEGINNING, end, feature_views=whole)
        if known:
            with _kept(failures, known), self._errors(), quiet():
                self._store.materialize_incremental(end, feature_views=known)
                self._join_intervals(known)
        if failures:
            raise together(failures)
        return [view.name for view in views]

    def _join_intervals(self, names: Sequence[str]) -> None:
        """One interval for many that join on: Feast keeps one a run for ever, and reads all of them at each."""
        registry, project = self._store.registry, self._store.project
        for name in names:
            view = registry.get_feature_view(name, project)
            if len(view.materialization_intervals) > _MOST_INTERVALS:
                view.materialization_intervals = _joined(view.materialization_intervals)
                registry.apply_feature_view(view, project)

    def bring_online(self, view: str, rows: pl.DataFrame) -> int:
        """Write rows of a view to the online store as soon as they are known.

        Of an entity the newest (event, recorded) stays, whatever else is written at the same time. What the
        next `materialize` reads does not change: it is the safety net.

        Args:
            view: the feature view's name.
            rows: its join keys, event_timestamp and recorded_at (UTC), and its features.

        Returns:
            How many rows are online now and were not before; 0 where Feast does not know the view (yet), or
            where it is not to be online.

        Raises:
            DataError: event times lie in the future; the other rows were written.
            ServerError: Redis does not answer, or refuses.
        """
        if not rows.height:
            return 0
        with self._errors():
            store = self._store
            try:
                known = store.registry.get_feature_view(view, store.project, allow_cache=True)
            except FeatureViewNotFoundException:
                return 0
            online = store._get_provider().online_store  # noqa: SLF001 - Feast has no public way to it
            if not known.online or not isinstance(online, FastRedisOnlineStore):
                return 0
            return online.write_arrow(
                store.config,
                known,
                rows.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches(),
                timestamp_field="event_timestamp",
                created_field="recorded_at",
            ).rows

    def online(self, feature_service: str, entities: Sequence[Mapping[str, str]]) -> OnlineMatrix:
        """The served features of each entity, as numbers.

        Args:
            feature_service: whose features to read.
            entities: join key -> value, one mapping an entity.
        """
        with self._errors():
            service = self._store.get_feature_service(feature_service, allow_cache=True)
            if self._cache_s:
                return self._hot.online(service, entities)
            return online_matrix(self._store, service, entities)

    def show_lags(self) -> None:
        """Set the gauges of how far behind each view is in Redis: see `engine.show_lags`."""
        with self._errors():
            show_lags(self._store)

    def convert_online(
        self,
        to: Literal["feast", "packed"],
        *,
        views: Sequence[str] = (),
        remove_source: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Converted]:
        """Copy what is online into another layout: see `online.convert`.

        Raises:
            FeatureError: there is no feature view online.
        """
        with self._errors():
            done = convert(
                self._store, to, views=views, remove_source=remove_source, progress=progress
            )
        if not done:
            raise FeatureError(
                f"there is no feature view online in {self._folder}: run `hyperfeast features apply` (or "
                "`feast apply`) and `hyperfeast materialize`, or set HYPERFEAST_FEATURE_REPO to another "
                "repository"
            )
        return done

    def of_entity(self, value: str) -> list[dict[str, Any]]:
        """What is online of every entity with this value among its keys: view, keys and features."""
        with self._errors(), quiet():
            return list(rows_of(self._store, value))

    def forget_entity(self, value: str) -> int:
        """Delete what is online of these entities, in every view and layout; how many keys there were."""
        with self._errors(), quiet():
            return forget(self._store, value)

    def mirror(
        self,
        folder: Path,
        *,
        names: Sequence[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        progress: Callable[[str, int], None] | None = None,
    ) -> list[Mirrored]:
        """Write views into a folder that Feast reads without a server: see `local_mirror.pull`."""
        with self._errors():
            return pull(
                self._store, folder, names=names, since=since, until=until, progress=progress
            )

    def close(self) -> None:
        """Close the connections that a SQL registry keeps; another kind keeps none. Stop listening to Redis."""
        if "_hot" in vars(self):
            self._hot.close()
            del self._hot
        if "_store" in vars(self):
            registry = self._store.registry
            if isinstance(registry, SqlRegistry):
                registry.write_engine.dispose()
                registry.read_engine.dispose()
            del self._store

    # Threads that ask at once must get the same one: another would go on listening, or keep connections.
    @cached_property
    def _hot(self) -> HotVectors:
        with self._making:
            if "_hot" not in vars(self):
                vars(self)["_hot"] = HotVectors(self._store, ttl_s=self._cache_s)
            return cast("HotVectors", vars(self)["_hot"])

    @cached_property
    def _store(self) -> FeatureStore:
        with self._making:
            if "_store" not in vars(self):
                vars(self)["_store"] = self._made()
            return cast("FeatureStore", vars(self)["_store"])

    def _made(self) -> FeatureStore:
        text = (self._folder / "feature_store.yaml").read_text(encoding="utf-8")
        # As Feast reads it: ${VAR} stands for what the environment has.
        written = yaml.safe_load(os.path.expandvars(text))
        written["offline_store"] = postgres_config(self._database.dsn) | written["offline_store"]
        written["online_store"] = redis_config(self._redis_url) | written["online_store"]
        if _PLUGIN in str(written["registry"]):
            written["registry"] |= {"path": registry_url(self._database.dsn)}
        with quiet():
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


def _is_entity_or_view(one: object, names: Sequence[str]) -> bool:
    return isinstance(one, Entity) or (isinstance(one, FeatureView) and one.name in names)


@contextmanager
def _kept(failures: list[HyperfeastError], views: Sequence[str]) -> Iterator[None]:
    """An error is put with the others, so that what comes next is done all the same."""
    try:
        yield
    except HyperfeastError as error:
        failures.append(error)
    except ValueError as error:
        # What Feast says of a view that is in no state to be brought online.
        failures.append(FeatureError(f"feature views {', '.join(views)}: {error}"))


def _joined(intervals: Sequence[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """The same moments in as few intervals as there can be, in their order."""
    out: list[tuple[datetime, datetime]] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


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
