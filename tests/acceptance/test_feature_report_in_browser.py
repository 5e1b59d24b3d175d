"""The report of feature sets in a real Chromium: drawn, silent, alone, and readable wherever it is looked at."""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from acceptance import browser
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

NOW = datetime(2024, 6, 1, 21, tzinfo=UTC)
FEATURES = (
    *("ema_12", "ema_26", "rsi_14", "macd_histogram", "bollinger_percent_b", "atr_14"),
    *("log_return_1", "log_return_20", "realized_volatility_20", "volume_z_score_20"),
    *("distance_to_52w_high", "an_exceptionally_long_name_of_a_feature"),
)
CHARTS = (
    *("set-0-nulls", "set-0-correlation", "set-0-label-0", "set-0-staleness"),
    *("model-0-gain", "model-0-permutation", "model-0-shap"),
)
MONTHS = [date(2018 + number // 12, number % 12 + 1, 1) for number in range(76)]


def report() -> FeatureReport:
    draw = random.Random(3)
    rows = [
        FeatureRow(
            name=name,
            description="What it is, in a sentence; unit.",
            rows=10_000,
            nulls=place * 90,
            null_limit=0.05,
            violations=place % 3 * 7,
            bounds="0 to 100" if place % 2 else "",
            mean=draw.gauss(0, 100),
            std=draw.uniform(0, 50),
            quantiles=(-1234.5, 0.00123, 98_765_432.1),
            counts=tuple(draw.randrange(100) for _ in range(24)),
        )
        for place, name in enumerate(FEATURES)
    ]
    count = len(FEATURES)
    correlations = [
        [1.0 if row == column else ((row * column) % 21 - 10) / 10 for column in range(count)]
        for row in range(count)
    ]
    stale = [
        StaleRow(
            "00000000-0000-4000-8000-00000000000a, heart_rate", NOW, 12.0, stale=True, ended=False
        ),
        StaleRow("AAPL", NOW, 9.0, stale=False, ended=True),
        StaleRow("IBM", NOW, 1.0, stale=False, ended=False),
    ]
    importances = [
        ImportanceRow(version, method, name, draw.uniform(-1, 5), rank)
        for version in range(1, 8)
        for method in ("gain", "permutation", "shap")
        for rank, name in enumerate(FEATURES, start=1)
    ]
    whole = SetReport(
        name="market_technical v1",
        command="market_technical_v1",
        description="Trend, momentum, volatility and volume of daily bars.",
        rows=12_000,
        seen=12_000,
        freshness_days=7.0,
        features=rows,
        months=[
            NullCell(name, month, 100, draw.choice((0, 0, 0, 2, 30)))
            for name in FEATURES
            for month in MONTHS
        ],
        stale=stale,
        correlated=FEATURES,
        correlations=correlations,
        pairs=[("ema_12", "ema_26", 0.999), (FEATURES[-1], "atr_14", -0.96)],
        labels=[
            LabelRow("market_direction", 5, name, (place - 6) / 13, suspect=abs(place - 6) > 4)
            for place, name in enumerate(FEATURES)
        ],
        leakage=0.3,
        correlated_from=0.95,
    )
    return FeatureReport(NOW, [whole], [ModelReport("market_direction", importances)])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_report(report(), tmp_path_factory.mktemp("report") / "features.html")


@pytest.fixture(scope="module")
def driver() -> Iterator[WebDriver]:
    with browser.chromium() as running:
        yield running


_SEEN = """
const chart = document.getElementById(arguments[0]);
const size = element => element.getBoundingClientRect();
const box = size(chart);
const marks = [...chart.querySelectorAll(".barlayer path, .heatmaplayer image")].map(size);
return {
  marks: marks.filter(mark => mark.width > 1 && mark.height > 1).length,
  cut: [...chart.querySelectorAll(".main-svg text")].filter(text => {
    const inner = size(text);
    return inner.left < box.left - 1 || inner.right > box.right + 1
      || inner.top < box.top - 1 || inner.bottom > box.bottom + 1;
  }).map(text => text.textContent),
  titles: chart.querySelectorAll(".infolayer .xtitle, .infolayer .ytitle").length,
};
"""


@pytest.mark.parametrize("width", [1280, 768, 400, 320])
def test_every_chart_is_drawn_whole_at_every_width(
    driver: WebDriver, path: Path, width: int
) -> None:
    browser.set_viewport(driver, width=width)
    browser.open_file(driver, path)
    browser.assert_fits(driver)
    for name in CHARTS:
        seen = driver.execute_script(_SEEN, f"chart-{name}")
        assert seen["marks"] > 0, name
        assert seen["titles"] == 2, name
        assert seen["cut"] == [], name
    assert browser.console_errors(driver) == []
    asked = [
        url
        for url in browser.requested_urls(driver)
        if not url.startswith(("file:", "data:", "blob:"))
    ]
    assert asked == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_marks_stand_out(driver: WebDriver, path: Path, scheme: str) -> None:
    browser.set_viewport(driver, width=1280)
    browser.prefer_color_scheme(driver, scheme)  # type: ignore[arg-type]
    browser.open_file(driver, path)
    browser.assert_readable(driver)
    browser.prefer_color_scheme(driver, "light")
