"""The exchanges' sessions in the database, so that SQL knows when a market was open."""

from datetime import timedelta
from importlib.metadata import version

import polars as pl

from hyperfeast import calendars, clock
from hyperfeast.db import Database, copy_frame
from hyperfeast.sqlfiles import query

# The library knows a year ahead; what is stored has to reach this far.
_REACH = timedelta(days=270)


def sync_calendars(database: Database, *, force: bool = False) -> dict[str, int]:
    """Bring the sessions of every calendar that an instrument trades by up to date.

    A calendar is read anew where its sessions end sooner than nine months ahead or come from another
    version of the library: most calls read nothing. Sessions that the library no longer knows go.

    Args:
        database: where the instruments are.
        force: read all of them anew.

    Returns:
        Calendar -> sessions added, changed or taken away, for those that were read.

    Raises:
        UsageError: an instrument's calendar does not exist.
    """
    source = f"exchange_calendars {version('exchange_calendars')}"
    stale = database.fetch(
        query("quality", "stale_calendars"),
        {
            "always_open": calendars.ALWAYS_OPEN,
            "source": source,
            "until": clock.now() + _REACH,
            "force": force,
        },
    )
    return {row["calendar"]: _sync(database, row["calendar"], source) for row in stale}


def _sync(database: Database, calendar: str, source: str) -> int:
    rows = calendars.sessions(calendar).with_columns(
        calendar=pl.lit(calendar), source=pl.lit(source)
    )
    with database.connect() as connection:
        connection.execute(query("quality", "lock_sessions"))
        connection.execute(query("quality", "stage_sessions"))
        copy_frame(connection, "staged_sessions", rows)
        changed = 0
        for statement in ("remove_sessions", "correct_sessions", "insert_sessions"):
            changed += connection.execute(
                query("quality", statement), {"calendar": calendar}
            ).rowcount
    return changed
