"""The one policy of retries: what is tried again, for how long, and what is said in the end."""

import itertools
import time
from datetime import timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast import clock
from hyperfeast.sources import NoData, RetryPolicy, SourceUnavailable
from hyperfeast.sources.retry import Pace, Trouble, may_pass, retry_after_s, retrying

_FAST = RetryPolicy(
    attempts=4, give_up_after_s=2, first_wait_s=0.01, longest_wait_s=0.02, jitter_s=0
)


class Call:
    """Fails as told, then answers."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.times: list[float] = []

    def __call__(self) -> str:
        self.times.append(time.monotonic())
        if self.failures:
            raise self.failures.pop(0)
        return "answer"

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in itertools.pairwise(self.times)]


def test_what_may_pass_is_tried_again() -> None:
    call = Call(Trouble("HTTP 500"), Trouble("HTTP 503"))
    assert retrying(call, what="bars", policy=_FAST) == "answer"
    assert len(call.times) == 3
    assert min(call.gaps) >= 0.01


def test_attempts_are_bounded_and_the_message_says_what_was_tried() -> None:
    call = Call(*[Trouble(f"HTTP 50{number}") for number in range(9)])
    with pytest.raises(
        SourceUnavailable, match=r"^bars of X: given up after 4 attempts.*HTTP 503"
    ) as caught:
        retrying(call, what="bars of X", policy=_FAST)
    assert len(call.times) == 4
    assert caught.value.retryable


def test_time_is_bounded() -> None:
    policy = RetryPolicy(attempts=1000, give_up_after_s=0.2, first_wait_s=0.05, jitter_s=0)
    began = time.monotonic()
    with pytest.raises(SourceUnavailable):
        retrying(Call(*[Trouble("no")] * 1000), what="bars", policy=policy)
    assert time.monotonic() - began < 1


def test_retry_after_is_waited_for() -> None:
    call = Call(Trouble("HTTP 429", 0.3))
    assert retrying(call, what="bars", policy=_FAST) == "answer"
    assert call.gaps[0] >= 0.3


def test_a_retry_after_beyond_the_bound_ends_it_at_once() -> None:
    call = Call(Trouble("HTTP 429", 3600))
    with pytest.raises(SourceUnavailable, match=r"after 1 attempt .*asked again in 3600 s"):
        retrying(call, what="bars", policy=_FAST)
    assert len(call.times) == 1


def test_every_other_error_is_final() -> None:
    call = Call(NoData("there is no X"))
    with pytest.raises(NoData, match="there is no X"):
        retrying(call, what="bars", policy=_FAST)
    assert len(call.times) == 1


@given(st.integers(min_value=100, max_value=599))
def test_statuses(status: int) -> None:
    assert may_pass(status) == (status in (408, 429) or status >= 500)


@given(st.integers(min_value=0, max_value=86_400))
def test_retry_after_in_seconds_and_as_a_date(seconds: int) -> None:
    assert retry_after_s(f" {seconds} ") == seconds
    date = format_datetime(clock.now() + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_s(date) == pytest.approx(seconds, abs=2)


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "٣", "Mon, 99 Foo 2024"])
def test_a_retry_after_that_says_nothing(header: str | None) -> None:
    assert retry_after_s(header) is None


def test_a_date_that_has_passed_is_now() -> None:
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 -0000") == 0


def test_a_pace_parts_requests_and_holds_all_of_them() -> None:
    pace = Pace(0.05)
    began = time.monotonic()
    for _ in range(3):
        pace.wait()
    assert time.monotonic() - began >= 0.1
    pace.hold(0.2)
    held = time.monotonic()
    pace.wait()
    assert time.monotonic() - held >= 0.19
