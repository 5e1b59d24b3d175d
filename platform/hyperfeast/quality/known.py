"""Whether anything is known of an instrument or a user: a typing mistake is not a series without faults."""

from collections.abc import Sequence
from uuid import UUID

from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.sqlfiles import query


def check_instrument(database: Database, symbol: str | None) -> None:
    """Refuse a symbol that is not registered.

    Raises:
        UsageError: it is not.
    """
    if symbol is not None and not database.fetch(
        query("quality", "known_symbol"), {"symbol": symbol}
    ):
        raise UsageError(f"no instrument {symbol!r}: it has to be in the table instruments")


def check_keys(database: Database, keys: Sequence[str]) -> None:
    """Refuse what is neither an instrument nor a user with readings.

    Args:
        database: where.
        keys: symbols, or users' ids as text.

    Raises:
        UsageError: one of them is neither; the message names all that are not.
    """
    ids = [_id(key) for key in keys]
    rows = database.fetch(query("quality", "unknown_keys"), {"keys": list(keys), "ids": ids})
    if unknown := [repr(row["key"]) for row in rows]:
        raise UsageError(
            f"nothing is known of {', '.join(unknown)}: expected symbols that are in the table instruments, "
            "or the ids of users with readings"
        )


def _id(key: str) -> UUID | None:
    try:
        return UUID(key)
    except ValueError:
        return None
