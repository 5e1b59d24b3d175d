"""Personal baselines: what is usual for one user, so that a reading can be held against it.

`baseline` says what a baseline is; `extraction` makes it from readings, `deviations` holds days against
it, `windows` keeps the current windows of all users. `repository` is the interface that keeps
baselines, `files`, `timescale` and `dual` are what implements it, `migration` moves from one to another.
"""

from hyperfeast.baselines.baseline import (
    Baseline,
    DayMean,
    MetricBaseline,
    SavedBaseline,
    Segment,
    Spread,
)
from hyperfeast.baselines.deviations import Deviation, MetricDeviations, compare, deviations
from hyperfeast.baselines.dual import DualBaselineRepository
from hyperfeast.baselines.extraction import BaselineExtractor, extract
from hyperfeast.baselines.files import FileBaselineRepository, Unreadable
from hyperfeast.baselines.migration import (
    Disagreement,
    Migrated,
    migrate_baselines,
    verify_baselines,
)
from hyperfeast.baselines.readings import last_day
from hyperfeast.baselines.repository import BaselineRepository, checked_user
from hyperfeast.baselines.timescale import TimescaleBaselineRepository
from hyperfeast.baselines.windows import WindowRefresh, refresh_windows

__all__ = [
    "Baseline",
    "BaselineExtractor",
    "BaselineRepository",
    "DayMean",
    "Deviation",
    "Disagreement",
    "DualBaselineRepository",
    "FileBaselineRepository",
    "MetricBaseline",
    "MetricDeviations",
    "Migrated",
    "SavedBaseline",
    "Segment",
    "Spread",
    "TimescaleBaselineRepository",
    "Unreadable",
    "WindowRefresh",
    "checked_user",
    "compare",
    "deviations",
    "extract",
    "last_day",
    "migrate_baselines",
    "refresh_windows",
    "verify_baselines",
]
