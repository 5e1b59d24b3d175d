"""What waits in the queue: equal jobs wait once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Asked:
    """A job that waits.

    Attributes:
        job_id: its id.
        is_new: whether it was asked for just now; otherwise an equal one waited already.
    """

    job_id: int
    is_new: bool


@dataclass(frozen=True)
class Call:
    """A call of a task.

    Attributes:
        task: its name.
        arguments: what it is called with, which JSON can hold.
        queue: where it waits.
        priority: higher runs first.
        lock: what no two running jobs hold at once.
        queueing_lock: what no two waiting jobs hold; by default the content.
    """

    task: str
    arguments: Mapping[str, Any]
    queue: str
    priority: int = 0
    lock: str | None = None
    queueing_lock: str | None = None

    @property
    def equality(self) -> str:
        """The same for equal calls. Arguments may be long, and an index holds short values only."""
        if self.queueing_lock is not None:
            return self.queueing_lock
        content = orjson.dumps(dict(self.arguments), option=orjson.OPT_SORT_KEYS)
        return f"{self.task}:{hashlib.sha256(content).hexdigest()}"


def put(database: Database, calls: Sequence[Call]) -> list[Asked]:
    """Let calls wait, in one transaction, in their order; of equal ones the first.

    Raises:
        SchemaError: the queue was never set up in this database.
    """
    different = {call.equality: call for call in calls}
    jobs = [
        {
            "queue": call.queue,
            "task": call.task,
            "priority": call.priority,
            "lock": call.lock,
            "queueing_lock": equality,
            "args": dict(call.arguments),
        }
        for equality, call in different.items()
    ]
    rows = database.fetch(query("jobs", "put"), {"jobs": Jsonb(jobs)})
    return [Asked(row["id"], row["is_new"]) for row in rows]
