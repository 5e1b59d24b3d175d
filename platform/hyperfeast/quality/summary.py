"""Everything that is known of the data's quality, in one look."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.quality.completeness import (
    Completeness,
    MonthlyCompleteness,
    completeness,
    metric_completeness,
    monthly_completeness,
)
from hyperfeast.quality.results import LatestResult, PassRate, latest, pass_rates
from hyperfeast.sqlfiles import query

Progress = Callable[[int, int], None]

STRIPS, STRIP_MONTHS = 40, 36
"""How many series have a strip of months, and of how many months: the least complete, the newest."""

_TREND_DAYS = 90
_NEWEST_OUTLIERS = 50


@dataclass(frozen=True)
class Outlier:
    """A flag that stands. `observed` holds the close and the log return."""

    relation: str
    key: str
    tf: str
    ts: datetime
    method: str
    score: float
    observed: Mapping[str, Any]


@dataclass(frozen=True)
class QuarantineCount:
    """How many rows of a table's were refused by a rule, and when last (UTC)."""

    target: str
    rule: str
    rows: int
    newest: datetime


@dataclass(frozen=True)
class QualitySummary:
    """What `hyperfeast quality report` shows.

    Attributes:
        created_at: UTC.
        results: the newest of every check and scope, the failed ones first.
        pass_rates: by UTC day.
        completeness: by instrument and timeframe, then by user, metric and device.
        months: of the least complete instruments, the newest months.
        outliers: the newest flags.
        outlier_counts: method -> flags that stand.
        quarantine: refused rows by table and rule.
    """

    created_at: datetime
    results: list[LatestResult]
    pass_rates: list[PassRate]
    completeness: list[Completeness]
    months: list[MonthlyCompleteness]
    outliers: list[Outlier]
    outlier_counts: dict[str, int]
    quarantine: list[QuarantineCount]


def summary(database: Database, *, progress: Progress | None = None) -> QualitySummary:
    """Read the newest results, and compute what is missing now.

    Args:
        database: where the data are.
        progress: told (series done, series in all) while completeness is computed.

    Raises:
        UsageError: an instrument's calendar does not exist.
    """
    series = completeness(database, progress=progress)
    worst = sorted(series, key=lambda one: (one.share, one.key))[:STRIPS]
    counts = database.fetch(query("quality", "outlier_counts"))
    return QualitySummary(
        created_at=clock.now(),
        results=latest(database),
        pass_rates=pass_rates(database, days=_TREND_DAYS),
        completeness=[*series, *metric_completeness(database)],
        months=_newest_months(
            monthly_completeness(database, [(one.key, one.tf or "") for one in worst])
        ),
        outliers=[
            Outlier(**row)
            for row in database.fetch(
                query("quality", "newest_outliers"), {"limit": _NEWEST_OUTLIERS}
            )
        ],
        outlier_counts={row["method"]: row["flags"] for row in counts},
        quarantine=[
            QuarantineCount(**row) for row in database.fetch(query("quality", "quarantine_counts"))
        ],
    )


def _newest_months(months: list[MonthlyCompleteness]) -> list[MonthlyCompleteness]:
    """Those of the last months that any series has."""
    shown = set(sorted({one.month for one in months})[-STRIP_MONTHS:])
    return [one for one in months if one.month in shown]
