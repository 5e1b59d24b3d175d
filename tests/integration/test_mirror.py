"""Dual write: two sides that agree, and every way in which they can stop agreeing."""

import random
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


# More than are compared at once.
SYMBOLS = [f"S{number}" for number in range(60)]
STAMPS = [None, "2024-02-01T00:00Z", "2024-02-02T00:00Z"]


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=6), st.integers(0, 9999)
)
def test_whatever_is_taken_in(
    database: Database, tmp_path: Path, batches: list[tuple[bool, bool]], seed: int
) -> None:
    """Stamped or not, with a column or without it: the files follow the same rules as the table.

    Each day of each symbol has a history of its own, so that one example tries four hundred of them.
    """
    database.execute("TRUNCATE candles, candle_revisions")
    mirror = Mirror(tmp_path / uuid4().hex)
    rng, seen = random.Random(seed), set()
    for with_stamps, with_vwap in batches:
        keys = [(symbol, day) for symbol in SYMBOLS for day in DAYS if rng.random() < 0.6]
        seen |= set(keys)
        closes = [rng.choice([1.0, 2.0]) for _ in keys]
        more: dict[str, Any] = {"vwap": 1.5} if with_vwap else {}
        if with_stamps:
            more["published_at"] = rng.choices(STAMPS, k=len(keys))
        symbols, days = zip(*keys, strict=True)
        prices = dict.fromkeys(("open", "high", "low", "close"), closes)
        columns = {"symbol": symbols, "ts": days, **prices, "volume": 1.0, **more}
        take(database, mirror, pl.DataFrame(columns))
    found = compare(database, mirror.folder)
    assert found.mismatches == ()
    assert found.rows == len(seen)


def test_an_equal_bar_without_a_stamp_leaves_the_stamp(database: Database, tmp_path: Path) -> None:
    """So that an older revision after it is outdated on both sides."""
    mirror = Mirror(tmp_path)
    take(database, mirror, bars({DAYS[0]: 1.0}, published_at="2024-02-02T00:00Z"))
    take(database, mirror, bars({DAYS[0]: 1.0}))
    take(database, mirror, bars({DAYS[0]: 1.0}, published_at="2024-02-01T00:00Z", vwap=1.5))
    assert compare(database, tmp_path).mismatches == ()


@pytest.mark.parametrize("compared_before", [False, True])
@pytest.mark.parametrize("lost", [[0], [0, 1], [1], [0, 1, 2]])
def test_a_lost_file_is_noticed(
    database: Database, tmp_path: Path, lost: list[int], *, compared_before: bool
) -> None:
    """The oldest, which says since when rows have to be in the files, and all of them, too."""
    mirror = Mirror(tmp_path)
    take(database, None, bars({DAYS[6]: 5.0}))
    files: list[Path] = []
    for day in DAYS[:3]:
        take(database, mirror, bars({day: 5.0}))
        files += set(tmp_path.rglob("*.parquet")) - set(files)
    if compared_before:
        assert compare(database, tmp_path).mismatched == 0
    for number in lost:
        files[number].unlink()
    found = compare(database, tmp_path)
    assert [(one.key["ts"].day, one.kind) for one in found.mismatches] == [
        (number + 1, "only in the database") for number in lost
    ]


def test_a_copy_from_before_beginnings_gets_one(database: Database, tmp_path: Path) -> None:
    """It may also have got that of a later batch, which does not hide what is older."""
    mirror = Mirror(tmp_path)
    take(database, mirror, bars({DAYS[0]: 5.0}))
    (first,) = tmp_path.rglob("*.parquet")
    (beginning,) = (path for path in tmp_path.rglob("_began/*/*") if path.is_file())
    beginning.unlink()
    take(database, mirror, bars({DAYS[1]: 5.0}))
    assert beginning.read_text().strip() != first.stem
    assert compare(database, tmp_path).mismatched == 0
    assert beginning.read_text().strip() == first.stem
    first.unlink()
    assert compare(database, tmp_path).mismatched == 1


def test_a_damaged_beginning_is_named(database: Database, tmp_path: Path) -> None:
    take(database, Mirror(tmp_path), bars({DAYS[0]: 5.0}))
    (beginning,) = (path for path in tmp_path.rglob("_began/*/*") if path.is_file())
    beginning.write_text("")
    with pytest.raises(DataError, match=r"_began/candles/1d does not name the first batch"):
        compare(database, tmp_path)


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
    mirror.sync = lambda path: os.kill(os.getpid(), 9)
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
