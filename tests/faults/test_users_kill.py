"""A process that is killed while it forgets a user: nothing is half done, and the next run does the rest."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from hyperfeast.baselines import FileBaselineRepository
from hyperfeast.db import Database
from hyperfeast.ingest import ingest_metrics
from hyperfeast.ingest.mirror import Mirror
from hyperfeast.users import forget_user

USER = UUID("6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b")
OTHER = UUID("0a4be2f7-58d5-45d4-a6c7-55d33a1de6f5")

# Dies when it comes to the place that is named.
_CHILD = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from hyperfeast.baselines import FileBaselineRepository
from hyperfeast.db import Database
from hyperfeast.users import copies, forget_user, forgetting

class Nobody:
    def of_entity(self, value): return []
    def forget_entity(self, value):
        if place == "online": die()
        return 0

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

dsn, folder, user, place = sys.argv[1:]
where = {"redaction": (forgetting, "_redact"), "draft": (copies, "sync"), "receipt": (forgetting, "_receipt")}
if place in where:
    setattr(*where[place], die)
folder = Path(folder)
forget_user(
    Database(dsn), UUID(user), online=Nobody(), baselines=[FileBaselineRepository(folder / "baselines")],
    copies_in=folder / "mirror",
)
"""


class Nobody:
    """Nobody is online."""

    def of_entity(self, value: str) -> list[Any]:  # noqa: ARG002
        return []

    def forget_entity(self, value: str) -> int:  # noqa: ARG002
        return 0


def filled(database: Database, folder: Path) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for user in (USER, OTHER):
        for part in range(2):
            rows = pl.DataFrame(
                {
                    "ts": [start + timedelta(hours=2 * n + part) for n in range(100)],
                    "value": [1.0] * 100,
                }
            )
            ingest_metrics(
                database,
                rows,
                source="t",
                user=user,
                metric="glucose",
                mirror=Mirror(folder / "mirror"),
            )


def rows_of(database: Database, user: UUID) -> int:
    found = database.fetch("SELECT count(*) AS n FROM user_baseline_raw WHERE user_id = %s", [user])
    return int(found[0]["n"])


def copied(folder: Path, user: UUID) -> int:
    """Rows in the copies, every one of which can be read."""
    files = [pl.read_parquet(path) for path in (folder / "mirror").rglob("*.parquet")]
    return sum(rows.filter(user_id=str(user)).height for rows in files)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["redaction", "online", "draft", "receipt"])
def test_killed_while_a_user_is_forgotten(database: Database, tmp_path: Path, place: str) -> None:
    filled(database, tmp_path)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, database.dsn, str(tmp_path), str(USER), place],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == -SIGKILL, child.stderr
    # The database's part is done, or it has not begun.
    assert rows_of(database, USER) == (200 if place == "redaction" else 0)
    assert copied(tmp_path, USER) == (0 if place == "receipt" else 200)
    assert not database.fetch("SELECT FROM audit_log WHERE action = 'forgot user'")
    done = forget_user(
        database,
        USER,
        online=Nobody(),
        baselines=[FileBaselineRepository(tmp_path / "baselines")],
        copies_in=tmp_path / "mirror",
    )
    left = {"redaction": 400, "online": 200, "draft": 200, "receipt": 0}[place]
    assert done.deleted.get("user_baseline_raw", 0) + done.deleted.get("copies", 0) == left
    assert rows_of(database, USER) == copied(tmp_path, USER) == 0
    assert rows_of(database, OTHER) == copied(tmp_path, OTHER) == 200
    assert not list((tmp_path / "mirror").rglob(".rewriting-*"))
    assert len(database.fetch("SELECT FROM audit_log WHERE action = 'forgot user'")) == 1
