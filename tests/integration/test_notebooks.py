"""The notebooks run from top to bottom, and say what is so."""

import runpy
from pathlib import Path

import pytest

from hyperfeast.db import Database

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
def test_glucose(
    database: Database,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setenv("HYPERFEAST_HOME", str(tmp_path))
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", redis_url)
    cells = runpy.run_path(str(NOTEBOOKS / "glucose.py"))
    said = capsys.readouterr().out
    assert f"{cells['taken_in'].rows_in:,} readings" in said
    assert cells["days"].height > 190
    pooled = cells["result"].metrics["pooled"]
    assert {"model", "base_rate", "persistence"} == set(pooled)
    # What the last words claim.
    assert abs(pooled["model"]["accuracy"] - pooled["base_rate"]["accuracy"]) < 0.03
    assert pooled["model"]["log_loss"] > pooled["base_rate"]["log_loss"]


def test_every_notebook_is_text_in_cells() -> None:
    for path in NOTEBOOKS.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ---\n# jupyter:")
        assert "\n# %%\n" in text
    assert not list(NOTEBOOKS.glob("*.ipynb"))
