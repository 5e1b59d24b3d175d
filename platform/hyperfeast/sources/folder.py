"""A folder of CSV and Parquet files, as a source.

Three layouts are read, and may be mixed:

- one file a symbol: `AAPL.csv`, `AAPL.csv.gz`, `AAPL.parquet`; what a file name cannot hold is
  percent-encoded, `BTC%2FUSDT.csv`;
- hive partitions: `symbol=AAPL/*.parquet` (or CSV), at any depth below;
- files of many symbols, with a column of them. Each symbol costs a pass over such a file, which is
  quick for Parquet sorted by symbol and slow for a CSV of thousands.

A subfolder with the name of a timeframe (`1d/`, `1m/`) holds that timeframe's files. Without one, the folder's
files are taken as bars of whichever timeframe is asked for.
"""

import csv
import gzip
import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from hyperfeast.errors import DataError, NoData, UsageError
from hyperfeast.sources.interface import check_request, some_of
from hyperfeast.sources.rows import asked_for, symbol_column
from hyperfeast.types import Timeframe

_SUFFIXES = (".csv.gz", ".csv", ".parquet")
_PARTITION = "symbol="

# About 60,000 bars of text: what one step of a CSV holds in memory.
_BLOCK_BYTES = 2 << 20
_BATCH_ROWS = 100_000
_HEADER_BYTES = 1 << 20


class FolderSource:
    """The bars of a folder. Rows are passed on as they are written; ingestion types and judges them."""

    def __init__(self, path: str | Path, *, tz: str = "UTC") -> None:
        """Look at a folder; its files are read when they are asked for.

        Args:
            path: the folder.
            tz: the zone of times that are written without one.

        Raises:
            UsageError: there is no such folder.
        """
        self._root = Path(path).expanduser()
        # Whole: a backfill tells by it what is done, and healing finds the folder again by it.
        self.name = f"folder:{self._root.resolve()}"
        self.timeframes = frozenset(Timeframe)
        self.tz = tz
        self._columns: dict[Path, str | None] = {}
        if not self._root.is_dir():
            found = "a file" if self._root.exists() else "nothing"
            raise UsageError(
                f"there is no folder {self._root}: found {found}; expected a folder of "
                "CSV or Parquet files"
            )

    def fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        """The rows of a symbol in [start, end): see `Source.fetch`.

        Rows whose time cannot be read are passed on, for ingestion to refuse. Files are read in the order of
        their names, rows in the order of the file, and memory is bounded whatever their size.
        """
        check_request(self, timeframe, start, end)
        return self._fetch(symbol, timeframe, start, end)

    def symbols(self) -> list[str]:
        """The symbols of all files, sorted. Files with a column of symbols are read for it."""
        symbols: set[str] = set()
        for folder in self._folders():
            symbols |= set(_partitions(folder))
            for path in _files(folder):
                column = self._column(path)
                symbols |= {_named(path)} if column is None else _symbols_within(path, column)
        return sorted(symbols)

    def versions(self, symbols: Sequence[str], timeframe: Timeframe) -> dict[str, str]:
        """By the names, sizes and times of change of each symbol's files.

        A symbol without files of its own may be in any that lies beside them.
        """
        folder = self._folder(timeframe)
        partitions, files = _partitions(folder), _files(folder)
        named: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            named[_named(path)].append(path)
        shared = _version(folder, files)
        owned = {symbol: _owned(partitions.get(symbol), named[symbol]) for symbol in symbols}
        return {symbol: _version(folder, own) if own else shared for symbol, own in owned.items()}

    def _fetch(
        self, symbol: str, timeframe: Timeframe, start: datetime, end: datetime
    ) -> Iterator[pl.DataFrame]:
        folder = self._folder(timeframe)
        own = _own_files(folder, symbol)
        met = bool(own)
        for path, column in own or self._shared_files(folder):
            for frame in _batches(path, equal={column: symbol} if column else {}):
                met = met or symbol in frame[str(column)]
                yield from asked_for(
                    frame, symbol=symbol, timeframe=timeframe, start=start, end=end, tz=self.tz
                )
        if not met:
            raise NoData(
                f"{folder} has no bars of {symbol}: expected a file {symbol}.csv or {symbol}.parquet, a "
                f"folder {_PARTITION}{symbol}, or rows of it in a file with a column symbol; found "
                f"{some_of([path.name for path in (*_partitions(folder).values(), *_files(folder))])}"
            )

    def _shared_files(self, folder: Path) -> list[tuple[Path, str | None]]:
        """The files of many symbols, with their column of them."""
        return [(path, column) for path in _files(folder) if (column := self._column(path))]

    def _column(self, path: Path) -> str | None:
        if path not in self._columns:
            self._columns[path] = symbol_column(_names(path))
        return self._columns[path]

    def _folder(self, timeframe: Timeframe) -> Path:
        own = self._root / timeframe.value
        return own if own.is_dir() else self._root

    def _folders(self) -> list[Path]:
        own = [self._root / timeframe.value for timeframe in Timeframe]
        return [folder for folder in own if folder.is_dir()] or [self._root]


# A symbol from outside is compared with the names that are there, and never made into a path.
def _own_files(folder: Path, symbol: str) -> list[tuple[Path, str | None]]:
    named = [path for path in _files(folder) if _named(path) == symbol]
    return [(path, None) for path in _owned(_partitions(folder).get(symbol), named)]


def _owned(partition: Path | None, named: Sequence[Path]) -> list[Path]:
    parts = sorted(partition.rglob("*")) if partition else []
    return [path for path in [*parts, *named] if path.is_file() and _stem(path) is not None]


def _version(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with suppress(OSError):  # whoever reads it says what is wrong with it
            now = path.stat()
            digest.update(
                f"{path.relative_to(folder)}\0{now.st_size}\0{now.st_mtime_ns}\0".encode()
            )
    return digest.hexdigest()


def _partitions(folder: Path) -> dict[str, Path]:
    return {
        unquote(path.name[len(_PARTITION) :]): path
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name.startswith(_PARTITION)
    }


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and _stem(path) is not None]


def _named(path: Path) -> str:
    return unquote(_stem(path) or "")


def _stem(path: Path) -> str | None:
    for suffix in _SUFFIXES:
        if path.name.lower().endswith(suffix) and not path.name.startswith((".", "_")):
            return path.name[: -len(suffix)]
    return None


def _symbols_within(path: Path, column: str) -> set[str]:
    found: set[str] = set()
    for frame in _batches(path, columns=[column]):
        found |= set(frame[column].drop_nulls().cast(pl.String).unique())
    return found


def _names(path: Path) -> list[str]:
    with _reading(path):
        if path.name.lower().endswith(".parquet"):
            return list(_dataset().dataset(path, format="parquet").schema.names)
        return _header(path)


def _batches(
    path: Path, *, columns: list[str] | None = None, equal: Mapping[str, str] | None = None
) -> Iterator[pl.DataFrame]:
    with _reading(path):
        if path.name.lower().endswith(".parquet"):
            batches = _parquet_batches(path, columns, equal or {})
        else:
            batches = _csv_batches(path, columns)
        for batch in batches:
            if batch.num_rows:
                yield cast("pl.DataFrame", pl.from_arrow(batch))


def _parquet_batches(
    path: Path, columns: list[str] | None, equal: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    dataset = _dataset()
    wanted = None
    for name, value in equal.items():
        wanted = dataset.field(name).cast(pa.string()) == value
    scanner = dataset.dataset(path, format="parquet").scanner(
        columns=columns, filter=wanted, batch_size=_BATCH_ROWS, batch_readahead=1, use_threads=False
    )
    yield from scanner.to_batches()


def _dataset() -> ModuleType:
    """Imported when a Parquet file comes: it imports pandas, which takes a second."""
    import pyarrow.dataset

    return pyarrow.dataset


def _csv_batches(path: Path, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
    """All columns as text: one "nil" among the numbers is one refused row and not a failed file."""
    names = _header(path)
    with _opened(path) as stream:
        yield from pa_csv.open_csv(
            stream,
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=columns or [],
                strings_can_be_null=True,
                null_values=[""],
            ),
        )


def _header(path: Path) -> list[str]:
    with _opened(path) as stream:
        line = stream.readline(_HEADER_BYTES)
    if not line.strip():
        raise DataError(f"{path} is empty: expected a CSV file with a header and rows")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise DataError(f"{path} is UTF-16: expected UTF-8; save it as UTF-8")
    names = next(csv.reader([line.decode("utf-8-sig")]))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has more than one column {twice[0]!r}: expected each name once")
    return names


def _opened(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Every way in which a file can be unreadable, as one line that names it."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is no whole gzip file ({error}): fetch or compress it again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from error
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{path} cannot be read ({_first_line(error)}): expected a whole Parquet file, or a CSV in UTF-8 "
            "with commas between fields and as many fields in each row as in the header"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _first_line(error: Any) -> str:
    return str(error).strip().split("\n", 1)[0]
