"""How far back rows may lie: not before what retention has dropped."""

from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection

from hyperfeast.db import Database
from hyperfeast.ingest import gate
from hyperfeast.ingest.gate import Rule
from hyperfeast.sqlfiles import query


class HorizonMoved(Exception):
    """Retention dropped the range of some rows after they were judged: they have to be judged again."""


def horizon(database: Database, relation: str, timeframe: str = "") -> datetime | None:
    """The moment (UTC) before which retention has dropped the rows of a relation; None if it never did."""
    rows = database.fetch(query("ingestion", "horizon"), {"relation": relation, "tf": timeframe})
    return rows[0]["moment"]  # type: ignore[no-any-return]


def oldest(rows: pl.DataFrame) -> datetime:
    """The earliest ts (UTC) of one row or more."""
    return rows["ts"].min()  # type: ignore[return-value]


def hold(connection: Connection[Any], relation: str, timeframe: str, oldest: datetime) -> None:
    """Keep the horizon where it is until the transaction ends: a row below a new one would never be aggregated.

    Raises:
        HorizonMoved: past the oldest row, since the rows were judged.
    """
    parameters = {"relation": relation, "tf": timeframe}
    rows = connection.execute(query("ingestion", "hold_horizon"), parameters).fetchall()
    moved_to = rows[0]["dropped_before"] if rows else None
    if moved_to is not None and oldest < moved_to:
        raise HorizonMoved(f"to {moved_to}")


def rules(kept_from: datetime | None) -> list[Rule]:
    """`retention`: a row of a range that was dropped could not be aggregated with its neighbors again."""
    return [] if kept_from is None else gate.within("retention", "ts", min_value=kept_from)
