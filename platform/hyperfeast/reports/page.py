"""The page itself: tables, charts and sentences, put into one HTML file and written at once.

Everything from outside is escaped; and should a value still slip through as markup, the page's
content security policy lets nothing run but the two scripts written here, and nothing load at all.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from hyperfeast.reports import figures
from hyperfeast.reports.content import DemoReport, PredictionRow, ScoreRow
from hyperfeast.reports.files import write_whole
from hyperfeast.reports.palette import DARK, LIGHT, dark_twins
from hyperfeast.reports.readings import (
    day_text,
    number_text,
    percent_text,
    read_equity,
    read_glucose,
    read_importance,
    read_predictions,
    read_roc,
    read_scores,
)
from hyperfeast.reports.series import is_number, numbers

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MARK = '<path d="M1 11h3v4H1zM6.5 7h3v8h-3zM12 2h3v13h-3z"/>'
_FAVICON = "data:image/svg+xml," + quote(
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="{LIGHT.signal}">{_MARK}</svg>'
)

_SIGNAL_LINE = '<line class="signal-line" y1="6" x2="28" y2="6"/>'
_SIGNAL_DOTS = f'{_SIGNAL_LINE}<circle class="signal-mark" cx="14" cy="6" r="3"/>'
_BENCHMARK_LINE = '<line class="benchmark-line" y1="6" x2="28" y2="6"/>'
_MEAN_LINE = '<line class="mean-line" y1="6" x2="28" y2="6"/>'
_LIMIT_LINE = '<line class="limit-line" y1="6" x2="28" y2="6"/>'
_BAND = '<rect class="band-mark" width="28" height="12"/>'
_FLAG = '<path class="flag-mark" d="M14 0l6 6-6 6-6-6z"/>'


def write_report(report: DemoReport, path: Path) -> Path:
    """Writes the report as one HTML file that needs no network; whole, or not at all.

    Args:
        report: what it shows.
        path: the file; an older one is replaced. Its folder must exist.

    Returns:
        The same path.

    Raises:
        UsageError: the file cannot be written there.
    """
    return write_whole(_page(report), path)


def _page(report: DemoReport) -> str:
    charts = _figures(report)
    plotly, drawing = _plotly(), _resource("charts.js")
    data = _json({"figures": charts, "darkTwins": dark_twins()})
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(drawing)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="hyperfeast">
<title>{escape(report.title)}</title>
<link rel="icon" href="{_FAVICON}">
<style>{_styles()}</style>
</head>
<body>
{_header(report)}
<main>
{_sections(report)}
</main>
<footer>
<p>This page is one file and loads nothing from anywhere. \
<span class="by-mouse">Drag across a chart to zoom in, double-click to zoom out.</span></p>
<noscript><p>The charts need JavaScript; the tables and the sentences do not.</p></noscript>
</footer>
<script type="application/json" id="figures">{data}</script>
<script>{plotly}</script>
<script>{drawing}</script>
</body>
</html>
"""


@cache
def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # A browser reads CR as LF before it hashes a script.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _styles() -> str:
    return (
        f":root {{ --font: {figures.FONT}; {LIGHT.css()} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}\n"
        f"{_resource('page.css')}"
    )


def _figures(report: DemoReport) -> dict[str, object]:
    """The figures that have something to show, by the id of their element."""
    made: dict[str, Figure] = {}
    if numbers(report.equity.signal) or numbers(report.equity.buy_and_hold):
        made["chart-equity"] = figures.equity_figure(report.equity)
    if report.roc.true_positive_rate:
        made["chart-roc"] = figures.roc_figure(report.roc)
    if report.importance:
        made["chart-importance"] = figures.importance_figure(report.importance)
    if numbers(report.glucose.day_mean):
        made["chart-glucose"] = figures.glucose_figure(report.glucose)
    return {element: json.loads(figure.to_json()) for element, figure in made.items()}


def _header(report: DemoReport) -> str:
    summary = "\n".join(
        f"<div><dt>{_breakable(what)}</dt><dd>{_breakable(value)}</dd></div>"
        for what, value in report.summary
    )
    tiles = f'\n<dl class="summary">\n{summary}\n</dl>' if report.summary else ""
    return f"""<header>
<p class="product"><svg viewBox="0 0 16 16" aria-hidden="true">{_MARK}</svg>hyperfeast</p>
<h1>{escape(report.title)}</h1>
<p class="made">Made {_moment(report.created_at)}</p>{tiles}
</header>"""


def _breakable(text: str) -> str:
    """Escaped text that may break after an underscore rather than within a word."""
    return escape(text).replace("_", "_<wbr>")


def _sections(report: DemoReport) -> str:
    auc = number_text(report.roc.auc, 3)
    bars = min(len(report.importance), figures.MOST_FEATURES)
    shown = f"The {bars} with the most gain are shown. " if len(report.importance) > bars else ""
    return "\n".join(
        [
            _section("scores", "Score out of sample", _scores(report.scores)),
            _chart(
                "equity",
                "Equity: the signal against buying and holding",
                height=380,
                key=[(_SIGNAL_LINE, "Signal"), (_BENCHMARK_LINE, "Buy and hold")],
                reading=read_equity(report.equity),
                drawn=bool(numbers(report.equity.signal) or numbers(report.equity.buy_and_hold)),
            ),
            '<div class="pair">',
            _chart(
                "roc",
                "ROC: how well it ranks",
                height=None,
                key=[
                    (_SIGNAL_LINE, f"Model, AUC {auc}"),
                    (_BENCHMARK_LINE, "Coin toss, AUC 0.500"),
                ],
                reading=read_roc(report.roc),
                drawn=bool(report.roc.true_positive_rate),
            ),
            _chart(
                "importance",
                "Importance: what the trees used",
                height=90 + 22 * bars,
                key=[],
                reading=shown + read_importance(report.importance),
                drawn=bool(report.importance),
            ),
            "</div>",
            _section("predictions", "Latest predictions", _predictions(report.predictions)),
            _chart(
                "glucose",
                "Glucose: each day against its trailing 30 days",
                height=520,
                key=[
                    (_SIGNAL_DOTS, "Day"),
                    (_MEAN_LINE, "30-day mean"),
                    (_BAND, "Mean \N{PLUS-MINUS SIGN} 2 std"),
                    (_LIMIT_LINE, "z = \N{PLUS-MINUS SIGN}2"),
                    (_FLAG, "Flagged day"),
                ],
                reading=read_glucose(report.glucose),
                drawn=bool(numbers(report.glucose.day_mean)),
            ),
            _notes(report.notes),
        ]
    )


def _section(name: str, title: str, body: str) -> str:
    return f"""<section aria-labelledby="title-{name}">
<h2 id="title-{name}">{escape(title)}</h2>
{body}
</section>"""


def _chart(
    name: str,
    title: str,
    *,
    height: int | None,
    key: Sequence[tuple[str, str]],
    reading: str,
    drawn: bool,
) -> str:
    """A titled chart with its key and its reading; the reading alone if nothing is drawn.

    Without a height, in pixels, the chart is about square.
    """
    shape = (
        'class="chart square"' if height is None else f'class="chart" style="height: {height}px"'
    )
    caption = f'<figcaption id="reading-{name}">{escape(reading)}</figcaption>'
    if not drawn:
        return _section(name, title, f'<p class="reading">{escape(reading)}</p>')
    entries = "\n".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{mark}</svg>{escape(text)}</li>'
        for mark, text in key
    )
    legend = f'<ul class="key">\n{entries}\n</ul>\n' if key else ""
    return _section(
        name,
        title,
        f'<figure>\n{legend}<div id="chart-{name}" {shape} role="img" '
        f'aria-labelledby="title-{name}" aria-describedby="reading-{name}"></div>\n{caption}\n</figure>',
    )


def _table(label: str, head: str, rows: Sequence[str]) -> str:
    # Wide tables scroll in a frame of their own, which a keyboard must be able to reach.
    body = "\n".join(rows)
    return f"""<div class="scroll" role="region" aria-label="{label}" tabindex="0">
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _scores(scores: Sequence[ScoreRow]) -> str:
    reading = f'<p class="reading">{escape(read_scores(scores))}</p>'
    if not scores:
        return reading
    columns: list[tuple[list[str], Callable[[list[float]], float], list[float | None]]] = [
        ([percent_text(row.accuracy) for row in scores], max, [row.accuracy for row in scores]),
        ([number_text(row.auc, 3) for row in scores], max, [row.auc for row in scores]),
        ([number_text(row.log_loss, 3) for row in scores], min, [row.log_loss for row in scores]),
        ([number_text(row.brier, 3) for row in scores], min, [row.brier for row in scores]),
    ]
    cells = [_score_cells(texts, best, values) for texts, best, values in columns]
    rows = [
        f'<tr><th scope="row">{_breakable(row.name)}</th>{"".join(cells_of_row)}</tr>'
        for row, *cells_of_row in zip(scores, *cells, strict=True)
    ]
    head = '<th scope="col">Model or baseline</th>' + "".join(
        f'<th scope="col">{name} <small>{better} is better</small></th>'
        for name, better in [
            ("Accuracy", "higher"),
            ("AUC", "higher"),
            ("Log loss", "lower"),
            ("Brier", "lower"),
        ]
    )
    return _table("Scores", head, rows) + reading


def _score_cells(
    texts: Sequence[str], best: Callable[[list[float]], float], values: Sequence[float | None]
) -> list[str]:
    """A column's cells, the best marked: all that print alike, and none if there is no contest."""
    present = numbers(values)
    winner = texts[list(values).index(best(present))] if len(present) > 1 else None
    return [
        f'<td class="best">{text}</td>' if text == winner else f"<td>{text}</td>" for text in texts
    ]


def _predictions(predictions: Sequence[PredictionRow]) -> str:
    reading = f'<p class="reading">{escape(read_predictions(predictions))}</p>'
    if not predictions:
        return reading
    head = (
        '<th scope="col">Symbol</th><th scope="col" class="text">Prediction</th>'
        '<th scope="col">Probability of a rise</th>'
        '<th scope="col">Features as&nbsp;of</th>'
    )
    rows = [
        f'<tr><th scope="row">{escape(row.symbol)}</th><td class="text">{escape(row.label)}</td>'
        f"<td>{_probability(row.proba)}</td>"
        f"<td>{_FRESHNESS[row.stale]} {_moment(row.event_timestamp)}</td></tr>"
        for row in predictions
    ]
    return _table("Predictions", head, rows) + reading


_FRESHNESS = {
    True: '<span class="stale">stale</span>',
    False: '<span class="fresh">fresh</span>',
}


def _probability(proba: float) -> str:
    """The number, and a bar from the middle that shows which way it leans."""
    if not is_number(proba):
        return number_text(None, 1)
    share = min(max(proba, 0.0), 1.0) * 100
    left, width = min(share, 50.0), abs(share - 50.0)
    return (
        f'<span class="proba"><span class="track" aria-hidden="true">'
        f'<i style="left: {left:.1f}%; width: {width:.1f}%"></i></span>{percent_text(proba)}</span>'
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    return _section("notes", "Read with care", f'<ul class="notes">\n{items}\n</ul>')


def _moment(moment: datetime) -> str:
    zoned = moment.astimezone(UTC)
    return (
        f'<time datetime="{zoned:%Y-%m-%dT%H:%M:%SZ}">{day_text(zoned)}, {zoned:%H:%M} UTC</time>'
    )
