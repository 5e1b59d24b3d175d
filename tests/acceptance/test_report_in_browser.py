"""The report in a real Chromium: drawn, silent, alone, and readable wherever it is looked at."""

import math
import random
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver.remote.webdriver import WebDriver

from acceptance import browser
from hyperfeast.reports import (
    DemoReport,
    EquityCurve,
    PredictionRow,
    RocCurve,
    ScoreRow,
    ZScoreSeries,
    write_report,
)

HOSTILE = "<script>document.title = 'taken'</script>"
FEATURES = (
    "ema_12",
    "ema_26",
    "ema_50",
    "rsi_14",
    "macd_line",
    "macd_signal",
    "macd_histogram",
    "bollinger_percent_b",
    "bollinger_width",
    "atr_14",
    "log_return_1",
    "log_return_5",
    "log_return_20",
    "realized_volatility_20",
    "volume_zscore_20",
    "distance_to_52_week_high",
)


def walk(random_: random.Random, count: int, drift: float, step: float) -> list[float]:
    values, level = [], 1.0
    for _ in range(count):
        values.append(level)
        level *= math.exp(random_.gauss(drift, step))
    return values


def equity(random_: random.Random) -> EquityCurve:
    days = [date(2007, 1, 3) + timedelta(days=day) for day in range(6 * 365)]
    sessions = [day for day in days if day.weekday() < 5]
    return EquityCurve(
        dates=sessions,
        signal=walk(random_, len(sessions), 0.0003, 0.008),
        buy_and_hold=walk(random_, len(sessions), 0.0006, 0.014),
    )


def roc(random_: random.Random) -> RocCurve:
    false, true = [0.0], [0.0]
    for _ in range(400):
        false.append(false[-1] + random_.random())
        true.append(true[-1] + random_.random() * (1.35 - len(true) / 600))
    false = [value / false[-1] for value in false]
    true = [value / true[-1] for value in true]
    area = sum(
        (false[i + 1] - false[i]) * (true[i] + true[i + 1]) / 2 for i in range(len(false) - 1)
    )
    return RocCurve(false_positive_rate=false, true_positive_rate=true, auc=area)


def glucose(random_: random.Random) -> ZScoreSeries:
    days, means, rolled, widths, scores = [], [], [], [], []
    level = 150.0
    for offset in range(200):
        level += 0.25 * (150 - level) + random_.gauss(0, 7)
        if 70 <= offset < 79 or offset in {120, 121, 150}:
            continue
        window = means[-30:]
        middle = sum(window) / len(window) if len(window) >= 14 else None
        width = (
            None
            if middle is None
            else math.sqrt(sum((value - middle) ** 2 for value in window) / (len(window) - 1))
        )
        reading = level + (45 if offset in {90, 160} else 0)
        days.append(date(2010, 3, 24) + timedelta(days=offset))
        means.append(reading)
        rolled.append(middle)
        widths.append(width)
        scores.append(None if middle is None or width is None else (reading - middle) / width)
    return ZScoreSeries(dates=days, day_mean=means, mean_30d=rolled, std_30d=widths, z_score=scores)


def report(seed: int = 7) -> DemoReport:
    random_ = random.Random(seed)
    ranking = roc(random_)
    close = datetime(2013, 3, 1, 21, 0, tzinfo=UTC)
    return DemoReport(
        title="From raw candles to logged predictions",
        created_at=datetime(2025, 11, 21, 4, 44, tzinfo=UTC),
        summary=[
            ("Candles", "12,154"),
            ("Symbols", "5"),
            ("Feature rows", "11,904"),
            ("Training rows", "9,310"),
            ("Model", "market_direction 1"),
            ("Servers", "PostgreSQL 18.6, Valkey 9.1"),
        ],
        scores=[
            ScoreRow("The model", 0.5183, ranking.auc, 0.6934, 0.2499),
            ScoreRow("Always up", 0.5512, 0.5, 0.6881, 0.2475),
            ScoreRow("Yesterday's sign", 0.4977, 0.4981, None, None),
        ],
        equity=equity(random_),
        roc=ranking,
        importance=[(name, random_.uniform(4, 13)) for name in FEATURES],
        predictions=[
            PredictionRow(symbol, label, proba, close, stale)
            for symbol, label, proba, stale in [
                ("AAPL", "SELL", 0.4132, True),
                ("FB", "HOLD", 0.5081, False),
                ("GOOG", "BUY", 0.6274, False),
                ("IBM", "BUY", 0.5566, False),
                (HOSTILE, "HOLD", 0.4911, False),
            ]
        ],
        glucose=glucose(random_),
        notes=[
            "Five symbols and thirteen years are too few to tell skill from luck.",
            "Returns are before costs and taxes; each session's signal is traded at its close.",
            "Prices are adjusted for splits as they were known at each moment, not for dividends.",
        ],
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def driver() -> Iterator[WebDriver]:
    with browser.chromium() as running:
        yield running


def test_report_is_whole(driver: WebDriver, path: Path) -> None:
    browser.assert_report_is_whole(driver, path)


def test_markup_in_a_symbol_is_only_text(driver: WebDriver, path: Path) -> None:
    browser.open_file(driver, path)
    assert driver.title == "From raw candles to logged predictions"
    assert HOSTILE in driver.find_element("css selector", "main").text


def test_gaps_stay_gaps(driver: WebDriver, path: Path) -> None:
    browser.open_file(driver, path)
    browser.assert_chart_is_drawn(driver, "chart-glucose")
    strokes = driver.execute_script(
        "return [...document.querySelectorAll('#chart-glucose .trace.scatter')]"
        ".map(trace => trace.querySelectorAll('.js-line').length)"
    )
    # Three holes cut into four: the band, the 30-day mean, the day's mean and the z-score.
    assert strokes.count(4) == 4


def test_limits_are_drawn_in_both_panels(driver: WebDriver, path: Path) -> None:
    browser.open_file(driver, path)
    browser.assert_chart_is_drawn(driver, "chart-glucose")
    levels = driver.execute_script(
        "return [...document.querySelectorAll('#chart-glucose .shapelayer path')]"
        ".map(level => level.getBoundingClientRect().width)"
    )
    # z = 0, 2 and -2, all across the lower panel.
    assert len(levels) == 3
    assert min(levels) > 600


def test_stale_features_show_on_a_phone(driver: WebDriver, path: Path) -> None:
    browser.open_file(driver, path)
    browser.set_viewport(driver, width=390)
    flag = driver.find_element("css selector", ".stale")
    assert flag.text == "stale"
    assert flag.rect["x"] + flag.rect["width"] <= 390
    browser.set_viewport(driver, width=1280)


def test_dark_preference_darkens_page_and_charts(
    driver: WebDriver, path: Path, tmp_path: Path
) -> None:
    browser.open_file(driver, path)
    grounds = {}
    for scheme in ("light", "dark"):
        browser.prefer_color_scheme(driver, scheme)
        browser.assert_readable(driver)
        grounds[scheme] = driver.execute_script(
            "return ['html', 'section', '.chart .main-svg'].map("
            "name => getComputedStyle(document.querySelector(name)).backgroundColor)"
        )
        taken = browser.screenshot(driver, tmp_path / f"{scheme}.png")
        assert taken.stat().st_size > 50_000
    browser.prefer_color_scheme(driver, "light")
    assert min(min(browser.channels(color)) for color in grounds["light"]) > 200
    assert max(max(browser.channels(color)) for color in grounds["dark"]) < 64


@pytest.mark.parametrize("width", [320, 390, 768, 1920])
def test_fits_every_width(driver: WebDriver, path: Path, tmp_path: Path, width: int) -> None:
    browser.open_file(driver, path)
    browser.set_viewport(driver, width=width)
    browser.assert_fits(driver)
    for chart in browser.CHARTS:
        browser.assert_chart_is_drawn(driver, chart)
    browser.screenshot(driver, tmp_path / f"{width}.png")
    browser.set_viewport(driver, width=1280)


def assert_fills_its_panel(driver: WebDriver, chart: str) -> None:
    outer, inner = driver.execute_script(
        "const chart = document.getElementById(arguments[0]);"
        "return [chart, chart.querySelector('.main-svg')].map("
        "element => element.getBoundingClientRect().width)",
        chart,
    )
    assert inner == pytest.approx(outer, abs=1)


def test_prints_in_light_colors_and_comes_back(
    driver: WebDriver, path: Path, tmp_path: Path
) -> None:
    browser.open_file(driver, path)
    browser.prefer_color_scheme(driver, "dark")
    driver.execute_script(
        "addEventListener('beforeprint', () => { window.onPaper = "
        "getComputedStyle(document.querySelector('.chart .main-svg')).backgroundColor; })"
    )
    assert browser.printed(driver, tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert min(browser.channels(driver.execute_script("return window.onPaper"))) > 200
    browser.prefer_color_scheme(driver, "dark")
    for chart in browser.CHARTS:
        browser.assert_chart_is_drawn(driver, chart)
    assert_fills_its_panel(driver, "chart-equity")
    browser.assert_readable(driver)
    browser.prefer_color_scheme(driver, "light")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        ("<style>#chart-roc .scatterlayer { display: none }</style>", "#chart-roc to hold marks"),
        ("<style>#chart-equity .xtick text { fill: #ddd !important }</style>", "a contrast of 4.5"),
        ("<style>h2 { color: #999 }</style>", "a contrast of 4.5 for <h2>"),
        ("<p style='width: 391px'>wide</p>", "to fit 390 px"),
        ("<img src='http://127.0.0.1:9/pixel.png' alt=''>", "to load nothing"),
        ("<script>document.title = 1</script>", "a silent console"),
    ],
)
def test_a_report_with_a_fault_is_not_whole(
    driver: WebDriver, path: Path, tmp_path: Path, harm: str, complaint: str
) -> None:
    faulty = tmp_path / "faulty.html"
    faulty.write_text(path.read_text("utf-8").replace("</footer>", f"</footer>{harm}"), "utf-8")
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        browser.assert_report_is_whole(driver, faulty)


@pytest.mark.slow
def test_a_report_that_asks_the_network_is_not_whole(
    driver: WebDriver, path: Path, tmp_path: Path
) -> None:
    content = path.read_text("utf-8").replace("Content-Security-Policy", "x-none", 1)
    faulty = tmp_path / "faulty.html"
    faulty.write_text(
        content.replace("</footer>", "<img src='http://127.0.0.1:9/pixel.png' alt=''></footer>"),
        "utf-8",
    )
    with pytest.raises(AssertionError, match=r"asked for \['http://127.0.0.1:9/pixel.png'"):
        browser.assert_report_is_whole(driver, faulty)


def test_without_a_browser_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with (
        pytest.raises(browser.BrowserMissing, match="apt-get install -y chromium chromium-driver"),
        browser.chromium(),
    ):
        pass
