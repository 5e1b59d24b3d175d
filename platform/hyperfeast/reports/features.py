"""The report of feature sets: what is missing, how values spread, what moves together, what models use."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hyperfeast.reports import feature_figures as figures
from hyperfeast.reports.feature_content import (
    FeatureReport,
    FeatureRow,
    ImportanceRow,
    LabelRow,
    ModelReport,
    SetReport,
)
from hyperfeast.reports.files import write_whole
from hyperfeast.reports.frame import breakable, chart, page, section, table
from hyperfeast.reports.marks import BAND
from hyperfeast.reports.readings import count_text, number_text, percent_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

METHODS = {
    "gain": (
        "gain",
        "how much the splits on a feature improved the loss in training: what the trees used",
    ),
    "permutation": (
        "permutation",
        "how much the out-of-sample log loss rises when a feature is shuffled: what the forecasts rest on",
    ),
    "shap": ("SHAP", "how far a feature moves the log odds of an answer, on average"),
}
"""What a method is called, and what it measures."""

_MOST_PAIRS = 12
_ROW_PX, _FRAME_PX = 22, 78
_SPARK_WIDTH, _SPARK_HEIGHT = 96, 24
_BENCHMARK = '<rect width="28" height="12" style="fill: var(--benchmark)"/>'
_FLAG = '<rect width="28" height="12" style="fill: var(--flag)"/>'
_SIGNAL = '<rect width="28" height="12" style="fill: var(--signal)"/>'
_MUTED = '<rect width="28" height="12" style="fill: var(--muted)"/>'
_ZERO = '<rect width="27" height="11" x="0.5" y="0.5" style="fill: var(--surface); stroke: var(--muted)"/>'
_LIMIT = '<line class="limit-line" x1="14" y1="0" x2="14" y2="12"/>'
_OWN_STYLES = """
.spark { display: block; width: 6rem; height: 1.5rem; margin-left: auto; }
.spark rect { fill: var(--signal); }
.what { display: block; color: var(--muted); font-size: 0.8125rem; max-width: 34ch; }
td .stale { margin-right: 0; }
tbody th { min-width: 14ch; }
figure + .scroll { margin-top: 1.25rem; }
.set { margin: 1.25rem 0 -0.25rem; font-size: 1.5rem; line-height: 1.2; letter-spacing: -0.02em; }
.set { overflow-wrap: anywhere; }
.set + .about { margin: 0; color: var(--muted); max-width: 68ch; }
.methods { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.25rem; }
@media (min-width: 60rem) { .methods { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
@media (max-width: 40rem) { .what { display: none; } .spark { width: 4.5rem; } }
"""


def write_feature_report(report: FeatureReport, path: Path) -> Path:
    """Writes the report as one HTML file that needs no network; whole, or not at all.

    The same content gives the same bytes.

    Args:
        report: what it shows.
        path: the file; an older one is replaced. Its folder must exist.

    Returns:
        The same path.

    Raises:
        UsageError: the file cannot be written there.
    """
    made: dict[str, Figure] = {}
    sections: list[str] = []
    for place, one in enumerate(report.sets):
        sections += _set_sections(one, f"set-{place}", made)
    for place, model in enumerate(report.models):
        sections += _model_sections(model, f"model-{place}", made)
    if not report.sets:
        sections.append(
            section(
                "nothing",
                "No feature sets",
                _reading("None is declared: `hyperfeast features new NAME` begins one."),
            )
        )
    whole = page(
        "Feature sets", report.created_at, _tiles(report), sections, made, styles=_OWN_STYLES
    )
    return write_whole(whole, path)


def _tiles(report: FeatureReport) -> list[tuple[str, str]]:
    features = [feature for one in report.sets for feature in one.features]
    return [
        ("Feature sets", f"{len(report.sets):,}"),
        ("Features", f"{len(features):,}"),
        ("Rows", f"{sum(one.rows for one in report.sets):,}"),
        ("Out of bounds", f"{sum(bool(one.violations) for one in features):,}"),
        ("Stale entities", f"{sum(row.stale for one in report.sets for row in one.stale):,}"),
        ("Leakage suspects", f"{sum(row.suspect for one in report.sets for row in one.labels):,}"),
    ]


def _set_sections(one: SetReport, key: str, made: "dict[str, Figure]") -> list[str]:
    about = f'\n<p class="about">{escape(one.description)}</p>' if one.description else ""
    head = f'<h2 class="set">{breakable(one.name)}</h2>{about}'
    if not one.seen:
        empty = _reading(
            f"It has no rows yet: `hyperfeast features compute {one.command}` computes them, once what it reads "
            "was ingested."
        )
        return [head, section(f"{key}-features", "Features", empty)]
    return [
        head,
        section(f"{key}-features", "Features", _features(one)),
        _nulls(one, key, made),
        _correlations(one, key, made),
        *_labels(one, key, made),
        _staleness(one, key, made),
    ]


# Features


def _features(one: SetReport) -> str:
    head = '<th scope="col">Feature</th><th scope="col">Missing</th>' + "".join(
        f'<th scope="col">{name}</th>'
        for name in (
            "Mean",
            "Std",
            "5%",
            "Median",
            "95%",
            "1% to 99%",
            "Out&nbsp;of bounds",
        )
    )
    return table("Features", head, [_feature_cells(row) for row in one.features]) + _reading(
        _read_features(one)
    )


def _feature_cells(row: FeatureRow) -> str:
    low, middle, high = row.quantiles or (None, None, None)
    numbers = "".join(
        f"<td>{_digits(value)}</td>" for value in (row.mean, row.std, low, middle, high)
    )
    share = row.nulls / row.rows if row.rows else None
    missing = _part(row.nulls, row.rows)
    if share is not None and share > row.null_limit:
        missing = f'<span class="stale">{missing}</span>'
    beyond = f"{row.violations:,}"
    if row.violations:
        beyond = f'<span class="stale">{beyond}</span>'
    bounds = beyond if row.bounds else "&ndash;"
    return (
        f'<tr><th scope="row">{breakable(row.name)}<span class="what">{escape(_told(row))}</span></th>'
        f"<td>{missing}</td>{numbers}<td>{_spark(row)}</td><td>{bounds}</td></tr>"
    )


def _told(row: FeatureRow) -> str:
    return f"{row.description} Bounds: {row.bounds}." if row.bounds else row.description


def _digits(value: float | None) -> str:
    """Three or four digits that matter; the very large and small as powers of ten."""
    if value is None:
        return number_text(None, 0)
    size = abs(value)
    if size and not 1e-4 <= size < 1e6:  # noqa: PLR2004 - what fits a cell
        return f"{value:.2e}".replace("-", "\N{MINUS SIGN}")
    places = next((places for limit, places in ((100, 1), (10, 2), (1, 3)) if size >= limit), 4)
    return number_text(value, places)


def _part(count: int, whole: int) -> str:
    """A percentage that says 0 and 100 only of none and all."""
    if not whole:
        return number_text(None, 0)
    share = count / whole
    if count and share < 0.0005:  # noqa: PLR2004 - prints as 0.0%
        return "&lt;&nbsp;0.1%"
    if count < whole and share > 0.9995:  # noqa: PLR2004 - prints as 100.0%
        return "&gt;&nbsp;99.9%"
    return percent_text(share) if count else "0"


def _spark(row: FeatureRow) -> str:
    """A histogram the size of a word."""
    if not row.counts:
        return number_text(None, 0)
    width = _SPARK_WIDTH / len(row.counts)
    tallest = max(row.counts)
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{_SPARK_HEIGHT - height:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{height:.1f}"/>'
        for place, count in enumerate(row.counts)
        if (height := max(count / tallest * _SPARK_HEIGHT, 1.0 if count else 0.0))
    )
    return (
        f'<svg class="spark" viewBox="0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true">{bars}</svg>'
    )


def _read_features(one: SetReport) -> str:
    rows = one.features[0].rows if one.features else 0
    beyond = [row.name for row in one.features if row.violations]
    bounded = sum(bool(row.bounds) for row in one.features)
    looked = (
        f"Of {count_text(one.seen, 'row')} that were looked at, {rows:,} have all the history that the longest "
        "rule needs; what follows is of those."
    )
    if one.rows > one.seen:
        looked = f"The table has {count_text(one.rows, 'row')}, superseded ones included. " + looked
    if beyond:
        return f"{looked} Out of bounds: {', '.join(beyond)}."
    if not bounded:
        return f"{looked} No feature declares bounds."
    return f"{looked} Every value is within the bounds that its feature declares, if any."


# Missing values


def _nulls(one: SetReport, key: str, made: "dict[str, Figure]") -> str:
    lacking = [row.name for row in one.features if row.nulls]
    if lacking:
        made[f"chart-{key}-nulls"] = figures.nulls_figure(one.months, one.features)
    return chart(
        f"{key}-nulls",
        "Missing values over time",
        height=_FRAME_PX + _ROW_PX * len(one.features),
        key=[(BAND, "None"), (_BENCHMARK, "Some"), (_FLAG, "More than may be")],
        reading=_read_nulls(one, lacking),
        drawn=bool(lacking),
    )


def _read_nulls(one: SetReport, lacking: Sequence[str]) -> str:
    if not lacking:
        return "No feature lacks a value in any row that has its history."
    worst = max(one.features, key=lambda row: (row.nulls, row.name))
    beyond = [
        row.name for row in one.features if row.rows and row.nulls / row.rows > row.null_limit
    ]
    verdict = (
        f"more than may be: {', '.join(beyond)}"
        if beyond
        else "in none more than it is declared to"
    )
    return (
        f"{count_text(len(lacking), 'feature')} of {len(one.features)} "
        f"{'lacks' if len(lacking) == 1 else 'lack'} values in rows that have their history, {worst.name} in "
        f"{count_text(worst.nulls, 'row')}; {verdict}. A blank is a stretch without such rows."
    )


# Correlation


def _correlations(one: SetReport, key: str, made: "dict[str, Figure]") -> str:
    shown = figures.strongest(one)
    drawn = len(shown) > 1
    if drawn:
        made[f"chart-{key}-correlation"] = figures.correlation_figure(one)
    whole = chart(
        f"{key}-correlation",
        "What moves together",
        height=_FRAME_PX + 20 + _ROW_PX * len(shown),
        key=[
            (_BENCHMARK, "\N{MINUS SIGN}1, against each other"),
            (_ZERO, "0"),
            (_SIGNAL, "1, together"),
        ],
        reading=_read_correlations(one, len(shown)),
        drawn=drawn,
    )
    return whole.replace("</section>", f"{_pairs(one)}</section>") if one.pairs else whole


def _pairs(one: SetReport) -> str:
    rows = [
        f'<tr><th scope="row">{breakable(first)}</th><td class="text">{breakable(second)}</td>'
        f"<td>{number_text(correlation, 3)}</td></tr>"
        for first, second, correlation in one.pairs[:_MOST_PAIRS]
    ]
    head = (
        '<th scope="col">Feature</th><th scope="col" class="text">goes with</th>'
        '<th scope="col">Rank correlation</th>'
    )
    return table("Features that are as good as one", head, rows)


def _read_correlations(one: SetReport, shown: int) -> str:
    if shown < 2:  # noqa: PLR2004 - a pair
        return "There are no two features that vary, so nothing moves together."
    few = (
        f" The {shown} features with the strongest are shown."
        if shown < len(one.correlated)
        else ""
    )
    if not one.pairs:
        return f"Spearman's rank correlation. No two features reach {one.correlated_from:.2f} either way.{few}"
    listed = f" The strongest {_MOST_PAIRS} are listed." if len(one.pairs) > _MOST_PAIRS else ""
    return (
        f"Spearman's rank correlation.{few} {count_text(len(one.pairs), 'pair')} "
        f"{'reaches' if len(one.pairs) == 1 else 'reach'} {one.correlated_from:.2f} either way: to a model that "
        f"ranks, such two are as good as one.{listed}"
    )


# Leakage


def _labels(one: SetReport, key: str, made: "dict[str, Figure]") -> list[str]:
    models = list(dict.fromkeys(row.model for row in one.labels))
    return [
        _label(one, f"{key}-label-{place}", [row for row in one.labels if row.model == model], made)
        for place, model in enumerate(models)
    ]


def _label(one: SetReport, name: str, rows: Sequence[LabelRow], made: "dict[str, Figure]") -> str:
    shown = figures.associated(rows)
    if shown:
        made[f"chart-{name}"] = figures.label_figure(rows, one.leakage)
    return chart(
        name,
        f"Leakage: what foresees {rows[0].model}",
        height=_FRAME_PX + _ROW_PX * len(shown),
        key=[(_SIGNAL, "Feature"), (_FLAG, "Suspect"), (_LIMIT, "Suspect from here on")],
        reading=_read_label(one, rows, shown),
        drawn=bool(shown),
    )


def _read_label(one: SetReport, rows: Sequence[LabelRow], shown: Sequence[LabelRow]) -> str:
    if not shown:
        return (
            "No row of these features has a label that is known yet: ingest a longer history, then compute and "
            "report again."
        )
    horizon = count_text(rows[0].horizon, "session")
    suspects = [row.feature for row in shown if row.suspect]
    best = shown[0]
    held = (
        f"Rank correlation with the return over the {horizon} that follow. {best.feature} goes farthest, "
        f"{number_text(best.correlation, 3)}"
    )
    if suspects:
        return (
            f"{held}. Too good to be true: {', '.join(suspects)}. `hyperfeast features check {one.command}` tells "
            "whether a rule looks ahead; what is known later than its event timestamp leaks, too."
        )
    return f"{held}, and nothing reaches {one.leakage:.2f}: no feature is suspect of knowing the future."


# Staleness


def _staleness(one: SetReport, key: str, made: "dict[str, Figure]") -> str:
    shown = figures.behind(one.stale)
    if shown:
        made[f"chart-{key}-staleness"] = figures.staleness_figure(one.stale, one.freshness_days)
    return chart(
        f"{key}-staleness",
        "Staleness",
        height=_FRAME_PX + _ROW_PX * max(len(shown), 3),
        key=[
            (_SIGNAL, "Fresh enough"),
            (_FLAG, "Stale"),
            (_MUTED, "Delisted"),
            (_LIMIT, "As old as a row may be"),
        ],
        reading=_read_staleness(one, len(shown)),
        drawn=bool(shown),
    )


def _read_staleness(one: SetReport, shown: int) -> str:
    entities = count_text(len(one.stale), "entity", "entities")
    newest = max(row.newest for row in one.stale)
    at = f"{newest:%Y-%m-%d %H:%M} UTC"
    if not shown:
        return f"Every one of {entities} has a row of {at}, the set's newest."
    stale = sum(row.stale for row in one.stale)
    late = sum(row.behind_days > 0 for row in one.stale)
    few = f" The {shown} stalest are shown." if late > shown else ""
    verdict = (
        f"{stale:,} {'is' if stale == 1 else 'are'} further behind than the {one.freshness_days:g} days that a "
        "row may be old"
        if stale
        else f"none is further behind than the {one.freshness_days:g} days that a row may be old"
    )
    return f"The set's newest row is of {at}. Of {entities}, {verdict}.{few}"


# Models


def _model_sections(model: ModelReport, key: str, made: "dict[str, Figure]") -> list[str]:
    head = f'<h2 class="set">{breakable(model.name)}</h2>'
    if not model.rows:
        empty = _reading(
            f"It has no version whose importances were measured: `hyperfeast train {model.name}` trains one and "
            "measures."
        )
        return [head, section(f"{key}-importance", "Importance", empty)]
    parts = [
        _importance([row for row in model.rows if row.method == method], method, key, made)
        for method in METHODS
        if any(row.method == method for row in model.rows)
    ]
    return [head, '<div class="methods">', *parts, "</div>"]


def _importance(
    rows: Sequence[ImportanceRow], method: str, key: str, made: "dict[str, Figure]"
) -> str:
    shown = figures.ranked(rows)
    name = f"{key}-{method}"
    made[f"chart-{name}"] = figures.importance_figure(rows)
    return chart(
        name,
        f"Importance by {METHODS[method][0]}",
        height=_FRAME_PX + _ROW_PX * len(shown),
        key=[],
        reading=_read_importance(rows, method, len(shown)),
        drawn=True,
    )


def _read_importance(rows: Sequence[ImportanceRow], method: str, shown: int) -> str:
    _, measure = METHODS[method]
    newest = max(row.version for row in rows)
    own = sorted((row for row in rows if row.version == newest), key=lambda row: row.rank)
    best = own[0]
    before = [row.version for row in rows if row.version < newest]
    moved = ""
    if before:
        last = max(before)
        rank = next(
            (row.rank for row in rows if row.version == last and row.feature == best.feature), None
        )
        moved = f", in v{last} " + (f"number {rank}" if rank else "not among them")
    features = len({row.feature for row in rows})
    few = f" The first {shown} of {features} are shown." if features > shown else ""
    return (
        f"{measure[0].upper()}{measure[1:]}. In v{newest} {best.feature} comes first{moved}. The number is the "
        f"rank; the stronger its color, the greater the share.{few}"
    )


def _reading(text: str) -> str:
    return f'<p class="reading">{escape(text)}</p>'
