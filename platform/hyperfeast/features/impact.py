"""Who had used a value that was revised since: training runs and signals.

Nothing of this is recorded when a correction is computed but the correction itself
(`feature_corrections`): all revisions stay, runs say what they knew when, and signals hold the vector
that was served. So the answer is that of the moment when it is asked for, and a value that was
corrected and corrected back concerns nobody.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import sql

from hyperfeast.db import Database
from hyperfeast.features.declaration import Bars, FeatureSet, FeatureType
from hyperfeast.sqlfiles import query

_FILE = "impact"


@dataclass(frozen=True)
class Corrected:
    """Rows of one entity that were revised together.

    Attributes:
        view: the set and its version, `market_technical_v1`.
        entity: the values of its keys: the symbol.
        first_event: the event timestamp of the first row (UTC).
        last_event: of the last one.
        revised: how many rows.
        features: those whose values changed.
        recorded_at: when (UTC).
    """

    view: str
    entity: tuple[str, ...]
    first_event: datetime
    last_event: datetime
    revised: int
    features: tuple[str, ...]
    recorded_at: datetime


@dataclass(frozen=True)
class TrainedOn:
    """A training run that read values of one symbol which are others now.

    Attributes:
        run_id: of the row in training_runs.
        model_name: what was trained.
        model_version: the version that came of it; None if none did.
        is_active: whether that version serves now.
        view: the set and its version.
        symbol: whose values.
        rows: how many rows.
        first_event: the event timestamp of the first of them (UTC).
        last_event: of the last one.
        features: those that differ.
        known_at: the moment whose knowledge it read (UTC).
        corrected_at: when the last of them was revised (UTC).
    """

    run_id: UUID
    model_name: str
    model_version: int | None
    is_active: bool
    view: str
    symbol: str
    rows: int
    first_event: datetime
    last_event: datetime
    features: tuple[str, ...]
    known_at: datetime
    corrected_at: datetime


@dataclass(frozen=True)
class AnsweredWith:
    """A prediction whose served vector holds values which are others now.

    Attributes:
        signal_id: of the row in signals.
        ts: when it was answered (UTC).
        symbol: the instrument.
        label: what was answered.
        model_id: by which model.
        view: the set and its version.
        event_timestamp: of the row that was served (UTC).
        features: those that differ.
        corrected_at: when the row was revised last (UTC).
    """

    signal_id: UUID
    ts: datetime
    symbol: str
    label: str
    model_id: UUID
    view: str
    event_timestamp: datetime
    features: tuple[str, ...]
    corrected_at: datetime


@dataclass(frozen=True)
class Impact:
    """What was revised, and who had used it.

    Attributes:
        corrections: the newest first.
        trainings: the newest first.
        signals: the newest first.
    """

    corrections: list[Corrected]
    trainings: list[TrainedOn]
    signals: list[AnsweredWith]


def impact(
    database: Database,
    feature_sets: Iterable[FeatureSet],
    *,
    since: datetime | None = None,
    symbol: str | None = None,
) -> Impact:
    """What was revised, and which training runs and signals had used what it was before.

    A run without `as_known_at` read some time after it began: what was revised in between counts as
    revised since.

    Args:
        database: where revisions, runs and signals are.
        feature_sets: those that are declared. Sets over relations are left out.
        since: only what was revised at this moment or later (UTC).
        symbol: only of this instrument.
    """
    wanted: dict[str, Any] = {"since": since, "symbol": symbol}
    corrections = [
        Corrected(
            row["view"],
            tuple(row["entity"]),
            row["first_event"],
            row["last_event"],
            row["revised"],
            tuple(row["features"]),
            row["recorded_at"],
        )
        for row in database.fetch(query(_FILE, "corrections"), wanted)
    ]
    touched = {one.view for one in corrections}
    sets = [one for one in feature_sets if one.view in touched and isinstance(one.source, Bars)]
    trainings = [found for one in sets for found in _trainings(database, one, wanted)]
    signals = [found for one in sets for found in _signals(database, one, wanted)]
    return Impact(
        corrections,
        sorted(trainings, key=lambda one: one.known_at, reverse=True),
        sorted(signals, key=lambda one: one.ts, reverse=True),
    )


def _trainings(
    database: Database, feature_set: FeatureSet, wanted: dict[str, Any]
) -> list[TrainedOn]:
    rows = database.fetch(
        _composed("trainings", feature_set),
        _named(feature_set) | wanted | {"freshness": feature_set.freshness},
    )
    return [
        TrainedOn(
            row["run_id"],
            row["model_name"],
            row["model_version"],
            row["is_active"],
            feature_set.view,
            row["symbol"],
            row["rows"],
            row["first_event"],
            row["last_event"],
            _in_order(feature_set, row["features"]),
            row["as_known_at"] or row["start_time"],
            row["corrected_at"],
        )
        for row in rows
    ]


def _signals(
    database: Database, feature_set: FeatureSet, wanted: dict[str, Any]
) -> list[AnsweredWith]:
    rows = database.fetch(_composed("signals", feature_set), _named(feature_set) | wanted)
    return [
        AnsweredWith(
            row["id"],
            row["ts"],
            row["symbol"],
            row["label"],
            row["model_id"],
            feature_set.view,
            row["event_timestamp"],
            _in_order(feature_set, row["features"]),
            row["corrected_at"],
        )
        for row in rows
    ]


def _named(feature_set: FeatureSet) -> dict[str, Any]:
    return {
        "name": feature_set.name,
        "version": feature_set.version,
        "view": feature_set.view,
    }


def _in_order(feature_set: FeatureSet, found: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in feature_set.feature_names if name in found)


def _composed(name: str, feature_set: FeatureSet) -> sql.Composed:
    # A served vector holds numbers: lists are no part of it.
    numbers = [
        one.name for one in feature_set.features if one.dtype is not FeatureType.FLOAT64_LIST
    ]
    return sql.SQL(query(_FILE, name)).format(
        table=sql.Identifier(feature_set.table),
        differing_before=_names_where(
            sql.SQL("before.{one} IS DISTINCT FROM now.{one}"), feature_set.feature_names
        ),
        differing_served=_names_where(
            sql.SQL(
                "s.features ? {name} AND (s.features ->> {name})::double precision IS DISTINCT FROM now.{one}"
            ),
            numbers,
        ),
    )


def _names_where(differs: sql.SQL, names: Sequence[str]) -> sql.Composed:
    """An array of the names of the features of which something holds."""
    cases = [
        sql.SQL("CASE WHEN {differs} THEN {name} END").format(
            differs=differs.format(one=sql.Identifier(name), name=sql.Literal(name)),
            name=sql.Literal(name),
        )
        for name in names
    ]
    return sql.SQL("array_remove(ARRAY[{}]::text[], NULL)").format(sql.SQL(", ").join(cases))
