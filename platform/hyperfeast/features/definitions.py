"""What is on record of feature sets: the tables feature_sets and feature_definitions.

A version's rules never change: who reads a row of it has to know what it says. A declaration that
differs from its version on record is refused before anything is computed by it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features.declaration import Bars, Feature, FeatureSet, Relation
from hyperfeast.sqlfiles import query

_FILE = "feature_definitions"
# Of long rules, what stands around the first difference.
_BEFORE, _SHOWN = 30, 90


@dataclass(frozen=True)
class Definition:
    """A feature as it is on record.

    Attributes:
        name: the feature's.
        rule: its text.
        dtype: float64, int64 or float64_list.
        warm_up: how many bars its rule is computed on before a block; 0 of a column.
        description: one sentence.
        tags: words to find it by.
    """

    name: str
    rule: str
    dtype: str
    warm_up: int
    description: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """A version of a feature set as it is on record.

    Attributes:
        name: the set's.
        version: its version.
        keys: `entity:column` of each key.
        source: the text of its source.
        table: the table of its rows.
        description: one sentence.
        definition_hash: of all that decides its values.
        active: whether it was declared when the repository was last applied.
        features: in the table's order.
        tags: words to find it by.
        cron: when workers compute it besides; None for no time of its own.
        freshness_s: how old a row may be, in seconds.
    """

    name: str
    version: int
    keys: tuple[str, ...]
    source: str
    table: str
    description: str
    definition_hash: str
    active: bool
    features: tuple[Definition, ...]
    tags: tuple[str, ...]
    cron: str | None
    freshness_s: float

    def __str__(self) -> str:
        return f"feature set {self.name} v{self.version}"

    @property
    def view(self) -> str:
        """What names it and its version in one word, as in `FeatureSet`."""
        return f"{self.name}_v{self.version}"


def recorded(database: Database) -> dict[str, Record]:
    """Every version of every set on record, by its view's name, active or not."""
    with database.connect() as connection:
        return read(connection)


def read(connection: Connection[DictRow]) -> dict[str, Record]:
    """The same, in a transaction that is open."""
    features: dict[tuple[str, int], dict[str, Definition]] = {}
    for row in connection.execute(query(_FILE, "recorded_features")).fetchall():
        of_set = features.setdefault((row["feature_set"], row["version"]), {})
        of_set[row["name"]] = Definition(
            row["name"],
            row["computation_rule"],
            row["data_type"],
            row["warmup"],
            row["description"],
            tuple(row["tags"]),
        )
    sets = connection.execute(query(_FILE, "recorded_sets")).fetchall()
    records = [_record(row, features.get((row["name"], row["version"]), {})) for row in sets]
    return {one.view: one for one in records}


def declared(feature_set: FeatureSet) -> Record:
    """What a declaration would be on record."""
    return Record(
        feature_set.name,
        feature_set.version,
        tuple(f"{key.entity}:{key.column}" for key in feature_set.keys),
        feature_set.source_text,
        feature_set.table,
        feature_set.description,
        feature_set.definition_hash,
        active=True,
        features=tuple(
            Definition(
                one.name,
                feature_set.rule_text(one),
                one.dtype.name.lower(),
                one.rule.warm_up if one.rule else 0,
                one.description,
                one.tags,
            )
            for one in feature_set.features
        ),
        tags=feature_set.tags,
        cron=feature_set.cron,
        freshness_s=feature_set.freshness.total_seconds(),
    )


@dataclass(frozen=True)
class Extent:
    """What a table of features holds.

    Attributes:
        rows: how many, every revision counted.
        newest: the newest event timestamp (UTC); None of an empty one.
        recorded: when the last row was written (UTC); None of an empty one.
    """

    rows: int
    newest: datetime | None
    recorded: datetime | None


def extent(database: Database, table: str) -> Extent | None:
    """What a table holds; None if there is none."""
    with database.connect() as connection:
        found = connection.execute(query(_FILE, "tables_present"), {"tables": [table]}).fetchall()
        if not found:
            return None
        statement = sql.SQL(query(_FILE, "extent")).format(table=sql.Identifier(table))
        return Extent(**connection.execute(statement).fetchall()[0])


def refuse_changed(records: Mapping[str, Record], sets: Iterable[FeatureSet]) -> None:
    """See that no rule has changed under a version that is on record.

    Args:
        records: what is on record (`recorded`).
        sets: what is declared.

    Raises:
        FeatureError: one has; the message has the set, the feature, both texts and the remedy.
    """
    for one in sets:
        record = records.get(one.view)
        if record is not None and (change := changed(record, one)):
            raise FeatureError(f"{one}: {change}")


def changed(record: Record, feature_set: FeatureSet) -> str | None:
    """What a declaration computes otherwise than its version on record, and what to do; None if nothing."""
    if record.definition_hash == feature_set.definition_hash:
        return None
    first = next(
        _differences(record, declared(feature_set)), "its definition is not the one on record"
    )
    return (
        f"{first}. What a version computes never changes: leave v{record.version} as it is on record and declare "
        f"the change as version={record.version + 1} beside it"
    )


def record(connection: Connection[DictRow], sets: Sequence[FeatureSet]) -> None:
    """Put sets on record, or their new words; all of them become active.

    Args:
        connection: with a transaction in which the turn was taken.
        sets: whose rules are new or unchanged.
    """
    for one in sets:
        connection.execute(query(_FILE, "record_set"), _row(one))
        for feature in one.features:
            connection.execute(query(_FILE, "record_feature"), _feature_row(one, feature))


def retire(connection: Connection[DictRow], sets: Sequence[FeatureSet]) -> list[str]:
    """Make every set on record inactive that is not among these; their views' names."""
    rows = connection.execute(
        query(_FILE, "retire"), {"declared": [one.view for one in sets]}
    ).fetchall()
    return [f"{row['name']}_v{row['version']}" for row in rows]


def _differences(old: Record, new: Record) -> Iterator[str]:
    before = {one.name: one for one in old.features}
    after = {one.name: one for one in new.features}
    for name in after:
        if name not in before:
            yield f"feature {name} is declared, but not on record"
    for name in before:
        if name not in after:
            yield f"feature {name} is on record, but not declared"
    for name, one in after.items():
        yield from _contrast(f"feature {name}", before[name].rule, one.rule)
        yield from _contrast(f"the type of feature {name}", before[name].dtype, one.dtype)
    yield from _contrast("its source", old.source, new.source)
    yield from _contrast("its key", ", ".join(old.keys), ", ".join(new.keys))
    yield from _contrast("the order of its features", ", ".join(before), ", ".join(after))


def _contrast(what: str, old: str, new: str) -> Iterator[str]:
    if old != new:
        same = next(
            (place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b),
            min(len(old), len(new)),
        )
        yield f"{what} is on record as {_around(old, same)}, and declared as {_around(new, same)}"


def _around(text: str, place: int) -> str:
    if len(text) <= _SHOWN:
        return text
    start = max(0, place - _BEFORE)
    part = text[start : start + _SHOWN]
    return f"{'...' if start else ''}{part}{'...' if start + _SHOWN < len(text) else ''}"


def _record(row: DictRow, features: Mapping[str, Definition]) -> Record:
    metadata = row["metadata"]
    return Record(
        row["name"],
        row["version"],
        tuple(metadata["keys"]),
        metadata["source"],
        metadata["table"],
        row["description"],
        metadata["definition_hash"],
        active=row["is_active"],
        features=tuple(features[name] for name in row["features"] if name in features),
        tags=tuple(metadata["tags"]),
        cron=metadata["cron"],
        freshness_s=metadata["freshness_s"],
    )


def _row(feature_set: FeatureSet) -> dict[str, Any]:
    new = declared(feature_set)
    source = feature_set.source
    metadata = {
        "definition_hash": new.definition_hash,
        "table": new.table,
        "keys": list(new.keys),
        "source": new.source,
        "timeframe": source.timeframe.value if isinstance(source, Bars) else None,
        "relation": source.query if isinstance(source, Relation) else None,
        "warm_up": feature_set.warm_up,
        "compares_symbols": feature_set.compares_symbols,
        "freshness_s": new.freshness_s,
        "tags": list(feature_set.tags),
        "cron": feature_set.cron,
    }
    return {
        "name": new.name,
        "version": new.version,
        "entity": ", ".join(key.entity for key in feature_set.keys),
        "description": new.description,
        "features": feature_set.feature_names,
        "metadata": Jsonb(metadata),
    }


def _feature_row(feature_set: FeatureSet, feature: Feature) -> dict[str, Any]:
    source = feature_set.source
    return {
        "feature_set": feature_set.name,
        "name": feature.name,
        "version": feature_set.version,
        "description": feature.description,
        "data_type": feature.dtype.name.lower(),
        "source_table": source.query if isinstance(source, Relation) else "candles",
        "computation_rule": feature_set.rule_text(feature),
        "warmup": feature.rule.warm_up if feature.rule else 0,
        "definition_hash": feature_set.feature_hash(feature),
        "tags": list(feature.tags),
    }
