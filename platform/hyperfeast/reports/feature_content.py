"""What the report of feature sets holds: plain values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from hyperfeast.reports.content import check_zoned


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature over the rows that have their history.

    Attributes:
        name: the feature.
        description: what it is, and its unit.
        rows: how many rows were looked at.
        nulls: how many lack a value.
        null_limit: the share that may.
        violations: how many values are out of bounds.
        bounds: the bounds in words; empty for none.
        mean: as the others None where there is no value.
        std: the sample deviation.
        quantiles: the 5th, 50th and 95th percentile; empty without values.
        counts: values in bins of one width from the 1st to the 99th percentile.
    """

    name: str
    description: str
    rows: int
    nulls: int
    null_limit: float
    violations: int
    bounds: str
    mean: float | None
    std: float | None
    quantiles: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NullCell:
    """How many rows of a month there are, and how many of them lack a feature."""

    feature: str
    month: date
    rows: int
    nulls: int


@dataclass(frozen=True, slots=True)
class StaleRow:
    """An entity's newest row, how many days it is behind the set's newest, and what to think of that.

    Attributes:
        entity: whose.
        newest: zoned.
        behind_days: 0 or more.
        stale: whether that is more than a row may be old.
        ended: whether nothing newer is to come.
    """

    entity: str
    newest: datetime
    behind_days: float
    stale: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class LabelRow:
    """How a feature's ranks go with those of what a model foresees: -1 to 1, None where one does not vary."""

    model: str
    horizon: int
    feature: str
    correlation: float | None
    suspect: bool


@dataclass(frozen=True, slots=True)
class SetReport:
    """One feature set.

    Attributes:
        name: with its version.
        command: what its commands call it.
        description: one sentence; may be empty.
        rows: in its table.
        seen: how many were looked at.
        freshness_days: how old a row may be.
        features: in declared order.
        months: nulls by month.
        stale: every entity, the stalest first.
        correlated: k names.
        correlations: k rows of k rank correlations; None or NaN where there is none.
        pairs: (feature, feature, correlation) of those that are as good as one, the strongest first.
        labels: one a model and feature.
        leakage: from which correlation with a label on a feature is suspect.
        correlated_from: from which correlation on two features are as good as one.
    """

    name: str
    command: str
    description: str
    rows: int
    seen: int
    freshness_days: float
    features: Sequence[FeatureRow]
    months: Sequence[NullCell]
    stale: Sequence[StaleRow]
    correlated: Sequence[str]
    correlations: Sequence[Sequence[float | None]]
    pairs: Sequence[tuple[str, str, float]]
    labels: Sequence[LabelRow]
    leakage: float
    correlated_from: float


@dataclass(frozen=True, slots=True)
class ImportanceRow:
    """How much a feature matters to one version of a model, by one method; rank 1 is the most."""

    version: int
    method: str
    feature: str
    importance: float
    rank: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """A declared model. `rows` are of all its versions; none before it was trained."""

    name: str
    rows: Sequence[ImportanceRow] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """Everything that the report shows. All text is taken as text, never as HTML.

    Attributes:
        created_at: zoned; when the report was made. Shown in UTC.
        sets: in the order of their names.
        models: the declared ones.

    Raises:
        DataError: `created_at` has no zone.
    """

    created_at: datetime
    sets: Sequence[SetReport]
    models: Sequence[ModelReport]

    def __post_init__(self) -> None:
        check_zoned("a report of feature sets", self.created_at)
