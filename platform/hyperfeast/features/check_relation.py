"""Tries a set over a relation: on copies of what it reads, in a transaction that is undone.

The copies bear the names of the tables and views that the relation reads, in the session's own schema, where
PostgreSQL looks first: the relation is computed on them as it stands, and nothing else is touched or locked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString, cast

import polars as pl
from psycopg import Connection, sql
from psycopg.rows import DictRow

from hyperfeast.db import Database
from hyperfeast.features import table
from hyperfeast.features.bounds import bounds_text, outside
from hyperfeast.features.declaration import FeatureSet, FeatureType, Relation
from hyperfeast.features.verdict import Fault, Finding, Verdict, found, name
from hyperfeast.sqlfiles import query

Progress = Callable[[int, int], None]

_TYPES = {
    FeatureType.FLOAT64: pl.Float64(),
    FeatureType.INT64: pl.Int64(),
    FeatureType.FLOAT64_LIST: pl.List(pl.Float64),
}
_TIMES = ("event_timestamp", "ts", "day", "time", "timestamp")
# What bears the time of its beginning, and how long after that it is known.
_KNOWN_AFTER: Mapping[str, LiteralString] = {
    "user_baseline_daily": "24 hours",
    "candles_5m": "5 minutes",
    "candles_15m": "15 minutes",
    "candles_1h": "1 hour",
}
# Kept by the platform about other tables; what they say of the future changes nothing.
_NO_INPUT = frozenset({"instruments", "market_sessions", "stale_days", "dirty_days"})


@dataclass(frozen=True)
class _Source:
    """A table or view that a relation reads.

    Attributes:
        schema: where it is.
        name: what it is called.
        time: its column of times; None if it has none, so that nothing of it can come later.
        numbers: its columns of numbers that may change.
        columns: all of them.
    """

    schema: str
    name: str
    time: str | None
    numbers: tuple[str, ...]
    columns: frozenset[str]

    @property
    def known(self) -> sql.Composable:
        """From when a row of it is known."""
        time = sql.Identifier(self.time or "")
        after = _KNOWN_AFTER.get(self.name)
        if after is None:
            return time
        # What is not over yet holds only what is known already.
        return sql.SQL(query("feature_check", "known_after")).format(
            time=time, after=sql.Literal(after)
        )


def check_relation(
    feature_set: FeatureSet,
    database: Database | None,
    *,
    moments: int,
    progress: Progress | None = None,
) -> Verdict:
    """Compute a relation, then again with everything changed or gone that came after a moment.

    Args:
        feature_set: a set over a relation.
        database: where what it reads is; None: nothing can be tried.
        moments: at how many moments, spread evenly.
        progress: told (trials done, trials in all).

    Raises:
        FeatureError: the relation lacks a declared column.
    """
    relation = cast("Relation", feature_set.source)
    if database is None:
        return _untried(feature_set, "what it reads is in a database, and none was to be asked")
    with database.connect() as connection:
        trial = _Trial(connection, feature_set, relation)
        verdict = trial.run(moments, progress)
        connection.rollback()
    return verdict


def _untried(feature_set: FeatureSet, why: str) -> Verdict:
    return Verdict(name(feature_set), 0, (), (f"{feature_set}: {why}",))


class _Trial:
    """A relation in a transaction."""

    def __init__(
        self, connection: Connection[DictRow], feature_set: FeatureSet, relation: Relation
    ) -> None:
        self._connection = connection
        self._set = feature_set
        self._relation = query("features", relation.query)
        self._names = {
            "keys": _columns(feature_set.key_columns),
            "features": _columns(feature_set.feature_names),
        }
        self._findings: dict[tuple[str, Fault], Finding] = {}
        self._trials = 0
        self._untried: list[str] = []

    def run(self, moments: int, progress: Progress | None) -> Verdict:
        """Copy what the relation reads, and try."""
        sources = self._sources()
        for source in sources:
            self._copy(source)
        self._ask("compute")
        self._ask("analyze", name=sql.Identifier("pg_temp", "checked_rows"))
        rows = self._rows()
        if rows.is_empty():
            return _untried(
                self._set, "its relation has no rows, so nothing was tried: ingest what it reads"
            )
        self._values(rows)
        self._compare(None, "nothing")
        steps = self._steps(sources, moments)
        for done, (moment, source, column) in enumerate(steps):
            if progress:
                progress(done, len(steps))
            self._try(moment, source, column)
        if progress:
            progress(len(steps), len(steps))
        return Verdict(
            name(self._set), self._trials, tuple(self._findings.values()), tuple(self._untried)
        )

    def _sources(self) -> list[_Source]:
        """What the relation reads and can be copied; the rest is noted as untried."""
        self._ask("define")
        sources = []
        for row in self._connection.execute(query("feature_check", "sources")).fetchall():
            if row["is_function"]:
                self._untried.append(
                    f"{self._set}: what its relation reads through the function {row['name']}() was not tried: no "
                    "copy can stand in for it"
                )
                continue
            columns = self._connection.execute(
                query("feature_check", "columns"), {"schema": row["schema"], "name": row["name"]}
            ).fetchall()
            sources.append(self._source(row, columns))
        table.check_columns(self._set, [one["name"] for one in self._defined()])
        return sources

    def _defined(self) -> list[DictRow]:
        """The columns of the relation."""
        return self._connection.execute(
            query("features", "columns"), {"table": "checked_relation"}
        ).fetchall()

    def _source(self, row: DictRow, columns: list[DictRow]) -> _Source:
        times = [one["name"] for one in columns if one["is_time"]]
        return _Source(
            schema=row["schema"],
            name=row["name"],
            time=next((one for one in _TIMES if one in times), None),
            numbers=tuple(
                one["name"]
                for one in columns
                if one["is_number"] and one["name"] not in self._set.key_columns
            ),
            columns=frozenset(one["name"] for one in columns),
        )

    def _copy(self, source: _Source) -> None:
        if source.name in _NO_INPUT:
            return
        if source.time is None:
            self._untried.append(
                f"{self._set}: {source.name} was left as it is: it has no column of times "
                f"({', '.join(_TIMES)}), so nothing in it comes later"
            )
            return
        has_keys = source.columns.issuperset(self._set.key_columns)
        self._ask(
            "copy_entities" if has_keys else "copy",
            schema=sql.Identifier(source.schema),
            name=sql.Identifier(source.name),
            time=sql.Identifier(source.time),
        )
        self._ask("analyze", name=sql.Identifier("pg_temp", source.name))

    def _steps(
        self, sources: list[_Source], moments: int
    ) -> list[tuple[datetime, _Source, str | None]]:
        """When which column of what is changed; without a column, rows are removed."""
        times = self._connection.execute(
            query("feature_check", "moments"), {"count": moments}
        ).fetchall()
        return [
            (row["moment"], source, column)
            for row in times
            for source in sources
            if source.time is not None and source.name not in _NO_INPUT
            for column in (*source.numbers, None)
        ]

    def _try(self, moment: datetime, source: _Source, column: str | None) -> None:
        self._connection.execute("SAVEPOINT unchanged")
        self._ask(
            "remove_later" if column is None else "change_later",
            {"moment": moment},
            name=sql.Identifier(source.name),
            known=source.known,
            column=sql.Identifier(column or ""),
        )
        changed = f"which rows {source.name} has" if column is None else f"{source.name}.{column}"
        self._compare(moment, changed)
        self._connection.execute("ROLLBACK TO SAVEPOINT unchanged")

    def _compare(self, moment: datetime | None, changed: str) -> None:
        """Hold the relation as it is now against what it was, up to a moment; None for all of it."""
        self._trials += 1
        fault = Fault.LOOKS_AHEAD if moment else Fault.NOT_REPEATABLE
        until = moment or datetime(9999, 1, 1, tzinfo=UTC)
        for row in self._ask("changed", {"moment": until}):
            for feature in self._set.feature_names:
                was, now = ((row[side] or {}).get(feature) for side in ("was", "again"))
                if was == now or (feature, fault) in self._findings:
                    continue
                entity = self._entity(row["was"] or row["again"])
                case = (
                    f"changing {changed} after {_moment(moment)} changed it in the row of {entity} of "
                    f"{_moment(row['at'])} from {_value(was)} to {_value(now)}"
                    if moment
                    else f"computed twice, it is {_value(was)} and then {_value(now)} in the row of {entity} of "
                    f"{_moment(row['at'])}"
                )
                self._findings[feature, fault] = found(
                    self._set,
                    feature,
                    fault,
                    case,
                    entity=entity,
                    at=row["at"],
                    moment=moment,
                    changed=changed if moment else None,
                )

    def _rows(self) -> pl.DataFrame:
        rows = self._ask("rows")
        return pl.DataFrame(
            rows,
            schema={
                **dict.fromkeys(self._set.key_columns, pl.String()),
                "event_timestamp": pl.Datetime("us", "UTC"),
                **{one.name: _TYPES[one.dtype] for one in self._set.features},
            },
            strict=False,
        )

    def _values(self, rows: pl.DataFrame) -> None:
        """Finite, and within the declared bounds."""
        for feature in self._set.features:
            values = rows[feature.name]
            numbers = values.explode() if isinstance(values.dtype, pl.List) else values
            infinite = numbers.drop_nulls().is_finite() if numbers.dtype.is_float() else None
            if infinite is not None and not infinite.all():
                self._findings[feature.name, Fault.NOT_FINITE] = found(
                    self._set, feature.name, Fault.NOT_FINITE, "a value is NaN or infinite"
                )
            for row in rows.filter(outside(values, feature)).head(1).to_dicts():
                entity, at = self._entity(row), row["event_timestamp"]
                self._findings[feature.name, Fault.OUT_OF_BOUNDS] = found(
                    self._set,
                    feature.name,
                    Fault.OUT_OF_BOUNDS,
                    f"it is {row[feature.name]} in the row of {entity} of {_moment(at)}, and declared "
                    f"{bounds_text(feature)}",
                    entity=entity,
                    at=at,
                )

    def _entity(self, row: Mapping[str, Any]) -> str:
        return ", ".join(str(row[key]) for key in self._set.key_columns)

    def _ask(
        self, statement: str, parameters: Mapping[str, Any] | None = None, **names: sql.Composable
    ) -> list[DictRow]:
        relation = self._relation.replace("%", "%%") if parameters else self._relation
        composed = sql.SQL(query("feature_check", statement)).format(
            relation=sql.SQL(relation), **self._names, **names
        )
        cursor = self._connection.execute(composed, parameters)
        return cursor.fetchall() if cursor.description else []


def _columns(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment else ""


def _value(value: Any) -> str:
    return "NULL" if value is None else str(value)
