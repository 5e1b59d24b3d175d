"""`hyperfeast baselines`, as processes, and its page in a browser."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from acceptance import browser
from acceptance.shell import Shell
from baseline_samples import baseline, csv_of_ninety_days
from hyperfeast.baselines import FileBaselineRepository

USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"


@pytest.mark.slow
def test_from_a_file_of_readings_to_a_page_in_a_browser(on_database: Shell, tmp_path: Path) -> None:
    (tmp_path / "readings.csv").write_text(csv_of_ninety_days(USER))
    on_database.json("ingest", "metrics", "readings.csv")
    on_database.env["HYPERFEAST_BASELINES"] = "kept,timescale"
    made = on_database.json("baselines", "extract", USER, "--html", "baseline.html")
    assert made["baseline"]["metrics"]["glucose"]["days_present"] == 30
    assert len(FileBaselineRepository(tmp_path / "kept").history(UUID(USER))) == 1

    compared = on_database.hyperfeast("baselines", "compare", USER, "--html", "days.html")
    assert compared.returncode == 0, compared.stderr
    odd = datetime.now(UTC).date() - timedelta(days=20)
    assert f"1 of 60 days lie more than 2 deviations off, last {odd}" in compared.stdout

    with browser.chromium() as driver:
        for name in ("baseline.html", "days.html"):
            browser.open_file(driver, tmp_path / name)
            for chart in ("chart-metric-0", "chart-metric-1"):
                browser.assert_chart_is_drawn(driver, chart)
            assert not browser.console_errors(driver)
            asked = browser.requested_urls(driver)
            assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
        browser.set_viewport(driver, width=390)
        browser.assert_fits(driver)


def test_migrate(on_database: Shell, tmp_path: Path) -> None:
    files = FileBaselineRepository(tmp_path / "kept")
    for user in range(1, 4):
        files.save(UUID(int=user), baseline(user))
    done = on_database.hyperfeast("baselines", "migrate", "--from", "kept", "--verify")
    assert done.returncode == 0, done.stderr
    assert (
        "3 users with 3 baselines read, 3 were added; both answer alike for all of them"
        in done.stdout
    )
    torn = files.place(UUID(int=3))
    torn.write_text(torn.read_text()[:99])
    again = on_database.hyperfeast("baselines", "migrate", "--from", "kept")
    assert again.returncode == 1
    assert f"left alone: kept/{UUID(int=3)}/baseline_history.json: " in again.stdout
    assert len(again.stderr.splitlines()) == 1
