"""What was just taken in goes online at once: whoever takes rows in asks the workers for it."""

from hyperfeast.db import Database
from hyperfeast.errors import SchemaError
from hyperfeast.jobs.asking import Call, put

TASK = "hyperfeast.arrivals"
# A worker keeps a place for it: it never waits behind other work.
QUEUE = "arrivals"
# A thousand partitions that wait hold up neither this nor the tick.
URGENT = 1_000


def announce(database: Database) -> bool:
    """Ask for what was taken in to be computed and brought online; at most one such job waits.

    Returns:
        Whether there is a queue. There is none before the first worker has run, which begins with a refresh.
    """
    try:
        put(database, [Call(TASK, {}, QUEUE, URGENT, lock=TASK, queueing_lock=TASK)])
    except SchemaError:
        return False
    return True
