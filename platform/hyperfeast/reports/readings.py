"""What each chart and table says, in one plain sentence computed from the data.

A sentence states what was measured and what it is held against, and praises nothing.
"""

import statistics
from collections.abc import Sequence
from datetime import date

from hyperfeast.reports.content import (
    EquityCurve,
    PredictionRow,
    RocCurve,
    ScoreRow,
    ZScoreSeries,
)
from hyperfeast.reports.series import is_number, numbers

FLAGGED_BEYOND = 2.0
"""A day is flagged when its z-score is further than this from 0."""

_LEVEL_POINTS = 0.05
"""Differences in accuracy below this, in percentage points, vanish in the printed digits."""


def day_text(day: date) -> str:
    """A date as 3 Jan 2010."""
    return f"{day.day} {day:%b %Y}"


def number_text(value: float | None, digits: int) -> str:
    """A number with so many decimals and a true minus sign; an en dash for none."""
    if not is_number(value):
        return "\N{EN DASH}"
    text = f"{value:,.{digits}f}"
    return (
        text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else f"{0:.{digits}f}"
    )


def percent_text(share: float | None) -> str:
    """A share of 1 as a percentage with one decimal; an en dash for none."""
    return f"{number_text(share * 100, 1)}%" if is_number(share) else number_text(None, 1)


def count_text(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun in the right number."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def read_scores(scores: Sequence[ScoreRow]) -> str:
    """The model's accuracy beside the best baseline's."""
    if not scores:
        return "Nothing was scored."
    model, *baselines = scores
    own = f"{model.name} was right {percent_text(model.accuracy)} of the time out of sample"
    if not baselines:
        return f"{own}; there is no baseline to hold that against."
    best = max(baselines, key=lambda row: row.accuracy)
    points = (model.accuracy - best.accuracy) * 100
    if abs(points) < _LEVEL_POINTS:
        verdict = "the two are level"
    elif points > 0:
        verdict = f"the model is {number_text(points, 1)} points ahead"
    else:
        verdict = f"the model is {number_text(-points, 1)} points behind"
    return (
        f"{own}, the best baseline ({best.name}) {percent_text(best.accuracy)}: "
        f"by accuracy {verdict}."
    )


def _growth(final: float) -> str:
    text = number_text(final, 2)
    if text == "1.00":
        return "left 1 at 1.00"
    return f"{'grew' if final > 1 else 'shrank'} 1 to {text}"


def read_equity(equity: EquityCurve) -> str:
    """What 1 became by the signal, and by buying and holding."""
    signal, held = numbers(equity.signal), numbers(equity.buy_and_hold)
    if not signal or not held:
        return "There is no out-of-sample return to show."
    span = f"{day_text(equity.dates[0])} to {day_text(equity.dates[-1])}"
    return (
        f"Out of sample, {span}, the signal {_growth(signal[-1])}; "
        f"buying and holding {_growth(held[-1])}."
    )


def read_roc(roc: RocCurve) -> str:
    """What the area under the curve means, as a frequency."""
    if not is_number(roc.auc):
        return "Only one outcome was seen out of sample, so there is no area to measure."
    return (
        f"The area under the curve is {number_text(roc.auc, 3)}: of a rise and a fall picked at "
        f"random, the model ranks the rise higher {percent_text(roc.auc)} of the time; "
        "a coin toss would, 50%."
    )


def read_importance(importance: Sequence[tuple[str, float]]) -> str:
    """The feature with the most gain, against the median feature."""
    if not importance:
        return "The model made no split, so no feature has a gain."
    name, gain = max(importance, key=lambda pair: pair[1])
    if len(importance) == 1:
        return f"{name} is the only feature that the model splits on (gain {number_text(gain, 2)})."
    median = statistics.median(pair[1] for pair in importance)
    return (
        f"Of {len(importance)} features, splits on {name} gained most ({number_text(gain, 2)}; "
        f"the median is {number_text(median, 2)}); gain tells what the trees used, not what moves "
        "the market."
    )


def flagged(z_score: float | None) -> bool:
    """Whether a day's z-score is out of the ordinary."""
    return is_number(z_score) and abs(z_score) > FLAGGED_BEYOND


def read_glucose(glucose: ZScoreSeries) -> str:
    """How many days were flagged, which most, and how many are missing."""
    measured = len(numbers(glucose.day_mean))
    scored = [
        (day, z) for day, z in zip(glucose.dates, glucose.z_score, strict=True) if is_number(z)
    ]
    if not measured or not scored:
        return "There are too few days to hold against a baseline."
    missing = (glucose.dates[-1] - glucose.dates[0]).days + 1 - measured
    absent = f"; {count_text(missing, 'day has', 'days have')} no reading" if missing > 0 else ""
    beyond = sum(flagged(z) for _, z in scored)
    if not beyond:
        return (
            f"None of {count_text(len(scored), 'day')} with a baseline lies more than 2 standard "
            f"deviations from its 30-day mean{absent}."
        )
    day, farthest = max(scored, key=lambda pair: abs(pair[1]))
    return (
        f"Of {count_text(len(scored), 'day')} with a baseline, {beyond} "
        f"{'lies' if beyond == 1 else 'lie'} more than 2 standard deviations from the 30-day mean, "
        f"{day_text(day)} the farthest (z = {number_text(farthest, 1)}){absent}."
    )


def read_predictions(predictions: Sequence[PredictionRow]) -> str:
    """Whether the answers rest on fresh features."""
    if not predictions:
        return "No prediction was made."
    stale = sum(row.stale for row in predictions)
    if not stale:
        return "Every prediction rests on features that were fresh when it was made."
    return (
        f"{stale} of {count_text(len(predictions), 'prediction')} "
        f"{'rests' if stale == 1 else 'rest'} on features older than their feature set allows: "
        "read them as history, not as advice."
    )
