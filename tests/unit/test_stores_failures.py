"""Several failures as one."""

from hyperfeast.errors import FeatureError, ServerUnreachable
from hyperfeast.stores.failures import together


def test_one_is_itself() -> None:
    error = FeatureError("a is wrong")
    assert together([error], "1 of 2: ") is error


def test_all_are_said_and_the_kind_is_of_one_that_helps_when_tried_again() -> None:
    final, passing = FeatureError("a is wrong"), ServerUnreachable("b does not answer")
    error = together([final, passing], "2 of 2 failed: ")
    assert str(error) == "2 of 2 failed: a is wrong; b does not answer"
    assert isinstance(error, ServerUnreachable)
    assert error.__cause__ is passing
    assert isinstance(together([final, final]), FeatureError)
