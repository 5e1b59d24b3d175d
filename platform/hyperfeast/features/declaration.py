"""What a team writes: a feature set and its features."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from hyperfeast.errors import FeatureError
from hyperfeast.indicators import AnyRule, CrossSection
from hyperfeast.types import Timeframe

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


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
    """

    name: str
    description: str
    rule: AnyRule | None = None
    dtype: FeatureType = FeatureType.FLOAT64


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

    Raises:
        FeatureError: a bad or repeated name, a rule missing or superfluous.
    """

    name: str
    version: int
    keys: tuple[Key, ...]
    source: Bars | Relation
    features: tuple[Feature, ...]
    freshness: timedelta
    description: str = ""

    def __post_init__(self) -> None:
        self._check_names()
        for feature in self.features:
            if (feature.rule is None) is isinstance(self.source, Bars):
                raise FeatureError(
                    f"{self}: feature {feature.name}: a set over bars needs a rule for every "
                    "feature, a set over a relation takes none"
                )
            self._check_width(feature)

    def __str__(self) -> str:
        return f"feature set {self.name} v{self.version}"

    @property
    def table(self) -> str:
        """The table that holds its rows."""
        return f"features_{self.name}_v{self.version}"

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
    def definition_hash(self) -> str:
        """Changes whenever a rule, a type, a key or the source does; SHA-256, hexadecimal."""
        parts = [self.name, str(self.version), repr(self.keys), repr(self.source)]
        parts += [
            f"{f.name}:{f.dtype.value}:{f.rule.text if f.rule else 'column'}" for f in self.features
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _check_width(self, feature: Feature) -> None:
        is_list = feature.dtype is FeatureType.FLOAT64_LIST
        if feature.rule is not None and (feature.rule.width > 1) is not is_list:
            expected = FeatureType.FLOAT64 if is_list else FeatureType.FLOAT64_LIST
            raise FeatureError(
                f"{self}: feature {feature.name} is {feature.rule.width} number(s) a bar, but declared "
                f"{feature.dtype.value}: declare FeatureType.{expected.name}"
            )

    def _check_names(self) -> None:
        names = [self.name, *self.key_columns, *self.feature_names]
        for name in names:
            if not _NAME.fullmatch(name):
                raise FeatureError(
                    f"{self}: {name!r} is no usable name: lower-case letters, digits and "
                    "underscores, 40 at most, a letter first"
                )
        repeated = [name for name, times in Counter(names[1:]).items() if times > 1]
        if repeated:
            raise FeatureError(f"{self}: {', '.join(repeated)} declared more than once")
        if not self.features or not self.keys:
            raise FeatureError(f"{self}: declare at least one key and one feature")
