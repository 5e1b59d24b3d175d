"""What a check of a declared feature set came to."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hyperfeast.features.declaration import FeatureSet


class Fault(StrEnum):
    """What can be wrong with a feature, by the word that reports use."""

    LOOKS_AHEAD = "looks ahead"
    NOT_INCREMENTAL = "incremental is not full"
    NOT_REPEATABLE = "not repeatable"
    MINDS_ORDER = "minds the order of rows"
    MINDS_COMPANY = "minds its company"
    NOT_FINITE = "not finite"
    TOO_EARLY = "has a value too early"
    OUT_OF_BOUNDS = "out of bounds"


REMEDIES = {
    Fault.LOOKS_AHEAD: (
        "a rule may read only what was known by its own row: shift by 0 or more, roll without center, fill "
        "forward, normalize over a trailing window, and compare symbols that have a bar at that very moment"
    ),
    Fault.NOT_INCREMENTAL: (
        "declare a warm-up as long as the rule's memory, and let it depend on nothing but the window that it is "
        "given: not on where that ends, not on an earlier call"
    ),
    Fault.NOT_REPEATABLE: "let the rule draw no random numbers and keep nothing between calls",
    Fault.MINDS_ORDER: "sort by symbol before values of one moment are added up or compared",
    Fault.MINDS_COMPANY: (
        "let the rule read the window that it is given and nothing else, and let its text tell it from every "
        "other rule's; what compares symbols is a CrossSection"
    ),
    Fault.NOT_FINITE: "return NULL where there is no number",
    Fault.TOO_EARLY: "declare the lookback that the rule really has, and leave the rows before it NULL",
    Fault.OUT_OF_BOUNDS: "widen the declared bounds, or correct the rule",
}


@dataclass(frozen=True)
class Finding:
    """One fault of one feature, with the first case that was seen.

    Attributes:
        feature_set: name and version.
        feature: its name.
        fault: what is wrong.
        entity: whose row is wrong: a symbol, or the values of the keys.
        at: the row's event timestamp, UTC.
        moment: the moment after which an input was changed, UTC; None where nothing was.
        input: what was changed, in words.
        message: all that in a sentence, with the remedy.
    """

    feature_set: str
    feature: str
    fault: Fault
    entity: str | None
    at: datetime | None
    moment: datetime | None
    input: str | None
    message: str


@dataclass(frozen=True)
class Verdict:
    """What the check of a set found.

    Attributes:
        feature_set: name and version.
        trials: how often the set was computed on other or fewer inputs and compared.
        findings: one a feature and fault at most; none is well.
        untried: what could not be tried, and why, a sentence each.
    """

    feature_set: str
    trials: int
    findings: tuple[Finding, ...]
    untried: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong in what was tried."""
        return not self.findings


def found(
    feature_set: FeatureSet,
    feature: str,
    fault: Fault,
    case: str,
    *,
    entity: str | None = None,
    at: datetime | None = None,
    moment: datetime | None = None,
    changed: str | None = None,
) -> Finding:
    """A finding with its sentence.

    Args:
        feature_set: whose feature it is.
        feature: its name.
        fault: what is wrong.
        case: what was seen, as a clause.
        entity: whose row is wrong.
        at: the row's event timestamp.
        moment: the moment after which an input was changed.
        changed: what was changed.
    """
    message = f"{feature_set}: feature {feature} {fault.value}: {case}; {REMEDIES[fault]}"
    return Finding(name(feature_set), feature, fault, entity, at, moment, changed, message)


def name(feature_set: FeatureSet) -> str:
    """A set's name and version, as reports and results name it: `market_technical v1`."""
    return f"{feature_set.name} v{feature_set.version}"
