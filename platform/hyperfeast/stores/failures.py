"""Several failures as one error: those who run on after the first have to say all in the end."""

from collections.abc import Sequence

from hyperfeast.errors import HyperfeastError


def together(failures: Sequence[HyperfeastError], heading: str = "") -> HyperfeastError:
    """One error that says what all of them say.

    Args:
        failures: at least one.
        heading: what to say before, if there are several.

    Returns:
        The error itself, if there is one. Else it is of the kind of one that is to be tried again, if there is
        such a one: that helps it, and the others say the same once more.
    """
    if len(failures) == 1:
        return failures[0]
    first = next((error for error in failures if error.retryable), failures[0])
    error = type(first)(heading + "; ".join(map(str, failures)))
    error.__cause__ = first
    return error
