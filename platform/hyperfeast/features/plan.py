"""What applying the declarations changes in the database, and the change itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.features import definitions, schema, table
from hyperfeast.features.declaration import Bars, FeatureSet
from hyperfeast.features.definitions import Record
from hyperfeast.sqlfiles import query

_FILE = "feature_definitions"


class State(StrEnum):
    """What a declared version is to the one on record."""

    NEW = "new"
    REFUSED = "refused"
    REWORDED = "reworded"
    REVIVED = "revived"
    RETIRED = "retired"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Step:
    """What applying means for one version of one set.

    Attributes:
        feature_set: the set's name.
        version: its version.
        state: new; refused, for a rule changed under its version; reworded, for other words, tags or
            times; revived or retired, for a set that is declared again, or no more; unchanged.
        table: of its rows.
        creates_table: whether that is made.
        rows_to_backfill: how many bars there are to compute it of, where it has no rows yet; None where
            only its query can say.
        problem: why it is refused, and what to do; None if it is not.
    """

    feature_set: str
    version: int
    state: State
    table: str
    creates_table: bool = False
    rows_to_backfill: int | None = 0
    problem: str | None = None


@dataclass(frozen=True)
class Applied:
    """What was changed, by the names of views (`market_technical_v1`).

    Attributes:
        recorded: sets that were put on record, or whose words were.
        created: tables that were made.
        retired: sets that are computed no more; their tables and rows stay.
    """

    recorded: list[str]
    created: list[str]
    retired: list[str]


def plan(database: Database, sets: Sequence[FeatureSet]) -> list[Step]:
    """Compare what is declared with what is on record. Changes nothing.

    Args:
        database: where.
        sets: everything that is declared.

    Returns:
        A step for each declared version, then for each that is on record and active but not declared.
    """
    with database.connect() as connection:
        records = definitions.read(connection)
        tables = schema.present(connection, [one.table for one in sets])
        steps = [_step(connection, one, records.get(one.view), tables) for one in sets]
    views = {one.view for one in sets}
    gone = [one for view, one in records.items() if one.active and view not in views]
    return [*steps, *(Step(one.name, one.version, State.RETIRED, one.table) for one in gone)]


def apply(database: Database, sets: Sequence[FeatureSet], *, retire: bool = False) -> Applied:
    """Make the tables that are missing, put the sets on record, and make the views of all rows anew.

    It is done in one transaction, and doing it again changes nothing.

    Args:
        database: where.
        sets: what is declared.
        retire: whether these are all that there are: sets on record that are not among them become
            inactive. Their tables and rows stay.

    Raises:
        FeatureError: a rule was changed under its version, or a table is not what is declared. Nothing
            was changed.
    """
    with database.connect() as connection:
        records = definitions.read(connection)
        definitions.refuse_changed(records, sets)
        tables = schema.present(connection, [one.table for one in sets])
    if not retire and not _due(records, tables, sets):
        # As nearly always when sets are computed: without a lock.
        return Applied([], [], [])
    for one in sets:
        if one.table in tables:
            table.check(database, one)
    with database.connect() as connection:
        connection.execute(query(_FILE, "turn"))
        return _apply(connection, sets, retire=retire)


def prepare(
    database: Database, sets: Sequence[FeatureSet], chosen: Sequence[FeatureSet]
) -> Applied:
    """Apply what can be before sets are computed: a set that is refused holds up no other.

    Args:
        database: where.
        sets: everything that is declared.
        chosen: those that will be computed.

    Raises:
        FeatureError: a rule of one of those was changed under its version, or a table is not what is
            declared.
    """
    records = definitions.recorded(database)
    definitions.refuse_changed(records, chosen)
    good = [
        one
        for one in sets
        if one.view not in records or not definitions.changed(records[one.view], one)
    ]
    return apply(database, good)


def _apply(connection: Connection[DictRow], sets: Sequence[FeatureSet], *, retire: bool) -> Applied:
    records = definitions.read(connection)
    definitions.refuse_changed(records, sets)
    tables = schema.present(connection, [one.table for one in sets])
    due = _due(records, tables, sets)
    created = [one for one in due if one.table not in tables]
    for one in due:
        if one in created:
            schema.create(connection, one)
        elif one.view in records:
            schema.describe(connection, one)
    definitions.record(connection, due)
    retired = definitions.retire(connection, sets) if retire else []
    after = definitions.read(connection)
    if retire or _active(after) != _active(records):
        schema.replace_views(connection, [one for one in after.values() if one.active])
    return Applied([one.view for one in due], [one.table for one in created], retired)


def differs(record: Record, feature_set: FeatureSet) -> bool:
    """Whether anything that is kept on record of a set is declared otherwise, its state included."""
    return record != definitions.declared(feature_set)


def _due(
    records: Mapping[str, Record], tables: Iterable[str], sets: Sequence[FeatureSet]
) -> list[FeatureSet]:
    """The sets that are not on record as they are declared, or that have no table."""
    return [
        one
        for one in sets
        if one.view not in records or differs(records[one.view], one) or one.table not in tables
    ]


def _active(records: Mapping[str, Record]) -> set[str]:
    return {view for view, one in records.items() if one.active}


def _step(
    connection: Connection[DictRow],
    feature_set: FeatureSet,
    record: Record | None,
    tables: set[str],
) -> Step:
    problem = definitions.changed(record, feature_set) if record else None
    absent = feature_set.table not in tables
    return Step(
        feature_set.name,
        feature_set.version,
        State.REFUSED if problem else _state(record, feature_set),
        feature_set.table,
        creates_table=absent and not problem,
        rows_to_backfill=0 if problem else _to_backfill(connection, feature_set, absent=absent),
        problem=problem,
    )


def _state(record: Record | None, feature_set: FeatureSet) -> State:
    if record is None:
        return State.NEW
    if not record.active:
        return State.REVIVED
    return State.REWORDED if differs(record, feature_set) else State.UNCHANGED


def _to_backfill(
    connection: Connection[DictRow], feature_set: FeatureSet, *, absent: bool
) -> int | None:
    """How many rows a set without rows will have."""
    if not absent:
        statement = sql.SQL(query(_FILE, "is_empty")).format(
            table=sql.Identifier(feature_set.table)
        )
        if not connection.execute(statement).fetchall()[0]["empty"]:
            return 0
    match feature_set.source:
        case Bars(timeframe):
            found = connection.execute(query(_FILE, "bars"), {"timeframe": timeframe.value})
            rows: int = found.fetchall()[0]["rows"]
            return rows
        case _:
            return None
