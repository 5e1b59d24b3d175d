"""The job queue, in the same database: names of tasks, their schedules, and what they call."""

from hyperfeast.jobs.queue import Queue

__all__ = ["Queue"]
