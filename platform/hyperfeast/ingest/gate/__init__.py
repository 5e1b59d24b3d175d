"""The gate: a Great Expectations suite that judges every row before it nears a table.

A rule is declared once, as data (`rules`). Polars screens the rows by it (`screen`, under 0.3 microseconds
a row for all rules of candles), and only those that break one go to Great Expectations (`expectations`,
10 microseconds a row and an import of seconds), whose word is final. A clean batch never loads it.
"""

from hyperfeast.ingest.gate.judgment import Judgment, Progress, judge
from hyperfeast.ingest.gate.rules import (
    FINITE,
    Rule,
    among,
    at_least,
    matching,
    present,
    suite,
    within,
)

__all__ = [
    "FINITE",
    "Judgment",
    "Progress",
    "Rule",
    "among",
    "at_least",
    "judge",
    "matching",
    "present",
    "suite",
    "within",
]
