"""A real headless Chromium, and what a whole report looks like in it.

Chromium and its driver come from the system: Debian's packages `chromium` and `chromium-driver`,
found on PATH or where CHROMIUM and CHROMEDRIVER point. Nothing is downloaded and nothing skipped.
"""

import base64
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

CHARTS = ("chart-equity", "chart-roc", "chart-importance", "chart-glucose")

_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_DRAWN_WITHIN_S = 30
_LEAST_SIDE_PX = 40
_TEXT_CONTRAST, _MARK_CONTRAST = 4.5, 3.0


class BrowserMissing(AssertionError):
    """There is no Chromium, or no driver for it, on this machine."""


def _program(name: str, variable: str) -> str:
    found = shutil.which(os.environ.get(variable) or name)
    if found is None:
        raise BrowserMissing(
            f"Expected `{name}` on PATH, or its path in {variable}; found "
            f"{os.environ.get(variable) or 'neither'}. On Debian: "
            "apt-get install -y chromium chromium-driver"
        )
    return found


@contextmanager
def chromium(*, width: int = 1280, height: int = 900) -> Iterator[WebDriver]:
    """A fresh Chromium with an empty profile, closed at the end.

    Args:
        width: of the window, in CSS pixels.
        height: of the window, in CSS pixels.

    Raises:
        BrowserMissing: Chromium or its driver is not on the machine.
    """
    options = ChromeOptions()
    options.binary_location = _program("chromium", "CHROMIUM")
    service = Service(executable_path=_program("chromedriver", "CHROMEDRIVER"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # Chromium may still be writing to its profile while the folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
            options.add_argument(switch)
        driver = Chrome(options=options, service=service)
        try:
            set_viewport(driver, width=width, height=height)
            yield driver
        finally:
            driver.quit()


def set_viewport(driver: WebDriver, *, width: int, height: int = 900) -> None:
    """Gives the page a size; below 600 pixels it also takes the page for a phone's."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": height,
            "screenWidth": width,
            "screenHeight": height,
            "deviceScaleFactor": 1,
            "mobile": width < 600,
        },
    )
    # The page learns of its new size, and Plotly redraws, some frames later.
    _wait_until(driver, f"screen.width === {width}", f"a viewport {width} px wide")
    _wait_for_charts_to_settle(driver)


def prefer_color_scheme(driver: WebDriver, scheme: Literal["light", "dark"]) -> None:
    """Sets what the reader prefers, as the operating system would."""
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    _wait_until(
        driver, f"matchMedia('(prefers-color-scheme: {scheme})').matches", f"a {scheme} page"
    )
    _wait_for_charts_to_settle(driver)


def open_file(driver: WebDriver, path: Path) -> None:
    """Opens a file of this machine, and forgets what was logged before it."""
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.resolve().as_uri())
    _wait_for_charts_to_settle(driver)


def console_errors(driver: WebDriver) -> list[str]:
    """What the console has said since it was last asked, warnings included."""
    return [
        f"{entry['level']}: {entry['message']}"
        for entry in driver.get_log("browser")
        if entry["level"] in {"SEVERE", "WARNING"}
    ]


def requested_urls(driver: WebDriver) -> list[str]:
    """Every address that the page has asked for since this was last called."""
    messages = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def screenshot(driver: WebDriver, path: Path) -> Path:
    """The page from top to bottom, as a PNG file."""
    taken = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
    )
    path.write_bytes(base64.b64decode(taken["data"]))
    return path


def printed(driver: WebDriver, path: Path) -> Path:
    """The page as it comes out on A4, as a PDF file."""
    made = driver.execute_cdp_cmd(
        "Page.printToPDF",
        {
            "paperWidth": 8.27,
            "paperHeight": 11.69,
            "printBackground": True,
            "preferCSSPageSize": True,
        },
    )
    path.write_bytes(base64.b64decode(made["data"]))
    return path


def assert_report_is_whole(driver: WebDriver, path: Path) -> None:
    """Opens a report and looks at it as its readers would, in light, in dark and on a phone.

    Every chart is drawn, the console is silent, nothing is asked of any network, nothing
    overflows a width of 390 pixels, and texts and lines stand out from their ground.

    Raises:
        AssertionError: with what was expected and what the browser showed.
    """
    prefer_color_scheme(driver, "light")
    set_viewport(driver, width=1280)
    open_file(driver, path)
    for chart in CHARTS:
        assert_chart_is_drawn(driver, chart)
    assert_readable(driver)
    prefer_color_scheme(driver, "dark")
    assert_readable(driver)
    prefer_color_scheme(driver, "light")
    set_viewport(driver, width=390)
    assert_fits(driver)
    for chart in CHARTS:
        assert_chart_is_drawn(driver, chart)
    set_viewport(driver, width=1280)
    asked = [
        url for url in requested_urls(driver) if not url.startswith(("file:", "data:", "blob:"))
    ]
    loaded = driver.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    asked += [url for url in loaded if not url.startswith(("data:", "blob:"))]
    _expect(not asked, f"the report to load nothing; it asked for {asked}")
    errors = console_errors(driver)
    _expect(not errors, f"a silent console; it said {errors}")


def assert_chart_is_drawn(driver: WebDriver, chart: str) -> None:
    """The chart has marks, each with a size, inside its own element, and both axes named.

    Raises:
        AssertionError: it has not.
    """
    _wait_until(driver, f"document.querySelector('#{chart} .main-svg')", f"#{chart} to be drawn")
    drawn: dict[str, Any] = driver.execute_script(_DRAWN, chart)
    _expect(
        drawn["width"] >= _LEAST_SIDE_PX and drawn["height"] >= _LEAST_SIDE_PX,
        f"#{chart} to have a size; it is {drawn['width']} x {drawn['height']} px",
    )
    _expect(
        len(drawn["marks"]) > 0 and max(drawn["marks"]) >= _LEAST_SIDE_PX,
        f"#{chart} to hold marks with a size; their longer sides are {drawn['marks']} px",
    )
    _expect(drawn["inside"], f"#{chart}'s drawing to stay inside its element")
    _expect(not drawn["cut"], f"#{chart}'s texts to stay inside it; cut off: {drawn['cut']}")
    titles = drawn["titles"]
    _expect(len(titles) >= 2 and all(titles), f"#{chart}'s axes to be named; they say {titles}")
    _expect(bool(drawn["heading"] and drawn["reading"]), f"#{chart} to have a title and a reading")


def assert_fits(driver: WebDriver) -> None:
    """Nothing makes the page scroll sideways.

    Raises:
        AssertionError: something does.
    """
    needed, given = driver.execute_script(
        "const root = document.documentElement;"
        "return [Math.max(root.scrollWidth, document.body.scrollWidth), screen.width]"
    )
    _expect(needed <= given, f"the page to fit {given} px; it needs {needed} px")


def assert_readable(driver: WebDriver) -> None:
    """Texts and lines, in the page and in the charts, stand out from their ground.

    Raises:
        AssertionError: some do not.
    """
    seen: list[list[str]] = driver.execute_script(_COLORS)
    _expect(len(seen) > len(CHARTS), "texts and lines to measure")
    for what, kind, color, ground in seen:
        least = _TEXT_CONTRAST if kind == "text" else _MARK_CONTRAST
        found = contrast(channels(color), channels(ground))
        _expect(
            found >= least,
            f"a contrast of {least} for {what}; found {found:.2f}: {color} on {ground}",
        )


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The contrast ratio of two sRGB colors, channels 0 to 255, by WCAG 2.2: 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(channels: tuple[float, ...]) -> float:
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (channel / 255 for channel in channels)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def channels(color: str) -> tuple[float, ...]:
    return tuple(float(channel) for channel in re.findall(r"[\d.]+", color)[:3])


def _expect(held: object, what: str) -> None:
    if not held:
        raise AssertionError(f"Expected {what}")


def _wait_until(driver: WebDriver, condition: str, what: str) -> None:
    WebDriverWait(driver, _DRAWN_WITHIN_S, poll_frequency=0.05).until(
        lambda held: held.execute_script(f"return Boolean({condition})"),
        message=f"Expected {what} within {_DRAWN_WITHIN_S} s",
    )


def _wait_for_charts_to_settle(driver: WebDriver) -> None:
    """Waits until the charts have looked alike for a while: Plotly redraws behind a timer."""
    driver.set_script_timeout(_DRAWN_WITHIN_S)
    driver.execute_async_script(_SETTLE)


_SETTLE = """
const done = arguments[0];
const look = () => [...document.querySelectorAll(".chart")].map(chart => chart.innerHTML).join();
let before = look(), calm = 0;
const timer = setInterval(() => {
  const now = look();
  calm = now === before ? calm + 1 : 0;
  before = now;
  if (calm >= 3) { clearInterval(timer); done(); }
}, 80);
"""

_DRAWN = """
const chart = document.getElementById(arguments[0]);
const size = element => element.getBoundingClientRect();
const box = size(chart);
const outside = inner => inner.left < box.left - 1 || inner.right > box.right + 1
  || inner.top < box.top - 1 || inner.bottom > box.bottom + 1;
const marks = [...chart.querySelectorAll(".scatterlayer path, .barlayer path")].map(size);
const svgs = [...chart.querySelectorAll(".main-svg")].map(size);
const text = id => document.getElementById(chart.getAttribute(id))?.textContent.trim();
return {
  width: box.width,
  height: box.height,
  marks: marks.map(mark => Math.max(mark.width, mark.height)).filter(side => side > 0),
  cut: [...chart.querySelectorAll(".main-svg text")].filter(text => outside(size(text)))
    .map(text => text.textContent),
  inside: !svgs.some(outside),
  titles: [...chart.querySelectorAll(".infolayer .xtitle, .infolayer .ytitle, .infolayer .y2title")]
    .map(title => title.textContent.trim()),
  heading: text("aria-labelledby"),
  reading: text("aria-describedby"),
};
"""

_COLORS = """
const style = element => getComputedStyle(element);
const ground = element => {
  for (let at = element; at; at = at.parentElement) {
    const color = style(at).backgroundColor;
    if (!/, 0\\)$|^transparent$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const seen = [];
for (const element of document.querySelectorAll("h1, h2, p, dt, dd, th, td, figcaption, li, .stale")) {
  if (element.offsetParent) {
    seen.push([`<${element.localName}> ${element.textContent.trim().slice(0, 40)}`, "text",
      style(element).color, ground(element)]);
  }
}
for (const chart of document.querySelectorAll(".chart")) {
  const behind = style(chart.querySelector(".main-svg")).backgroundColor;
  for (const text of chart.querySelectorAll(".main-svg text")) {
    seen.push([`#${chart.id} "${text.textContent.trim()}"`, "text", style(text).fill, behind]);
  }
  for (const line of chart.querySelectorAll(".js-line")) {
    if (parseFloat(style(line).strokeWidth) > 0) {
      seen.push([`#${chart.id} line`, "mark", style(line).stroke, behind]);
    }
  }
  for (const bar of chart.querySelectorAll(".bars path")) {
    seen.push([`#${chart.id} bar`, "mark", style(bar).fill, behind]);
  }
}
return seen;
"""
