"""The planner: for each view index lookups or a merge, whichever the server's own estimates make cheaper.

Seconds are estimated as

    lookup = spine rows * (LOOKUP_S + UNIT_S * cost of one lookup + LOOKUP_VALUE_S * features)
    merge  = UNIT_S * cost of reading + rows read * (ROW_S + VALUE_S * columns)
             + spine rows * (MATCH_S + GATHER_S * features)

with the costs and rows that EXPLAIN gives for the very statements that would run: so a missing
index, a view over views, a chunk that the TTL leaves out all count as the server counts them.

The constants are processor seconds of whichever side has more to do, measured on a 2-core machine
with PostgreSQL 18 (500,000 rows, 1 and 20 float8 features, index (entity, time DESC), all in the
cache): 1,000 to 100,000 lookups, merges of 1,000 to 1,000,000 spine rows. Only their ratios matter.
With 20 features both ways cost the same at about 90,000 spine rows there.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from psycopg import sql

from hyperfeast.sqlfiles import query

_log = logging.getLogger(__name__)

Strategy: TypeAlias = Literal["auto", "lookup", "merge"]
Way: TypeAlias = Literal["lookup", "merge"]

# What a unit of the server's cost takes: a page out of the cache, or a hundred rows looked at.
UNIT_S = 2.0e-6
# A lookup's own share: the executor started anew, and the row sent; and each value of it.
LOOKUP_S = 3.0e-6
LOOKUP_VALUE_S = 1.2e-7
# A row read, numbered and sorted; and each value of it, as binary and then as Arrow.
ROW_S = 3.0e-7
VALUE_S = 8.0e-8
# A spine row matched with a view; and each value gathered for it.
MATCH_S = 3.0e-7
GATHER_S = 1.0e-8


@dataclass(frozen=True)
class Expected:
    """What the server expects of a statement.

    Attributes:
        cost: in its own units.
        rows: how many come.
        width: bytes a row.
    """

    cost: float
    rows: float
    width: float


@dataclass(frozen=True)
class Estimate:
    """One view's two ways.

    Attributes:
        view: its name.
        features: how many are asked for.
        one_lookup: what one lookup takes.
        reading: what reading all rows that can match takes.
        lookup_s: seconds by lookups.
        merge_s: seconds by a merge.
    """

    view: str
    features: int
    one_lookup: Expected
    reading: Expected
    lookup_s: float
    merge_s: float

    @property
    def expected_bytes(self) -> int:
        """What the rows of a merge take as Arrow."""
        return int(self.reading.rows * (self.reading.width + 8))


@dataclass(frozen=True)
class Choice:
    """How a view is read, and why."""

    way: Way
    estimate: Estimate


@dataclass(frozen=True)
class Plan:
    """How a point-in-time read is done.

    Attributes:
        strategy: as configured.
        spine_rows: how many there are.
        choices: one a view, in the request's order.
        memory_limit_mb: what the merge may take.
    """

    strategy: Strategy
    spine_rows: int
    choices: Sequence[Choice]
    memory_limit_mb: int

    def text(self) -> str:
        """For people: a line a view."""
        head = f"point-in-time join of {self.spine_rows:,} spine rows"
        lines = [f"{head}, strategy {self.strategy}, memory {self.memory_limit_mb} MiB"]
        for choice in self.choices:
            own = choice.estimate
            lines.append(
                f"  {own.view}: {choice.way} of {own.features} features"
                f" (lookup {_seconds(own.lookup_s)}: {self.spine_rows:,} x cost {own.one_lookup.cost:,.1f};"
                f" merge {_seconds(own.merge_s)}: {own.reading.rows:,.0f} rows, cost {own.reading.cost:,.0f})"
            )
        return "\n".join(lines)


def estimate(
    view: str, spine_rows: int, features: int, one_lookup: Expected, reading: Expected
) -> Estimate:
    """What a view takes by lookups and by a merge.

    Args:
        view: its name.
        spine_rows: how many rows ask.
        features: how many are asked for.
        one_lookup: the server's estimate for the lookup of one of them.
        reading: its estimate for all rows that can match.
    """
    lookup_s = spine_rows * (LOOKUP_S + UNIT_S * one_lookup.cost + LOOKUP_VALUE_S * features)
    read_s = UNIT_S * reading.cost + reading.rows * (ROW_S + VALUE_S * (features + 2))
    merge_s = read_s + spine_rows * (MATCH_S + GATHER_S * features)
    return Estimate(view, features, one_lookup, reading, lookup_s, merge_s)


def plan(
    estimates: Sequence[Estimate], spine_rows: int, strategy: Strategy, memory_limit_mb: int
) -> Plan:
    """Choose for each view, and log the choice."""
    choices = [Choice(_way(own, strategy), own) for own in estimates]
    made = Plan(strategy, spine_rows, choices, memory_limit_mb)
    _log.info("%s", made.text())
    return made


def _way(own: Estimate, strategy: Strategy) -> Way:
    if strategy != "auto":
        return strategy
    return "lookup" if own.lookup_s <= own.merge_s else "merge"


def expected(run: Callable[[str], Any], statement: sql.Composable) -> Expected:
    """What the server expects of a statement.

    Args:
        run: executes a text and gives the one value of its result.
        statement: a query.
    """
    explained = run(
        sql.SQL(query("point_in_time", "explained")).format(query=statement).as_string()
    )
    top = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
    return Expected(float(top["Total Cost"]), float(top["Plan Rows"]), float(top["Plan Width"]))


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"
