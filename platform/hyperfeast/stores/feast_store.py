"""Feast, behind the few calls that the platform makes of it. Import it late: Feast takes seconds."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from feast import FeatureStore, RepoConfig
from feast.errors import FeastError
from feast.repo_operations import extract_objects_for_apply_delete, parse_repo
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from hyperfeast.errors import FeatureError, HyperfeastError, ServerUnreachable
from hyperfeast.stores.connection import postgres_config, redis_config, registry_url


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
        self._postgres_dsn = postgres_dsn
        self._redis_url = redis_url

    def apply(self) -> list[str]:
        """Register everything that the repository defines, as `feast apply` does.

        Returns:
            The names of the feature views and services.
        """
        store = self._store
        with self._errors(), _in_folder(self._folder), _quiet():
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

    @cached_property
    def _store(self) -> FeatureStore:
        written = yaml.safe_load((self._folder / "feature_store.yaml").read_text(encoding="utf-8"))
        written["offline_store"] = postgres_config(self._postgres_dsn) | written["offline_store"]
        written["online_store"] = redis_config(self._redis_url) | written["online_store"]
        written["registry"] |= {"path": registry_url(self._postgres_dsn)}
        with _quiet():
            return FeatureStore(config=RepoConfig(repo_path=self._folder, **written))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Feast's errors, and those of the libraries below it, in our words."""
        try:
            yield
        except HyperfeastError:
            raise
        except RedisError as error:
            raise ServerUnreachable(f"Redis does not answer: {error}") from error
        except SQLAlchemyError as error:
            reason = str(error).split("\n", 1)[0]
            raise ServerUnreachable(f"Feast's registry does not answer: {reason}") from error
        except FeastError as error:
            raise FeatureError(
                f"Feast: {error}. Has `hyperfeast features apply` (or `feast apply`) been run?"
            ) from error


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
    with open(os.devnull, "w", encoding="utf-8") as nowhere, warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
