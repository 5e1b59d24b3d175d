"""One run at a time, and transactions that are tried again when others were in their way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import stamina
from psycopg import Connection, errors
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.errors import ServerError
from hyperfeast.sqlfiles import query

_IN_THE_WAY = (errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure)
_ATTEMPTS = 5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@contextmanager
def turn(database: Database) -> Iterator[Connection[DictRow]]:
    """A connection that holds the turn, and opens a transaction only when asked to.

    The turn and the work share it: whoever loses the connection has lost both.

    Raises:
        ServerError: somebody else has the turn.
    """
    with database.connect(autocommit=True) as connection:
        if not connection.execute(query("lifecycle", "try_turn")).fetchall()[0]["granted"]:
            raise ServerError(
                f"another run sets or enforces the lifecycle of {database.address}: expected to be the only "
                "one; try again when it is through"
            )
        try:
            yield connection
        finally:
            if not connection.broken:
                connection.execute(query("lifecycle", "end_turn"))


def transaction(
    connection: Connection[DictRow],
    work: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    """Run `work` in a transaction, again if a deadlock or a lock held too long ended it."""
    for attempt in stamina.retry_context(on=_IN_THE_WAY, attempts=_ATTEMPTS, timeout=None):
        with attempt, connection.transaction():
            return work(*args, **kwargs)
    raise AssertionError("the last attempt returns or raises")
