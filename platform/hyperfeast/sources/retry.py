"""One policy for every vendor that is asked over the network: what is tried again, when, and for how long.

A call says `Trouble` for what may pass: 429, 5xx, a timeout, a body that broke off. It is tried again after
an exponential wait with jitter, or after what the vendor asks for in Retry-After, until attempts or time run
out. Whatever else a call raises is final and passes through.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import stamina

from hyperfeast import clock
from hyperfeast.errors import SourceUnavailable

T = TypeVar("T")

_TOO_MANY, _REQUEST_TIMEOUT, _SERVER_FAULTS = 429, 408, 500


class Trouble(Exception):
    """A failure that may pass; it never leaves `sources`."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class RetryPolicy:
    """Bounds of the retries of one request.

    Attributes:
        attempts: at most, the first one counted.
        give_up_after_s: no wait ends later than this after the first attempt began.
        first_wait_s: before the second attempt; doubled for each further one.
        longest_wait_s: of the exponential waits. A vendor's Retry-After may be longer.
        jitter_s: at most so much is added to each exponential wait.
        request_timeout_s: of one attempt.
    """

    attempts: int = 6
    give_up_after_s: float = 180.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    jitter_s: float = 1.0
    request_timeout_s: float = 20.0


class Pace:
    """Keeps the requests of all threads at least so far apart, for a vendor who does not pace them himself."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is this caller's turn."""
        with self._lock:
            turn = max(self._next, time.monotonic())
            self._next = turn + self._interval_s
        time.sleep(max(0.0, turn - time.monotonic()))

    def hold(self, seconds: float) -> None:
        """Nobody's turn comes before then."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def retrying(call: Callable[[], T], *, what: str, policy: RetryPolicy) -> T:
    """The call's result, after as many attempts as it takes within the policy's bounds.

    Args:
        call: says `Trouble` for what may pass.
        what: is asked of whom, for the message.
        policy: the bounds.

    Raises:
        SourceUnavailable: the bounds were reached; the message says what was tried and what came back.
    """
    began = time.monotonic()
    tried = 0

    def again(error: Exception) -> bool | float:
        if not isinstance(error, Trouble):
            return False
        if error.retry_after_s is None:
            return True
        left = policy.give_up_after_s - (time.monotonic() - began)
        return error.retry_after_s if error.retry_after_s <= left else False

    try:
        for attempt in stamina.retry_context(
            on=again,
            attempts=policy.attempts,
            timeout=policy.give_up_after_s,
            wait_initial=policy.first_wait_s,
            wait_max=policy.longest_wait_s,
            wait_jitter=policy.jitter_s,
        ):
            with attempt:
                tried += 1
                return call()
    except Trouble as trouble:
        raise SourceUnavailable(
            f"{what}: given up after {tried} {'attempt' if tried == 1 else 'attempts'} in "
            f"{time.monotonic() - began:.1f} s; the last: {_described(trouble)}. Try again later"
        ) from trouble
    raise AssertionError("a retry context ends by a result or by an error")


def may_pass(status: int) -> bool:
    """Whether the same request can succeed later: 408, 429 and 5xx. Every other refusal is final."""
    return status in (_TOO_MANY, _REQUEST_TIMEOUT) or status >= _SERVER_FAULTS


def retry_after_s(header: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds from now: it holds seconds or an HTTP date.

    Returns:
        At least 0; None where there is no header or it says neither.
    """
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (_zoned(moment) - clock.now()).total_seconds())


def _zoned(moment: datetime) -> datetime:
    """A date that ends in -0000 comes without a zone; HTTP dates are in UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _described(trouble: Trouble) -> str:
    if trouble.retry_after_s is None:
        return trouble.reason
    return f"{trouble.reason}, to be asked again in {trouble.retry_after_s:.0f} s"
