"""The current window of every series, in the table `user_baseline_windows`.

Each night one statement a metric refreshes all users. A reading of today changes no window, since the
day itself is left out; a late one changes its user's, and the same statement bounded to that user
refreshes it at a cost that depends on neither the number of users nor the length of their history.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from hyperfeast import clock
from hyperfeast.baselines.baseline import WINDOW_DAYS
from hyperfeast.baselines.readings import midnight
from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.sqlfiles import query

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class WindowRefresh:
    """What refreshing the windows of one metric did.

    Attributes:
        metric: which.
        series: windows with readings: one a user and device.
        written: those that were new or changed.
        emptied: those whose last reading has left the 30 days: they are gone.
    """

    metric: str
    series: int
    written: int
    emptied: int


def refresh_windows(
    database: Database,
    *,
    day: date | None = None,
    metric: str | None = None,
    user_id: UUID | None = None,
    progress: Progress | None = None,
) -> list[WindowRefresh]:
    """Bring the windows up to date: the 30 UTC days before a day, from the daily sums.

    A window that is already up to a later day is left as it is.

    Args:
        database: which.
        day: that the windows are for; today if not given.
        metric: one of them; all if not given.
        user_id: one of them; all if not given.
        progress: told (metrics done, metrics in all).

    Raises:
        UsageError: the day is yet to come.
    """
    today = clock.now().date()
    as_of = midnight(day or today)
    if as_of > midnight(today):
        raise UsageError(f"{day} is yet to come: windows end with a day that has begun")
    span = {"since": as_of - timedelta(days=WINDOW_DAYS), "as_of": as_of, "user_id": user_id}
    names = [metric] if metric else _metrics(database, span)
    done = []
    for position, name in enumerate(names):
        if progress:
            progress(position, len(names))
        with database.connect() as connection:
            # Planned for what it is asked: one user by the index, or all of them at once.
            row = connection.execute(
                query("baselines", "refresh_windows"), {"metric": name, **span}, prepare=False
            ).fetchone()
        assert row is not None  # noqa: S101 - the statement always answers
        done.append(WindowRefresh(name, **row))
    if progress:
        progress(len(names), len(names))
    return done


def _metrics(database: Database, span: Mapping[str, object]) -> list[str]:
    rows = database.fetch(query("baselines", "window_metrics"), span)
    return [row["metric"] for row in rows]
