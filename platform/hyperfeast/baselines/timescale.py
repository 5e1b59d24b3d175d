"""Baselines in the database: any number of users and writers at once, and a log of who saved what when."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from hyperfeast.baselines.baseline import Baseline, SavedBaseline, read_document
from hyperfeast.baselines.repository import (
    CLOCK_TOLERANCE,
    KEPT,
    check_clock,
    checked_limit,
    checked_moment,
    checked_user,
)
from hyperfeast.db import Database
from hyperfeast.sqlfiles import query

_FILE = "baselines"


class TimescaleBaselineRepository:
    """A `BaselineRepository` in the table `baseline_history`; what is saved and deleted is in `audit_log`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"TimescaleBaselineRepository({self._database.address})"

    def save(self, user_id: UUID, baseline: Baseline) -> SavedBaseline:
        """See `BaselineRepository`. The time is the database's, and always after the newest one there."""
        user_id = checked_user(user_id)
        with self._database.connect() as connection:
            connection.execute(query(_FILE, "lock_user"), {"user_id": user_id})
            row = connection.execute(
                query(_FILE, "save"),
                {
                    "user_id": user_id,
                    "baseline": _document(baseline),
                    "as_of": baseline.as_of,
                    "metrics": sorted(baseline.metrics),
                    "kept_before": KEPT - 1,
                    "tolerance": CLOCK_TOLERANCE,
                },
            ).fetchone()
            assert row is not None  # noqa: S101 - the statement always answers
            check_clock("the baseline", baseline.as_of, row["now"])
            if row["newest"] is not None:
                check_clock(f"the newest baseline of {user_id}", row["newest"], row["now"])
        return SavedBaseline(created_at=row["created_at"], baseline=baseline)

    def latest(self, user_id: UUID) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        return next(iter(self.history(user_id, 1)), None)

    def history(self, user_id: UUID, limit: int = KEPT) -> list[SavedBaseline]:
        """See `BaselineRepository`."""
        return self._newest(checked_user(user_id), None, checked_limit(limit))

    def as_known(self, user_id: UUID, at: datetime) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        return next(iter(self._newest(checked_user(user_id), checked_moment(at), 1)), None)

    def delete(self, user_id: UUID) -> int:
        """See `BaselineRepository`. The log keeps that there were some, and how many."""
        user_id = checked_user(user_id)
        with self._database.connect() as connection:
            connection.execute(query(_FILE, "lock_user"), {"user_id": user_id})
            row = connection.execute(query(_FILE, "delete"), {"user_id": user_id}).fetchone()
        return int(row["gone"]) if row else 0

    def keep(self, user_id: UUID, saved: Sequence[SavedBaseline]) -> int:
        """See `BaselineRepository`."""
        user_id = checked_user(user_id)
        if not saved:
            return 0
        with self._database.connect() as connection:
            connection.execute(query(_FILE, "lock_user"), {"user_id": user_id})
            row = connection.execute(
                query(_FILE, "keep"),
                {
                    "user_id": user_id,
                    "moments": [one.created_at for one in saved],
                    "baselines": [_document(one.baseline) for one in saved],
                    "kept": KEPT,
                },
            ).fetchone()
        return int(row["added"]) if row else 0

    def users(self) -> Iterator[UUID]:
        """See `BaselineRepository`."""
        return iter([row["user_id"] for row in self._database.fetch(query(_FILE, "users"))])

    def _newest(self, user_id: UUID, at: datetime | None, limit: int) -> list[SavedBaseline]:
        rows = self._database.fetch(
            query(_FILE, "history"), {"user_id": user_id, "at": at, "limit": limit}
        )
        return [_saved(row) for row in rows]


def _document(baseline: Baseline) -> Jsonb:
    return Jsonb(baseline, dumps=Baseline.to_json)


def _saved(row: dict[str, Any]) -> SavedBaseline:
    where = f"the baseline of {row['user_id']} saved at {row['created_at'].isoformat()}"
    return SavedBaseline(
        created_at=row["created_at"], baseline=read_document(row["baseline"], where=where)
    )
