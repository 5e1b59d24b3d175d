"""From files into another repository: safe to stop, to repeat, and to run while both are written to."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from hyperfeast.baselines.files import FileBaselineRepository, Unreadable
from hyperfeast.baselines.repository import KEPT, BaselineRepository
from hyperfeast.errors import DataError, SchemaError, UsageError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Migrated:
    """What a migration did, or would do.

    Attributes:
        users: whose files were read.
        baselines: in them.
        added: baselines that the target did not have.
        unreadable: what could not be read: left alone, and not migrated.
    """

    users: int
    baselines: int
    added: int
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class Disagreement:
    """A user for whom two repositories answer differently, and to which question."""

    user_id: UUID
    question: str


def migrate_baselines(
    source: FileBaselineRepository,
    target: BaselineRepository,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Migrated:
    """Copy every user's baselines, each with its time of saving; nothing changes in the source.

    A user is whole or absent. One that is there already adds nothing: the same call goes on after a kill.

    Args:
        source: the files.
        target: where to.
        dry_run: count what would be added, and write nothing.
        progress: told (users done, users in all).

    Raises:
        UsageError: the source's folder is not there.
    """
    _check_folder(source)
    unreadable = source.unreadable()
    wrong = {one.path for one in unreadable}
    users = list(source.users())
    read = baselines = added = 0
    for position, user_id in enumerate(users):
        if progress:
            progress(position, len(users))
        if source.place(user_id) in wrong:
            continue
        saved = source.history(user_id)
        read += 1
        baselines += len(saved)
        if dry_run:
            there = {one.created_at for one in target.history(user_id)}
            newest = sorted({one.created_at for one in saved} | there)[-KEPT:]
            added += sum(moment not in there for moment in newest)
        else:
            added += target.keep(user_id, saved)
    if progress:
        progress(len(users), len(users))
    return Migrated(read, baselines, added, unreadable)


def verify_baselines(
    source: FileBaselineRepository,
    target: BaselineRepository,
    *,
    progress: Progress | None = None,
) -> list[Disagreement]:
    """Ask both the same for every user of the files: history, latest, and as known when each was saved."""
    _check_folder(source)
    users = list(source.users())
    found = []
    for position, user_id in enumerate(users):
        if progress:
            progress(position, len(users))
        found += [
            Disagreement(user_id, question) for question in _differing(source, target, user_id)
        ]
    if progress:
        progress(len(users), len(users))
    return found


def _differing(
    source: FileBaselineRepository, target: BaselineRepository, user_id: UUID
) -> Iterable[str]:
    try:
        history = source.history(user_id)
    except (DataError, SchemaError):
        return
    if history != target.history(user_id):
        yield "history"
    if source.latest(user_id) != target.latest(user_id):
        yield "latest"
    for one in history:
        if target.as_known(user_id, one.created_at) != one:
            yield f"as known at {one.created_at.isoformat()}"


def _check_folder(source: FileBaselineRepository) -> None:
    if not source.folder.is_dir():
        raise UsageError(
            f"expected a folder of baselines, found none at {source.folder}: name the one that holds "
            "<user>/baseline_history.json"
        )
