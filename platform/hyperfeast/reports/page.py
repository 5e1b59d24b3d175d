"""The demo's page: tables, charts and sentences, put into one HTML file and written at once."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hyperfeast.reports import figures
from hyperfeast.reports.content import DemoReport, PredictionRow, ScoreRow
from hyperfeast.reports.files import write_whole
from hyperfeast.reports.frame import breakable, chart, moment, page, section, table
from hyperfeast.reports.marks import (
    BAND,
    BENCHMARK_LINE,
    FLAG,
    LIMIT_LINE,
    MEAN_LINE,
    SIGNAL_DOTS,
    SIGNAL_LINE,
)
from hyperfeast.reports.readings import (
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
    whole = page(
        report.title, report.created_at, report.summary, _sections(report), _figures(report)
    )
    return write_whole(whole, path)


def _figures(report: DemoReport) -> "dict[str, Figure]":
    """The figures that have something to show, by the id of their element."""
    made: dict[str, Figure] = {}
    if numbers(report.equity.signal) or numbers(report.equity.buy_and_hold):
        made["chart-equity"] = figures.equity_figure(report.equity)
    if report.roc.true_positive_rate:
        made["chart-roc"] = figures.roc_figure(report.roc)
    if report.importance:
        made["chart-importance"] = figures.importance_figure(report.importance)
    if numbers(report.glucose.day_mean):
        made["chart-glucose"] = figures.deviations_figure(report.glucose, "Glucose")
    return made


def _sections(report: DemoReport) -> list[str]:
    auc = number_text(report.roc.auc, 3)
    bars = min(len(report.importance), figures.MOST_FEATURES)
    shown = f"The {bars} with the most gain are shown. " if len(report.importance) > bars else ""
    return [
        section("scores", "Score out of sample", _scores(report.scores)),
        chart(
            "equity",
            "Equity: the signal against buying and holding",
            height=380,
            key=[(SIGNAL_LINE, "Signal"), (BENCHMARK_LINE, "Buy and hold")],
            reading=read_equity(report.equity),
            drawn=bool(numbers(report.equity.signal) or numbers(report.equity.buy_and_hold)),
        ),
        '<div class="pair">',
        chart(
            "roc",
            "ROC: how well it ranks",
            height=None,
            key=[
                (SIGNAL_LINE, f"Model, AUC {auc}"),
                (BENCHMARK_LINE, "Coin toss, AUC 0.500"),
            ],
            reading=read_roc(report.roc),
            drawn=bool(report.roc.true_positive_rate),
        ),
        chart(
            "importance",
            "Importance: what the trees used",
            height=90 + 22 * bars,
            key=[],
            reading=shown + read_importance(report.importance),
            drawn=bool(report.importance),
        ),
        "</div>",
        section("predictions", "Latest predictions", _predictions(report.predictions)),
        chart(
            "glucose",
            "Glucose: each day against its trailing 30 days",
            height=520,
            key=[
                (SIGNAL_DOTS, "Day"),
                (MEAN_LINE, "30-day mean"),
                (BAND, "Mean \N{PLUS-MINUS SIGN} 2 std"),
                (LIMIT_LINE, "z = \N{PLUS-MINUS SIGN}2"),
                (FLAG, "Flagged day"),
            ],
            reading=read_glucose(report.glucose),
            drawn=bool(numbers(report.glucose.day_mean)),
        ),
        *_tomorrow(report.glucose_scores),
        _notes(report.notes),
    ]


def _tomorrow(scores: Sequence[ScoreRow]) -> list[str]:
    if not scores:
        return []
    title = "Tomorrow\N{RIGHT SINGLE QUOTATION MARK}s glucose, out of sample"
    return [section("tomorrow", title, _scores(scores))]


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
        f'<tr><th scope="row">{breakable(row.name)}</th>{"".join(cells_of_row)}</tr>'
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
    return table("Scores", head, rows) + reading


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
        f"<td>{_FRESHNESS[row.stale]} {moment(row.event_timestamp)}</td></tr>"
        for row in predictions
    ]
    return table("Predictions", head, rows) + reading


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
    return section("notes", "Read with care", f'<ul class="notes">\n{items}\n</ul>')
