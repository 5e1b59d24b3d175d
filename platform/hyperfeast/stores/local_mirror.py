"""A folder on this machine that Feast reads training sets from, without a server.

Every view's rows, with all their revisions, lie there as Parquet files, a folder a year of event times, and
beside them a feature store of its own: Feast's DuckDB offline store and a registry in a file, with the same
views and services. What is pulled is there at once or not at all: the registry names the files of a pull, and
is written when they are.
"""

import copy
import fcntl
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml
from feast import FeatureStore, FeatureView, FileSource, RepoConfig
from feast.data_format import ParquetFormat
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.utils import _get_column_names

from hyperfeast import clock
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.stores.quiet import quiet

_HEADER = (
    "# Made by `hyperfeast mirror pull`, which writes it anew: change what it was pulled from.\n"
)
_LOCK = ".pulling"
_OURS = {"feature_store.yaml", "registry.db", "registry.new.db", "data", _LOCK}
_YEAR = "__year"
_ROWS_A_GROUP = 100_000


@dataclass(frozen=True)
class Mirrored:
    """What was pulled of a view.

    Attributes:
        view: its name.
        rows: how many, revisions included.
        size_bytes: of its files.
    """

    view: str
    rows: int
    size_bytes: int


def pull(
    store: FeatureStore,
    folder: Path,
    *,
    names: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> list[Mirrored]:
    """Write views as Parquet, and a feature store over them, which `FeatureStore(repo_path=folder)` opens.

    Args:
        store: where the rows come from, as they are now.
        folder: where to; what an earlier pull left there is replaced.
        names: of feature views; none for all.
        since: the first event time; None for no bound. Leave room for what a spine looks back on.
        until: the last event time; None for no bound.
        progress: told the view and how many of its rows are written.

    Raises:
        UsageError: the folder holds something else, or another pull is under way; a view is unknown; or DuckDB is
            not installed.
        FeatureError: there are no views.
    """
    if find_spec("duckdb") is None or find_spec("ibis") is None:
        raise UsageError(
            "a local mirror is read by DuckDB, which is not installed: `pip install 'hyperfeast[mirror]'`"
        )
    views = _chosen(store, names)
    _refuse_other(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        return _pulled(store, folder, views, since, until, progress or _silent)


def _pulled(
    store: FeatureStore,
    folder: Path,
    views: Sequence[FeatureView],
    since: datetime | None,
    until: datetime | None,
    progress: Callable[[str, int], None],
) -> list[Mirrored]:
    data = folder / "data" / clock.now().strftime("%Y%m%dT%H%M%S.%fZ")
    try:
        done = [_written(store, view, data / view.name, since, until, progress) for view in views]
        _register(store, folder, views, data)
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        raise
    for older in data.parent.iterdir():
        if older != data:
            shutil.rmtree(older)
    return done


def _chosen(store: FeatureStore, names: Sequence[str]) -> list[FeatureView]:
    views = {view.name: view for view in store.list_feature_views()}
    if not views:
        raise FeatureError(
            "Feast knows no feature view to pull: run `hyperfeast features apply` (or `feast apply`)"
        )
    unknown = [name for name in names if name not in views]
    if unknown:
        raise UsageError(
            f"no feature view {', '.join(map(repr, unknown))}: there are {', '.join(sorted(views))}"
        )
    return [view for name, view in views.items() if name in names or not names]


def _refuse_other(folder: Path) -> None:
    """Only what a pull made is replaced, finished or not."""
    config = folder / "feature_store.yaml"
    foreign = config.exists() and not config.read_text(encoding="utf-8").startswith(_HEADER)
    others = {path.name for path in folder.iterdir()} - _OURS if folder.exists() else set()
    if foreign or others:
        raise UsageError(
            f"{folder} holds something that no pull made, which would be replaced: name an empty folder"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two pulls into one folder would delete each other's files."""
    with (folder / _LOCK).open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another pull into {folder} is under way: wait for its end") from None
        yield


def _written(
    store: FeatureStore,
    view: FeatureView,
    folder: Path,
    since: datetime | None,
    until: datetime | None,
    progress: Callable[[str, int], None],
) -> Mirrored:
    """Stream a view's rows into files, memory bounded."""
    entities = [store.registry.get_entity(name, store.project) for name in view.entities]
    keys, features, timestamp, created = _get_column_names(view, entities)
    offline = store._get_provider().offline_store  # noqa: SLF001 - Feast has no public way to it
    job = offline.pull_all_from_table_or_query(
        config=store.config,
        data_source=view.batch_source,
        join_key_columns=keys,
        feature_name_columns=features,
        timestamp_field=timestamp,
        created_timestamp_column=created or None,
        start_date=since,
        end_date=until,
    )
    rows, stopped = 0, threading.Event()

    def by_year(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            if stopped.is_set():
                raise InterruptedError
            moments = cast("pa.TimestampArray[Any, Any]", batch.column(timestamp))
            yield batch.append_column(_YEAR, pc.year(moments))
            rows += batch.num_rows
            progress(view.name, rows)

    # On a thread of its own: Arrow would hold Ctrl-C back until all is written.
    with job.to_arrow_reader() as reader, ThreadPoolExecutor(1) as thread:
        writing = thread.submit(
            ds.write_dataset,
            by_year(reader),
            folder,
            schema=reader.schema.append(pa.field(_YEAR, pa.int64())),
            format="parquet",
            partitioning=[_YEAR],
            max_rows_per_group=_ROWS_A_GROUP,
        )
        try:
            writing.result()
        except BaseException:
            stopped.set()
            raise
    if not rows:
        # Feast reads the columns' types from a file, even if it holds no row.
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(reader.schema.empty_table(), folder / "empty.parquet")
    size = sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    return Mirrored(view.name, rows, size)


def _register(store: FeatureStore, folder: Path, views: Sequence[FeatureView], data: Path) -> None:
    """The same definitions, with files for sources, in a registry that is replaced as a whole."""
    registry = folder / "registry.db"
    config = {
        "project": store.project,
        "provider": "local",
        "registry": registry.name,
        "offline_store": {"type": "duckdb"},
        "online_store": None,
        "entity_key_serialization_version": store.config.entity_key_serialization_version,
    }
    fresh = folder / "registry.new.db"
    fresh.unlink(missing_ok=True)
    # A store with a configuration of its own would look for relative paths in the working folder.
    absolute = config | {"registry": str(fresh.resolve())}
    local = FeatureStore(config=RepoConfig(repo_path=folder, **absolute))
    there = {view.name for view in views}
    computed = [
        view
        for view in store.list_on_demand_feature_views()
        if {one.name for one in view.source_feature_view_projections.values()} <= there
    ]
    there |= {view.name for view in computed}
    services = [
        service
        for service in store.list_feature_services()
        if {one.name for one in service.feature_view_projections} <= there
    ]
    entities = [one for one in store.list_entities() if one.name != DUMMY_ENTITY_NAME]
    mirrored = [_over_files(view, data / view.name) for view in views]
    with quiet():
        local.apply([*entities, *mirrored, *computed, *services])
    fresh.replace(registry)
    text = _HEADER + yaml.safe_dump(config, sort_keys=False)
    (folder / "feature_store.yaml").write_text(text, encoding="utf-8")


def _over_files(view: FeatureView, folder: Path) -> FeatureView:
    source, mirrored = view.batch_source, copy.copy(view)
    mirrored.batch_source = FileSource(
        name=source.name,
        # As it is passed to DuckDB, which would look for another from the working folder.
        path=str(folder.resolve() / "**" / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        field_mapping=source.field_mapping,
    )
    mirrored.materialization_intervals = []
    return mirrored


def _silent(*_: Any) -> None:
    """Nobody watches."""
