"""Dual write: two sides that agree, and every way in which they can stop agreeing."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast.db import Database
from hyperfeast.errors import DataError, ServerError, UsageError
from hyperfeast.ingest import (
    Candles,
    Mirror,
    compare,
    ingest_candles,
    ingest_metrics,
    ingest_stream,
)
from hyperfeast.types import Timeframe

USER = "00000000-0000-0000-0000-000000000001"
DAYS = [f"2024-01-{day:02d}" for day in range(1, 8)]


def bars(closes: dict[str, float], **more: Any) -> pl.DataFrame:
    prices = {name: list(closes.values()) for name in ("open", "high", "low", "close")}
    return pl.DataFrame({"symbol": "A", "ts": list(closes), **prices, "volume": 1.0, **more})


def take(database: Database, mirror: Mirror | None, frame: pl.DataFrame) -> None:
    ingest_candles(database, frame, timeframe=Timeframe.D1, source="test", mirror=mirror)


def test_both_sides_agree_after_corrections(database: Database, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    take(database, mirror, bars(dict.fromkeys(DAYS, 5.0), vwap=5.0))
    take(database, mirror, bars({DAYS[2]: 7.0}))
    frames = [bars(dict.fromkeys(DAYS[:3], 8.0)), bars({DAYS[6]: 9.0})]
    ingest_stream(database, frames, Candles(timeframe=Timeframe.D1, source="test"), mirror=mirror)
    readings = pl.DataFrame({"ts": ["2024-01-02T10:00Z", "2024-01-02T11:00Z"], "value": [1.0, 2.0]})
    ingest_metrics(database, readings, source="test", user=USER, metric="glucose", mirror=mirror)
    found = compare(database, tmp_path)
    assert (found.rows, found.mismatched) == (9, 0)
    assert len(list(tmp_path.rglob("*.parquet"))) == 5


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from(DAYS), st.sampled_from([1.0, 2.0]), min_size=1),
            st.sampled_from([None, "2024-02-01T00:00Z", "2024-02-02T00:00Z", ""]),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_taken_in(
    database: Database, tmp_path: Path, batches: list[tuple[dict[str, float], str | None, bool]]
) -> None:
    """Stamped or not, with a column or without it: the files follow the same rules as the table."""
    database.execute("TRUNCATE candles, candle_revisions")
    mirror = Mirror(tmp_path / uuid4().hex)
    for closes, published, with_vwap in batches:
        more: dict[str, Any] = {} if published is None else {"published_at": published}
        if with_vwap:
            more["vwap"] = 1.5
        take(database, mirror, bars(closes, **more))
    found = compare(database, mirror.folder)
    assert found.mismatches == ()
    assert found.rows == len({day for closes, _, _ in batches for day in closes})


def test_what_was_there_before_is_nobodys_mistake(database: Database, tmp_path: Path) -> None:
    take(database, None, bars({DAYS[0]: 5.0}))
    take(database, Mirror(tmp_path), bars({DAYS[1]: 5.0}))
    assert compare(database, tmp_path).rows == 1


def test_what_retention_has_dropped_is_nobodys_mistake(database: Database, tmp_path: Path) -> None:
    take(database, Mirror(tmp_path), bars(dict.fromkeys(DAYS, 5.0)))
    database.execute(
        "INSERT INTO lifecycle_in_force (relation, tf, keep_for, dropped_before) "
        "VALUES ('candles', '1d', '1 month', '2024-01-01Z'::timestamptz + interval '7 days')"
    )
    database.execute("DELETE FROM candles")
    assert (compare(database, tmp_path).rows, compare(database, tmp_path).mismatched) == (0, 0)


def test_a_column_from_before_the_files_is_nobodys_mistake(
    database: Database, tmp_path: Path
) -> None:
    take(database, None, bars({DAYS[0]: 5.0}, vwap=5.0))
    take(database, Mirror(tmp_path), bars({DAYS[0]: 6.0, DAYS[1]: 6.0}))
    found = compare(database, tmp_path)
    assert (found.rows, found.mismatched) == (1, 0)


def test_a_foreign_file_is_named(database: Database, tmp_path: Path) -> None:
    take(database, Mirror(tmp_path), bars({DAYS[0]: 5.0}))
    bars({}).write_parquet(tmp_path / "candles" / "1d" / "notes.parquet")
    with pytest.raises(DataError, match=r"notes\.parquet is not named by a batch"):
        compare(database, tmp_path)


def test_every_kind_of_mismatch_is_named(database: Database, tmp_path: Path) -> None:
    take(database, Mirror(tmp_path), bars(dict.fromkeys(DAYS[:3], 5.0)))
    database.execute("DELETE FROM candles WHERE ts = '2024-01-01'")
    database.execute("UPDATE candles SET v = 2 WHERE ts = '2024-01-02'")
    take(database, None, bars({DAYS[5]: 5.0}))
    found = compare(database, tmp_path)
    assert found.mismatched == 3
    assert [(one.key["ts"].day, one.kind, one.columns) for one in found.mismatches] == [
        (1, "only in the files", {}),
        (2, "differs", {"v": (2.0, 1.0)}),
        (6, "only in the database", {}),
    ]
    assert len(compare(database, tmp_path, limit=1).mismatches) == 1


KILLED = """
import os, sys
from pathlib import Path
from hyperfeast.db import Database
from hyperfeast.ingest import mirror

dsn, folder, when = sys.argv[1:]
sys.path.insert(0, "tests")
from integration.test_mirror import DAYS, bars, take

if when == "before":
    mirror._sync = lambda path: os.kill(os.getpid(), 9)
else:
    Path.rename = lambda path, target: os.kill(os.getpid(), 9)
take(Database(dsn), mirror.Mirror(Path(folder)), bars({DAYS[0]: 5.0}))
"""


@pytest.mark.parametrize(("when", "rows"), [("before", 0), ("after", 1)])
def test_a_kill_around_the_commit_is_settled(
    database: Database, tmp_path: Path, when: str, rows: int
) -> None:
    arguments = [sys.executable, "-c", KILLED, database.dsn, str(tmp_path), when]
    killed = subprocess.run(arguments, check=False)
    assert killed.returncode == -9
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".pending"]
    take(database, None, bars({}))  # the next batch finds that its writer is dead

    found = compare(database, tmp_path)
    assert (found.finished, found.discarded, found.rows, found.mismatched) == (
        rows,
        1 - rows,
        rows,
        0,
    )
    assert list(tmp_path.rglob("*.pending")) == []


def test_a_folder_that_cannot_be_written_takes_nothing_in(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "candles").write_text("a file, where a folder should be")
    with pytest.raises(ServerError, match=r"second copy cannot be written.*HYPERFEAST_DUAL_WRITE"):
        take(database, Mirror(tmp_path), bars({DAYS[0]: 5.0}))
    assert database.fetch("SELECT FROM candles") == []


def test_a_damaged_copy_and_none_at_all(database: Database, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        compare(database, tmp_path / "absent")
    take(database, Mirror(tmp_path), bars({DAYS[0]: 5.0}))
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="the copy is damaged"):
        compare(database, tmp_path)
