"""What a team writes: a feature set and its features."""

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from hyperfeast.errors import FeatureError
from hyperfeast.indicators import AnyRule, CrossSection, Rule
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# Its table has a function `<table>_as_known_at`, and PostgreSQL cuts names at 63 characters.
_LONGEST_SET = 36
_VERSIONED = re.compile(r".*_v[0-9]+")
_OWN_COLUMNS = frozenset({"event_timestamp", "recorded_at"})
_FEATURE_TABLE = re.compile(r"\bfeatures_[a-z0-9_]+_v[0-9]+\b")
_SQL_COMMENT = re.compile(r"--[^\n]*")


class FeatureType(StrEnum):
    """The type of a feature's values, by its name in PostgreSQL."""

    FLOAT64 = "double precision"
    INT64 = "bigint"
    FLOAT64_LIST = "double precision[]"


@dataclass(frozen=True)
class Key:
    """What a row is about: an entity's name and the column that holds its value."""

    entity: str
    column: str
    description: str = ""


@dataclass(frozen=True)
class Bars:
    """Source: the candles of every instrument, split-adjusted by what was known at each bar."""

    timeframe: Timeframe


@dataclass(frozen=True)
class Relation:
    """Source: a query under `sql/queries/features.sql`, one row an entity and event timestamp."""

    query: str


@dataclass(frozen=True)
class Feature:
    """One column of a feature set.

    Attributes:
        name: lower case, digits and underscores.
        description: one sentence, with the unit.
        rule: how it follows from a window of bars, or from those of all symbols at one moment; None
            where the source relation has it as a column.
        dtype: the type of its values.
        bounds: the least and the greatest value that it can have, None for no bound; of a list,
            each of its values.
        null_rate: the share of rows with all the history that they need which may still have no
            value, 0 to 1. None for 5 in 100 of a rule, and any of a column.
        tags: words to find it by.
    """

    name: str
    description: str
    rule: AnyRule | None = None
    dtype: FeatureType = FeatureType.FLOAT64
    bounds: tuple[float | None, float | None] = (None, None)
    null_rate: float | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSet:
    """Features that are computed together from one source, for one kind of entity.

    Attributes:
        name: lower case, digits and underscores.
        version: a changed rule takes a new version; tables of versions live side by side.
        keys: what a row is about.
        source: bars, with a rule a feature; or a relation that holds the features as columns.
        features: in the order of the table's columns.
        freshness: how old a row may be and still be joined or served without a flag (Feast's TTL).
        description: one sentence.
        tags: words to find it by.
        cron: when workers compute it besides, as five fields in UTC (`7 21 * * 1-5`); None for
            whenever its source changes.

    Raises:
        FeatureError: a bad or repeated name, a rule missing or superfluous, or one that does not fit
            the source; the message names the set, the feature and what to do.
    """

    name: str
    version: int
    keys: tuple[Key, ...]
    source: Bars | Relation
    features: tuple[Feature, ...]
    freshness: timedelta
    description: str = ""
    tags: tuple[str, ...] = ()
    cron: str | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_itself()
        for feature in self.features:
            for check in (_check_rule, _check_type, _check_bounds, _check_tags):
                if wrong := check(self, feature):
                    raise FeatureError(f"{self}: feature {feature.name}: {wrong}")

    def __str__(self) -> str:
        return f"feature set {self.name} v{self.version}"

    @property
    def view(self) -> str:
        """What names it and its version in one word: its Feast view is called so."""
        return f"{self.name}_v{self.version}"

    @property
    def table(self) -> str:
        """The table that holds its rows."""
        return f"features_{self.view}"

    @property
    def key_columns(self) -> list[str]:
        """The columns that name the entity."""
        return [key.column for key in self.keys]

    @property
    def feature_names(self) -> list[str]:
        """The features, in the order of the table's columns."""
        return [feature.name for feature in self.features]

    @property
    def rules(self) -> dict[str, AnyRule]:
        """The rules by their feature's name; empty for a set over a relation."""
        return {f.name: f.rule for f in self.features if f.rule is not None}

    @property
    def warm_up(self) -> int:
        """How many bars before a block of bars its longest rule is computed on."""
        return max((rule.warm_up for rule in self.rules.values()), default=0)

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the bars that its rules read."""
        return frozenset().union(*(rule.columns for rule in self.rules.values()))

    @property
    def compares_symbols(self) -> bool:
        """Whether a bar of one symbol changes features of the others at that moment."""
        return any(isinstance(rule, CrossSection) for rule in self.rules.values())

    @property
    def reads(self) -> frozenset[str]:
        """The tables of feature sets that its source reads.

        Raises:
            FeatureError: its source is a query that there is not.
        """
        return frozenset(_FEATURE_TABLE.findall(self.source_text))

    @property
    def source_text(self) -> str:
        """What identifies its source: the bars, or the query, without comments and line breaks.

        Raises:
            FeatureError: its source is a query that there is not.
        """
        match self.source:
            case Bars(timeframe):
                return f"bars {timeframe.value}"
            case Relation(name):
                try:
                    text = query("features", name)
                except KeyError:
                    raise FeatureError(
                        f"{self}: there is no query {name!r} in sql/queries/features.sql: add it there under "
                        f"the line `-- name: {name}`, or correct the name"
                    ) from None
                return " ".join(_SQL_COMMENT.sub("", text).split())

    def rule_text(self, feature: Feature) -> str:
        """What a feature is computed by, in words that identify it within the set's source."""
        match self.source:
            case Relation(name):
                return f"column {feature.name} of query {name}"
            case _:
                return feature.rule.text if feature.rule else ""

    @property
    def definition_hash(self) -> str:
        """Changes whenever a rule, a type, a key or the source does; SHA-256, hexadecimal."""
        keys = [f"{key.entity}:{key.column}" for key in self.keys]
        features = [self._identity(feature) for feature in self.features]
        return _digest(self.name, str(self.version), *keys, self.source_text, *features)

    def feature_hash(self, feature: Feature) -> str:
        """The same of one of its features."""
        return _digest(self.name, str(self.version), self.source_text, self._identity(feature))

    def _identity(self, feature: Feature) -> str:
        return f"{feature.name}:{feature.dtype.value}:{self.rule_text(feature)}"

    def _check_names(self) -> None:
        names = [self.name, *self.key_columns, *self.feature_names]
        for name in names:
            if not _NAME.fullmatch(name):
                raise FeatureError(
                    f"{self}: {name!r} is no usable name: lower-case letters, digits and "
                    "underscores, 40 at most, a letter first"
                )
        if _VERSIONED.fullmatch(self.name) or len(self.name) > _LONGEST_SET:
            raise FeatureError(
                f"{self}: {self.name!r} is no usable name for a set: {_LONGEST_SET} characters at most, and "
                "its version apart: name='momentum', version=2"
            )
        repeated = [name for name, times in Counter(names[1:]).items() if times > 1]
        if repeated:
            raise FeatureError(
                f"{self}: {', '.join(repeated)} declared more than once: rename all but one"
            )
        if taken := _OWN_COLUMNS.intersection(names[1:]):
            raise FeatureError(
                f"{self}: {', '.join(sorted(taken))}: every table has a column of that name: rename it"
            )

    def _check_itself(self) -> None:
        if not self.features or not self.keys:
            raise FeatureError(f"{self}: declare at least one key and one feature")
        if not isinstance(self.version, int) or self.version < 1:
            raise FeatureError(f"{self}: version={self.version!r}: versions are 1, 2, 3 ...")
        if self.freshness <= timedelta():
            raise FeatureError(
                f"{self}: freshness={self.freshness}: a row needs a time to be fresh"
            )
        if isinstance(self.source, Bars) and self.key_columns != ["symbol"]:
            raise FeatureError(
                f"{self}: its keys are {', '.join(self.key_columns)}, but bars are of symbols: "
                'keys=(Key("symbol", "symbol"),)'
            )
        given: object = self.tags
        if isinstance(given, str):
            raise FeatureError(f"{self}: tags={given!r}: expected several words: tags=({given!r},)")
        if self.cron is not None and not _is_cron(self.cron):
            raise FeatureError(
                f"{self}: cron={self.cron!r} is no schedule: five fields in UTC, as in '7 21 * * 1-5'"
            )


def _check_rule(feature_set: FeatureSet, feature: Feature) -> str | None:
    if feature.rule is None:
        if isinstance(feature_set.source, Bars):
            return (
                "a set over bars needs a rule for every feature: give it one, such as "
                'ta("RSI", timeperiod=14)'
            )
        return None
    given: object = feature.rule
    if not isinstance(given, Rule | CrossSection):
        return _not_a_rule(given)
    if isinstance(feature_set.source, Relation):
        return (
            "a set over bars needs a rule, a set over a relation takes none: "
            f"compute {feature.rule.text} in the query {feature_set.source.query}"
        )
    return None


def _not_a_rule(found: object) -> str:
    if type(found).__module__.startswith("polars"):
        return (
            "a Polars expression says nothing of its warm-up: expression(..., lookback=how many earlier bars "
            "its first value needs, warm_up=how many its memory is long)"
        )
    return (
        f"{found!r} is no rule: take one of hyperfeast.indicators, such as column('close'), "
        'ta("RSI", timeperiod=14) or expression(...)'
    )


def _check_type(_: FeatureSet, feature: Feature) -> str | None:
    given: object = feature.dtype
    if not isinstance(given, FeatureType):
        return (
            f"dtype={given!r} is no type that Feast has and this platform keeps: declare "
            f"{' or '.join(f'FeatureType.{one.name}' for one in FeatureType)}"
        )
    is_list = feature.dtype is FeatureType.FLOAT64_LIST
    if feature.rule is not None and (feature.rule.width > 1) is not is_list:
        expected = FeatureType.FLOAT64 if is_list else FeatureType.FLOAT64_LIST
        return (
            f"{feature.rule.text} is {feature.rule.width} number(s) a bar, but declared "
            f"{feature.dtype.value}: declare FeatureType.{expected.name}"
        )
    return None


def _check_bounds(_: FeatureSet, feature: Feature) -> str | None:
    given = [one for one in feature.bounds if one is not None]
    if len(feature.bounds) != 2 or any(math.isnan(one) for one in given) or given != sorted(given):  # noqa: PLR2004
        return (
            f"bounds={feature.bounds!r}: expected the least and the greatest value, None for no "
            "bound, as in (0, 100)"
        )
    if feature.null_rate is not None and not 0 <= feature.null_rate <= 1:
        return f"null_rate={feature.null_rate!r}: expected a share, 0 to 1"
    return None


def _check_tags(_: FeatureSet, feature: Feature) -> str | None:
    given: object = feature.tags
    if isinstance(given, str):
        return f"tags={given!r}: expected several words: tags=({given!r},)"
    return None


def _is_cron(text: str) -> bool:
    from croniter import croniter  # type: ignore[import-untyped]

    return len(text.split()) == 5 and croniter.is_valid(text)  # noqa: PLR2004


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
