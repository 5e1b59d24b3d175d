"""How far back rows may lie: not before what retention has dropped."""

from datetime import datetime

from hyperfeast.db import Database
from hyperfeast.ingest import gate
from hyperfeast.ingest.gate import Rule
from hyperfeast.sqlfiles import query


def horizon(database: Database, relation: str, timeframe: str = "") -> datetime | None:
    """The moment (UTC) before which retention has dropped the rows of a relation; None if it never did."""
    rows = database.fetch(query("ingestion", "horizon"), {"relation": relation, "tf": timeframe})
    return rows[0]["moment"]  # type: ignore[no-any-return]


def rules(kept_from: datetime | None) -> list[Rule]:
    """`retention`: a row of a range that was dropped could not be aggregated with its neighbors again."""
    return [] if kept_from is None else gate.within("retention", "ts", min_value=kept_from)
