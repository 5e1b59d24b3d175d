"""Forgets a user: in the database, in Redis, in files. What was done is in `audit_log`, without a value.

The database goes first, in one transaction that no writer of this user's rows runs beside, so that nothing
is computed again from what is gone. Then what is online, then the files. Every step is safe to repeat: a run
that was killed is run again, and finds what is left. Redis and the database are looked through until nothing
of the user is found there, since a copy that was on its way when the rows went may have arrived after them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

import stamina
from psycopg import Connection, sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.errors import Contended, DataError
from hyperfeast.sqlfiles import query
from hyperfeast.users import copies
from hyperfeast.users.places import (
    FILE,
    Mention,
    OnlineFeatures,
    is_feature_table,
    mentions,
    pattern,
    places,
)

Progress = Callable[[int, int], None]
_STEPS = 4
_ROUNDS = 5
_ATTEMPTS = 5


class Baselines(Protocol):
    """Keeps baselines: see `baselines.BaselineRepository`."""

    def delete(self, user_id: UUID) -> int:
        """Forget a user; how many baselines went."""


@dataclass(frozen=True)
class Forgotten:
    """What went.

    Attributes:
        user_id: whose.
        deleted: table -> rows; `online` -> entities; `baselines` -> those in files; `copies` -> rows of files.
        redacted: table -> rows of others in which the user was mentioned.
    """

    user_id: UUID
    deleted: dict[str, int]
    redacted: dict[str, int]

    @property
    def found(self) -> int:
        """How much there was; 0 if nothing of the user was left."""
        return sum(self.deleted.values()) + sum(self.redacted.values())


def forget_user(
    database: Database,
    user_id: UUID,
    *,
    online: OnlineFeatures,
    baselines: Sequence[Baselines] = (),
    copies_in: Path | None = None,
    progress: Progress | None = None,
) -> Forgotten:
    """Delete everything of a user, and leave a receipt in `audit_log`. Safe to repeat, also after a kill.

    Args:
        database: which.
        user_id: whom.
        online: where features are served from.
        baselines: where baselines are kept besides the database.
        copies_in: the folder that rows taken in are also written to (HYPERFEAST_DUAL_WRITE).
        progress: told (steps done, steps in all).

    Raises:
        DataError: something of the user still comes in, or a copy cannot be read; what is gone is gone.
        ServerError: a server does not do its part: run it again.
    """
    deleted: Counter[str] = Counter()
    redacted: Counter[str] = Counter()
    tell = progress or (lambda _done, _total: None)
    tell(0, _STEPS)
    for store in baselines:
        deleted["baselines"] += store.delete(user_id)
    for attempt in range(_ROUNDS):
        rows, named = _in_database(database, user_id)
        tell(1, _STEPS)
        entities = online.forget_entity(str(user_id))
        tell(2, _STEPS)
        kept = copies.without_user(copies_in, user_id) if copies_in else 0
        tell(3, _STEPS)
        deleted.update({**rows, "online": entities, "copies": kept})
        redacted.update(named)
        if attempt and not sum(rows.values()) + sum(named.values()) + entities + kept:
            break
    else:
        raise DataError(
            f"user {user_id}: rows still come in while they are deleted: stop what sends them, then do it again"
        )
    done = Forgotten(user_id, _counted(deleted), _counted(redacted))
    _receipt(database, done)
    tell(_STEPS, _STEPS)
    return done


def _in_database(database: Database, user_id: UUID) -> tuple[dict[str, int], dict[str, int]]:
    """In one transaction; again from its beginning where that lost against another one."""
    for attempt in stamina.retry_context(
        on=Contended, attempts=_ATTEMPTS, timeout=None, wait_initial=0.1, wait_max=2.0
    ):
        with attempt, database.connect() as connection:
            deleted = _delete(connection, user_id)
            redacted = _redact(connection, user_id, list(deleted))
            if any(deleted.values()) or any(redacted.values()):
                _write_receipt(
                    connection,
                    user_id,
                    "deleted user's rows",
                    {"deleted": _counted(deleted), "redacted": _counted(redacted)},
                )
            return deleted, redacted
    raise AssertionError("the last attempt returns or raises")


def _delete(connection: Connection[DictRow], user_id: UUID) -> dict[str, int]:
    text = {"text": str(user_id)}
    connection.execute(query(FILE, "options"))
    connection.execute(query(FILE, "hold"), text)
    found = places(connection, user_id)
    for place in found:
        if is_feature_table(place.name):
            connection.execute(query(FILE, "hold_set"), {"table": place.name})
    connection.execute(query(FILE, "hold_windows"))
    statement = sql.SQL(query(FILE, "delete"))
    deleted = {
        place.name: connection.execute(
            statement.format(table=place.table, condition=place.condition)
        ).rowcount
        for place in found
    }
    connection.execute(query(FILE, "release_batches"), text)
    return deleted


def _redact(
    connection: Connection[DictRow], user_id: UUID, emptied: Sequence[str]
) -> dict[str, int]:
    """Put a made-up id, another one each time, in the place of the user's."""
    stand_in = str(uuid4())
    redacted = {}
    for mention in mentions(connection, emptied):
        texts = [(name, kind) for name, kind in mention.columns if kind != "uuid"]
        if texts:
            redacted[mention.name] = connection.execute(
                _redaction(Mention(mention.name, tuple(texts)), user_id, stand_in)
            ).rowcount
    return redacted


def _redaction(mention: Mention, user_id: UUID, stand_in: str) -> sql.Composed:
    wanted, other = sql.Literal(pattern(user_id)), sql.Literal(stand_in)
    mentioned = [
        sql.SQL("t.{}::text ~* {}").format(sql.Identifier(name), wanted)
        for name, _ in mention.columns
    ]
    assignments = [
        sql.SQL(
            "{column} = regexp_replace(t.{column}::text, {wanted}, {other}, 'gi')::{kind}"
        ).format(
            column=sql.Identifier(name), wanted=wanted, other=other, kind=sql.SQL(_TYPES[kind])
        )
        for name, kind in mention.columns
    ]
    return sql.SQL(query(FILE, "redact")).format(
        table=sql.Identifier(mention.name),
        assignments=sql.SQL(", ").join(assignments),
        condition=sql.SQL(" OR ").join(mentioned),
    )


_TYPES: Mapping[str, str] = {
    "text": "text",
    "character varying": "varchar",
    "json": "json",
    "jsonb": "jsonb",
    "text[]": "text[]",
}


def _receipt(database: Database, done: Forgotten) -> None:
    """That it is done, once; and each time that anything was found again."""
    with database.connect() as connection:
        (before,) = connection.execute(
            query(FILE, "was_forgotten"), {"text": str(done.user_id)}
        ).fetchall()
        if done.found or not before["found"]:
            _write_receipt(
                connection,
                done.user_id,
                "forgot user",
                {"deleted": done.deleted, "redacted": done.redacted},
            )


def _write_receipt(
    connection: Connection[DictRow], user_id: UUID, action: str, after: Mapping[str, object]
) -> None:
    connection.execute(
        query(FILE, "receipt"),
        {"action": action, "text": str(user_id), "after": Jsonb(dict(after))},
    )


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}
