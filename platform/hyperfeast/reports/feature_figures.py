"""The charts of the report of feature sets, as Plotly figures in the light palette."""

import html
import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from hyperfeast.reports.feature_content import (
    FeatureRow,
    ImportanceRow,
    LabelRow,
    NullCell,
    SetReport,
    StaleRow,
)
from hyperfeast.reports.palette import LIGHT
from hyperfeast.reports.plots import DOTTED, axis, empty_figure, line, steps

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_COLUMNS = 60
"""How many stretches of time the chart of missing values shows."""

MOST_CORRELATED = 30
"""How many features the chart of correlations shows."""

MOST_BARS = 25
"""How many bars a chart of entities or features shows."""

MOST_VERSIONS = 12
"""How many versions the charts of importance show."""

_MOST_NUMBERS = 10
_LONGEST_NAME = 24
_LEAST_BARS = 3
# Numbers stand in cells of every color: at half its strength the strongest leaves them legible.
_STRONGEST = 0.5
_NONE, _SOME, _TOO_MANY = 0, 1, 2
_MONTHS_A_QUARTER, _MONTHS_A_YEAR = 3, 12


def nulls_figure(cells: Sequence[NullCell], features: Sequence[FeatureRow]) -> "Figure":
    """Features by time: none missing, some, more than may be."""
    months = _months_together(cells)
    sums: dict[tuple[str, date], list[int]] = {}
    for cell in cells:
        total = sums.setdefault((cell.feature, _begin(cell.month, months)), [0, 0])
        total[0] += cell.nulls
        total[1] += cell.rows
    columns = sorted({begin for _, begin in sums})
    limits = {one.name: one.null_limit for one in features}
    names = [one.name for one in reversed(features)]
    grid = [[sums.get((name, begin)) for begin in columns] for name in names]
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis(_stretch(months), type="date", showgrid=False),
        yaxis=_names_axis("Feature", names),
    )
    figure.add_heatmap(
        x=[begin.isoformat() for begin in columns],
        y=_escaped(names),
        z=[
            [_grade(total, limits[name]) for total in row]
            for name, row in zip(names, grid, strict=True)
        ],
        text=[[_missing(total) for total in row] for row in grid],
        zmin=_NONE - 0.5,
        zmax=_TOO_MANY + 0.5,
        colorscale=steps((LIGHT.band, LIGHT.benchmark, LIGHT.flag)),
        showscale=False,
        xgap=1,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y}, from %{x|%b %Y}: %{text}<extra></extra>",
    )
    return figure


def correlation_figure(one: SetReport) -> "Figure":
    """The rank correlation of every two features, numbered: blue rise together, orange against each other."""
    places = strongest(one)
    names = [one.correlated[place] for place in places]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    labels = [
        f"{html.escape(_short(name), quote=False)}  {number}"
        for name, number in zip(names, numbers, strict=True)
    ]
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis(
            "By number",
            type="category",
            showgrid=False,
            tickangle=0,
            tickvals=numbers[:: -(-len(numbers) // _MOST_NUMBERS)],
        ),
        yaxis=axis(
            "Feature", type="category", showgrid=False, autorange="reversed", tickvals=labels
        ),
    )
    figure.add_heatmap(
        x=numbers,
        y=labels,
        z=[[_finite(one.correlations[row][column]) for column in places] for row in places],
        text=[[f"{left} and {right}" for right in _escaped(names)] for left in _escaped(names)],
        zmin=-1,
        zmax=1,
        colorscale=[(0, LIGHT.benchmark), (0.5, LIGHT.surface), (1, LIGHT.signal)],
        showscale=False,
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="%{text}: %{z:.2f}<extra></extra>",
    )
    return figure


def label_figure(rows: Sequence[LabelRow], threshold: float) -> "Figure":
    """How far each feature goes with a label, the farthest at the top, and from where on that is suspect."""
    shown = associated(rows)
    names = [row.feature for row in shown]
    values = [abs(row.correlation or 0) for row in shown]
    figure = empty_figure(
        hovermode="closest",
        bargap=0.35,
        xaxis=axis(
            "Rank correlation",
            range=[0, max([*values, threshold]) * 1.06],
            tickformat=".2~f",
        ),
        yaxis=_names_axis("Feature", names, autorange="reversed"),
    )
    figure.add_bar(
        x=values,
        y=_escaped(names),
        orientation="h",
        marker={"color": [LIGHT.flag if row.suspect else LIGHT.signal for row in shown]},
        customdata=[row.correlation for row in shown],
        hovertemplate="%{y}: %{customdata:.3f}<extra></extra>",
    )
    _add_limit(figure, threshold)
    return figure


def staleness_figure(rows: Sequence[StaleRow], freshness_days: float) -> "Figure":
    """How many days each entity's newest row is behind the set's, the stalest at the top."""
    shown = behind(rows)
    names = [row.entity for row in shown]
    figure = empty_figure(
        hovermode="closest",
        bargap=0.35,
        xaxis=axis(
            "Days behind",
            range=[0, max([*(row.behind_days for row in shown), freshness_days]) * 1.06],
        ),
        yaxis=_names_axis(
            "Entity",
            names,
            range=[max(len(names), _LEAST_BARS) - 0.5, -0.5],
        ),
    )
    figure.add_bar(
        x=[row.behind_days for row in shown],
        y=_escaped(names),
        orientation="h",
        marker={"color": [_stale_color(row) for row in shown]},
        hovertemplate="%{y}: %{x:.1f} days<extra></extra>",
    )
    _add_limit(figure, freshness_days)
    return figure


def importance_figure(rows: Sequence[ImportanceRow]) -> "Figure":
    """Features by version, of one method: the color is the share of the whole, the number the rank."""
    versions = sorted({row.version for row in rows})[-MOST_VERSIONS:]
    names = ranked(rows)
    found = {(row.feature, row.version): row for row in rows}
    totals = {
        version: sum(max(row.importance, 0) for row in rows if row.version == version)
        for version in versions
    }
    grid = [[found.get((name, version)) for version in versions] for name in names]
    shares = [[_share(row, totals) for row in cells] for cells in grid]
    columns = [f"v{version}" for version in versions]
    figure = empty_figure(
        hovermode="closest",
        xaxis=axis("Version", type="category", showgrid=False),
        yaxis=_names_axis("Feature", names, autorange="reversed"),
    )
    figure.add_heatmap(
        x=columns,
        y=_escaped(names),
        z=shares,
        text=[["" if row is None else str(row.rank) for row in cells] for cells in grid],
        customdata=[[None if row is None else row.importance for row in cells] for cells in grid],
        texttemplate="%{text}",
        textfont={"color": LIGHT.ink},
        zmin=0,
        zmax=max(value for cells in shares for value in cells if value is not None) / _STRONGEST
        or 1,
        colorscale=[(0, LIGHT.surface), (1, LIGHT.signal)],
        showscale=False,
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate="%{y}, %{x}: rank %{text}, %{customdata:.4~g}<extra></extra>",
    )
    return figure


def strongest(one: SetReport) -> list[int]:
    """The places of the features that are shown, in declared order: those with a correlation, the strongest."""
    tops = {}
    for place in range(len(one.correlated)):
        others = [
            abs(value)
            for column, value in enumerate(map(_finite, one.correlations[place]))
            if value is not None and column != place
        ]
        if others:
            tops[place] = max(others)
    return sorted(sorted(tops, key=lambda place: (-tops[place], place))[:MOST_CORRELATED])


def associated(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """The features that are shown against a label, the farthest from 0 first."""
    known = [row for row in rows if row.correlation is not None]
    return sorted(known, key=lambda row: (-abs(row.correlation or 0), row.feature))[:MOST_BARS]


def behind(rows: Sequence[StaleRow]) -> list[StaleRow]:
    """The entities that are shown: those that are behind at all, the stalest first."""
    return [row for row in rows if row.behind_days > 0][:MOST_BARS]


def ranked(rows: Sequence[ImportanceRow]) -> list[str]:
    """The features that are shown, by their rank in the newest version; those that it lacks come last."""
    newest = max(row.version for row in rows)
    ranks = {row.feature: row.rank for row in rows if row.version == newest}
    names = sorted(
        {row.feature for row in rows}, key=lambda name: (ranks.get(name, math.inf), name)
    )
    return names[:MOST_BARS]


def _names_axis(title: str, names: Sequence[str], **more: Any) -> dict[str, Any]:
    return axis(
        title,
        type="category",
        showgrid=False,
        tickmode="array",
        tickvals=_escaped(names),
        ticktext=_escaped([_short(name) for name in names]),
        **more,
    )


def _escaped(names: Sequence[str]) -> list[str]:
    return [html.escape(name, quote=False) for name in names]


def _short(name: str) -> str:
    """A name that leaves room for its bar: a long one by its beginning and end."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:8]}…{name[-12:]}"


def _months_together(cells: Sequence[NullCell]) -> int:
    """How many months a column stands for, so that there are not too many."""
    months = len({cell.month for cell in cells})
    if months <= MOST_COLUMNS:
        return 1
    return _MONTHS_A_QUARTER if months <= MOST_COLUMNS * _MONTHS_A_QUARTER else _MONTHS_A_YEAR


def _begin(month: date, months: int) -> date:
    return month.replace(month=(month.month - 1) // months * months + 1)


def _stretch(months: int) -> str:
    return {1: "Month", _MONTHS_A_QUARTER: "Quarter", _MONTHS_A_YEAR: "Year"}[months] + " (UTC)"


def _grade(total: list[int] | None, limit: float) -> int | None:
    if total is None or not total[1]:
        return None
    if not total[0]:
        return _NONE
    return _TOO_MANY if total[0] / total[1] > limit else _SOME


def _missing(total: list[int] | None) -> str:
    return "" if total is None else f"{total[0]:,} of {total[1]:,} rows lack it"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(row: ImportanceRow | None, totals: dict[int, float]) -> float | None:
    if row is None:
        return None
    whole = totals[row.version]
    return max(row.importance, 0) / whole if whole else 0.0


def _stale_color(row: StaleRow) -> str:
    if row.ended:
        return LIGHT.muted
    return LIGHT.flag if row.stale else LIGHT.signal


def _add_limit(figure: "Figure", value: float) -> None:
    figure.add_shape(
        type="line",
        xref="x",
        x0=value,
        x1=value,
        yref="paper",
        y0=0,
        y1=1,
        line=line(LIGHT.flag, 1.5, DOTTED),
        layer="above",
    )
