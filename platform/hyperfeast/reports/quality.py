"""The report of the data's quality: one HTML file like the demo's, from plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hyperfeast.reports.content import check_zoned
from hyperfeast.reports.files import write_whole
from hyperfeast.reports.frame import breakable, chart, moment, page, section, table
from hyperfeast.reports.palette import LIGHT
from hyperfeast.reports.plots import axis, empty_figure, line, steps
from hyperfeast.reports.readings import count_text, number_text, percent_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NEARLY = 0.95
"""A month with at least this share of its rows is nearly complete."""

_MOST_ROWS = 40
_STRIP_PX, _STRIP_FRAME_PX = 22, 64
_TREND_PX = 260
# A symbol is read as one word: on a phone the table scrolls rather than break it.
_OWN_STYLES = "\ntbody th { min-width: 9ch; }\n"
_COMPLETE, _NEARLY, _INCOMPLETE = 0, 1, 2
_COLORS = (LIGHT.band, LIGHT.benchmark, LIGHT.flag)


@dataclass(frozen=True, slots=True)
class CheckRow:
    """The newest result of one check of one scope. `finding` says in words what was wrong, if anything."""

    check: str
    scope: str
    passed: bool
    at: datetime
    finding: str


@dataclass(frozen=True, slots=True)
class CompletenessRow:
    """What should be there of one series, what is, and in how many ranges the rest is missing."""

    key: str
    tf: str | None
    expected: int
    present: int
    ranges: int


@dataclass(frozen=True, slots=True)
class MonthCell:
    """What should be there, and is, of one series in one month."""

    key: str
    tf: str
    month: date
    expected: int
    present: int


@dataclass(frozen=True, slots=True)
class OutlierRow:
    """A bar that looks wrong."""

    key: str
    tf: str
    ts: datetime
    method: str
    score: float


@dataclass(frozen=True, slots=True)
class QualityReport:
    """Everything that the report shows. All text is taken as text, never as HTML.

    Attributes:
        created_at: zoned; when the report was made. Shown in UTC.
        checks: the newest results, the failed ones first.
        pass_rates: (day, checks passed, checks run), by day.
        completeness: every series.
        months: of the least complete series.
        outliers: the newest flags.
        outliers_in_all: how many flags stand.
        quarantine: (table, rule, rows), the most frequent first.

    Raises:
        DataError: `created_at` has no zone.
    """

    created_at: datetime
    checks: Sequence[CheckRow]
    pass_rates: Sequence[tuple[date, int, int]]
    completeness: Sequence[CompletenessRow]
    months: Sequence[MonthCell]
    outliers: Sequence[OutlierRow]
    outliers_in_all: int
    quarantine: Sequence[tuple[str, str, int]]

    def __post_init__(self) -> None:
        check_zoned("a quality report", self.created_at)


def write_quality_report(report: QualityReport, path: Path) -> Path:
    """Writes the report as one HTML file that needs no network; whole, or not at all.

    Args:
        report: what it shows.
        path: the file; an older one is replaced. Its folder must exist.

    Returns:
        The same path.

    Raises:
        UsageError: the file cannot be written there.
    """
    whole = page(
        "Data quality",
        report.created_at,
        _tiles(report),
        _sections(report),
        _figures(report),
        styles=_OWN_STYLES,
    )
    return write_whole(whole, path)


def _tiles(report: QualityReport) -> list[tuple[str, str]]:
    passed = sum(row.passed for row in report.checks)
    expected = sum(row.expected for row in report.completeness)
    present = sum(row.present for row in report.completeness)
    return [
        ("Checks passed", f"{passed:,} of {len(report.checks):,}"),
        ("Rows expected", f"{expected:,}"),
        ("Rows missing", f"{expected - present:,}"),
        ("Outliers flagged", f"{report.outliers_in_all:,}"),
        ("Rows refused", f"{sum(rows for _, _, rows in report.quarantine):,}"),
    ]


def _sections(report: QualityReport) -> list[str]:
    strips = _strips(report.months)
    return [
        section("checks", "Checks", _checks(report.checks)),
        chart(
            "trend",
            "Share of checks passed, by day",
            height=_TREND_PX,
            key=[],
            reading=_read_trend(report.pass_rates),
            drawn=bool(report.pass_rates),
        ),
        chart(
            "months",
            "Completeness by month",
            height=_STRIP_FRAME_PX + _STRIP_PX * len(strips),
            key=[
                ('<rect class="band-mark" width="28" height="12"/>', "Complete"),
                (
                    '<rect width="28" height="12" style="fill: var(--benchmark)"/>',
                    f"{percent_text(NEARLY)} or more",
                ),
                ('<rect width="28" height="12" style="fill: var(--flag)"/>', "Less"),
            ],
            reading=_read_months(report),
            drawn=bool(strips),
        ),
        section("completeness", "Least complete series", _completeness(report.completeness)),
        section("outliers", "Newest outliers", _outliers(report)),
        section("quarantine", "Refused rows", _quarantine(report.quarantine)),
    ]


def _checks(rows: Sequence[CheckRow]) -> str:
    if not rows:
        return _reading("Nothing was checked yet: `hyperfeast quality check` does.")
    failed = sum(not row.passed for row in rows)
    verdict = (
        f"{failed} of {count_text(len(rows), 'check')} found something to look at."
        if failed
        else f"All of {count_text(len(rows), 'check')} passed."
    )
    state = {
        True: '<span class="fresh">passed</span> ',
        False: '<span class="stale">failed</span> ',
    }
    cells = [
        f'<tr><th scope="row">{breakable(row.scope)}</th>'
        f'<td class="text">{breakable(row.check)}</td>'
        f'<td class="text">{state[row.passed]}{escape(row.finding)}</td>'
        f"<td>{moment(row.at)}</td></tr>"
        for row in rows
    ]
    head = (
        '<th scope="col">Scope</th><th scope="col" class="text">Check</th>'
        '<th scope="col" class="text">Result</th><th scope="col">Checked</th>'
    )
    return table("Checks", head, cells) + _reading(verdict)


def _completeness(rows: Sequence[CompletenessRow]) -> str:
    gapped = sorted(
        (row for row in rows if row.present < row.expected),
        key=lambda row: (row.present / row.expected, row.key),
    )
    if not rows:
        return _reading("There are no bars and no readings yet.")
    if not gapped:
        return _reading(f"Nothing is missing in {count_text(len(rows), 'series', 'series')}.")
    cells = [
        f'<tr><th scope="row">{breakable(row.key)}</th>'
        f'<td class="text">{escape(row.tf or "readings")}</td>'
        f"<td>{row.expected:,}</td><td>{row.expected - row.present:,}</td><td>{row.ranges:,}</td>"
        f"<td>{_share(row.present, row.expected)}</td></tr>"
        for row in gapped[:_MOST_ROWS]
    ]
    head = '<th scope="col">Series</th><th scope="col" class="text">Timeframe</th>' + "".join(
        f'<th scope="col">{name}</th>' for name in ("Expected", "Missing", "Ranges", "Complete")
    )
    shown = f" The {_MOST_ROWS} least complete are shown." if len(gapped) > _MOST_ROWS else ""
    return table("Completeness", head, cells) + _reading(
        f"{len(gapped):,} of {count_text(len(rows), 'series', 'series')} "
        f"{'lacks' if len(gapped) == 1 else 'lack'} rows that {'its' if len(gapped) == 1 else 'their'} "
        f"calendar or device makes expected.{shown}"
    )


def _outliers(report: QualityReport) -> str:
    if not report.outliers:
        return _reading("No bar is flagged.")
    cells = [
        f'<tr><th scope="row">{breakable(row.key)}</th><td class="text">{escape(row.tf)}</td>'
        f'<td>{moment(row.ts)}</td><td class="text">{escape(row.method.replace("_", " "))}</td>'
        f"<td>{number_text(row.score, 1)}</td></tr>"
        for row in report.outliers
    ]
    head = (
        '<th scope="col">Series</th><th scope="col" class="text">Timeframe</th><th scope="col">Bar</th>'
        '<th scope="col" class="text">Method</th><th scope="col">Score <small>deviations</small></th>'
    )
    shown = (
        f" The newest {len(report.outliers):,} are shown."
        if report.outliers_in_all > len(report.outliers)
        else ""
    )
    return table("Outliers", head, cells) + _reading(
        f"{count_text(report.outliers_in_all, 'flag')} "
        f"{'stands' if report.outliers_in_all == 1 else 'stand'} on bars that look wrong; "
        f"the bars themselves are as they came.{shown}"
    )


def _quarantine(rows: Sequence[tuple[str, str, int]]) -> str:
    if not rows:
        return _reading("No row was refused.")
    cells = [
        f'<tr><th scope="row">{breakable(rule)}</th><td class="text">{breakable(target)}</td>'
        f"<td>{count:,}</td></tr>"
        for target, rule, count in rows
    ]
    head = (
        '<th scope="col">Rule</th><th scope="col" class="text">Table</th><th scope="col">Rows</th>'
    )
    return table("Refused rows", head, cells) + _reading(
        "Each row counts under the first rule that it broke; `hyperfeast quarantine` shows them."
    )


def _reading(text: str) -> str:
    return f'<p class="reading">{escape(text)}</p>'


def _share(present: int, expected: int) -> str:
    """A percentage that says 100.0% only of what is complete."""
    if present < expected and present / expected > 0.9995:  # noqa: PLR2004 - prints as 100.0%
        return "&gt;&nbsp;99.9%"
    return percent_text(present / expected if expected else 1.0)


def _read_trend(rates: Sequence[tuple[date, int, int]]) -> str:
    if not rates:
        return "Nothing was checked yet."
    day, passed, run = rates[-1]
    return (
        f"On {day:%Y-%m-%d}, the last of {count_text(len(rates), 'day')} with checks, "
        f"{passed:,} of {run:,} passed."
    )


def _strips(months: Sequence[MonthCell]) -> list[str]:
    """The series, the least complete last: Plotly draws from the bottom."""
    totals: dict[str, list[int]] = {}
    for cell in months:
        total = totals.setdefault(f"{cell.key} {cell.tf}", [0, 0])
        total[0] += cell.present
        total[1] += cell.expected
    return sorted(totals, key=lambda name: (-totals[name][0] / totals[name][1], name))


def _read_months(report: QualityReport) -> str:
    if not report.months:
        return "There is no month with expected bars."
    strips = len(_strips(report.months))
    lacking = sum(cell.present < cell.expected for cell in report.months)
    return (
        f"{count_text(lacking, 'month')} of {len(report.months):,} in "
        f"{count_text(strips, 'series', 'series')} {'lacks' if lacking == 1 else 'lack'} bars; "
        "a blank is a month in which none was expected. The least complete series stand at the top."
    )


def _figures(report: QualityReport) -> "dict[str, Figure]":
    made: dict[str, Figure] = {}
    if report.pass_rates:
        made["chart-trend"] = _trend_figure(report.pass_rates)
    if report.months:
        made["chart-months"] = _months_figure(report.months)
    return made


def _trend_figure(rates: Sequence[tuple[date, int, int]]) -> "Figure":
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis("Day (UTC)", type="date", showgrid=False, hoverformat="%-d %b %Y"),
        yaxis=axis("Checks passed", range=[-0.03, 1.05], tickformat=".0%", dtick=0.25),
    )
    figure.add_scatter(
        x=[day.isoformat()[:10] for day, _, _ in rates],
        y=[passed / run if run else None for _, passed, run in rates],
        customdata=[[passed, run] for _, passed, run in rates],
        mode="lines+markers",
        line=line(LIGHT.signal, 2),
        marker={"size": 7, "color": LIGHT.signal},
        hovertemplate="%{x}: %{customdata[0]} of %{customdata[1]} passed<extra></extra>",
    )
    return figure


def _months_figure(months: Sequence[MonthCell]) -> "Figure":
    names = _strips(months)
    columns = sorted({cell.month for cell in months})
    cells = {(f"{cell.key} {cell.tf}", cell.month): cell for cell in months}
    grid = [[cells.get((name, month)) for month in columns] for name in names]
    shown = [escape(name, quote=False) for name in names]
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis("Month (UTC)", type="date", showgrid=False),
        yaxis=axis("Series", type="category", showgrid=False, tickmode="array", tickvals=shown),
    )
    figure.add_heatmap(
        x=[month.isoformat() for month in columns],
        y=shown,
        z=[[_grade(cell) for cell in row] for row in grid],
        text=[[_cell_text(cell) for cell in row] for row in grid],
        zmin=_COMPLETE - 0.5,
        zmax=_INCOMPLETE + 0.5,
        colorscale=steps(_COLORS),
        showscale=False,
        xgap=1,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y}, %{x|%b %Y}: %{text}<extra></extra>",
    )
    return figure


def _grade(cell: MonthCell | None) -> int | None:
    if cell is None or not cell.expected:
        return None
    if cell.present == cell.expected:
        return _COMPLETE
    return _NEARLY if cell.present / cell.expected >= NEARLY else _INCOMPLETE


def _cell_text(cell: MonthCell | None) -> str:
    return "" if cell is None else f"{cell.present:,} of {cell.expected:,} bars"
