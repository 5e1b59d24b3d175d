"""Everything of a user in one file: a ZIP of JSON lines, one file a table, and a list of what is in it."""

import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import orjson
from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.disk import sync
from hyperfeast.errors import UsageError
from hyperfeast.sqlfiles import query
from hyperfeast.users import copies
from hyperfeast.users.places import FILE, OnlineFeatures, moment, places

Progress = Callable[[int, int], None]
_ROWS_AT_ONCE = 10_000


class SavedBaselines(Protocol):
    """Keeps baselines: see `baselines.BaselineRepository`."""

    def history(self, user_id: UUID) -> Sequence[Any]:
        """The newest ones."""


@dataclass(frozen=True)
class Exported:
    """What is in the file.

    Attributes:
        user_id: whose.
        path: of the file.
        rows: table, `online`, `baselines` or `copies` -> rows.
    """

    user_id: UUID
    path: Path
    rows: dict[str, int]


def export_user(
    database: Database,
    user_id: UUID,
    path: Path,
    *,
    online: OnlineFeatures,
    baselines: Sequence[SavedBaselines] = (),
    copies_in: Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write everything of a user into a ZIP of JSON lines. Its tables are of one moment.

    Args:
        database: which.
        user_id: whose.
        path: the file; it is there whole, or not.
        online: where features are served from.
        baselines: where baselines are kept besides the database.
        copies_in: the folder that rows taken in are also written to.
        progress: told (files done, files in all).

    Raises:
        UsageError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(draft, "x", zipfile.ZIP_DEFLATED) as archive:
            with database.connect() as connection:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                parts = _parts(connection, user_id, online, baselines, copies_in)
                rows = {}
                for done, (name, part) in enumerate(parts.items()):
                    if progress:
                        progress(done, len(parts))
                    rows[name] = _write(archive, name, part)
                made_at = moment(connection)
            manifest = {"user_id": user_id, "exported_at": made_at, "rows": rows}
            archive.writestr("manifest.json", _json(manifest) + b"\n")
        sync(draft)
        draft.replace(path)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}. Name a file in a folder that can, with --to"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    if progress:
        progress(len(parts), len(parts))
    return Exported(user_id, path, {name: count for name, count in rows.items() if count})


def _parts(
    connection: Connection[DictRow],
    user_id: UUID,
    online: OnlineFeatures,
    baselines: Sequence[SavedBaselines],
    copies_in: Path | None,
) -> dict[str, Iterable[Any]]:
    select = sql.SQL(query(FILE, "select"))
    return {
        **{
            place.name: _fetched(
                connection, select.format(table=place.table, condition=place.condition)
            )
            for place in sorted(places(connection, user_id), key=lambda one: one.name)
        },
        "audit_log": _receipts(connection, user_id),
        "online": online.of_entity(str(user_id)),
        "baselines": (one for store in baselines for one in store.history(user_id)),
        "copies": copies.rows_of_user(copies_in, user_id) if copies_in else (),
    }


def _fetched(connection: Connection[DictRow], statement: sql.Composed) -> Iterator[Any]:
    with connection.cursor(name="exported") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement)
        for row in cursor:
            yield row["row"]


def _receipts(connection: Connection[DictRow], user_id: UUID) -> Iterator[Any]:
    for row in connection.execute(query(FILE, "receipts"), {"text": str(user_id)}):
        yield row["row"]


def _write(archive: zipfile.ZipFile, name: str, rows: Iterable[Any]) -> int:
    """One JSON object a line. How many; without any there is no file."""
    found = iter(rows)
    first = next(found, None)
    if first is None:
        return 0
    count = 1
    with archive.open(f"{name}.jsonl", "w", force_zip64=True) as file:
        file.write(_json(first) + b"\n")
        for count, row in enumerate(found, start=2):  # noqa: B007
            file.write(_json(row) + b"\n")
    return count


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def _plain(value: Any) -> Any:
    match value:
        case UUID() | Path():
            return str(value)
        case datetime() | date():
            return value.isoformat()
        case Mapping():
            return dict(value)
        case _ if hasattr(value, "model_dump"):
            return value.model_dump(mode="json", by_alias=True)
        case _:
            raise TypeError(type(value).__name__)
