"""Options that several commands take, as values."""

from hyperfeast.errors import UsageError
from hyperfeast.types import Timeframe


def timeframe(name: str) -> Timeframe:
    """What `--tf` names.

    Raises:
        UsageError: there is no such timeframe.
    """
    try:
        return Timeframe(name)
    except ValueError:
        known = " ".join(Timeframe)
        raise UsageError(f"no timeframe {name!r}: --tf takes one of {known}") from None
