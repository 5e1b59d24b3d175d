"""Options that several commands take, as values."""

from datetime import UTC, datetime
from typing import overload

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


@overload
def utc(moment: datetime) -> datetime: ...
@overload
def utc(moment: None) -> None: ...
@overload
def utc(moment: datetime | None) -> datetime | None: ...
def utc(moment: datetime | None) -> datetime | None:
    """A moment as it was typed, in UTC unless it names another zone."""
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
