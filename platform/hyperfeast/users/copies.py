"""The copies in files of what was taken in (HYPERFEAST_DUAL_WRITE): whose rows are in them, and without whose.

A file is rewritten beside itself, brought to the disk and put in its place in one step. It stays even where it
becomes empty: it stands for its batch.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
from polars.exceptions import PolarsError

from hyperfeast.disk import sync
from hyperfeast.errors import DataError, ServerError

_SCOPE = "user_baseline_raw"
_DRAFT = ".rewriting-"


def rows_of_user(folder: Path, user_id: UUID) -> Iterator[dict[str, Any]]:
    """The user's rows, file by file, as they were taken in.

    Raises:
        DataError: a file cannot be read.
    """
    for path in _files(folder):
        yield from _read(path).filter(_is_of(user_id)).iter_rows(named=True)


def without_user(folder: Path, user_id: UUID) -> int:
    """Take a user's rows out of every file, also of those whose batch was not decided; how many there were.

    Raises:
        DataError: a file cannot be read.
        ServerError: the folder cannot be written.
    """
    for draft in (folder / _SCOPE).glob(f"{_DRAFT}*"):
        draft.unlink(missing_ok=True)
    gone = 0
    for path in _files(folder):
        rows = _read(path)
        kept = rows.filter(~_is_of(user_id))
        if kept.height < rows.height:
            _replace(path, kept)
            gone += rows.height - kept.height
    return gone


def _files(folder: Path) -> list[Path]:
    return sorted((folder / _SCOPE).glob("*.parquet*"))


def _is_of(user_id: UUID) -> pl.Expr:
    return pl.col("user_id") == str(user_id)


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        # A batch that ends gives its file another name meanwhile, or takes it away.
        return pl.DataFrame(schema={"user_id": pl.String})
    except (OSError, PolarsError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]}): the copy is damaged; mend it or move it away, "
            "then do this again"
        ) from error


def _replace(path: Path, rows: pl.DataFrame) -> None:
    draft = path.with_name(f"{_DRAFT}{secrets.token_hex(4)}")
    try:
        rows.write_parquet(draft)
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise ServerError(
            f"{path} cannot be written: {error.strerror}. What was there is there; mend the folder, then again"
        ) from error
