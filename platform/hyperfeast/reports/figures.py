"""The report's four charts, as Plotly figures in the light palette.

Titles, keys and readings are the page's; a figure holds its marks, its axes and what appears on
hovering. Text that comes from the data is escaped here too, since Plotly reads a little HTML.
"""

import html
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hyperfeast.reports.content import EquityCurve, Numbers, RocCurve, ZScoreSeries
from hyperfeast.reports.palette import LIGHT
from hyperfeast.reports.plots import DASHED, DOTTED, add_level, axis, empty_figure, line
from hyperfeast.reports.readings import FLAGGED_BEYOND, flagged
from hyperfeast.reports.series import finite, is_number, numbers, runs, with_gaps

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_FEATURES = 20
"""How many bars the importance chart shows."""

_LOG_AXIS_FROM = 3.0
"""Equity that spans more than this factor is drawn on a log axis, where equal growth looks equal."""

_LONGEST_CLOSURE = timedelta(days=10)
"""Markets shut for a week at the worst; a longer silence is a hole in the data."""

_GROWTH_TICKS = tuple(step * 10.0**power for power in range(-3, 6) for step in (1, 1.5, 2, 3, 5, 7))


def _growth_axis(values: Sequence[float]) -> dict[str, Any]:
    """A log axis with round ticks where growth spans factors; a linear one otherwise."""
    if not values or min(values) <= 0 or max(values) / min(values) < _LOG_AXIS_FROM:
        return axis("Growth of 1", hoverformat=".2f")
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = (high - low) * 0.05
    return axis(
        "Growth of 1 (log scale)",
        type="log",
        range=[low - margin, high + margin],
        tickvals=list(_GROWTH_TICKS),
        ticktext=[f"{tick:g}" for tick in _GROWTH_TICKS],
        hoverformat=".2f",
    )


def equity_figure(equity: EquityCurve) -> "Figure":
    """The growth of 1 by the signal, and by buying and holding."""
    dates, (signal, held) = with_gaps(
        equity.dates, [equity.signal, equity.buy_and_hold], longest=_LONGEST_CLOSURE
    )
    figure = empty_figure(
        hovermode="x unified",
        xaxis=axis("Session", type="date", showgrid=False, hoverformat="%-d %b %Y"),
        yaxis=_growth_axis(numbers(signal) + numbers(held)),
    )
    add_level(figure, 1, line(LIGHT.muted, 1))
    days = [day.isoformat() for day in dates]
    figure.add_scatter(
        x=days,
        y=held,
        name="Buy and hold",
        mode="lines",
        line=line(LIGHT.benchmark, 1.5, DASHED),
    )
    figure.add_scatter(x=days, y=signal, name="Signal", mode="lines", line=line(LIGHT.signal, 2))
    return figure


def roc_figure(roc: RocCurve) -> "Figure":
    """Hits against false alarms, and the diagonal of the coin toss."""
    share = {"range": [-0.01, 1.01], "tickformat": ".0%", "dtick": 0.25, "constrain": "domain"}
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis("False positive rate (falls called rises)", **share),
        yaxis=axis("True positive rate (rises called rises)", scaleanchor="x", **share),
    )
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        hoverinfo="skip",
        line=line(LIGHT.benchmark, 1.5, DASHED),
    )
    figure.add_scatter(
        x=finite(roc.false_positive_rate),
        y=finite(roc.true_positive_rate),
        mode="lines",
        line=line(LIGHT.signal, 2),
        hovertemplate="%{y:.1%} of rises found<br>at %{x:.1%} false alarms<extra></extra>",
    )
    return figure


def importance_figure(importance: Sequence[tuple[str, float]]) -> "Figure":
    """The features by gain, the greatest at the top."""
    ranked = sorted(importance, key=lambda pair: (-pair[1], pair[0]))[:MOST_FEATURES]
    names = [html.escape(name, quote=False) for name, _ in ranked]
    gains = [gain for _, gain in ranked]
    figure = empty_figure(
        hovermode="closest",
        bargap=0.35,
        xaxis=axis("Gain per split", rangemode="tozero"),
        yaxis=axis(
            "Feature",
            type="category",
            autorange="reversed",
            showgrid=False,
            tickmode="array",
            tickvals=names,
        ),
    )
    figure.add_bar(
        x=gains,
        y=names,
        orientation="h",
        marker={"color": LIGHT.signal},
        hovertemplate="%{y}: %{x:.2f}<extra></extra>",
    )
    return figure


def _band(days: Sequence[str], mean: Numbers, std: Numbers) -> tuple[list[Any], list[Any]]:
    """The outline of mean ± 2 std, one closed polygon for each stretch without a gap."""
    edges = [
        (middle - 2 * width, middle + 2 * width) if is_number(middle) and is_number(width) else None
        for middle, width in zip(mean, std, strict=True)
    ]
    x: list[Any] = []
    y: list[Any] = []
    for run in runs([edge is not None for edge in edges]):
        stretch = list(days[run])
        low_high = [edge for edge in edges[run] if edge is not None]
        x += [*stretch, *reversed(stretch), None]
        y += [high for _, high in low_high] + [low for low, _ in reversed(low_high)] + [None]
    return x, y


def _only_flagged(values: Numbers, z_scores: Numbers) -> list[float | None]:
    return [value if flagged(z) else None for value, z in zip(values, z_scores, strict=True)]


def deviations_figure(
    series: ZScoreSeries, name: str, *, day: str = "Day", value_format: str = ".0f"
) -> "Figure":
    """A metric against its baseline: above, the day's mean and the band of the ordinary; below, the z-score.

    Args:
        series: day by day.
        name: of the metric, as text.
        day: what the days are called.
        value_format: how a value is shown on hovering, as d3 formats numbers.
    """
    dates, (day_mean, mean, std, z_score) = with_gaps(
        series.dates,
        [series.day_mean, series.mean_30d, series.std_30d, series.z_score],
        longest=timedelta(days=1),
    )
    days = [one.isoformat() for one in dates]
    unit = f" ({html.escape(series.unit)})" if series.unit else ""
    figure = empty_figure(
        hovermode="x unified",
        xaxis=axis(day, type="date", showgrid=False, hoverformat="%-d %b %Y", anchor="y2"),
        yaxis=axis(f"{html.escape(name)}{unit}", domain=[0.43, 1], hoverformat=value_format),
        yaxis2=axis("z-score (std)", domain=[0, 0.34], showgrid=False, hoverformat=".1f"),
    )
    _add_day_means(figure, days, day_mean, mean, std)
    _add_z_scores(figure, days, z_score)
    for panel, values in (("y", day_mean), ("y2", z_score)):
        figure.add_scatter(
            x=days,
            y=_only_flagged(values, z_score),
            yaxis=panel,
            mode="markers",
            marker={"symbol": "diamond", "size": 9, "color": LIGHT.flag},
            hoverinfo="skip",
        )
    return figure


def _add_day_means(
    figure: "Figure", days: list[str], day_mean: Numbers, mean: Numbers, std: Numbers
) -> None:
    band_x, band_y = _band(days, mean, std)
    figure.add_scatter(
        x=band_x,
        y=band_y,
        mode="lines",
        fill="toself",
        fillcolor=LIGHT.band,
        line={"width": 0, "color": LIGHT.band},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=days, y=mean, name="30-day mean", mode="lines", line=line(LIGHT.muted, 1.5, DASHED)
    )
    figure.add_scatter(
        x=days,
        y=day_mean,
        name="Day mean",
        mode="lines+markers",
        line=line(LIGHT.signal, 1.5),
        marker={"size": 4, "color": LIGHT.signal},
    )


def _add_z_scores(figure: "Figure", days: list[str], z_score: Numbers) -> None:
    add_level(figure, 0, line(LIGHT.muted, 1), on="y2")
    for limit in (-FLAGGED_BEYOND, FLAGGED_BEYOND):
        add_level(figure, limit, line(LIGHT.flag, 1.5, DOTTED), on="y2")
    figure.add_scatter(
        x=days,
        y=z_score,
        yaxis="y2",
        name="z-score",
        mode="lines+markers",
        line=line(LIGHT.signal, 1.5),
        marker={"size": 4, "color": LIGHT.signal},
    )
