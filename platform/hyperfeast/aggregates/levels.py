"""What is aggregated from what: two families of relations, each level built on the next finer one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from hyperfeast.errors import UsageError

_DAY = timedelta(days=1)
# A Monday: the buckets of every level begin a whole number of widths after it.
_ORIGIN = datetime(2000, 1, 3, tzinfo=UTC)


@dataclass(frozen=True)
class Level:
    """One relation of aggregates.

    Attributes:
        name: the relation that is read.
        built_on: the next finer relation; of the finest level, the raw table.
        width: of a bucket.
    """

    name: str
    built_on: str
    width: timedelta

    @property
    def kept(self) -> str:
        """The table behind the relation where the database does not keep aggregates by itself."""
        return f"{self.name}_kept"

    @property
    def recomputed(self) -> str:
        """The SQL function that computes the relation from raw rows: (key, since, until)."""
        return f"recomputed_{self.name}"

    def floor(self, moment: datetime) -> datetime:
        """The start of the bucket that `moment` (zoned) lies in."""
        return moment - (moment - _ORIGIN) % self.width

    def ceiling(self, moment: datetime) -> datetime:
        """The first start of a bucket that is not before `moment` (zoned)."""
        return moment + (_ORIGIN - moment) % self.width

    def span(self, first: date, last: date) -> tuple[datetime, datetime]:
        """The whole buckets that hold the UTC days `first` to `last`: [since, until)."""
        return self.floor(midnight(first)), self.ceiling(midnight(last) + _DAY)


@dataclass(frozen=True)
class Family:
    """The levels that one raw table feeds, from fine to coarse.

    Attributes:
        raw: the raw table.
        timeframe: of the raw rows that count; empty where a table has none.
        key: the column whose values dirty days bear, and its type.
        bucket: the column with a bucket's start.
        identity: the columns that name a row of a level.
        values: its other columns.
        levels: from fine to coarse.
    """

    raw: str
    timeframe: str
    key: str
    key_type: str
    bucket: str
    identity: tuple[str, ...]
    values: tuple[str, ...]
    levels: tuple[Level, ...]

    @property
    def names(self) -> list[str]:
        """The relations, from fine to coarse."""
        return [level.name for level in self.levels]

    def keys_among(self, wanted: Sequence[str]) -> list[str]:
        """Those of some keys that the family may have, as dirty days write them."""
        if self.key_type == "text":
            return list(wanted)
        return [str(UUID(one)) for one in wanted if _is_uuid(one)]


CANDLES = Family(
    raw="candles",
    timeframe="1m",
    key="symbol",
    key_type="text",
    bucket="ts",
    identity=("symbol", "ts"),
    values=("o", "h", "l", "c", "v", "vwap", "n", "notional"),
    levels=(
        Level("candles_5m", "candles", timedelta(minutes=5)),
        Level("candles_15m", "candles_5m", timedelta(minutes=15)),
        Level("candles_1h", "candles_15m", timedelta(hours=1)),
        Level("candles_4h", "candles_1h", timedelta(hours=4)),
        Level("candles_1d", "candles_4h", _DAY),
        Level("candles_1w", "candles_1d", timedelta(weeks=1)),
    ),
)
USER_BASELINE = Family(
    raw="user_baseline_raw",
    timeframe="",
    key="user_id",
    key_type="uuid",
    bucket="day",
    identity=("user_id", "metric", "source", "day"),
    values=("n", "sum", "sum_of_squares", "min", "max"),
    levels=(Level("user_baseline_daily", "user_baseline_raw", _DAY),),
)
FAMILIES = (CANDLES, USER_BASELINE)


def midnight(day: date) -> datetime:
    """Where a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def families_of(relation: str | None) -> tuple[Family, ...]:
    """The family that a relation belongs to; all of them for None.

    Raises:
        UsageError: no such relation; the message lists those there are.
    """
    if relation is None:
        return FAMILIES
    found = tuple(one for one in FAMILIES if relation in (one.raw, *one.names))
    if not found:
        known = ", ".join(name for one in FAMILIES for name in one.names)
        raise UsageError(f"no aggregate {relation!r}: there are {known}")
    return found


def scopes_of(
    relation: str | None, keys: Sequence[str] | None
) -> list[tuple[Family, list[str] | None]]:
    """The families that are meant, each with the keys that are meant of it; None for all keys.

    Raises:
        UsageError: no such relation, or none of the keys can be one of its.
    """
    families = families_of(relation)
    if keys is None:
        return [(family, None) for family in families]
    scopes = [(family, family.keys_among(keys)) for family in families]
    found: list[tuple[Family, list[str] | None]] = [
        (family, some) for family, some in scopes if some
    ]
    if not found:
        raise UsageError(
            f"{relation or 'the aggregates'}: expected keys such as a user's id, a UUID; found "
            f"{', '.join(keys) or 'none'}"
        )
    return found


def check_range(since: date | None, until: date | None) -> None:
    """Refuse a range with no day in it.

    Raises:
        UsageError: `until` is not after `since`.
    """
    if since is not None and until is not None and until <= since:
        raise UsageError(f"no day lies from {since} (included) to {until} (left out)")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
