"""What every page has in common: one HTML file that needs no network, its header, charts and tables.

Everything from outside is escaped; and should a value still slip through as markup, the page's
content security policy lets nothing run but the two scripts written here, and nothing load at all.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING
from urllib.parse import quote

from hyperfeast.reports import plots
from hyperfeast.reports.palette import DARK, LIGHT, dark_twins
from hyperfeast.reports.readings import day_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MARK = '<path d="M1 11h3v4H1zM6.5 7h3v8h-3zM12 2h3v13h-3z"/>'
_FAVICON = "data:image/svg+xml," + quote(
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16" fill="{LIGHT.signal}">{_MARK}</svg>'
)


def page(
    title: str,
    created_at: datetime,
    summary: Sequence[tuple[str, str]],
    sections: Sequence[str],
    charts: Mapping[str, "Figure"],
    *,
    styles: str = "",
) -> str:
    """A page as HTML.

    Args:
        title: as text.
        created_at: zoned; shown in UTC.
        summary: (what, how much) of each tile under the title, as text.
        sections: as HTML, from `section` and `chart`.
        charts: figure by the id of its element, `chart-<name>`.
        styles: CSS of this page alone.
    """
    plotly, drawing = _plotly(), _resource("charts.js")
    drawn = {element: json.loads(figure.to_json()) for element, figure in charts.items()}
    data = _json({"figures": drawn, "darkTwins": dark_twins()})
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(drawing)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="hyperfeast">
<title>{escape(title)}</title>
<link rel="icon" href="{_FAVICON}">
<style>{_styles()}{styles}</style>
</head>
<body>
{_header(title, created_at, summary)}
<main>
{body}
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


def section(name: str, title: str, body: str) -> str:
    """A titled part of the page; `body` is HTML."""
    return f"""<section aria-labelledby="title-{name}">
<h2 id="title-{name}">{escape(title)}</h2>
{body}
</section>"""


def chart(
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
        return section(name, title, f'<p class="reading">{escape(reading)}</p>')
    entries = "\n".join(
        f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{mark}</svg>{escape(text)}</li>'
        for mark, text in key
    )
    legend = f'<ul class="key">\n{entries}\n</ul>\n' if key else ""
    return section(
        name,
        title,
        f'<figure>\n{legend}<div id="chart-{name}" {shape} role="img" '
        f'aria-labelledby="title-{name}" aria-describedby="reading-{name}"></div>\n{caption}\n</figure>',
    )


def table(label: str, head: str, rows: Sequence[str]) -> str:
    """A table; head and rows are HTML."""
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


def breakable(text: str) -> str:
    """Escaped text that may break after an underscore rather than within a word."""
    return escape(text).replace("_", "_<wbr>")


def moment(time: datetime) -> str:
    """A moment (zoned) in UTC, as HTML."""
    zoned = time.astimezone(UTC)
    return (
        f'<time datetime="{zoned:%Y-%m-%dT%H:%M:%SZ}">{day_text(zoned)}, {zoned:%H:%M} UTC</time>'
    )


def _header(title: str, created_at: datetime, summary: Sequence[tuple[str, str]]) -> str:
    entries = "\n".join(
        f"<div><dt>{breakable(what)}</dt><dd>{breakable(value)}</dd></div>"
        for what, value in summary
    )
    tiles = f'\n<dl class="summary">\n{entries}\n</dl>' if summary else ""
    return f"""<header>
<p class="product"><svg viewBox="0 0 16 16" aria-hidden="true">{_MARK}</svg>hyperfeast</p>
<h1>{escape(title)}</h1>
<p class="made">Made {moment(created_at)}</p>{tiles}
</header>"""


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
        f":root {{ --font: {plots.FONT}; {LIGHT.css()} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {DARK.css()} }} }}\n"
        f"{_resource('page.css')}"
    )
