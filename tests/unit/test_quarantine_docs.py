"""docs/quarantine.md names every rule that the gate can refuse a row by, and every check, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hyperfeast
from hyperfeast.quality import invariants

ROOT = Path(__file__).parents[2]
PACKAGE = Path(hyperfeast.__file__).parent
PAGE = ROOT / "docs" / "quarantine.md"

# Function -> which of its arguments is the code.
RULES = dict.fromkeys(["present", "within", "matching", "among", "at_least", "unique", "Rule"], 0)
CHECKS = dict.fromkeys(
    ["_not_null", "_between", "_at_least", "_true", "Expectation", "Result"], 0
) | {"_asked": 1, "_measured": 1}


def codes(folder: Path, functions: dict[str, int]) -> Iterator[str]:
    """What is written as the code in calls of these functions."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            # As `within(...)` or `gate.within(...)`: a frame has a method `unique`, too.
            at = functions.get(ast.unparse(node.func).removeprefix("gate."))
            if at is not None and len(node.args) > at and isinstance(node.args[at], ast.Constant):
                yield str(node.args[at].value)


def documented(section: str) -> list[str]:
    """The codes in the first column of a section's table."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    first = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [code for cell in first for code in re.findall(r"`([a-z_]+)`", cell)]


def test_every_rule_is_explained() -> None:
    written = set(codes(PACKAGE / "ingest", RULES))
    assert {"duplicate_key", "retention", "symbol_known"} <= written
    assert sorted(documented("Rules")) == sorted(written)


def test_every_check_is_explained() -> None:
    sql = (ROOT / "sql" / "queries" / "ingestion.sql").read_text(encoding="utf-8")
    of_gate = re.findall(r'INSERT INTO data_quality_results \("check".*\)\nVALUES \(\'(\w+)\'', sql)
    assert of_gate == ["gate"]
    written = {*codes(PACKAGE / "quality", CHECKS), *invariants._CANDLES, *of_gate}
    assert {"types", "sessions_whole", "present_once_warm"} <= written
    assert sorted(documented("Checks")) == sorted(written)


def test_only_ingestion_writes_to_quarantine() -> None:
    """Codes from elsewhere would not be found above."""
    writers = [
        path.relative_to(ROOT).as_posix()
        for path in (*PACKAGE.rglob("*.py"), *(ROOT / "sql").rglob("*.sql"))
        if "INSERT INTO quarantine" in path.read_text(encoding="utf-8")
    ]
    assert writers == ["sql/queries/ingestion.sql"]


@pytest.mark.parametrize("page", ["README.md", "docs/http.md", "docs/quality.md"])
def test_pages_that_speak_of_rules_lead_there(page: str) -> None:
    link = "docs/quarantine.md" if page == "README.md" else "quarantine.md"
    assert f"]({link}" in (ROOT / page).read_text(encoding="utf-8")
