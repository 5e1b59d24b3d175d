"""CSV and Parquet files as frames, and every way in which a file can be unreadable as one clear line.

A file is read piece by piece, so that its size does not matter.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import polars as pl
from polars.exceptions import PolarsError

from hyperfeast.errors import DataError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 200_000

_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_PIECE_BYTES = 1 << 20
_MARK = codecs.BOM_UTF8


def read_batches(path: str | Path, *, rows: int = BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """The rows of a .csv, .csv.gz or .parquet file, in frames of so many.

    The columns of a CSV are all text, so that one "nil" among the numbers is one refused row and not a
    failed file; those of a Parquet file keep their types.

    Args:
        path: the file.
        rows: of a frame; the last one has fewer. Memory grows with this, not with the file.

    Yields:
        Frames with one row a row of the file; one at least, and none without rows.

    Raises:
        UsageError: there is no such file.
        DataError: it is a folder, has another suffix, is empty, is damaged, or is not UTF-8. What is wrong
            far behind the beginning is found when it is reached, after the frames before it.
    """
    path = _checked(path)
    empty = True
    for frame in _gathered(_parquet(path, rows) if _is_parquet(path) else _csv(path), rows):
        empty = False
        yield frame
        del frame
    if empty:
        raise DataError(f"{path} has a header and no rows: expected at least one row")


def read_file(path: str | Path) -> pl.DataFrame:
    """All rows of a file that is known to be small: what `read_batches` yields, in one frame.

    Raises:
        The same as `read_batches`.
    """
    return pl.concat(read_batches(path))


def expected_rows(path: str | Path) -> int:
    """About how many rows a file has: exactly for Parquet, by its first lines for CSV.

    Raises:
        The same as `read_batches`, if its beginning shows it.
    """
    path = _checked(path)
    if _is_parquet(path):
        import pyarrow.parquet as pq

        with _parquet_errors(path), pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    with path.open("rb") as raw, _csv_errors(path):
        piece = _opened(path, raw).read(_PIECE_BYTES)
        read = raw.tell() if _is_zipped(path) else len(piece)
    return round(piece.count(b"\n") * path.stat().st_size / max(read, 1))


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no file {path}: check the path")
    if path.is_dir():
        raise DataError(f"{path} is a folder: expected one file, {_expected()}")
    if not path.name.lower().endswith(_SUFFIXES):
        raise DataError(f"{path} is no file that can be read: expected {_expected()}")
    return path


def _expected() -> str:
    return f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def _is_zipped(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _gathered(pieces: Iterator["pa.RecordBatch"], rows: int) -> Iterator[pl.DataFrame]:
    """Pieces of any size as frames of one size."""
    waiting: list[pl.DataFrame] = []
    height = 0
    for piece in pieces:
        waiting.append(cast("pl.DataFrame", pl.from_arrow(piece)))
        height += piece.num_rows
        while height >= rows:
            frame, waiting, height = _cut(waiting, rows)
            yield frame
            del frame  # whoever has it may let it go while the next one is read
    if height:
        yield pl.concat(waiting)


def _cut(pieces: list[pl.DataFrame], rows: int) -> tuple[pl.DataFrame, list[pl.DataFrame], int]:
    """So many rows, and the rest with its height."""
    whole = pl.concat(pieces)
    rest = whole.slice(rows)
    return whole.head(rows), [rest], rest.height


def _parquet(path: Path, rows: int) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet as pq

    if not path.stat().st_size:
        raise DataError(f"{path} is empty: expected a Parquet file")
    # Without these the library reads whole row groups, which may be the whole file.
    with _parquet_errors(path), pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=rows)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, PolarsError, OSError) as error:
        raise DataError(
            f"{path} is no whole Parquet file ({_first_line(error)}): fetch or write it again"
        ) from error


def _csv(path: Path) -> Iterator["pa.RecordBatch"]:
    from pyarrow import csv as arrow_csv

    with path.open("rb") as raw, _csv_errors(path):
        text = _Utf8(path, _opened(path, raw))
        names = _header(path, text)
        if not text.skip_blank():
            return
        yield from arrow_csv.open_csv(
            cast("BinaryIO", text),
            read_options=arrow_csv.ReadOptions(
                column_names=names, block_size=_PIECE_BYTES, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=_as_text(names),
        )


def _as_text(names: list[str]) -> "pa.csv.ConvertOptions":
    """Every column text; a cell with nothing in it is null, and one with "" is an empty text."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    return arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        check_utf8=False,  # it is checked as it is read, with the line
    )


def _opened(path: Path, raw: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if _is_zipped(path) else raw


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is no whole gzip file ({error}): fetch or compress it again"
        ) from error
    except pa.ArrowException as error:
        raise DataError(
            f"{path} is no CSV that can be read ({_first_line(error)}): expected commas between fields, "
            "double quotes around a field that holds one, and as many fields in each row as in the header"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


class _Utf8(io.RawIOBase):
    """A stream of bytes that are checked to be UTF-8 as they are read."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        super().__init__()
        self._path = path
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._lines = 0
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._rest or self._next(size)
        if size < 0:
            self._rest = b""
            return piece + b"".join(iter(lambda: self._next(size), b""))
        self._rest = piece[size:]
        return piece[:size]

    def line(self) -> bytes:
        """The first line that is not blank, without its end; empty at the end of the file."""
        if not self.skip_blank():
            return b""
        self._rest = self._rest.lstrip()
        while b"\n" not in self._rest and (more := self._next(_PIECE_BYTES)):
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def skip_blank(self) -> bool:
        """Pass over what is blank; whether anything is left."""
        while not self._rest.strip():
            self._rest = self._next(_PIECE_BYTES)
            if not self._rest:
                return False
        self._rest = self._rest.lstrip(b"\r\n")
        return True

    def _next(self, size: int) -> bytes:
        piece = self._raw.read(size)
        self._check(piece)
        self._lines += piece.count(b"\n")
        return piece

    def _check(self, piece: bytes) -> None:
        held = self._decoder.getstate()[0]
        if not self._lines and not held and _is_utf16(piece):
            raise DataError(f"{self._path} is UTF-16: expected UTF-8; save it as UTF-8")
        try:
            self._decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            line = self._lines + (held + piece).count(b"\n", 0, error.start) + 1
            byte = (held + piece)[error.start]
            raise DataError(
                f"{self._path} is not UTF-8 (byte 0x{byte:02x} in line {line}): save it as UTF-8"
            ) from error


def _is_utf16(piece: bytes) -> bool:
    """It is told by its mark, or by zero bytes in the header."""
    return (
        piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        or b"\0" in piece.split(b"\n", 1)[0]
    )


def _header(path: Path, text: _Utf8) -> list[str]:
    """The columns' names, if commas part them and no two are the same: nobody knows which is meant."""
    line = text.line().removeprefix(_MARK)
    if not line.strip():
        raise DataError(f"{path} is empty: expected a CSV file with a header and rows")
    header = line.decode().rstrip("\r")
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if separator in header and "," not in header:
            raise DataError(
                f"{path} has {name} between its fields: expected commas, and a point in decimal numbers"
            )
    names = next(csv.reader([header]))
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}: expected each name once")
    return names


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
