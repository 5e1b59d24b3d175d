"""Where baselines are kept: one interface, so that a file and a database answer alike."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID

from hyperfeast.baselines.baseline import Baseline, SavedBaseline
from hyperfeast.errors import DataError, UsageError

KEPT = 10
"""How many baselines of a user are kept: the newest."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two machines' clocks may differ."""


class BaselineRepository(Protocol):
    """Keeps the last ten baselines of every user, in the order in which they were saved.

    Any number of threads and processes may call it at once. All of it raises UsageError for a user id that
    is no UUID, a moment without a zone or a limit below 1, and DataError or SchemaError for what cannot be
    read: it is left as it is.
    """

    def save(self, user_id: UUID, baseline: Baseline) -> SavedBaseline:
        """Add a baseline; when this returns it is on the disk. The eleventh newest goes.

        Raises:
            DataError: the baseline, or the newest one there, lies in the future of the clock.
        """

    def latest(self, user_id: UUID) -> SavedBaseline | None:
        """The newest; None if there is none."""

    def history(self, user_id: UUID, limit: int = KEPT) -> list[SavedBaseline]:
        """The newest ones, the newest first."""

    def as_known(self, user_id: UUID, at: datetime) -> SavedBaseline | None:
        """The one that was the newest at a moment (zoned); None if there was none, or it is kept no more."""

    def delete(self, user_id: UUID) -> int:
        """Forget a user; how many baselines went."""

    def keep(self, user_id: UUID, saved: Sequence[SavedBaseline]) -> int:
        """Take over baselines as another repository saved them; of all, the newest ten stay.

        Again has no further effect: one with the same time of saving is there already.

        Returns:
            How many were new, and stay.
        """

    def users(self) -> Iterator[UUID]:
        """All users with baselines, in the order of their ids."""


def checked_user(user_id: object) -> UUID:
    """A user's id, from a UUID or its text.

    Raises:
        UsageError: it is neither.
    """
    try:
        return user_id if isinstance(user_id, UUID) else UUID(str(user_id))
    except ValueError:
        raise UsageError(
            f"{str(user_id)[:60]!r} is no user: expected a UUID such as 123e4567-e89b-12d3-a456-426614174000"
        ) from None


def checked_moment(moment: datetime) -> datetime:
    """A moment in UTC.

    Raises:
        UsageError: it has no zone.
    """
    if moment.utcoffset() is None:
        raise UsageError(
            f"expected a moment with a zone, found {moment.isoformat()}: attach one, such as UTC"
        )
    return moment.astimezone(UTC)


def checked_limit(limit: int) -> int:
    """How many at most.

    Raises:
        UsageError: fewer than one.
    """
    if limit < 1:
        raise UsageError(f"expected a limit of at least 1, found {limit}")
    return limit


def check_clock(what: str, moment: datetime, now: datetime) -> None:
    """Refuse what lies in the future: everything saved after it would seem older.

    Raises:
        DataError: it does.
    """
    if moment > now + CLOCK_TOLERANCE:
        raise DataError(
            f"{what} is of {moment:%Y-%m-%d %H:%M} UTC, which the clock ({now:%Y-%m-%d %H:%M} UTC) has not "
            "reached: nothing was saved; set the clock, or delete what was saved with a wrong one"
        )
