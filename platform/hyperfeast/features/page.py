"""What a declaration says, for people: the page of a feature set."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from hyperfeast.features.bounds import bounds_text
from hyperfeast.features.declaration import Bars, Feature, FeatureSet, Relation
from hyperfeast.indicators import block_start, units

_HEAD = ("feature", "what it is", "rule", "type", "unit", "bounds", "lookback", "warm-up")


@dataclass(frozen=True)
class FeatureText:
    """One feature in words.

    Attributes:
        name: the feature's.
        description: one sentence.
        rule: what it is computed by.
        dtype: its type, by its name in PostgreSQL.
        unit: what its values scale with: price, volume, number; None of a column.
        bounds: `0 to 100`; empty for none.
        null_rate: the share of rows that may have no value although they have all the history; None
            for 5 in 100 of a rule, and any of a column.
        lookback: how many earlier bars the first value needs; None of a column.
        warm_up: how many bars before a block it is computed on; None of a column.
        tags: words to find it by.
    """

    name: str
    description: str
    rule: str
    dtype: str
    unit: str | None
    bounds: str
    null_rate: float | None
    lookback: int | None
    warm_up: int | None
    tags: tuple[str, ...]


@dataclass(frozen=True)
class SetText:
    """A feature set in words.

    Attributes:
        name: the set's.
        version: its version.
        view: the name of its Feast view.
        table: the table of its rows.
        description: one sentence.
        source: `bars of 1d`, or `query personal_baseline`.
        keys: the columns that name the entity, each with what it holds.
        freshness: how old a row may be.
        cron: when workers compute it besides; None for no time of its own.
        tags: words to find it by.
        warm_up: how many bars before a block its longest rule is computed on.
        block_since: when the block of bars began that a new bar belongs to (UTC); None of a query.
        compares_symbols: whether a bar of one symbol changes rows of others.
        definition_hash: of all that decides its values.
        features: in the table's order.
    """

    name: str
    version: int
    view: str
    table: str
    description: str
    source: str
    keys: dict[str, str]
    freshness: str
    cron: str | None
    tags: tuple[str, ...]
    warm_up: int
    block_since: datetime | None
    compares_symbols: bool
    definition_hash: str
    features: tuple[FeatureText, ...]


def describe(feature_set: FeatureSet, now: datetime) -> SetText:
    """Everything that a declaration says.

    Args:
        feature_set: whose.
        now: the time (zoned), of which the block is.
    """
    source = feature_set.source
    return SetText(
        feature_set.name,
        feature_set.version,
        feature_set.view,
        feature_set.table,
        feature_set.description,
        source_words(feature_set),
        {key.column: key.description or f"The {key.entity}." for key in feature_set.keys},
        str(feature_set.freshness).removesuffix(", 0:00:00"),
        feature_set.cron,
        feature_set.tags,
        feature_set.warm_up,
        block_start(source.timeframe, now) if isinstance(source, Bars) else None,
        feature_set.compares_symbols,
        feature_set.definition_hash,
        tuple(_feature(feature_set, one) for one in feature_set.features),
    )


def source_words(feature_set: FeatureSet) -> str:
    """What a set is computed from: `bars of 1d`, or `query personal_baseline`."""
    match feature_set.source:
        case Bars(timeframe):
            return f"bars of {timeframe.value}"
        case Relation(name):
            return f"query {name}"


def page(text: SetText) -> str:
    """The page in Markdown."""
    at = f", and at `{text.cron}` UTC" if text.cron else ""
    facts = {
        "source": text.source,
        "key": ", ".join(f"`{column}` ({words})" for column, words in text.keys.items()),
        "table": f"`{text.table}`",
        "Feast view": f"`{text.view}`",
        "fresh for": text.freshness,
        "computed": f"when its source changes{at}",
        "warm-up": f"{text.warm_up:,} bars before a block" if text.block_since else None,
        "compares symbols": "yes" if text.compares_symbols else None,
        "tags": ", ".join(text.tags) or None,
        "definition": f"`{text.definition_hash}`",
    }
    lines = [
        f"# {text.name} v{text.version}",
        "",
        text.description,
        "",
        *_table(("", ""), [(name, fact) for name, fact in facts.items() if fact]),
        "",
        *_table(_HEAD, [_row(one) for one in text.features]),
    ]
    return "\n".join(lines) + "\n"


def _feature(feature_set: FeatureSet, feature: Feature) -> FeatureText:
    rule = feature.rule
    return FeatureText(
        feature.name,
        feature.description,
        feature_set.rule_text(feature),
        feature.dtype.value,
        str(units(rule)) if rule else None,
        bounds_text(feature),
        feature.null_rate,
        rule.lookback if rule else None,
        rule.warm_up if rule else None,
        feature.tags,
    )


def _row(feature: FeatureText) -> Sequence[str]:
    return (
        f"`{feature.name}`",
        feature.description,
        f"`{feature.rule}`",
        feature.dtype,
        feature.unit or "",
        feature.bounds,
        "" if feature.lookback is None else str(feature.lookback),
        "" if feature.warm_up is None else str(feature.warm_up),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]
