"""The report's content, sentences, figures and page, without a browser."""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast import reports
from hyperfeast.errors import DataError, UsageError
from hyperfeast.reports import (
    DemoReport,
    EquityCurve,
    PredictionRow,
    RocCurve,
    ScoreRow,
    ZScoreSeries,
    figures,
    palette,
    readings,
    series,
    write_report,
)

NAN = float("nan")
MONDAY = date(2010, 1, 4)
CLOSE = datetime(2013, 3, 1, 21, tzinfo=UTC)


def days(*offsets: int) -> list[date]:
    return [MONDAY + timedelta(days=offset) for offset in offsets]


def glucose(*rows: tuple[int, float | None, float | None]) -> ZScoreSeries:
    """Rows of day, mean and z-score, against a baseline of 150 with a spread of 10."""
    return ZScoreSeries(
        dates=days(*(row[0] for row in rows)),
        day_mean=[row[1] for row in rows],
        mean_30d=[150.0 for _ in rows],
        std_30d=[10.0 for _ in rows],
        z_score=[row[2] for row in rows],
    )


def report(**changes: Any) -> DemoReport:
    whole = DemoReport(
        title="A demo",
        created_at=datetime(2025, 11, 21, 4, 44, tzinfo=UTC),
        summary=[("Candles", "12,154")],
        scores=[
            ScoreRow("The model", 0.518, 0.524, 0.693, 0.25),
            ScoreRow("Always up", 0.551, 0.5, 0.688, None),
        ],
        equity=EquityCurve(days(0, 1, 2), [1.0, 1.1, 1.32], [1.0, 1.5, 2.1]),
        roc=RocCurve([0.0, 0.4, 1.0], [0.0, 0.5, 1.0], 0.55),
        importance=[("rsi_14", 4.0), ("atr_14", 9.0)],
        predictions=[PredictionRow("AAPL", "SELL", 0.41, CLOSE, stale=True)],
        glucose=glucose((0, 150.0, 0.0), (1, 175.0, 2.5), (4, 140.0, -1.0)),
        notes=["Returns are before costs."],
    )
    return dataclasses.replace(whole, **changes)


def written(tmp_path: Path, **changes: Any) -> str:
    return write_report(report(**changes), tmp_path / "report.html").read_text("utf-8")


def without_plotly(page: str) -> str:
    return re.sub(r"<script>/\*.*?</script>", "", page, flags=re.DOTALL)


class Outline(HTMLParser):
    """The elements of a page, and whether each that opens is closed in its turn."""

    VOID = frozenset({"meta", "link", "wbr", "br", "line", "circle", "rect", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.declarations: list[str] = []
        self.feed(page)
        self.close()

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# Content


@pytest.mark.parametrize(
    "build",
    [
        lambda: EquityCurve(days(0, 1), [1.0], [1.0, 1.0]),
        lambda: EquityCurve(days(0, 1), [1.0, 1.0], [1.0]),
        lambda: RocCurve([0.0, 1.0], [0.0], 0.5),
        lambda: ZScoreSeries(days(0), [1.0], [1.0], [], [1.0]),
    ],
)
def test_columns_of_different_lengths_are_refused(build: Any) -> None:
    with pytest.raises(DataError, match=r"columns of one length; found .* 1"):
        build()


@pytest.mark.parametrize("dates", [days(1, 0), days(0, 0)])
def test_dates_must_ascend(dates: list[date]) -> None:
    with pytest.raises(DataError, match="ascending"):
        EquityCurve(dates, [1.0, 1.0], [1.0, 1.0])


def test_times_without_a_zone_are_refused() -> None:
    naive = CLOSE.replace(tzinfo=None)
    with pytest.raises(DataError, match="with a zone"):
        PredictionRow("AAPL", "BUY", 0.5, naive, stale=False)
    with pytest.raises(DataError, match="with a zone"):
        report(created_at=naive)


# Series

values = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
offsets = st.lists(st.integers(0, 200), unique=True).map(sorted)


@given(offsets, st.data(), st.integers(1, 12))
def test_with_gaps_adds_a_hole_wherever_days_are_missing_and_nothing_else(
    steps: list[int], data: st.DataObject, longest_days: int
) -> None:
    column = data.draw(st.lists(values, min_size=len(steps), max_size=len(steps)))
    longest = timedelta(days=longest_days)
    dates, (out,) = series.with_gaps(days(*steps), [column], longest=longest)
    kept = [(day, value) for day, value in zip(dates, out, strict=True) if day in days(*steps)]
    assert kept == list(zip(days(*steps), series.finite(column), strict=True))
    assert all(
        value is None for day, value in zip(dates, out, strict=True) if day not in days(*steps)
    )
    for (earlier, one), (later, other) in pairwise(zip(dates, out, strict=True)):
        assert earlier < later
        if later - earlier > longest:
            assert one is None or other is None


@given(st.lists(st.booleans()))
def test_runs_are_the_longest_stretches(present: list[bool]) -> None:
    found = list(series.runs(present))
    covered = [place for run in found for place in range(run.start, run.stop)]
    assert covered == [place for place, here in enumerate(present) if here]
    assert all(one.stop < other.start for one, other in pairwise(found))


# Readings


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.005, 1, "1.0"),
        (-1.5, 1, "\N{MINUS SIGN}1.5"),
        (-0.001, 2, "0.00"),
        (12154.0, 0, "12,154"),
        (None, 2, "\N{EN DASH}"),
        (NAN, 2, "\N{EN DASH}"),
    ],
)
def test_numbers_are_set_as_print_sets_them(value: float | None, digits: int, text: str) -> None:
    assert readings.number_text(value, digits) == text


@pytest.mark.parametrize(
    ("signal", "held", "sentence"),
    [
        ([1.0, 1.32], [1.0, 2.1], "the signal grew 1 to 1.32; buying and holding grew 1 to 2.10."),
        (
            [1.0, 0.4, NAN],
            [1.0, 1.001, None],
            "the signal shrank 1 to 0.40; buying and holding left 1 at 1.00.",
        ),
    ],
)
def test_equity_reads(signal: list[float], held: list[float | None], sentence: str) -> None:
    curve = EquityCurve(days(*range(len(signal))), signal, held)
    assert readings.read_equity(curve).endswith(sentence)
    assert readings.read_equity(curve).startswith("Out of sample, 4 Jan 2010 to ")


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (0.518, "by accuracy the model is 3.3 points behind."),
        (0.563, "by accuracy the model is 1.2 points ahead."),
        (0.5512, "by accuracy the two are level."),
    ],
)
def test_scores_are_held_against_the_best_baseline(accuracy: float, verdict: str) -> None:
    rows = [
        ScoreRow("The model", accuracy, None, None, None),
        ScoreRow("Yesterday's sign", 0.49, None, None, None),
        ScoreRow("Always up", 0.551, None, None, None),
    ]
    sentence = readings.read_scores(rows)
    assert "the best baseline (Always up) 55.1%" in sentence
    assert sentence.endswith(verdict)


def test_roc_reads() -> None:
    assert "54.4% of the time; a coin toss would, 50%." in readings.read_roc(
        RocCurve([0, 1], [0, 1], 0.544)
    )
    assert "Only one outcome" in readings.read_roc(RocCurve([0, 1], [0, 1], None))


def test_importance_reads() -> None:
    sentence = readings.read_importance([("a", 1.0), ("b", 9.0), ("c", 2.0)])
    assert sentence.startswith("Of 3 features, splits on b gained most (9.00; the median is 2.00)")


def test_glucose_reads_flags_and_missing_days() -> None:
    sentence = readings.read_glucose(
        glucose(
            (0, 150.0, None), (1, 175.0, 2.5), (4, 128.0, -3.14), (5, None, None), (6, 170.0, 2.0)
        )
    )
    assert sentence == (
        "Of 3 days with a baseline, 2 lie more than 2 standard deviations from the 30-day mean, "
        "8 Jan 2010 the farthest (z = \N{MINUS SIGN}3.1); 3 days have no reading."
    )


def test_glucose_reads_when_nothing_is_flagged_or_measured() -> None:
    assert readings.read_glucose(glucose((0, 150.0, 0.5))).startswith("None of 1 day with")
    assert readings.read_glucose(glucose()).startswith("There are too few days")


def test_predictions_read_what_is_stale() -> None:
    fresh = PredictionRow("A", "BUY", 0.6, CLOSE, stale=False)
    old = dataclasses.replace(fresh, stale=True)
    assert readings.read_predictions([fresh]).startswith("Every prediction rests on")
    assert readings.read_predictions([fresh, old]).startswith("1 of 2 predictions rests on")
    assert readings.read_predictions([old, old]).startswith("2 of 2 predictions rest on")


# Figures


def named(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


def test_a_weekend_is_bridged_and_a_hole_is_not() -> None:
    curve = EquityCurve(days(4, 7, 30), [1.0, 1.1, 1.2], [1.0, NAN, 1.2])
    figure = figures.equity_figure(curve)
    assert list(named(figure, "Signal").y) == [1.0, 1.1, None, 1.2]
    assert list(named(figure, "Buy and hold").y) == [1.0, None, None, 1.2]
    assert not named(figure, "Signal").connectgaps


@pytest.mark.parametrize(("last", "kind"), [(1.4, None), (6.0, "log")])
def test_growth_by_factors_gets_a_log_axis(last: float, kind: str | None) -> None:
    axis = figures.equity_figure(EquityCurve(days(0, 1), [1.0, last], [1.0, 1.1])).layout.yaxis
    assert axis.type == kind
    assert ("log scale" in axis.title.text) == (kind == "log")


def test_a_total_loss_still_has_an_axis() -> None:
    figure = figures.equity_figure(EquityCurve(days(0, 1), [1.0, 0.0], [1.0, 9.0]))
    assert figure.layout.yaxis.type is None


def test_importance_is_sorted_cut_and_escaped() -> None:
    pairs = [(f"<b>{place}</b>", float(place % 23)) for place in range(23)]
    (bars,) = figures.importance_figure(pairs).data
    assert list(bars.x) == [float(gain) for gain in range(22, 2, -1)]
    assert bars.y[0] == "&lt;b&gt;22&lt;/b&gt;"


def test_the_band_is_cut_where_days_are_missing() -> None:
    figure = figures.deviations_figure(
        glucose((0, 150.0, 0.0), (1, 151.0, 0.1), (4, 140.0, -1.0)), "Glucose"
    )
    (band,) = [trace for trace in figure.data if trace.fill == "toself"]
    assert list(band.y) == [170.0, 170.0, 130.0, 130.0, None, 170.0, 130.0, None]
    assert list(named(figure, "Day mean").y) == [150.0, 151.0, None, 140.0]


def test_days_beyond_two_deviations_are_flagged_in_both_panels() -> None:
    figure = figures.deviations_figure(
        glucose((0, 150.0, 2.0), (1, 175.0, 2.01), (2, 128.0, -2.2)), "Glucose"
    )
    flags = [list(trace.y) for trace in figure.data if trace.mode == "markers"]
    assert flags == [[None, 175.0, 128.0], [None, 2.01, -2.2]]
    levels = sorted(shape.y0 for shape in figure.layout.shapes if shape.yref == "y2")
    assert levels == [-2, 0, 2]


# Palette


def channels(color: str) -> list[float]:
    shares = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    ]


def contrast(one: str, other: str) -> float:
    def luminance(color: str) -> float:
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels(color), strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
DEFICIENCIES = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def lab(linear: Sequence[float]) -> list[float]:
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    f = []
    for row, full in zip(to_xyz, white, strict=True):
        share = sum(w * min(max(c, 0), 1) for w, c in zip(row, linear, strict=True)) / full
        f.append(share ** (1 / 3) if share > 0.008856 else 7.787 * share + 16 / 116)
    return [116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]


@pytest.mark.parametrize("colors", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out(colors: palette.Palette) -> None:
    for ground in (colors.page, colors.surface):
        assert contrast(colors.ink, ground) >= 7
        assert contrast(colors.muted, ground) >= 4.5
    for mark in (colors.signal, colors.benchmark, colors.flag):
        assert contrast(mark, colors.surface) >= 4.5
    assert contrast(colors.signal, colors.band) >= 3
    assert contrast(colors.muted, colors.band) >= 3


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("colors", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_lines_differ_for_a_color_blind_reader(colors: palette.Palette, deficiency: str) -> None:
    seen = []
    for color in (colors.signal, colors.benchmark, colors.flag):
        linear = channels(color)
        seen.append(
            lab(
                [
                    sum(w * c for w, c in zip(row, linear, strict=True))
                    for row in DEFICIENCIES[deficiency]
                ]
            )
        )
    signal, *others = seen
    for other in others:
        assert sum((a - b) ** 2 for a, b in zip(signal, other, strict=True)) ** 0.5 > 25


def test_every_role_has_a_color_of_its_own() -> None:
    for colors in (palette.LIGHT, palette.DARK):
        used = dataclasses.astuple(colors)
        assert all(one != other for one, other in combinations(used, 2))
    assert set(palette.dark_twins()) == set(dataclasses.astuple(palette.LIGHT))


def test_figures_hold_no_markup_and_no_color_without_a_dark_twin(tmp_path: Path) -> None:
    data = re.search(r'id="figures">(.*?)</script>', written(tmp_path), re.DOTALL)
    assert data is not None
    assert "<" not in data[1]
    charts = json.dumps(json.loads(data[1])["figures"])
    assert set(re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\([^)]*\)", charts)) <= set(
        palette.dark_twins()
    )


# Page


def test_page_is_whole_html(tmp_path: Path) -> None:
    page = written(tmp_path)
    outline = Outline(page)
    assert outline.open == []
    assert outline.declarations == ["DOCTYPE html"]
    assert outline.all("html") == [{"lang": "en"}]
    assert {"charset": "utf-8"} in outline.all("meta")
    assert any(meta.get("name") == "viewport" for meta in outline.all("meta"))
    assert [tag for tag, _ in outline.elements].count("h1") == 1
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = [
        attributes[name]
        for _, attributes in outline.elements
        for name in ("aria-labelledby", "aria-describedby")
        if name in attributes
    ]
    assert set(referred) <= set(ids)
    assert page.count("plotly.js v") == 1


def test_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    outline = Outline(written(tmp_path))
    addresses = [
        value or ""
        for _, attributes in outline.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "poster"}
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "@import" not in "".join(outline.texts[:20])


def test_policy_names_exactly_the_scripts_of_the_page(tmp_path: Path) -> None:
    page = written(tmp_path)
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = {
        "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in scripts
    }
    policy = next(meta["content"] for meta in Outline(page).all("meta") if "http-equiv" in meta)
    assert set(re.findall(r"'(sha256-[^']+)'", policy or "")) == hashes
    assert len(scripts) == 2
    assert "default-src 'none'" in (policy or "")


HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(1)'>\"&"


def test_text_from_outside_is_never_markup(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        title=HOSTILE,
        summary=[(HOSTILE, HOSTILE)],
        scores=[ScoreRow(HOSTILE, 0.5, 0.5, 0.7, None), ScoreRow(HOSTILE, 0.5, 0.5, 0.7, None)],
        importance=[(HOSTILE, 1.0), ("b", 0.5)],
        predictions=[PredictionRow(HOSTILE, HOSTILE, 0.5, CLOSE, stale=False)],
        glucose=dataclasses.replace(glucose((0, 150.0, 0.5)), unit=HOSTILE),
        notes=[HOSTILE],
    )
    outline = Outline(page)
    assert outline.open == []
    assert outline.all("img") == []
    assert len(outline.all("script")) == 3
    assert not any(name.startswith("on") for _, held in outline.elements for name in held)
    assert HOSTILE in "".join(outline.texts)


def test_times_are_shown_in_utc(tmp_path: Path) -> None:
    eastern = datetime(2013, 3, 1, 16, tzinfo=timezone(timedelta(hours=-5)))
    page = written(tmp_path, predictions=[PredictionRow("A", "BUY", 0.6, eastern, stale=False)])
    assert '<time datetime="2013-03-01T21:00:00Z">1 Mar 2013, 21:00 UTC</time>' in page


def test_stale_is_said_beside_its_row_only(tmp_path: Path) -> None:
    fresh = PredictionRow("MSFT", "BUY", 0.6, CLOSE, stale=False)
    rows = re.findall(
        r"<tr>.*?</tr>", written(tmp_path, predictions=[*report().predictions, fresh])
    )
    assert ['class="stale"' in row for row in rows if "AAPL" in row or "MSFT" in row] == [
        True,
        False,
    ]


def test_best_of_a_column_is_marked_ties_and_all(tmp_path: Path) -> None:
    scores = [
        ScoreRow("The model", 0.55, 0.524, 0.693, 0.25),
        ScoreRow("Always up", 0.55004, 0.5, 0.688, None),
        ScoreRow("Yesterday's sign", 0.5, None, None, NAN),
    ]
    best = re.findall(r'<td class="best">(.*?)</td>', written(tmp_path, scores=scores))
    assert best == ["55.0%", "0.524", "55.0%", "0.688"]


def test_an_empty_report_says_what_is_missing(tmp_path: Path) -> None:
    page = without_plotly(
        written(
            tmp_path,
            summary=[],
            scores=[],
            equity=EquityCurve([], [], []),
            roc=RocCurve([], [], None),
            importance=[],
            predictions=[],
            glucose=glucose(),
            notes=[],
        )
    )
    for sentence in (
        "Nothing was scored.",
        "There is no out-of-sample return to show.",
        "Only one outcome was seen",
        "The model made no split",
        "No prediction was made.",
        "There are too few days",
    ):
        assert sentence in page
    assert Outline(page).open == []
    assert 'class="chart' not in page


def test_numbers_that_are_none_reach_the_file_as_gaps(tmp_path: Path) -> None:
    curve = EquityCurve(days(0, 1, 2), [1.0, NAN, float("inf")], [1.0, None, 1.2])
    page = without_plotly(written(tmp_path, equity=curve))
    data = re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    traces = json.loads(data[1])["figures"]["chart-equity"]["data"]
    assert [trace["y"] for trace in traces] == [[1.0, None, 1.2], [1.0, None, None]]


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", "utf-8")
    assert write_report(report(title="Gr\u00fc\u00dfe \ud800"), path) == path
    assert "<title>Grüße ?</title>" in path.read_text("utf-8")
    assert [held.name for held in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_is_the_same_file(tmp_path: Path) -> None:
    assert written(tmp_path) == written(tmp_path)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing/report.html; found: No such file"):
        write_report(report(), tmp_path / "missing" / "report.html")
    folder = tmp_path / "report.html"
    folder.mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        write_report(report(), folder)
    assert list(tmp_path.iterdir()) == [folder]


# The frame


def test_pages_have_one_frame() -> None:
    """Scripts, policy and header are written in one place, and every page is made there."""
    folder = Path(reports.__file__).parent
    for sign in ("<!DOCTYPE", "Content-Security-Policy", "<h1>", "get_plotlyjs", "sha256"):
        assert [one.name for one in folder.glob("*.py") if sign in one.read_text("utf-8")] == [
            "frame.py"
        ]
