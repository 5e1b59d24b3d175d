"""The rules as Polars expressions: which rows can break any, in one pass over the columns."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from hyperfeast.ingest.gate import rules as expectations
from hyperfeast.ingest.gate.rules import Rule

# What Python's datetime holds, and with it Great Expectations: a frame may hold the year 200,000.
_FIRST_DAY, _LAST_DAY = date.min, date.max
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def comparable(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """`row` and the columns that the rules name, as both Polars and pandas compare them alike.

    NaN is null, dates are midnights, times are in UTC or without a zone, and those that Python cannot hold
    are the nearest that it can.

    Raises:
        RuntimeError: a rule names a column that the rows do not have.
    """
    for rule in rules:
        for column in rule.columns:
            if column not in rows.columns:
                raise RuntimeError(
                    f"rule {rule.name} ({rule.expectation}) cannot be judged: there is no column {column!r} "
                    f"among {', '.join(rows.columns)}"
                )
    columns = dict.fromkeys(column for rule in rules for column in rule.columns)
    return rows.select("row", *(_comparable(name, rows.schema[name]) for name in columns))


def _comparable(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_float():
        return column.fill_nan(None)
    if dtype == pl.Date:
        return column.clip(_FIRST_DAY, _LAST_DAY).cast(pl.Datetime("us"))
    if isinstance(dtype, pl.Datetime):
        universal = (
            column.dt.replace_time_zone("UTC")
            if dtype.time_zone is None
            else column.dt.convert_time_zone("UTC")
        )
        held = universal.clip(_FIRST, _LAST).cast(pl.Datetime("us", "UTC"))
        return held.dt.replace_time_zone(None) if dtype.time_zone is None else held
    return column


def suspects(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """The rows, as `comparable` returns them, that break any of the rules."""
    if not rules:
        return rows.clear()
    # A comparison with null is null, and neither true nor an answer: filter leaves the row out.
    return rows.lazy().filter(pl.any_horizontal([broken(rule) for rule in rules])).collect()


def broken(rule: Rule) -> pl.Expr:
    """Whether a row breaks the rule: true, false, or null for a value that is not there.

    Raises:
        RuntimeError: a row cannot break that rule by itself.
    """
    arguments = rule.arguments
    match rule.expectation:
        case expectations.NOT_NULL:
            return pl.col(arguments["column"]).is_null()
        case expectations.BETWEEN:
            return _outside(arguments)
        case expectations.MATCH_REGEX:
            regex = arguments["regex"].removesuffix(r"\Z") + r"\z"
            return ~pl.col(arguments["column"]).str.contains(regex)
        case expectations.IN_SET:
            return ~pl.col(arguments["column"]).is_in(arguments["value_set"])
        case expectations.PAIR_AT_LEAST:
            left, right = pl.col(arguments["column_A"]), pl.col(arguments["column_B"])
            return (left < right) | (left.is_null() ^ right.is_null())
        case _:
            raise RuntimeError(
                f"rule {rule.name}: {rule.expectation} cannot be judged row by row: add it to the screen"
            )


def _outside(arguments: Mapping[str, Any]) -> pl.Expr:
    column = pl.col(arguments["column"])
    low, high = (_bound(arguments.get(name)) for name in ("min_value", "max_value"))
    below = above = pl.lit(value=False)
    if low is not None:
        below = column <= low if arguments.get("strict_min") else column < low
    if high is not None:
        above = column >= high if arguments.get("strict_max") else column > high
    return below | above


def _bound(value: Any) -> Any:
    """Times in UTC, in which the columns are."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    return value


def increasing(rows: pl.DataFrame, key: Sequence[str]) -> bool:
    """Whether each row's key is greater than the one before: then all are distinct, without a hash."""
    greater = pl.lit(value=False)
    for name in reversed(key):
        before = pl.col(name).shift()
        greater = (pl.col(name) > before) | ((pl.col(name) == before) & greater)
    unknown = greater.slice(1).fill_null(value=False)
    return bool(rows.select(unknown.all()).item())


def repeated(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """The rows whose key comes more than once, in their order."""
    if increasing(rows, key):
        return rows.clear()
    return rows.filter(pl.struct(key).is_duplicated())
