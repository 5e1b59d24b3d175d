"""Named queries from `sql/queries/*.sql` and `sql/aggregates/*.sql`, and the folders that hold SQL.

A query begins at a line `-- name: <name>` and ends at the next one; the comment lines below the
name say what the query is for.
"""

import re
from functools import cache
from pathlib import Path
from typing import LiteralString

_PACKAGE = Path(__file__).resolve().parent
_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def folder(name: str) -> Path:
    """The folder `sql/<name>`: beside the package in a wheel, at the top of a checkout."""
    packaged = _PACKAGE / "sql" / name
    return packaged if packaged.exists() else _PACKAGE.parents[1] / "sql" / name


@cache
def _queries(file: str, where: str) -> dict[str, str]:
    text = (folder(where) / f"{file}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def query(file: str, name: str, *, where: str = "queries") -> LiteralString:
    """The query called `name` in `sql/<where>/<file>.sql`.

    Raises:
        KeyError: there is no such query; a mistake in this package, never a user's.
    """
    # The text comes from a file that ships with the package: as trusted as a literal.
    text: LiteralString = _queries(file, where)[name]
    return text
