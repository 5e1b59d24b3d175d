"""Refreshes a feature set, and is killed before a statement: the one whose number stands in the next line.

    python -m killed_refresh SET < DSN and numbers

Of each number it prints the signal that ended the refresh, 0 for none: it had fewer statements.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from feature_world import SETS
from hyperfeast.db import Database, arrow
from hyperfeast.features.incremental import refresh_symbols


def main() -> None:
    """A process of its own for each refresh; what it imports is there already."""
    which = SETS[int(sys.argv[1])]
    dsn = sys.stdin.readline().strip()
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            _count_down(int(line))
            refresh_symbols(Database(dsn), which)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else status, flush=True)  # noqa: T201


def _count_down(left: int) -> None:
    """Whatever goes to the server counts: statements, pieces of a COPY, commits, and reads as Arrow."""
    count = [left]

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            count[0] -= 1
            if count[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return counted

    for kind, name in (
        (psycopg.Cursor, "execute"),
        (psycopg.Copy, "write"),
        (psycopg.Connection, "commit"),
    ):
        setattr(kind, name, before(getattr(kind, name)))
    connected = arrow.connected

    @contextmanager
    def reading(dsn: str) -> Iterator[Any]:
        with before(connected)(dsn) as connection:
            yield connection

    arrow.connected = reading


if __name__ == "__main__":
    main()
