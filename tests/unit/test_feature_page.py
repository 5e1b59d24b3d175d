"""The report of feature sets: what its charts hold, what its sentences say, and that it is the same each time."""

import dataclasses
import math
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from hyperfeast.errors import DataError, UsageError
from hyperfeast.reports import feature_figures as figures
from hyperfeast.reports.feature_content import (
    FeatureReport,
    FeatureRow,
    ImportanceRow,
    LabelRow,
    ModelReport,
    NullCell,
    SetReport,
    StaleRow,
)
from hyperfeast.reports.features import write_feature_report
from hyperfeast.reports.palette import LIGHT

NAN = math.nan
NOW = datetime(2024, 6, 1, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def feature(name: str, **changes: Any) -> FeatureRow:
    whole = FeatureRow(
        name=name,
        description="What it is.",
        rows=1000,
        nulls=0,
        null_limit=0.05,
        violations=0,
        bounds="0 to 100",
        mean=50.0,
        std=10.0,
        quantiles=(33.0, 50.0, 67.0),
        counts=(1, 5, 20, 5, 1),
    )
    return dataclasses.replace(whole, **changes)


def one_set(**changes: Any) -> SetReport:
    whole = SetReport(
        name="momentum v2",
        command="momentum_v2",
        description="Momentum of daily bars.",
        rows=1100,
        seen=1100,
        freshness_days=7.0,
        features=[feature("rsi", nulls=100), feature("macd", nulls=1, bounds="")],
        months=[
            NullCell("rsi", date(2024, 1, 1), 100, 50),
            NullCell("rsi", date(2024, 2, 1), 100, 0),
            NullCell("macd", date(2024, 1, 1), 100, 1),
            NullCell("macd", date(2024, 3, 1), 100, 0),
        ],
        stale=[
            StaleRow("BBB", NOW, 12.0, stale=True, ended=False),
            StaleRow("CCC", NOW, 9.0, stale=False, ended=True),
            StaleRow("DDD", NOW, 1.0, stale=False, ended=False),
            StaleRow("AAA", NOW, 0.0, stale=False, ended=False),
        ],
        correlated=["rsi", "macd", "constant"],
        correlations=[[1.0, 0.97, NAN], [0.97, 1.0, NAN], [NAN, NAN, NAN]],
        pairs=[("rsi", "macd", 0.97)],
        labels=[
            LabelRow("direction", 5, "rsi", -0.4, suspect=True),
            LabelRow("direction", 5, "macd", 0.02, suspect=False),
            LabelRow("direction", 5, "constant", None, suspect=False),
        ],
        leakage=0.3,
        correlated_from=0.95,
    )
    return dataclasses.replace(whole, **changes)


def importances(versions: int = 2) -> list[ImportanceRow]:
    return [
        ImportanceRow(version, method, name, importance, rank)
        for version in range(1, versions + 1)
        for method in ("gain", "permutation", "shap")
        for rank, (name, importance) in enumerate((("rsi", 3.0), ("macd", 1.0)), start=1)
    ]


def page(tmp_path: Path, *sets: SetReport, models: tuple[ModelReport, ...] = ()) -> str:
    path = write_feature_report(FeatureReport(NOW, sets, models), tmp_path / "page.html")
    whole = path.read_text("utf-8")
    return re.sub(r"<script>/\*.*?</script>", "", whole, flags=re.DOTALL)


def text(whole: str) -> str:
    """What a reader sees, in one line."""
    body = whole[whole.index("<main>") : whole.index("</main>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body.replace("<wbr>", "")))


# Figures


def test_missing_values_are_graded_by_what_may_be() -> None:
    found = one_set()
    (heat,) = figures.nulls_figure(found.months, found.features).data
    assert list(heat.x) == ["2024-01-01", "2024-02-01", "2024-03-01"]
    # From the bottom: macd has one of 100 in January, nothing known of February; rsi half of January.
    assert list(heat.y) == ["macd", "rsi"]
    assert [list(row) for row in heat.z] == [[1, None, 0], [2, 0, None]]


@pytest.mark.parametrize(
    ("years", "stretch", "columns"), [(5, "Month", 60), (6, "Quarter", 24), (16, "Year", 16)]
)
def test_long_histories_are_put_together(years: int, stretch: str, columns: int) -> None:
    cells = [
        NullCell("rsi", date(2000 + year, month, 1), 10, 1)
        for year in range(years)
        for month in range(1, 13)
    ]
    figure = figures.nulls_figure(cells, [feature("rsi", null_limit=0.1)])
    assert figure.layout.xaxis.title.text == f"{stretch} (UTC)"
    assert len(figure.data[0].x) == columns
    # A tenth may be missing, and is, however the months are put together.
    assert set(figure.data[0].z[0]) == {1}


def test_correlations_leave_out_what_has_none_and_hold_no_nan() -> None:
    (heat,) = figures.correlation_figure(one_set()).data
    assert list(heat.y) == ["rsi  1", "macd  2"]
    assert [list(row) for row in heat.z] == [[1.0, 0.97], [0.97, 1.0]]


def test_of_many_features_the_most_correlated_are_shown_in_their_order() -> None:
    names = [f"f{number}" for number in range(50)]
    matrix = [
        [1.0 if row == column else (row + column) / 100 for column in range(50)]
        for row in range(50)
    ]
    found = one_set(correlated=names, correlations=matrix)
    assert figures.strongest(found) == list(range(20, 50))
    assert len(figures.correlation_figure(found).layout.xaxis.tickvals) <= 10


def test_suspects_stand_out() -> None:
    found = one_set()
    figure = figures.label_figure(found.labels, found.leakage)
    (bars,) = figure.data
    assert list(bars.x) == [0.4, 0.02]
    assert list(bars.y) == ["rsi", "macd"]
    assert list(bars.marker.color) == [LIGHT.flag, LIGHT.signal]
    assert figure.layout.shapes[0].x0 == 0.3
    assert figure.layout.xaxis.range[1] > 0.4


def test_staleness_shows_who_is_behind() -> None:
    found = one_set()
    (bars,) = figures.staleness_figure(found.stale, found.freshness_days).data
    assert list(bars.x) == [12.0, 9.0, 1.0]
    assert list(bars.marker.color) == [LIGHT.flag, LIGHT.muted, LIGHT.signal]


def test_names_too_long_for_an_axis_keep_their_ends() -> None:
    user = "00000000-0000-4000-8000-00000000000a, glucose"
    rows = [StaleRow(user, NOW, 3.0, stale=False, ended=False)]
    figure = figures.staleness_figure(rows, 7.0)
    assert list(figure.data[0].y) == list(figure.layout.yaxis.tickvals) == [user]
    assert list(figure.layout.yaxis.ticktext) == ["00000000…00a, glucose"]


def test_importance_goes_by_the_newest_version() -> None:
    rows = [
        ImportanceRow(1, "permutation", "old", 4.0, 1),
        ImportanceRow(1, "permutation", "rsi", 0.0, 2),
        ImportanceRow(2, "permutation", "rsi", 3.0, 1),
        ImportanceRow(2, "permutation", "macd", -1.0, 2),
    ]
    (heat,) = figures.importance_figure(rows).data
    assert list(heat.x) == ["v1", "v2"]
    assert list(heat.y) == ["rsi", "macd", "old"]
    assert [list(row) for row in heat.z] == [[0.0, 1.0], [None, 0.0], [1.0, None]]
    assert [list(row) for row in heat.text] == [["2", "1"], ["", "2"], ["1", ""]]
    many = figures.importance_figure(importances(30)[::3]).data[0]
    assert len(many.x) == figures.MOST_VERSIONS
    assert many.x[-1] == "v30"


def test_importance_of_nothing_can_be_drawn() -> None:
    rows = [ImportanceRow(1, "gain", "rsi", 0.0, 1)]
    assert figures.importance_figure(rows).data[0].zmax == 1


# The page


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    said = text(page(tmp_path, one_set(), models=(ModelReport("direction", importances()),)))
    assert "momentum v2 Momentum of daily bars." in said
    assert "Of 1,100 rows that were looked at, 1,000 have all the history" in said
    assert (
        "2 features of 2 lack values in rows that have their history, rsi in 100 rows; more than may be: rsi"
        in (said)
    )
    assert "1 pair reaches 0.95 either way" in said
    assert "rsi goes farthest, \N{MINUS SIGN}0.400. Too good to be true: rsi." in said
    assert "`hyperfeast features check momentum_v2`" in said
    assert "Of 4 entities, 1 is further behind than the 7 days that a row may be old." in said
    assert "In v2 rsi comes first, in v1 number 1." in said
    assert said.count("Importance by") == 3


def test_what_is_wrong_is_marked_in_the_table(tmp_path: Path) -> None:
    rows = [
        feature("low", violations=3),
        feature("few", nulls=600),
        feature("none", bounds="", mean=None, std=None, quantiles=(), counts=(), nulls=1000),
    ]
    whole = page(tmp_path, one_set(features=rows))
    assert '<span class="stale">3</span>' in whole
    assert '<span class="stale">60.0%</span>' in whole
    assert "Out of bounds: low." in text(whole)
    assert whole.count('class="spark"') == 2
    assert "nan" not in whole.lower().replace("finance", "")


def test_clean_sets_have_sentences_instead_of_charts(tmp_path: Path) -> None:
    clean = one_set(
        features=[feature("rsi"), feature("macd")],
        stale=[StaleRow("AAA", NOW, 0.0, stale=False, ended=False)],
        correlations=[[NAN] * 3] * 3,
        pairs=[],
        labels=[],
    )
    whole = page(tmp_path, clean)
    assert 'class="chart"' not in whole
    said = text(whole)
    assert "No feature lacks a value in any row that has its history." in said
    assert "Every one of 1 entity has a row of 2024-06-01 00:00 UTC" in said
    assert "There are no two features that vary" in said
    assert "Every value is within the bounds" in said


def test_empty_states_say_what_to_do(tmp_path: Path) -> None:
    said = text(page(tmp_path, one_set(seen=0, rows=0), models=(ModelReport("direction"),)))
    assert "It has no rows yet: `hyperfeast features compute momentum_v2`" in said
    assert "`hyperfeast train direction` trains one and measures." in said
    assert "`hyperfeast features new NAME` begins one" in text(page(tmp_path))
    unlabelled = one_set(labels=[LabelRow("direction", 5, "rsi", None, suspect=False)])
    assert "No row of these features has a label that is known yet" in text(
        page(tmp_path, unlabelled)
    )


def test_text_is_text(tmp_path: Path) -> None:
    hostile = one_set(
        name=HOSTILE,
        command=HOSTILE,
        description=HOSTILE,
        features=[feature(HOSTILE, description=HOSTILE, nulls=1, bounds=HOSTILE)],
        months=[NullCell(HOSTILE, date(2024, 1, 1), 10, 1)],
        stale=[StaleRow(HOSTILE, NOW, 2.0, stale=True, ended=False)],
        correlated=[HOSTILE, "b"],
        correlations=[[1.0, 0.99], [0.99, 1.0]],
        pairs=[(HOSTILE, "b", 0.99)],
        labels=[LabelRow(HOSTILE, 5, HOSTILE, 0.5, suspect=True)],
    )
    model = ModelReport(HOSTILE, [ImportanceRow(1, "gain", HOSTILE, 1.0, 1)])
    assert HOSTILE not in page(tmp_path, hostile, models=(model,))


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = FeatureReport(NOW, [one_set(), one_set(name="b v1")], [ModelReport("m", importances())])
    first, again = (
        write_feature_report(whole, tmp_path / name).read_bytes() for name in ("a.html", "b.html")
    )
    assert first == again
    ids = re.findall(r'id="((?:title|chart|reading)-[^"]*)"', first.decode())
    assert len(ids) == len(set(ids))


def test_bad_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a report of feature sets needs a time with a zone"):
        FeatureReport(datetime(2024, 1, 1), [], [])  # noqa: DTZ001
    with pytest.raises(UsageError, match="Expected to write the report"):
        write_feature_report(FeatureReport(NOW, [], []), tmp_path / "nowhere" / "page.html")
