"""Partitions at once, without the queue: in this process, on processes of this machine, or on Ray."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from enum import StrEnum
from types import ModuleType

from hyperfeast.errors import HyperfeastError, ServerError
from hyperfeast.features.computation import Computation
from hyperfeast.jobs.partition import Partition, Site, compute_at
from hyperfeast.jobs.task import Progress
from hyperfeast.jobs.threads import shared_by
from hyperfeast.sources.extras import load


class Engine(StrEnum):
    """Where partitions are computed."""

    LOCAL = "local"
    PROCESSES = "processes"
    RAY = "ray"


def run(
    site: Site,
    partitions: Sequence[Partition],
    *,
    engine: Engine,
    workers: int,
    progress: Progress,
) -> list[Computation]:
    """Do partitions; the tables are the same whichever engine does them.

    Args:
        site: where the database and the feature repository are.
        partitions: what to compute.
        engine: where.
        workers: processes at a time; the local engine has one. A Ray cluster that runs already
            (RAY_ADDRESS) uses what it has.
        progress: told (keys done, keys in all).

    Returns:
        What each did, in the order in which they ended.

    Raises:
        HyperfeastError: the first that a partition raised; those that have not begun are not done.
        ServerError: a process died.
        UsageError: Ray is not installed.
    """
    total = sum(one.size for one in partitions)
    results: list[Computation] = []
    done = 0
    progress(done, total)
    for partition, computed in _ENGINES[engine](site, partitions, workers):
        results.append(computed)
        done += partition.size
        progress(done, total)
    return results


_Results = Iterator[tuple[Partition, Computation]]


def _here(site: Site, partitions: Sequence[Partition], workers: int) -> _Results:  # noqa: ARG001
    for partition in partitions:
        yield partition, compute_at(site, partition)


def _on_processes(site: Site, partitions: Sequence[Partition], workers: int) -> _Results:
    # A forked process would share this one's connections and threads.
    spawned = multiprocessing.get_context("spawn")
    with (
        shared_by(workers),
        ProcessPoolExecutor(max_workers=workers, mp_context=spawned) as pool,
    ):
        running = {pool.submit(compute_at, site, one): one for one in partitions}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise ServerError(
                "a worker process died, as one does that the system ends for want of memory: try fewer --workers. "
                "What is done stays; the same command does the rest"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _on_ray(site: Site, partitions: Sequence[Partition], workers: int) -> _Results:
    ray = load("ray", "ray")
    with _cluster(ray, workers):
        remote = ray.remote(compute_at).options(num_cpus=1, max_retries=3)
        running = {remote.remote(site, one): one for one in partitions}
        while running:
            (ready, *_), _ = ray.wait(list(running))
            try:
                yield running.pop(ready), ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, HyperfeastError):
                    raise error.cause from None
                raise
            except ray.exceptions.RayError as error:
                raise ServerError(
                    f"Ray gave a partition up: {str(error).splitlines()[0]}. What is done stays; the same command "
                    "does the rest"
                ) from error


@contextmanager
def _cluster(ray: ModuleType, workers: int) -> Iterator[None]:
    """The cluster that RAY_ADDRESS names, or one of this machine for as long as it is needed."""
    # Ray reports on its use to its makers unless it is told not to.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    size = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}
    with shared_by(workers):
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="WARNING", **size)
    try:
        yield
    finally:
        ray.shutdown()


_ENGINES = {Engine.LOCAL: _here, Engine.PROCESSES: _on_processes, Engine.RAY: _on_ray}
