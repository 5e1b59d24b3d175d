"""CSV and Parquet files as frames, and every way in which a file can be unreadable as one clear line."""

import csv
import gzip
import io
import zlib
from collections import Counter
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from hyperfeast.errors import DataError, UsageError

_SUFFIXES = (".csv", ".csv.gz", ".parquet")


def read_file(path: str | Path) -> pl.DataFrame:
    """The rows of a .csv, .csv.gz or .parquet file.

    Returns:
        One row a row of the file, at least one. The columns of a CSV are all text, so that one "nil"
        among the numbers is one refused row and not a failed file; those of a Parquet file keep their types.

    Raises:
        UsageError: there is no such file.
        DataError: it is a folder, has another suffix, is empty, is damaged, or is not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no file {path}: check the path")
    if path.is_dir():
        raise DataError(f"{path} is a folder: expected one file, {_expected()}")
    if not path.name.lower().endswith(_SUFFIXES):
        raise DataError(f"{path} is no file that can be read: expected {_expected()}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    frame = _parquet(path, data) if path.name.lower().endswith(".parquet") else _csv(path, data)
    if frame.is_empty():
        raise DataError(f"{path} has a header and no rows: expected at least one row")
    return frame


def _expected() -> str:
    return f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"


def _parquet(path: Path, data: bytes) -> pl.DataFrame:
    if not data:
        raise DataError(f"{path} is empty: expected a Parquet file")
    try:
        return pl.read_parquet(io.BytesIO(data))
    except PolarsError as error:
        raise DataError(
            f"{path} is no whole Parquet file ({_first_line(error)}): fetch or write it again"
        ) from error


def _csv(path: Path, data: bytes) -> pl.DataFrame:
    text = _decompressed(path, data) if path.name.lower().endswith(".gz") else data
    if not text.strip():
        raise DataError(f"{path} is empty: expected a CSV file with a header and rows")
    _check_utf8(path, text)
    _check_header(path, text)
    try:
        return pl.read_csv(io.BytesIO(text), infer_schema=False)
    except PolarsError as error:
        raise DataError(
            f"{path} is no CSV that can be read ({_first_line(error)}): expected commas between fields, "
            "double quotes around a field that holds one, and as many fields in each row as in the header"
        ) from error


def _decompressed(path: Path, data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is no whole gzip file ({error}): fetch or compress it again"
        ) from error


def _check_utf8(path: Path, text: bytes) -> None:
    """UTF-16 is told by its mark or by zero bytes in the header; any other encoding by what breaks UTF-8."""
    if text.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in text.split(b"\n", 1)[0]:
        raise DataError(f"{path} is UTF-16: expected UTF-8; save it as UTF-8")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{text[error.start]:02x} in line {line}): save it as UTF-8"
        ) from error


def _check_header(path: Path, text: bytes) -> None:
    """Fields that commas do not part; two columns of one name, when nobody knows which is meant."""
    header = text.lstrip().split(b"\n", 1)[0].decode("utf-8-sig")
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if separator in header and "," not in header:
            raise DataError(
                f"{path} has {name} between its fields: expected commas, and a point in decimal numbers"
            )
    names = Counter(next(csv.reader([header]), []))
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}: expected each name once")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
