"""A partition of the work: some symbols, or users, of one version of a feature set, by name.

A job carries names, not code: whoever does it reads the rules from the feature repository. The same
function does a partition in this process, in a worker's, or on Ray.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features import Bars, FeatureSet
from hyperfeast.features.computation import Computation
from hyperfeast.features.compute import refresh
from hyperfeast.features.definitions import recorded, refuse_changed
from hyperfeast.features.incremental import pending as pending_symbols
from hyperfeast.features.incremental import refresh_symbols
from hyperfeast.features.relation import follows_readings, refresh_users
from hyperfeast.features.relation import pending as pending_users
from hyperfeast.features.repo import FeatureRepo
from hyperfeast.jobs.task import Progress
from hyperfeast.sqlfiles import query

KEYS_A_JOB = 32
_SHOWN = 5


@dataclass(frozen=True)
class Partition:
    """What one job computes.

    Attributes:
        feature_set: the set's name.
        version: its version.
        keys: whose rows: symbols of a set over bars, users' ids of one over readings. None for all that
            the set has.
        full: whether to compute all rows, or only those whose source has changed.
    """

    feature_set: str
    version: int
    keys: tuple[str, ...] | None = None
    full: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "Partition":
        """What `arguments` gave."""
        keys = arguments["keys"]
        return cls(**{**arguments, "keys": None if keys is None else tuple(keys)})

    @property
    def size(self) -> int:
        """How many keys; 1 for all at once."""
        return 1 if self.keys is None else len(self.keys)

    def arguments(self) -> dict[str, Any]:
        """As a job carries it, which JSON can hold."""
        return asdict(self)

    def declared(self, repo: FeatureRepo) -> FeatureSet:
        """The set as it is declared.

        Raises:
            FeatureError: this version is not declared any more, or not here.
        """
        try:
            return repo.feature_set(f"{self.feature_set}_v{self.version}")
        except UsageError as error:
            raise FeatureError(
                f"{error}. Give this worker the feature repository that the job was asked for with, and start it "
                "again; or cancel the job"
            ) from None


@dataclass(frozen=True)
class Site:
    """Where the work is done: all that another process needs to know.

    Attributes:
        dsn: of the database.
        repo: the folder of the feature repository; the same on every machine.
    """

    dsn: str = field(repr=False)
    repo: Path


def partitions(
    database: Database,
    feature_set: FeatureSet,
    keys: Sequence[str] | None = None,
    *,
    full: bool = False,
    size: int = KEYS_A_JOB,
) -> list[Partition]:
    """What there is to do of a set, in partitions.

    Args:
        database: where its source is.
        feature_set: what to compute.
        keys: of these symbols, or users, alone.
        full: all rows, or only those whose source has changed.
        size: how many keys a partition has at most.

    Returns:
        None if nothing has changed. One if the set cannot be cut: it compares symbols, and a bar of one
        changes rows of all; or it is over a relation that is computed as a whole.

    Raises:
        UsageError: a key that is not known, or keys of a set that cannot be cut.
    """
    cannot_be_cut = _cannot_be_cut(feature_set)
    if cannot_be_cut and keys is not None:
        raise UsageError(f"{feature_set} {cannot_be_cut}: leave the symbols or users out")
    if cannot_be_cut:
        return [Partition(feature_set.name, feature_set.version, None, full)]
    asked = _known(database, feature_set, keys) if full or keys is not None else None
    if not full:
        waiting = _pending(database, feature_set)
        asked = waiting if asked is None else [key for key in asked if key in set(waiting)]
    cut = asked or []
    return [
        Partition(feature_set.name, feature_set.version, tuple(cut[start : start + size]), full)
        for start in range(0, len(cut), size)
    ]


def compute(
    database: Database, feature_set: FeatureSet, partition: Partition, progress: Progress
) -> Computation:
    """Do a partition. Each chunk of it is stored whole or not at all.

    Args:
        database: where the source and the set's table are.
        feature_set: as it is declared.
        partition: of this set.
        progress: told (keys done, keys in all) before, between and after the chunks.

    Raises:
        FeatureError: a rule was changed under its version.
    """
    progress(0, partition.size)
    refuse_changed(recorded(database), [feature_set])
    keys, full = partition.keys, partition.full
    if isinstance(feature_set.source, Bars):
        done = refresh_symbols(database, feature_set, keys, full=full, progress=progress)
    elif follows_readings(feature_set):
        found = refresh_users(database, feature_set, keys, full=full, progress=progress)
        done = Computation(feature_set.name, found.rows, found.rows, found.newest)
    else:
        done = refresh(database, feature_set)
    progress(partition.size, partition.size)
    return done


def compute_at(site: Site, partition: Partition, progress: Progress | None = None) -> Computation:
    """Do a partition in a process that knows nothing yet."""
    feature_set = partition.declared(_repo(site.repo))
    return compute(_database(site.dsn), feature_set, partition, progress or _unheard)


def _cannot_be_cut(feature_set: FeatureSet) -> str | None:
    """Why a set has one partition; None if it has many."""
    if isinstance(feature_set.source, Bars):
        return "compares symbols with each other" if feature_set.compares_symbols else None
    return None if follows_readings(feature_set) else "is computed as a whole, by its query"


def _pending(database: Database, feature_set: FeatureSet) -> list[str]:
    of = pending_symbols if isinstance(feature_set.source, Bars) else pending_users
    return sorted(of(database, feature_set))


def _known(database: Database, feature_set: FeatureSet, keys: Sequence[str] | None) -> list[str]:
    """These keys, or all that there are.

    Raises:
        UsageError: one of them is not known.
    """
    of_users = not isinstance(feature_set.source, Bars)
    wanted = None if keys is None else list(dict.fromkeys(keys))
    asked = wanted if wanted is None or not of_users else list(filter(_is_uuid, wanted))
    name = "known_users" if of_users else "known_symbols"
    known = [row["key"] for row in database.fetch(query("jobs", name), {"keys": asked})]
    if unknown := sorted(set(wanted or ()) - set(known)):
        shown = ", ".join(map(repr, unknown[:_SHOWN])) + (" ..." if len(unknown) > _SHOWN else "")
        what = "readings of user" if of_users else "symbol"
        raise UsageError(
            f"{database.address} has no {what} {shown}: take in what there is of it first, or leave it out"
        )
    return known


def _is_uuid(key: str) -> bool:
    try:
        return str(UUID(key)) == key
    except ValueError:
        return False


def _unheard(done: int, total: int) -> None:
    """Nobody is told."""


@lru_cache(maxsize=1)
def _database(dsn: str) -> Database:
    return Database(dsn)


@lru_cache(maxsize=1)
def _repo(folder: Path) -> FeatureRepo:
    return FeatureRepo(folder)
