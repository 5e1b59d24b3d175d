"""Random training sets to ask Feast for: schemas, rows, spines, options; and how the judge reads them."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import (
    Array,
    Bool,
    Bytes,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Map,
    String,
    UnixTimestamp,
    Uuid,
)
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

import point_in_time as judge

Form = Literal[
    "pandas", "nullable", "floats", "naive", "strings", "zoned", "polars", "arrow", "sql"
]

_MINUTE, _MICRO = timedelta(minutes=1), timedelta(microseconds=1)
# The night of a change of clocks, which must not matter.
_START = datetime(2024, 3, 31, 0, 30, tzinfo=UTC)
_UUIDS = [str(uuid.UUID(int=number)) for number in (1, 2, 3)]
_TEXTS = st.sampled_from(["", "a", "NULL", 'ä"\\,{}\n\t'])
_FLOATS = st.sampled_from([0.0, -1.5, math.nan, math.inf, 1e300])
MOMENTS = st.builds(
    lambda minutes, micros: _START + minutes * 10 * _MINUTE + micros * _MICRO,
    st.integers(0, 9),
    st.sampled_from([0, 0, 0, 1, -1, 999_999]),
)


@dataclass(frozen=True)
class Kind:
    """A type of the database: its name, Feast's, and what values a case draws."""

    column: str
    feast: FeastType
    values: st.SearchStrategy[Any]


# What Feast's own store reads back rightly.
PLAIN = [
    Kind("double precision", Float64, _FLOATS),
    Kind("real", Float32, st.sampled_from([0.5, -2.0])),
    Kind("numeric", Float64, st.sampled_from([1.25, -3.0])),
    Kind("bigint", Int64, st.sampled_from([0, -7, 2**62 + 1])),
    Kind("integer", Int32, st.sampled_from([0, 2**31 - 1])),
    Kind("smallint", Int32, st.sampled_from([0, -(2**15)])),
    Kind("boolean", Bool, st.booleans()),
    Kind("text", String, _TEXTS),
    Kind("varchar(40)", String, _TEXTS),
    Kind("bytea", Bytes, st.binary(max_size=3)),
    Kind("timestamptz", UnixTimestamp, MOMENTS),
    Kind("double precision[]", Array(Float64), st.lists(st.none() | _FLOATS, max_size=2)),
    Kind("bigint[]", Array(Int64), st.lists(st.integers(-3, 2**62), max_size=2)),
    Kind("text[]", Array(String), st.lists(_TEXTS, max_size=2)),
]
# What it does not.
AWKWARD = [
    Kind("uuid", Uuid, st.sampled_from(_UUIDS)),
    Kind("jsonb", Map, st.sampled_from([{}, {"a": 1}, {"b": [None, "x"], "c": {"d": 1.5}}])),
]


@dataclass(frozen=True)
class Key:
    """A join key: Feast's entity, its type, and its few values."""

    name: str
    column: str
    value_type: ValueType
    feast: FeastType
    values: Sequence[Any]


# No two combinations of these values have one text, which Feast's own store needs.
KEYS = (
    Key("k", "bigint", ValueType.INT64, Int64, (1, 2, 3)),
    Key("Key", "text", ValueType.STRING, String, ("a", "b")),
)
# These do: (1, 11) and (11, 1), ('a', '1') and ('a1', '').
HARD_KEYS = (
    Key("k", "bigint", ValueType.INT64, Int64, (1, 11, 111, -1)),
    Key("Key", "text", ValueType.STRING, String, ("", "1", "11", "ä'")),
    Key("second", "integer", ValueType.INT32, Int32, (1, 11)),
    Key("u", "uuid", ValueType.UUID, Uuid, (*_UUIDS,)),
)


@dataclass(frozen=True, kw_only=True)
class DrawnView:
    """A feature view and the rows of its table."""

    name: str
    table: str
    by_query: bool
    keys: tuple[Key, ...]
    renamed_keys: bool
    alias: str | None
    ttl: timedelta | None
    timestamp: str
    created: str | None
    features: tuple[tuple[str, Kind], ...]
    renamed_features: bool
    rows: tuple[Mapping[str, Any], ...]

    @property
    def key_columns(self) -> dict[str, str]:
        """The join key -> the table's column."""
        return {key.name: f"src {key.name}" if self.renamed_keys else key.name for key in self.keys}

    @property
    def spine_columns(self) -> dict[str, str]:
        """The join key -> the spine's column."""
        return {
            key.name: f"{self.alias}_{key.name}" if self.alias else key.name for key in self.keys
        }

    @property
    def feature_columns(self) -> dict[str, str]:
        """The feature -> the table's column."""
        return {name: f"Src {name}" if self.renamed_features else name for name, _ in self.features}

    @property
    def asked_name(self) -> str:
        """The name in a request, and before each feature's full name."""
        return f"{self.name}_{self.alias}" if self.alias else self.name

    def columns(self) -> dict[str, str]:
        """The table's columns -> their types."""
        keys = {self.key_columns[key.name]: key.column for key in self.keys}
        features = {self.feature_columns[name]: kind.column for name, kind in self.features}
        created = {self.created: "timestamptz"} if self.created else {}
        return {**keys, self.timestamp: "timestamptz", **created, **features}

    def defined(self) -> tuple[FeatureView, list[Entity]]:
        """Feast's objects."""
        entities = [
            Entity(name=f"{key.name}_entity", join_keys=[key.name], value_type=key.value_type)
            for key in self.keys
        ]
        mapping = {
            column: name
            for name, column in (self.key_columns | self.feature_columns).items()
            if column != name
        }
        quoted = f'"{self.table}"'
        source = PostgreSQLSource(
            name=f"{self.name}_source",
            **({"query": f"SELECT * FROM {quoted}"} if self.by_query else {"table": quoted}),
            timestamp_field=self.timestamp,
            created_timestamp_column=self.created or "",
            field_mapping=mapping,
        )
        view = FeatureView(
            name=self.name,
            entities=entities,
            ttl=self.ttl or timedelta(0),
            schema=[
                *(Field(name=key.name, dtype=key.feast) for key in self.keys),
                *(Field(name=name, dtype=kind.feast) for name, kind in self.features),
            ],
            source=source,
        )
        return view, entities

    def judged(self, *, full_names: bool) -> judge.View:
        """The same for the judge."""
        return judge.View(
            name=self.asked_name,
            rows=self.rows,
            keys={self.spine_columns[name]: column for name, column in self.key_columns.items()},
            timestamp=self.timestamp,
            created=self.created,
            ttl=self.ttl,
            features={
                column: f"{self.asked_name}__{name}" if full_names else name
                for name, column in self.feature_columns.items()
            },
        )


@dataclass(frozen=True, kw_only=True)
class Case:
    """Views, a spine, and how they are joined."""

    views: tuple[DrawnView, ...]
    spine: tuple[Mapping[str, Any], ...]
    at: str
    form: Form
    full_names: bool
    filter_by_created: bool
    known_at: datetime | None = None

    @property
    def names(self) -> list[str]:
        """The answer's columns."""
        features = [
            name
            for view in self.views
            for name in view.judged(full_names=self.full_names).features.values()
        ]
        return [*self.spine_columns, *features]

    @property
    def spine_columns(self) -> dict[str, str]:
        """The spine's columns -> their types."""
        keys = {
            view.spine_columns[key.name]: key.column for view in self.views for key in view.keys
        }
        return {"number": "bigint", **keys, "A label": "double precision", self.at: "timestamptz"}

    @property
    def service(self) -> FeatureService:
        """All views under the names and keys of the request."""
        asked = []
        for view in self.views:
            projected = view.defined()[0]
            if view.alias:
                projected = projected.with_name(view.asked_name).with_join_key_map(
                    view.spine_columns
                )
            asked.append(projected)
        return FeatureService(name="all", features=asked)

    def objects(self) -> list[Any]:
        """What `apply` registers."""
        found: dict[str, Any] = {}
        for view in self.views:
            defined, entities = view.defined()
            found |= {defined.name: defined} | {entity.name: entity for entity in entities}
        return [*found.values(), self.service]

    def create(self, connection: psycopg.Connection[Any], spine_table: str) -> None:
        """Make the tables of the views, and of the spine if that is SQL."""
        for table, columns, rows in self._tables(spine_table):
            connection.execute(
                sql.SQL("CREATE UNLOGGED TABLE {} ({})").format(
                    sql.Identifier(table),
                    sql.SQL(", ").join(
                        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # type: ignore[arg-type]
                        for name, kind in columns.items()
                    ),
                )
            )
            insert = sql.SQL("INSERT INTO {} VALUES ({})").format(
                sql.Identifier(table), sql.SQL(", ").join([sql.Placeholder()] * len(columns))
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    insert, [[_bound(row[name]) for name in columns] for row in rows]
                )

    def drop(self, connection: psycopg.Connection[Any], spine_table: str) -> None:
        """Drop them."""
        for table, _, _ in self._tables(spine_table):
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))

    def asked_with(self, spine_table: str) -> Any:
        """The spine in its form."""
        if self.form == "sql":
            listed = ", ".join(f'"{name}"' for name in self.spine_columns)
            return f'SELECT {listed} FROM "{spine_table}"'
        columns = {name: [row[name] for row in self.spine] for name in self.spine_columns}
        if self.form in ("polars", "arrow"):
            table = pa.table(
                {
                    name: pa.array(columns[name], _ARROW[kind])
                    for name, kind in self.spine_columns.items()
                }
            )
            return pl.from_arrow(table) if self.form == "polars" else table
        columns[self.at] = [_in_form(moment, self.form) for moment in columns[self.at]]
        keys = {
            name: pd.Series(columns[name], dtype=object)
            for name in self.spine_columns
            if name != self.at
        }
        keys["A label"] = keys["A label"].astype("float64")
        for name, kind in self.spine_columns.items():
            if kind in ("bigint", "integer") and self.form in _INTEGERS:
                keys[name] = keys[name].astype(_INTEGERS[self.form])
        return pd.DataFrame({**keys, self.at: columns[self.at]})[list(self.spine_columns)]

    def wrong(self, found: pa.Table) -> list[str]:
        """What the judge finds."""
        if found.column_names != self.names:
            return [f"expected the columns {self.names}, found {found.column_names}"]
        kinds = self.spine_columns | {
            name: kind.column
            for view in self.views
            for name, (_, kind) in zip(
                view.judged(full_names=self.full_names).features.values(),
                view.features,
                strict=True,
            )
        }
        rows = [
            {name: _normal(value, kinds[name]) for name, value in row.items()}
            for row in found.to_pylist()
        ]
        if self.form == "sql":
            rows.sort(key=lambda row: int(row["number"]))
        asked = judge.Asked(
            at=self.at, filter_by_created=self.filter_by_created, known_at=self.known_at
        )
        views = [view.judged(full_names=self.full_names) for view in self.views]
        return list(judge.differences(rows, self.spine, views, asked))

    def wrong_of_range(self, found: pa.Table, start: datetime, end: datetime) -> list[str]:
        """What the judge finds wrong with the only view's rows of a range of dates."""
        (view,) = self.views
        asked = judge.Asked(filter_by_created=self.filter_by_created, known_at=self.known_at)
        judged = view.judged(full_names=self.full_names)
        columns = {view.timestamp: "event_timestamp"}
        columns |= {view.created: "created_timestamp"} if view.created else {}
        columns |= {column: name for name, column in judged.keys.items()} | dict(judged.features)
        if found.column_names != list(columns.values()):
            return [f"expected the columns {list(columns.values())}, found {found.column_names}"]
        kinds = view.columns()
        rows = [
            {column: _normal(row[name], kinds[column]) for column, name in columns.items()}
            for row in found.to_pylist()
        ]
        right = judge.of_range(judged, start, end, asked)
        return list(judge.unmatched(rows, right))

    def wrong_of_latest(
        self, found: pa.Table, start: datetime, end: datetime, late_from: datetime | None
    ) -> list[str]:
        """What the judge finds wrong with the only view's newest row of each entity."""
        (view,) = self.views
        kinds = view.columns()
        rows = [
            {column: _normal(row[column], kinds[column]) for column in kinds}
            for row in found.to_pylist()
        ]
        judged = view.judged(full_names=False)
        known = [
            row for row in rows if None not in [row[column] for column in judged.keys.values()]
        ]
        return list(judge.unmatched(known, judge.latest(judged, start, end, late_from=late_from)))

    def _tables(
        self, spine_table: str
    ) -> list[tuple[str, Mapping[str, str], Sequence[Mapping[str, Any]]]]:
        tables = {view.table: (view.columns(), view.rows) for view in self.views}
        listed = [(table, *rest) for table, rest in tables.items()]
        return [*listed, (spine_table, self.spine_columns, self.spine)]


_ARROW = {
    "bigint": pa.int64(),
    "integer": pa.int32(),
    "text": pa.string(),
    "uuid": pa.string(),
    "double precision": pa.float64(),
    "timestamptz": pa.timestamp("us", "UTC"),
}


# How pandas holds integers of which some are missing.
_INTEGERS = {"nullable": "Int64", "floats": "float64"}


def _bound(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict) else value


def _in_form(moment: datetime, form: Form) -> Any:
    match form:
        case "naive":
            return pd.Timestamp(moment.replace(tzinfo=None))
        case "strings":
            return moment.isoformat()
        case "zoned":
            return pd.Timestamp(moment.astimezone(ZoneInfo("America/New_York")))
        case _:
            return pd.Timestamp(moment)


def _normal(value: Any, kind: str) -> Any:
    """A value of an answer as the judge has it."""
    if value is None or (kind in ("bigint", "integer") and value != value):  # noqa: PLR0124 - NaN
        return None
    if kind == "timestamptz":
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    if kind == "jsonb":
        return json.loads(value) if isinstance(value, str) else dict(value)
    if kind == "uuid":
        return str(value)
    if isinstance(value, date):
        raise TypeError(f"expected no date, found {value}")
    return value


@st.composite
def _views(
    draw: st.DrawFn, number: int, *, stock: bool, full_names: bool, always_created: bool
) -> DrawnView:
    pool = KEYS if stock else HARD_KEYS
    keys = draw(st.lists(st.sampled_from(pool), unique=True, max_size=2 if stock else 3))
    created = draw(st.sampled_from([*([] if always_created else [None]), "created", "Created At"]))
    kinds = PLAIN if stock else PLAIN + AWKWARD
    drawn = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
    names = (
        ["f", "F", "Feature three"] if full_names else [f"f{number}", f"F{number}", f"f {number}"]
    )
    view = DrawnView(
        name=draw(st.sampled_from(["view{}", "View{}"])).format(number),
        table=f"{draw(st.sampled_from(['rows', 'Rows of']))} {number}",
        by_query=draw(st.booleans()),
        keys=tuple(keys),
        renamed_keys=draw(st.booleans()),
        alias=draw(st.sampled_from([None, None, "origin"])) if keys else None,
        ttl=draw(
            st.sampled_from([None, timedelta(minutes=10), timedelta(minutes=35), timedelta(days=3)])
        ),
        timestamp=draw(st.sampled_from(["event_timestamp", "ts", "Event Time"])),
        created=created,
        features=tuple(zip(names, drawn, strict=False)),
        renamed_features=draw(st.booleans()),
        rows=(),
    )
    return replace(view, rows=tuple(draw(_rows(view, stock=stock))))


def _rows(view: DrawnView, *, stock: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Late, corrected, incomplete, in any order; ties only where Feast's own store need not answer."""
    columns: dict[str, st.SearchStrategy[Any]] = {
        view.key_columns[key.name]: _mostly(st.sampled_from(key.values)) for key in view.keys
    }
    columns[view.timestamp] = MOMENTS if stock else _mostly(MOMENTS)
    if view.created:
        columns[view.created] = MOMENTS if stock else _mostly(MOMENTS)
    identity = (*columns,)
    for name, kind in view.features:
        columns[view.feature_columns[name]] = _mostly(kind.values)
    return st.lists(
        st.fixed_dictionaries(columns),
        max_size=16,
        unique_by=(lambda row: tuple(row[name] for name in identity)) if stock else None,
    )


def _mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda chance: values if chance else st.none())


@st.composite
def cases(
    draw: st.DrawFn, *, stock: bool, most_views: int = 3, always_created: bool = False
) -> Case:
    """A question.

    Args:
        draw: Hypothesis's.
        stock: only what Feast's own PostgreSQL store answers rightly.
        most_views: how many views there may be.
        always_created: every view has a created timestamp.
    """
    full_names = draw(st.booleans())
    views = tuple(
        draw(_views(number, stock=stock, full_names=full_names, always_created=always_created))
        for number in range(draw(st.integers(1, most_views)))
    )
    forms: list[Form] = ["pandas", "naive", "zoned", "sql"]
    if not stock:
        forms += ["nullable", "floats", "strings", "polars", "arrow"]
    form = draw(st.sampled_from(forms))
    ats = ["event_timestamp"] if form in ("strings", "sql") else ["event_timestamp", "moment"]
    case = Case(
        views=views,
        spine=(),
        at=draw(st.sampled_from(ats)),
        form=form,
        full_names=full_names,
        filter_by_created=draw(st.booleans()),
    )
    return replace(case, spine=tuple(draw(_spines(case, stock=stock))))


def _spines(case: Case, *, stock: bool) -> st.SearchStrategy[list[dict[str, Any]]]:
    keys = {view.spine_columns[key.name]: key for view in case.views for key in view.keys}
    columns: dict[str, st.SearchStrategy[Any]] = {
        name: _mostly(st.sampled_from([*key.values, _stranger(key)])) for name, key in keys.items()
    }
    drawn = st.fixed_dictionaries(
        {**columns, "A label": st.sampled_from([0.5, -1.0]), case.at: MOMENTS}
    )

    def typed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Feast's own store has no type for a column of nothing but None."""
        known = {name: key.values[0] for name, key in keys.items() if rows[0][name] is None}
        return [rows[0] | known, *rows[1:]] if stock else rows

    return st.lists(drawn, min_size=1, max_size=12).map(
        lambda rows: [
            {name: (row | {"number": number})[name] for name in case.spine_columns}
            for number, row in enumerate(typed(rows))
        ]
    )


def _stranger(key: Key) -> Any:
    """A value that no row has."""
    if key.column == "uuid":
        return str(uuid.UUID(int=9))
    return "z" if key.column == "text" else 4
