"""What a report holds: plain values, checked for shape when they are put together.

Wherever a number is absent, None or NaN says so; it becomes a gap in a chart and a dash in a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise

from hyperfeast.errors import DataError

Numbers = Sequence[float | None]


def _check_lengths(what: str, **columns: Sequence[object]) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(
            f"{what} needs columns of one length; found {found}: take them all from one table"
        )


def _check_ascending(what: str, dates: Sequence[date]) -> None:
    for earlier, later in pairwise(dates):
        if earlier >= later:
            raise DataError(
                f"{what} needs dates in ascending order, each once; found {earlier} before {later}: "
                "sort the rows by date and drop duplicates"
            )


def check_zoned(what: str, moment: datetime) -> None:
    """Refuse a moment without a zone.

    Raises:
        DataError: it has none.
    """
    if moment.utcoffset() is None:
        raise DataError(
            f"{what} needs a time with a zone; found {moment.isoformat()}: attach one, such as UTC"
        )


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """How one model, or one baseline, did out of sample.

    Attributes:
        name: what was scored, in words.
        accuracy: share of right answers, 0 to 1.
        auc: area under the ROC curve, 0 to 1; None where the answers have no ranking.
        log_loss: mean negative log likelihood in nats, 0 or more; None without probabilities.
        brier: mean squared error of the probability, 0 to 1; None without probabilities.
    """

    name: str
    accuracy: float
    auc: float | None
    log_loss: float | None
    brier: float | None


@dataclass(frozen=True, slots=True)
class EquityCurve:
    """What 1 became, out of sample, session by session.

    Attributes:
        dates: n sessions, ascending.
        signal: n values, the growth of 1 that follows the signal.
        buy_and_hold: n values, the growth of 1 that is bought and held.

    Raises:
        DataError: the columns differ in length, or the dates do not ascend.
    """

    dates: Sequence[date]
    signal: Numbers
    buy_and_hold: Numbers

    def __post_init__(self) -> None:
        _check_lengths(
            "An equity curve",
            dates=self.dates,
            signal=self.signal,
            buy_and_hold=self.buy_and_hold,
        )
        _check_ascending("An equity curve", self.dates)


@dataclass(frozen=True, slots=True)
class RocCurve:
    """The trade of false alarms for hits as the threshold moves.

    Attributes:
        false_positive_rate: n shares, 0 to 1, ascending.
        true_positive_rate: n shares, 0 to 1.
        auc: the area under the curve, 0 to 1; None where only one class was seen.

    Raises:
        DataError: the columns differ in length.
    """

    false_positive_rate: Sequence[float]
    true_positive_rate: Sequence[float]
    auc: float | None

    def __post_init__(self) -> None:
        _check_lengths(
            "A ROC curve",
            false_positive_rate=self.false_positive_rate,
            true_positive_rate=self.true_positive_rate,
        )


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One answer that the model gave.

    Attributes:
        symbol: the instrument.
        label: what the answer says, such as BUY, HOLD or SELL.
        proba: the model's probability of a rise over its horizon, 0 to 1.
        event_timestamp: zoned; the moment from which the features it rests on were knowable.
        stale: whether those features were older than their feature set allows.

    Raises:
        DataError: the timestamp has no zone.
    """

    symbol: str
    label: str
    proba: float
    event_timestamp: datetime
    stale: bool

    def __post_init__(self) -> None:
        check_zoned(f"The prediction for {self.symbol}", self.event_timestamp)


@dataclass(frozen=True, slots=True)
class ZScoreSeries:
    """A person's glucose, day by day, against a trailing baseline of 30 days.

    Days without a reading may be left out, or be None: both are gaps.

    Attributes:
        dates: n calendar days, ascending.
        day_mean: n values in `unit`, the mean of the day's readings.
        mean_30d: n values in `unit`, the trailing mean.
        std_30d: n values in `unit`, the trailing standard deviation.
        z_score: n values in standard deviations, the day's distance from the trailing mean.
        unit: the unit of the readings.

    Raises:
        DataError: the columns differ in length, or the dates do not ascend.
    """

    dates: Sequence[date]
    day_mean: Numbers
    mean_30d: Numbers
    std_30d: Numbers
    z_score: Numbers
    unit: str = "mg/dL"

    def __post_init__(self) -> None:
        _check_lengths(
            "A z-score series",
            dates=self.dates,
            day_mean=self.day_mean,
            mean_30d=self.mean_30d,
            std_30d=self.std_30d,
            z_score=self.z_score,
        )
        _check_ascending("A z-score series", self.dates)


@dataclass(frozen=True, slots=True)
class DemoReport:
    """Everything that the report shows. All text is taken as text, never as HTML.

    Attributes:
        title: the headline.
        created_at: zoned; when the report was made. Shown in UTC.
        summary: (what, value) pairs for the strip at the top, such as ("Candles", "12,154").
        scores: the model first, its baselines after it.
        equity: the signal against buying and holding.
        roc: the model's ROC curve.
        importance: (feature, gain) pairs in any order; XGBoost's `gain`, the mean fall in loss per
            split, 0 or more.
        predictions: the last answers, one a symbol.
        glucose: the personal baseline.
        notes: what a careful reader should know, one sentence or two each.
        glucose_scores: of a model of the next day's glucose: the model first, its baselines after it.

    Raises:
        DataError: `created_at` has no zone.
    """

    title: str
    created_at: datetime
    summary: Sequence[tuple[str, str]]
    scores: Sequence[ScoreRow]
    equity: EquityCurve
    roc: RocCurve
    importance: Sequence[tuple[str, float]]
    predictions: Sequence[PredictionRow]
    glucose: ZScoreSeries
    notes: Sequence[str]
    glucose_scores: Sequence[ScoreRow] = ()

    def __post_init__(self) -> None:
        check_zoned("A report", self.created_at)
