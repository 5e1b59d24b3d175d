"""The job queue, in the same database: names of tasks, their schedules, and what they call."""

from hyperfeast.jobs.queue import Queue
from hyperfeast.jobs.task import Task

__all__ = ["Queue", "Task"]
