"""The shape of the repository itself."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW = (
    "feast",
    "pandas",
    "polars",
    "xgboost",
    "great_expectations",
    "fastapi",
    "pyarrow",
    "psycopg",
)


def test_platform_is_no_package() -> None:
    # As one it would shadow the standard library's `platform`.
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "platform" / "conftest.py").exists()


def test_help_loads_nothing_slow() -> None:
    code = (
        "import sys; sys.argv = ['hyperfeast', '--help']\n"
        "from hyperfeast.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('loaded', *sorted(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "demo" in ran.stdout
    assert set(SLOW).isdisjoint(ran.stderr.split())


def test_no_lock_names_an_address() -> None:
    for lock in (ROOT / "scripts").glob("requirements*.txt"):
        assert "://" not in lock.read_text(), lock


@pytest.mark.parametrize(
    "script", sorted(p.name for p in (ROOT / "scripts").iterdir() if p.is_file() and not p.suffix)
)
def test_every_script_is_documented(script: str) -> None:
    assert f"scripts/{script}" in (ROOT / "scripts" / "README.md").read_text()
