"""`sql/lifecycle.toml`: what is declared of every table, checked before anything acts on it."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfeast import sqlfiles
from hyperfeast.errors import DataError
from hyperfeast.lifecycle.intervals import Interval
from hyperfeast.types import Timeframe

WHOLE = ""
FOREVER = "forever"
NEVER = "never"

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_MANY = re.compile(r"[a-z_][a-z0-9_]{0,61}\*", re.ASCII)
_ORDER = re.compile(r"([a-z_][a-z0-9_]{0,62})(?: (ASC|DESC))?", re.ASCII)
_REQUIRED = {
    "time_column", "chunk_interval", "compress_after", "segment_by", "order_by", "keep_for",
}  # fmt: skip
_OPTIONAL = {"rollups", "rollups_of"}
_BY_TIMEFRAME = "candles"


@dataclass(frozen=True)
class TableLifecycle:
    """What is declared of one table.

    Attributes:
        relation: the table; `features_*` for every table whose name begins so and is not declared itself.
        time_column: what its rows are partitioned and expire by.
        chunk_interval: how much time a chunk holds.
        compress_after: the age at which a chunk is compressed; None for never.
        segment_by: the columns whose equal values are compressed together; none for many tables, of
            which it is each one's primary key but for the columns of `order_by`.
        order_by: the order within a segment: `ts DESC`, `id`.
        keep_for: the age at which rows expire, None for never, by timeframe; one entry under `WHOLE` for a
            table that is not kept by timeframe.
        rollups: what is aggregated from it.
        rollups_of: the timeframe that these are made from, `WHOLE` for all rows.
    """

    relation: str
    time_column: str
    chunk_interval: Interval
    compress_after: Interval | None
    segment_by: tuple[str, ...]
    order_by: tuple[str, ...]
    keep_for: Mapping[str, Interval | None]
    rollups: tuple[str, ...] = ()
    rollups_of: str = WHOLE

    @property
    def of_many(self) -> bool:
        """Whether it stands for every table whose name begins alike."""
        return self.relation.endswith("*")

    @property
    def by_timeframe(self) -> bool:
        """Whether rows of different timeframes are kept for different times."""
        return WHOLE not in self.keep_for

    @property
    def dropped_by_policy(self) -> bool:
        """Whether a database with policies may drop it by itself: whole chunks, and nothing rests on them."""
        return not self.by_timeframe and not self.rollups and self.keep_for[WHOLE] is not None

    @property
    def columns(self) -> set[str]:
        """Every column that the declaration names."""
        ordered = {column.split(" ")[0] for column in self.order_by}
        timeframe = {"tf"} if self.by_timeframe else set()
        return {self.time_column, *self.segment_by} | ordered | timeframe


def load(path: Path | None = None) -> dict[str, TableLifecycle]:
    """What is declared, by table.

    Args:
        path: the file; `sql/lifecycle.toml` if left out.

    Raises:
        DataError: the file cannot be read or is wrong; the message names the key, what was expected and
            what was found.
    """
    path = path or sqlfiles.folder("migrations").parent / "lifecycle.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: expected a readable TOML file, found: {error}") from error
    try:
        return {name: _table(name, section) for name, section in content.items()}
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _table(name: str, section: Any) -> TableLifecycle:
    if not (_NAME.fullmatch(name) or _MANY.fullmatch(name)):
        raise DataError(f"[{name}]: expected the name of a table, found {name!r}")
    if not isinstance(section, dict):
        raise DataError(f"{name}: expected a section [{name}], found {section!r}")
    keys = _Keys(name, section)
    keys.check()
    table = TableLifecycle(
        relation=name,
        time_column=keys.column("time_column"),
        chunk_interval=keys.interval("chunk_interval"),
        compress_after=keys.interval_or("compress_after", NEVER),
        segment_by=keys.names("segment_by", _NAME),
        order_by=tuple(one.removesuffix(" ASC") for one in keys.names("order_by", _ORDER)),
        keep_for=keys.keep_for(),
        rollups=keys.names("rollups", _NAME),
        rollups_of=keys.section.get("rollups_of", WHOLE),
    )
    _check(table, keys)
    return table


class _Keys:
    """The keys of one section, read with errors that name them."""

    def __init__(self, name: str, section: dict[str, Any]) -> None:
        self.name, self.section = name, section

    def wrong(self, key: str, expected: str, found: Any) -> DataError:
        return DataError(f"{self.name}.{key}: expected {expected}, found {found!r}")

    def check(self) -> None:
        if unknown := sorted(self.section.keys() - _REQUIRED - _OPTIONAL):
            known = ", ".join(sorted(_REQUIRED | _OPTIONAL))
            raise DataError(f"{self.name}.{unknown[0]}: expected one of {known}; found another key")
        required = _REQUIRED - {"segment_by"} if self.name.endswith("*") else _REQUIRED
        if missing := sorted(required - self.section.keys()):
            raise DataError(f"{self.name}.{missing[0]}: expected a value, found none")

    def column(self, key: str) -> str:
        found = self.section[key]
        if not (isinstance(found, str) and _NAME.fullmatch(found)):
            raise self.wrong(key, "a column's name", found)
        return found

    def names(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        found = self.section.get(key, [])
        if not isinstance(found, list):
            raise self.wrong(key, "a list of names", found)
        for one in found:
            if not (isinstance(one, str) and pattern.fullmatch(one)):
                raise self.wrong(key, "names in lower case", one)
        return tuple(found)

    def interval(self, key: str) -> Interval:
        return self._interval(key, self.section[key])

    def interval_or(self, key: str, word: str) -> Interval | None:
        found = self.section[key]
        return None if found == word else self._interval(key, found)

    def keep_for(self) -> dict[str, Interval | None]:
        found = self.section["keep_for"]
        if self.name != _BY_TIMEFRAME:
            return {WHOLE: self.interval_or("keep_for", FOREVER)}
        if not isinstance(found, dict) or set(found) != set(Timeframe):
            keys = " ".join(found) if isinstance(found, dict) else found
            raise self.wrong("keep_for", f"a value for each of {' '.join(Timeframe)}", keys)
        return {
            tf: None if value == FOREVER else self._interval(f"keep_for.{tf}", value)
            for tf, value in found.items()
        }

    def _interval(self, key: str, found: Any) -> Interval:
        if not isinstance(found, str):
            raise self.wrong(key, 'an interval, as in "7 days"', found)
        try:
            return Interval.parse(found)
        except DataError as error:
            raise DataError(f"{self.name}.{key}: {error}") from None


def _check(table: TableLifecycle, keys: _Keys) -> None:
    """What the values must be to each other."""
    if table.chunk_interval.months:
        raise keys.wrong("chunk_interval", "hours, days or weeks", str(table.chunk_interval))
    if both := {column.split(" ")[0] for column in table.order_by} & {*table.segment_by}:
        raise keys.wrong("order_by", "columns that segment_by does not name", min(both))
    if table.of_many and (table.segment_by or table.rollups):
        found = "segment_by" if table.segment_by else "rollups"
        raise keys.wrong(found, "none: every table has its own", keys.section[found])
    if table.rollups and table.rollups_of not in table.keep_for:
        raise keys.wrong("rollups_of", "a timeframe of keep_for", table.rollups_of)
    for tf, kept in table.keep_for.items():
        key = f"keep_for.{tf}" if tf else "keep_for"
        if kept is None:
            continue
        if kept < table.chunk_interval:
            raise keys.wrong(key, f"at least one chunk_interval, {table.chunk_interval}", str(kept))
        if table.compress_after and table.compress_after > kept:
            raise keys.wrong("compress_after", f"at most {key}, {kept}", str(table.compress_after))
