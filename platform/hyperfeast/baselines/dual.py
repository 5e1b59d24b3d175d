"""Both repositories at once, while users move from one to the other."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from hyperfeast.baselines.baseline import Baseline, SavedBaseline
from hyperfeast.baselines.repository import KEPT, BaselineRepository


class DualBaselineRepository:
    """A `BaselineRepository` that answers from one and writes to both.

    The copy is brought up to the whole history of the user with every save: one that a failure left
    behind catches up by itself, and a user who was not migrated yet is.

    Args:
        first: what answers; a baseline counts as saved once it is in there.
        second: the copy. If it fails the caller hears of it.
    """

    def __init__(self, first: BaselineRepository, second: BaselineRepository) -> None:
        self.first = first
        self.second = second

    def __repr__(self) -> str:
        return f"DualBaselineRepository({self.first}, {self.second})"

    def save(self, user_id: UUID, baseline: Baseline) -> SavedBaseline:
        """See `BaselineRepository`."""
        saved = self.first.save(user_id, baseline)
        self.second.keep(user_id, self.first.history(user_id, KEPT))
        return saved

    def latest(self, user_id: UUID) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        return self.first.latest(user_id)

    def history(self, user_id: UUID, limit: int = KEPT) -> list[SavedBaseline]:
        """See `BaselineRepository`."""
        return self.first.history(user_id, limit)

    def as_known(self, user_id: UUID, at: datetime) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        return self.first.as_known(user_id, at)

    def delete(self, user_id: UUID) -> int:
        """See `BaselineRepository`. The copy goes first: a failure leaves what can be deleted again."""
        self.second.delete(user_id)
        return self.first.delete(user_id)

    def keep(self, user_id: UUID, saved: Sequence[SavedBaseline]) -> int:
        """See `BaselineRepository`."""
        new = self.first.keep(user_id, saved)
        self.second.keep(user_id, self.first.history(user_id, KEPT))
        return new

    def users(self) -> Iterator[UUID]:
        """See `BaselineRepository`."""
        return self.first.users()
