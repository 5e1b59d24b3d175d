"""Dual write: what a batch takes in, once more as Parquet, and the comparison of both sides.

A batch's file is written before the batch commits and gets its name after: a kill in between leaves a file
that is named as pending, and whether its batch is in the database says which of the two it is. The files
hold what was taken in; what is served follows from them by the rules of ingestion, so that the two sides
can be compared row by row. Which batch was a scope's first is written down beside the files: it says what they
have to hold, should the oldest be lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import polars as pl
from polars.exceptions import PolarsError

from hyperfeast.db import Database
from hyperfeast.disk import sync
from hyperfeast.errors import DataError, ServerError, UsageError
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

_PENDING = ".pending"
_BEGINNINGS = "_began"
# How many symbols or users are compared at once: few enough for memory.
_AT_ONCE, _MINUTES_AT_ONCE = 50, 4

Kind = Literal["only in the database", "only in the files", "differs"]


@dataclass(frozen=True)
class Mirror:
    """A folder of Parquet files: `<scope>/<batch>.parquet`, one a batch; `_began/<scope>` names the first."""

    folder: Path

    @contextmanager
    def copying(self, batch_id: UUID, scope: str, rows: pl.DataFrame) -> Iterator[None]:
        """Write a batch's rows; keep the file if the block, which commits the batch, succeeds.

        Args:
            batch_id: the batch.
            scope: its table, and the timeframe of bars: candles/1d.
            rows: what it takes in.

        Raises:
            ServerError: the folder cannot be written; the batch must not commit.
        """
        file = self.folder / scope / f"{batch_id}.parquet"
        pending = file.with_name(file.name + _PENDING)
        try:
            pending.parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(pending)
            # Before the batch commits.
            sync(pending)
        except (OSError, PolarsError) as error:
            with suppress(OSError):
                pending.unlink()
            raise ServerError(
                f"the second copy cannot be written ({getattr(error, 'strerror', None) or error}): nothing was "
                "taken in; mend the folder that HYPERFEAST_DUAL_WRITE names, or unset it"
            ) from error
        # An error leaves the file as pending: the commit's reply may be what was lost.
        yield
        # The batch is in: if the name cannot be given now, the next comparison gives it.
        with suppress(OSError):
            pending.rename(file)
            if not _beginning(self.folder, scope).exists():
                _write_beginning(self.folder, scope, batch_id)


@dataclass(frozen=True)
class Mismatch:
    """A row that the two sides do not agree on.

    Attributes:
        scope: candles/1d, user_baseline_raw.
        key: what tells the row from others.
        kind: on which side it is, or that its values differ.
        columns: the columns that differ: name -> (in the database, in the files).
    """

    scope: str
    key: dict[str, Any]
    kind: Kind
    columns: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        rows: how many rows were compared.
        mismatches: the first of them, at most as many as were asked for.
        mismatched: how many there are in all.
        finished: pending files of batches that are in: they got their names.
        discarded: pending files of batches that are not: they are gone.
    """

    rows: int
    mismatches: tuple[Mismatch, ...]
    mismatched: int
    finished: int
    discarded: int


def compare(database: Database, folder: Path, *, limit: int = 100) -> Comparison:
    """Compare every row that the files or the database have taken in since the files began.

    Left out are rows that the database had before the first file, lost or not, which may keep a column or a
    stamp that no file has, and rows below the horizon of retention. Batches that run while it compares may show
    as mismatches.

    Args:
        database: one side.
        folder: the other.
        limit: how many mismatches to return at most.

    Raises:
        UsageError: there is no such folder.
        DataError: a file cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: nothing was written twice yet")
    finished, discarded = _settle(database, folder)
    rows, mismatched = 0, 0
    shown: list[Mismatch] = []
    for scope in _scopes(folder):
        for compared, part in _compare_scope(database, folder, scope):
            rows += compared
            mismatched += len(part)
            shown += part[: limit - len(shown)]
    return Comparison(rows, tuple(shown), mismatched, finished, discarded)


def _settle(database: Database, folder: Path) -> tuple[int, int]:
    """Decide on the files that a kill left pending; those of batches that run are left alone."""
    pending = {path: _batch_of(path) for path in folder.rglob(f"*{_PENDING}")}
    states = {
        row["batch_id"]: row["status"]
        for row in database.fetch(query("mirror", "states"), {"ids": list(pending.values())})
    }
    finished = discarded = 0
    for path, batch_id in pending.items():
        match states.get(batch_id, "FAILED"):
            case "COMPLETED":
                path.rename(path.with_name(path.name.removesuffix(_PENDING)))
                finished += 1
            case "FAILED":
                path.unlink()
                discarded += 1
    return finished, discarded


def _scopes(folder: Path) -> list[str]:
    """Those that have files, and those that have lost all of theirs."""
    beginnings = folder / _BEGINNINGS
    begun = [path for path in beginnings.rglob("*") if path.is_file() and path.suffix != _PENDING]
    return sorted(
        {str(path.parent.relative_to(folder)) for path in folder.rglob("*.parquet")}
        | {str(path.relative_to(beginnings)) for path in begun}
    )


def _beginning(folder: Path, scope: str) -> Path:
    return folder / _BEGINNINGS / scope


def _write_beginning(folder: Path, scope: str, batch_id: UUID) -> None:
    file = _beginning(folder, scope)
    pending = file.with_name(f"{file.name}.{batch_id}{_PENDING}")
    file.parent.mkdir(parents=True, exist_ok=True)
    pending.write_text(f"{batch_id}\n", encoding="ascii")
    sync(pending)
    pending.replace(file)


def _read_beginning(folder: Path, scope: str) -> UUID | None:
    file = _beginning(folder, scope)
    try:
        return UUID(file.read_text(encoding="ascii").strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} does not name the first batch of the copy ({error}): the copy is damaged; without that "
            "file it is held to begin with the oldest one that is left"
        ) from error


@dataclass(frozen=True)
class _Table:
    """How a table's rows are told apart, read and compared."""

    key: tuple[str, ...]
    values: tuple[str, ...]
    # What rows are read together by: few enough fit in memory.
    part: str


_TABLES = {
    "candles": _Table(
        ("symbol", "ts"), ("o", "h", "l", "c", "v", "vwap", "taker_buy_vol"), "symbol"
    ),
    "user_baseline_raw": _Table(("user_id", "metric", "source", "ts"), ("value",), "user_id"),
}


def _compare_scope(
    database: Database, folder: Path, scope: str
) -> Iterator[tuple[int, list[Mismatch]]]:
    name, _, tf = scope.partition("/")
    table = _TABLES.get(name)
    if table is None:
        raise DataError(f"{folder / scope} is no copy of a table: expected {', '.join(_TABLES)}")
    files = _files(database, folder / scope)
    began = _began(database, folder, scope, [batch for batch, _ in files])
    if began is None:
        return
    scope_of = {"tf": tf, "began": began}
    parts = set(_parts_of(files, table)) | {
        row["part"] for row in database.fetch(query("mirror", f"{name}_parts"), scope_of)
    }
    ordered, at_once = sorted(parts), _MINUTES_AT_ONCE if tf == Timeframe.M1 else _AT_ONCE
    horizon = database.fetch(query("ingestion", "horizon"), {"relation": name, "tf": tf})[0][
        "moment"
    ]
    for start in range(0, len(ordered), at_once):
        some = ordered[start : start + at_once]
        kept = _kept(files, table, some)
        before = database.frame(
            query("mirror", f"{name}_before"),
            (tf, some, began) if tf else (some, began),
        )
        served = database.frame(query("mirror", name), (tf, some) if name == "candles" else (some,))
        if horizon is not None:
            served, kept = (one.filter(pl.col("ts") >= horizon) for one in (served, kept))
        kept = kept.join(before, on=table.key, how="anti")
        yield _differences(scope, table, served.join(before, on=table.key, how="anti"), kept)


def _began(
    database: Database, folder: Path, scope: str, batches: Sequence[UUID]
) -> datetime | None:
    """When the first batch of a scope began, whether its file is there or not; None if none is in.

    It is written down where it is not yet, or where two batches that began at once were the first.
    """
    noted = _read_beginning(folder, scope)
    ids = list(batches) if noted is None else [*batches, noted]
    rows = database.fetch(query("mirror", "began"), {"ids": ids})
    if not rows:
        return None
    if rows[0]["batch_id"] != noted:
        with suppress(OSError):
            _write_beginning(folder, scope, rows[0]["batch_id"])
    return rows[0]["began"]  # type: ignore[no-any-return]


def _files(database: Database, folder: Path) -> list[tuple[UUID, Path]]:
    """The files of completed batches, in the order in which these took effect."""
    paths = {_batch_of(path): path for path in folder.glob("*.parquet")}
    rows = database.fetch(query("mirror", "order"), {"ids": list(paths)})
    return [(row["batch_id"], paths[row["batch_id"]]) for row in rows]


def _batch_of(path: Path) -> UUID:
    try:
        return UUID(path.name.split(".", 1)[0])
    except ValueError as error:
        raise DataError(f"{path} is not named by a batch: take it out of the copy") from error


def _parts_of(files: Sequence[tuple[UUID, Path]], table: _Table) -> list[str]:
    names: set[str] = set()
    for _, path in files:
        names |= set(_read(path, [table.part], None)[table.part].unique())
    return sorted(names)


def _kept(files: Sequence[tuple[UUID, Path]], table: _Table, parts: Sequence[str]) -> pl.DataFrame:
    """What the files say is served: batch after batch, by the rules of ingestion."""
    served = pl.DataFrame(schema=_schema(table))
    for _, path in files:
        rows = _read(path, None, (table.part, parts))
        if not rows.is_empty():
            served = _applied(served, rows, table)
    return served


def _applied(served: pl.DataFrame, rows: pl.DataFrame, table: _Table) -> pl.DataFrame:
    """A batch on top of what was served: columns that it lacks stay, outdated revisions change nothing."""
    rows = rows.with_columns(
        pl.lit(None, dtype).alias(name)
        for name, dtype in _schema(table).items()
        if name not in rows.columns and name == "published_at"
    )
    given = [name for name in table.values if name in rows.columns]
    joined = served.join(rows, on=table.key, how="full", coalesce=True, suffix="_new")
    arrived = pl.coalesce(pl.col(f"{given[0]}_new").is_not_null(), pl.lit(value=False))
    outdated = (pl.col("published_at_new") < pl.col("published_at")).fill_null(value=False)
    new = arrived & ~outdated
    # A bar with equal values and no stamp is left alone, and keeps the stamp that it has.
    differs = pl.any_horizontal(pl.col(f"{name}_new").ne_missing(pl.col(name)) for name in given)
    stamped = new & (differs | pl.col("published_at_new").is_not_null())
    return joined.select(
        *table.key,
        *(
            pl.when(new).then(pl.col(f"{name}_new")).otherwise(pl.col(name)).alias(name)
            if name in given
            else pl.col(name)
            for name in (*table.values,)
        ),
        pl.when(stamped).then("published_at_new").otherwise("published_at").alias("published_at"),
    )


def _schema(table: _Table) -> dict[str, Any]:
    keys = {name: pl.Datetime("us", "UTC") if name == "ts" else pl.String for name in table.key}
    return {
        **keys,
        **dict.fromkeys(table.values, pl.Float64),
        "published_at": pl.Datetime("us", "UTC"),
    }


def _read(
    path: Path, columns: list[str] | None, wanted: tuple[str, Sequence[str]] | None
) -> pl.DataFrame:
    try:
        frame = pl.scan_parquet(path)
        if wanted is not None:
            frame = frame.filter(pl.col(wanted[0]).is_in(list(wanted[1])))
        return (frame if columns is None else frame.select(columns)).collect()
    except (OSError, PolarsError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): the copy is damaged"
        ) from error


def _differences(
    scope: str, table: _Table, served: pl.DataFrame, kept: pl.DataFrame
) -> tuple[int, list[Mismatch]]:
    """How many rows there are on either side, and those that do not agree."""
    joined = served.join(kept, on=table.key, how="full", coalesce=True, suffix="_file")
    here = pl.col("recorded_at").is_not_null()
    there = pl.col(f"{table.values[0]}_file").is_not_null()
    differ = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(f"{name}_file")) for name in table.values
    )
    found = joined.filter(~here | ~there | differ).sort(table.key)
    return joined.height, [_mismatch(scope, table, row) for row in found.iter_rows(named=True)]


def _mismatch(scope: str, table: _Table, row: Mapping[str, Any]) -> Mismatch:
    kind: Kind = "differs"
    if row["recorded_at"] is None:
        kind = "only in the files"
    elif row[f"{table.values[0]}_file"] is None:
        kind = "only in the database"
    columns = {
        name: (row[name], row[f"{name}_file"])
        for name in table.values
        if kind == "differs" and row[name] != row[f"{name}_file"]
    }
    return Mismatch(scope, {name: row[name] for name in table.key}, kind, columns)
