"""A JSON body as options and a frame: no guess at a type that another row would contradict."""

from itertools import chain
from typing import Any

import numpy as np
import orjson
import polars as pl

from hyperfeast.api.bodies import BodyLimit, BodyTooLarge
from hyperfeast.errors import DataError

MAX_COLUMNS = 64
MAX_NAME = 100

_MAX_OPTIONS = 32
_MAX_VALUES_A_ROW = 16
_INT64_MAX = 2**63 - 1
_SLICE_BYTES = 1 << 20
_QUOTE, _COLON = b'":'


def read(body: bytes, max_rows: int, limit: BodyLimit) -> tuple[dict[str, Any], pl.DataFrame]:
    """The options of a body such as `{"source": "feed", "rows": [{"symbol": "AAPL", …}, …]}`, and its rows.

    Args:
        body: JSON in UTF-8.
        max_rows: how many rows it may have.
        limit: what is said of a body with more.

    Returns:
        What stands beside `rows`, and a frame with a column for each name that a row has. A column of
        numbers is Int64 or Float64; one in which any cell is text, true or false, or an integer beyond 64
        bits, is text, with its numbers as they are written: each row is judged for itself. A cell that a row
        does not have is null.

    Raises:
        BodyTooLarge: there are more rows, or more values than so many rows have.
        DataError: it is no such document: not JSON, a key twice in one object, rows that are no objects, a
            list or an object in a cell.
    """
    _check_size(body, max_rows, limit)
    options = _document(body)
    rows = options.pop("rows", None)
    if not isinstance(rows, list) or not rows:
        raise DataError(
            'expected "rows": a list of one object or more, each a row such as {"symbol": "AAPL", …}'
        )
    if len(rows) > max_rows:
        raise BodyTooLarge(limit)
    _check_rows(rows)
    names = _names(rows)
    frame = pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])
    _check_keys(body, 1 + len(options) + sum(map(len, rows)))
    return options, frame


def check_names(names: list[str]) -> None:
    """Refuse what no table of rows has for columns.

    Raises:
        DataError: none, too many, or names too long.
    """
    if not 0 < len(names) <= MAX_COLUMNS:
        raise DataError(f"expected 1 to {MAX_COLUMNS} columns, found {len(names):,}")
    long = [name for name in names if len(name) > MAX_NAME]
    if long:
        raise DataError(
            f"the column name {long[0][:MAX_NAME]!r}… is longer than {MAX_NAME} characters"
        )


def _check_size(body: bytes, max_rows: int, limit: BodyLimit) -> None:
    """Before a byte becomes an object: `[[],[],…` takes thirty times its own size as objects."""
    opened = body.count(b"{") + body.count(b"[")
    if opened > 2 * (max_rows + 1) or body.count(b",") > _MAX_VALUES_A_ROW * max_rows:
        raise BodyTooLarge(limit)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DataError(f"the body is no JSON that can be read: {error}") from None
    if not isinstance(document, dict):
        raise DataError('the body is no object: expected {"source": …, "rows": [{…}, …]}')
    if len(document) > _MAX_OPTIONS:
        raise DataError(f"the body has {len(document):,} keys: expected the options and rows")
    nested = [name for name, value in document.items() if name != "rows" and _is_nested(value)]
    if nested:
        raise DataError(
            f"{nested[0][:MAX_NAME]!r} holds a list or an object: only rows does; every option is plain"
        )
    return document


def _check_rows(rows: list[Any]) -> None:
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"row {place + 1} is {_kind(row)}: expected an object, one a row")


def _names(rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(chain.from_iterable(rows)))
    check_names(names)
    return names


def _column(name: str, cells: list[Any]) -> pl.Series:
    kinds = set(map(type, cells)) - {type(None)}
    if not kinds:
        return pl.Series(name, cells, pl.Null)
    if kinds == {int} and max(cell for cell in cells if cell is not None) <= _INT64_MAX:
        return pl.Series(name, cells, pl.Int64)
    if float in kinds and kinds <= {int, float}:
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells])
    if kinds == {str}:
        return pl.Series(name, cells, pl.String)
    if kinds & {list, dict}:
        place = next(place for place, cell in enumerate(cells) if _is_nested(cell))
        raise DataError(
            f"row {place + 1}: {name!r} holds {_kind(cells[place])}: expected text, a number or null"
        )
    return pl.Series(name, [_written(cell) for cell in cells], pl.String)


def _written(cell: Any) -> str | None:
    return cell if cell is None or isinstance(cell, str) else orjson.dumps(cell).decode()


def _check_keys(body: bytes, found: int) -> None:
    """A key that comes twice in one object is read once: then there are more colons than keys."""
    if _colons(body) != found:
        raise DataError("a key comes twice in one object: nobody knows which of its values counts")


def _colons(body: bytes) -> int:
    """How many colons stand outside of strings, in valid JSON."""
    # Only a quote that is escaped does not end its string; what else is escaped does not matter here.
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    count, inside = 0, False
    for start in range(0, len(text), _SLICE_BYTES):
        part = np.frombuffer(text, np.uint8, min(_SLICE_BYTES, len(text) - start), start)
        in_string = np.logical_xor.accumulate(part == _QUOTE) ^ inside
        count += int(np.count_nonzero((part == _COLON) & ~in_string))
        inside = bool(in_string[-1])
    return count


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"
