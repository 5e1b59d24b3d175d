"""The job queue, in the same database: names of tasks, their schedules, and what they call."""

from hyperfeast.jobs.arrivals import announce
from hyperfeast.jobs.lease import LeasedDatabase, worker_name
from hyperfeast.jobs.queue import Queue
from hyperfeast.jobs.task import Progress, Task

__all__ = ["LeasedDatabase", "Progress", "Queue", "Task", "announce", "worker_name"]
