"""When a job that failed is tried again."""

from datetime import timedelta

from procrastinate import BaseRetryStrategy, RetryDecision
from procrastinate.jobs import Job

from hyperfeast import clock
from hyperfeast.errors import HyperfeastError

_LONGEST_S = 300.0


class HandedBack(Exception):
    """The worker is being stopped: another one does the job."""


class Backoff(BaseRetryStrategy):
    """Exponential: `wait` seconds after the first failure, then twice as long each time, 5 minutes at most.

    Args:
        attempts: how often a job is tried. One that is put back by hand gets as many again.
        wait: seconds.
    """

    def __init__(self, attempts: int, wait: float) -> None:
        self._attempts = attempts
        self._wait = wait

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When to try it again; None if it has failed for good."""
        if isinstance(exception, HandedBack):
            return RetryDecision(retry_at=clock.now())
        is_final = isinstance(exception, HyperfeastError) and not exception.retryable
        if is_final or not self.is_left(job):
            return None
        return RetryDecision(retry_at=clock.now() + self.wait(job))

    def is_left(self, job: Job) -> bool:
        """Whether there is another attempt after the one that runs."""
        return (job.attempts + 1) % self._attempts != 0

    def wait(self, job: Job) -> timedelta:
        """How long to wait after the attempt that runs."""
        failures = job.attempts % self._attempts
        return timedelta(seconds=min(_LONGEST_S, self._wait * 2**failures))
