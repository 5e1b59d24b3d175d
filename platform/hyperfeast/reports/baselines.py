"""A user's metrics, day by day, against their baselines: one HTML file like the demo's, from plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path

from hyperfeast.reports import frame
from hyperfeast.reports.content import ZScoreSeries, check_zoned
from hyperfeast.reports.figures import deviations_figure
from hyperfeast.reports.files import write_whole
from hyperfeast.reports.marks import BAND, FLAG, LIMIT_LINE, MEAN_LINE, SIGNAL_DOTS
from hyperfeast.reports.readings import day_text, flagged, number_text, read_glucose
from hyperfeast.reports.series import numbers

_HEIGHT_PX = 520
_MOST_FLAGS = 40


@dataclass(frozen=True, slots=True)
class MetricChart:
    """One metric.

    Attributes:
        metric: its name.
        series: day by day; its unit is empty if nobody declared one.
    """

    metric: str
    series: ZScoreSeries


@dataclass(frozen=True, slots=True)
class BaselinePage:
    """Everything that the page shows. All text is taken as text, never as HTML.

    Attributes:
        title: what it is called.
        created_at: zoned; when it was made. Shown in UTC.
        user: whose metrics they are.
        charts: one a metric.
        notes: how to read it.

    Raises:
        DataError: `created_at` has no zone.
    """

    title: str
    created_at: datetime
    user: str
    charts: Sequence[MetricChart]
    notes: Sequence[str]

    def __post_init__(self) -> None:
        check_zoned("a page of baselines", self.created_at)


def write_baseline_page(page: BaselinePage, path: Path) -> Path:
    """Writes the page as one HTML file that needs no network; whole, or not at all.

    Args:
        page: what it shows.
        path: the file; an older one is replaced. Its folder must exist.

    Returns:
        The same path.

    Raises:
        UsageError: the file cannot be written there.
    """
    figures = {
        f"chart-metric-{position}": deviations_figure(
            chart.series, _spoken(chart.metric), day="Day (UTC)", value_format=".4~g"
        )
        for position, chart in enumerate(page.charts)
        if numbers(chart.series.day_mean)
    }
    whole = frame.page(page.title, page.created_at, _tiles(page), _sections(page), figures)
    return write_whole(whole, path)


def _tiles(page: BaselinePage) -> list[tuple[str, str]]:
    series = [chart.series for chart in page.charts]
    return [
        ("User", page.user.split("-", 1)[0]),
        ("Days", f"{max((len(one.dates) for one in series), default=0):,}"),
        ("Flagged", f"{sum(sum(map(flagged, one.z_score)) for one in series):,}"),
    ]


def _sections(page: BaselinePage) -> list[str]:
    parts = []
    for position, chart in enumerate(page.charts):
        parts.append(
            frame.chart(
                f"metric-{position}",
                f"{_spoken(chart.metric)}: each day against its baseline",
                height=_HEIGHT_PX,
                key=[
                    (SIGNAL_DOTS, "Day's mean"),
                    (MEAN_LINE, "30-day mean"),
                    (BAND, "Mean \N{PLUS-MINUS SIGN} 2 std"),
                    (LIMIT_LINE, "z = \N{PLUS-MINUS SIGN}2"),
                    (FLAG, "Flagged day"),
                ],
                reading=read_glucose(chart.series),
                drawn=bool(numbers(chart.series.day_mean)),
            )
        )
        if any(map(flagged, chart.series.z_score)):
            parts.append(
                frame.section(
                    f"flags-{position}",
                    f"{_spoken(chart.metric)}: flagged days",
                    _flags(chart.series),
                )
            )
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in page.notes)
    return [
        *parts,
        frame.section("notes", "Read with care", f'<ul class="notes">\n{notes}\n</ul>'),
    ]


def _spoken(metric: str) -> str:
    return metric.replace("_", " ").capitalize()


def _flags(series: ZScoreSeries) -> str:
    """The newest flagged days, the newest first."""
    rows = [
        f'<tr><th scope="row">{day_text(day)}</th><td>{number_text(value, 1)}</td>'
        f"<td>{number_text(mean, 1)}</td><td>{number_text(std, 1)}</td><td>{number_text(z, 1)}</td></tr>"
        for day, value, mean, std, z in zip(
            series.dates,
            series.day_mean,
            series.mean_30d,
            series.std_30d,
            series.z_score,
            strict=True,
        )
        if flagged(z)
    ]
    unit = f" <small>{escape(series.unit)}</small>" if series.unit else ""
    head = (
        f'<th scope="col">Day</th><th scope="col">Mean{unit}</th><th scope="col">30-day mean</th>'
        '<th scope="col">30-day std</th><th scope="col">z-score</th>'
    )
    return frame.table("Flagged days", head, rows[: -_MOST_FLAGS - 1 : -1])
