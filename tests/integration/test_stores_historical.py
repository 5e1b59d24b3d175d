"""Training sets through Feast's own call: each awkward thing by hand, by lookups and by a merge."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureView, Field, RequestSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float64, Int64, PrimitiveFeastType, String

import point_in_time as judge
from feast_repos import repo
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, QueryFailed, UsageError

_DAY = timedelta(days=1)
_AT = datetime(2024, 3, 10, tzinfo=UTC)
_DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
_CUSTOMER = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)

_TABLES = r"""
    CREATE TABLE stats (
        driver_id bigint, ts timestamptz, created timestamptz, conv float8, trips int
    );
    INSERT INTO stats VALUES
        (1, '2024-03-01', '2024-03-01', 0.1, 1),
        (1, '2024-03-05', '2024-03-05', 0.2, 2),
        (1, '2024-03-05', '2024-03-12', 0.3, 3),
        (2, '2024-03-09', '2024-03-20', NULL, 4),
        (2, '2024-03-02', NULL, 0.5, 5),
        (NULL, '2024-03-02', '2024-03-02', 9, 9),
        (1, NULL, '2024-03-01', 8, 8);
    CREATE TABLE pairs (driver_id int, customer_id int, ts timestamptz, score float8);
    INSERT INTO pairs VALUES (1, 11, '2024-03-01', 111), (11, 1, '2024-03-01', 1101);
    CREATE TABLE weather (ts timestamptz, rain float8);
    INSERT INTO weather VALUES ('2024-03-01', 1), ('2024-03-09', 2);
    CREATE TABLE "Mixed Case" ("Driver ID" bigint, "When" timestamptz, "F_0" float8, f_0 float8);
    INSERT INTO "Mixed Case" VALUES (1, '2024-03-01', 1, 2), (1, '2024-03-02', 0, 9);
    CREATE TABLE naive (driver_id bigint, ts timestamp, day date, x float8);
    INSERT INTO naive VALUES
        (1, '2024-03-09 23:59:59.999999', '2024-03-10', 1),
        (1, '2024-03-10 00:00:00.000001', '2024-03-11', 2);
    CREATE TABLE kinds (
        driver_id text, ts timestamptz, a bigint, b text, c uuid, d timestamptz, e boolean,
        f float8[], g jsonb, h json, i numeric, j bytea, k text[], l date, m interval,
        n smallint, o uuid[], p char(3)
    );
    INSERT INTO kinds VALUES (
        'a''b"c\', '2024-03-01', 9007199254740993, 'ä', '00000000-0000-0000-0000-000000000001',
        '2024-03-01 12:00:00.000001+02', true, '{1.5,NULL}', '{"a": [1, null]}', '[1]', 1.25,
        '\x00ff', '{x,NULL,""}', '2024-03-01', '1 day', 7,
        '{00000000-0000-0000-0000-000000000002}', 'x'
    );
    INSERT INTO kinds (driver_id, ts) VALUES ('n', '2024-03-01');
"""

Ask = Callable[..., pa.Table]


@pytest.fixture
def tables(empty_database: Database) -> Database:
    """Small tables, each for one awkward thing."""
    with empty_database.connect() as opened:
        opened.execute(_TABLES)
    return empty_database


def _view(
    name: str,
    table: str | None,
    features: dict[str, Any],
    entities: Sequence[Entity] = (_DRIVER,),
    ttl: timedelta = timedelta(0),
    **source: Any,
) -> FeatureView:
    own = {"name": f"{name} source", "table": table, "timestamp_field": "ts"}
    return FeatureView(
        name=name,
        entities=list(entities),
        ttl=ttl,
        schema=[Field(name=feature, dtype=kind) for feature, kind in features.items()]
        + [
            Field(name=entity.join_key, dtype=PrimitiveFeastType[entity.value_type.name])
            for entity in entities
        ],
        source=PostgreSQLSource(**{**own, **source}),
    )


_STATS = {"conv": Float64, "trips": Int64}


def _stats(**options: Any) -> FeatureView:
    return _view("stats", "stats", _STATS, **{"created_timestamp_column": "created", **options})


@pytest.fixture(params=["lookup", "merge"])
def ask(request: pytest.FixtureRequest, tables: Database, tmp_path: Path) -> Ask:
    """Ask for features of views; the stream and the table are one."""

    def asked(
        views: Sequence[Any], features: Sequence[str], spine: Any, stock: bool = False, **how: Any
    ) -> pa.Table:
        options = None if stock else {"strategy": request.param}
        store = repo(
            tmp_path, tables.dsn, offline="stock" if stock else "ours", offline_options=options
        )
        store.apply([_DRIVER, _CUSTOMER, *views])
        job = store.get_historical_features(spine, list(features), **how)
        found = job.to_arrow()
        if not stock:
            assert job.to_arrow_reader().read_all().equals(found)
        return found

    return asked


def _spine(rows: Sequence[tuple[int | None, datetime | None]]) -> pa.Table:
    return pa.table(
        {
            "driver_id": pa.array([key for key, _ in rows], pa.int64()),
            "event_timestamp": pa.array([at for _, at in rows], pa.timestamp("us", "UTC")),
        }
    )


def test_ttl_includes_both_ends_and_microseconds_count(ask: Ask) -> None:
    micro = timedelta(microseconds=1)
    event = datetime(2024, 3, 5, tzinfo=UTC)
    times = [event - micro, event, event + _DAY, event + _DAY + micro]
    found = ask([_stats(ttl=_DAY)], ["stats:trips"], _spine([(1, at) for at in times]))
    assert found.column("trips").to_pylist() == [None, 3, 3, None]


def test_the_newest_recorded_row_of_an_event_time_is_taken(ask: Ask) -> None:
    spine = _spine([(1, _AT), (2, _AT), (2, _AT - 3 * _DAY)])
    now = ask([_stats()], ["stats:conv", "stats:trips"], spine)
    assert now.column("trips").to_pylist() == [3, 4, 5]
    # A value that is missing in the newest row is missing.
    assert now.column("conv").to_pylist() == [0.3, None, 0.5]


def test_filter_by_created_timestamp_leaves_out_what_was_recorded_later(ask: Ask) -> None:
    times = [_AT, _AT + 5 * _DAY, _AT + 11 * _DAY]
    spine = _spine([(key, at) for key in (1, 2) for at in times])
    found = ask([_stats()], ["stats:trips"], spine, filter_by_created_timestamp=True)
    assert found.column("trips").to_pylist() == [2, 3, 3, None, None, 4]


def test_nulls_match_nothing_and_order_and_duplicates_stay(ask: Ask) -> None:
    rows = [(2, _AT), (None, _AT), (1, None), (7, _AT), (2, _AT), (1, _AT), (2, _AT)]
    found = ask([_stats()], ["stats:trips"], _spine(rows))
    assert found.column_names == ["driver_id", "event_timestamp", "trips"]
    assert found.column("driver_id").to_pylist() == [key for key, _ in rows]
    assert found.column("trips").to_pylist() == [4, None, None, None, 4, 3, 4]


def test_an_empty_spine_has_an_empty_answer(ask: Ask) -> None:
    found = ask([_stats()], ["stats:conv", "stats:trips"], _spine([]))
    assert found.schema.names == ["driver_id", "event_timestamp", "conv", "trips"]
    assert found.schema.types == [pa.int64(), pa.timestamp("us"), pa.float64(), pa.int32()]
    assert found.num_rows == 0
    nowhen = ask([_stats()], ["stats:trips"], _spine([(1, None)]))
    assert nowhen.column("trips").to_pylist() == [None]


def test_composite_keys_are_not_one_text(ask: Ask) -> None:
    """(1, 11) and (11, 1) at one moment: Feast's own store joins by '111' + moment and gives four rows."""
    view = _view("pairs", "pairs", {"score": Float64}, (_DRIVER, _CUSTOMER))
    spine = pd.DataFrame(
        {"driver_id": [1, 11], "customer_id": [11, 1], "event_timestamp": [_AT] * 2}
    )
    assert ask([view], ["pairs:score"], spine).column("score").to_pylist() == [111, 1101]
    stock = ask([view], ["pairs:score"], spine, stock=True)
    assert sorted(stock.column("score").to_pylist()) == [111, 111, 1101, 1101]


def test_views_of_different_entities_and_of_none(ask: Ask) -> None:
    views = [
        _stats(),
        _view("pairs", "pairs", {"score": Float64}, (_DRIVER, _CUSTOMER)),
        _view("weather", "weather", {"rain": Float64}, (), timedelta(days=3)),
    ]
    spine = pd.DataFrame(
        {
            "customer_id": [11, 12],
            "driver_id": [1, 1],
            "event_timestamp": [_AT, _AT - 5 * _DAY],
            "label": ["a", "b"],
        }
    )
    features = ["weather:rain", "stats:trips", "pairs:score"]
    found = ask(views, features, spine, full_feature_names=True)
    # As Feast has it: the spine's columns, then the features as they were asked for.
    assert found.column_names == [*spine.columns, "weather__rain", "stats__trips", "pairs__score"]
    assert found.select(["weather__rain", "stats__trips", "pairs__score"]).to_pylist() == [
        {"weather__rain": 2, "stats__trips": 3, "pairs__score": 111},
        {"weather__rain": None, "stats__trips": 3, "pairs__score": None},
    ]
    assert (
        found.column_names
        == ask(views, features, spine, stock=True, full_feature_names=True).column_names
    )


def test_one_view_twice_under_aliases(tables: Database, tmp_path: Path) -> None:
    view = _stats()
    service = FeatureService(
        name="ride",
        features=[
            view[["trips"]].with_name("from_").with_join_key_map({"driver_id": "pickup"}),
            view[["trips"]].with_name("to_").with_join_key_map({"driver_id": "dropoff"}),
        ],
    )
    store = repo(tmp_path, tables.dsn)
    store.apply([_DRIVER, view, service])
    spine = pd.DataFrame({"pickup": [1, 2], "dropoff": [2, 9], "event_timestamp": [_AT] * 2})
    found = store.get_historical_features(spine, service, full_feature_names=True).to_df()
    assert found["from___trips"].tolist() == [3, 4]
    assert found["to___trips"].iloc[0] == 4
    assert pd.isna(found["to___trips"].iloc[1])


def test_names_with_capitals_blanks_and_quotes(ask: Ask) -> None:
    view = _view(
        "Mixed",
        '"Mixed Case"',
        {"first": Float64, "f_0": Float64},
        timestamp_field="When",
        field_mapping={"Driver ID": "driver_id", "F_0": "first"},
    )
    spine = _spine([(1, _AT)]).append_column("Some Label", pa.array(["x"]))
    found = ask([view], ["Mixed:first", "Mixed:f_0"], spine, full_feature_names=True)
    assert found.column_names[2:] == ["Some Label", "Mixed__first", "Mixed__f_0"]
    assert found.to_pylist()[0]["Mixed__first"] == 0
    assert found.to_pylist()[0]["Mixed__f_0"] == 9


def test_a_query_is_a_source(ask: Ask) -> None:
    query = "SELECT driver_id, ts, trips * 10 AS trips FROM stats WHERE trips % 2 = 0 -- '%' stays"
    view = _view("stats", None, {"trips": Int64}, query=f"{query}\n")
    assert ask([view], ["stats:trips"], _spine([(1, _AT)])).column("trips").to_pylist() == [20]


@pytest.mark.parametrize(("column", "found"), [("ts", 1), ("day", 1)])
def test_times_without_a_zone_and_dates_are_utc(ask: Ask, column: str, found: int) -> None:
    view = _view("naive", "naive", {"x": Float64}, timestamp_field=column)
    answer = ask([view], ["naive:x"], _spine([(1, _AT), (1, _AT + 2 * _DAY), (1, _AT - _DAY)]))
    assert answer.column("x").to_pylist() == [found, 2, None]


def test_every_type_comes_as_feast_has_it(ask: Ask) -> None:
    names = list("abcdefghijklmnop")
    view = _view(
        "kinds",
        "kinds",
        {**dict.fromkeys(names, String), "a": Int64, "e": Bool, "f": Array(Float64)},
        [Entity(name="driver_text", join_keys=["driver_id"], value_type=ValueType.STRING)],
    )
    spine = pd.DataFrame({"driver_id": ["a'b\"c\\", "n", "zz"], "event_timestamp": [_AT] * 3})
    found = ask([view], [f"kinds:{name}" for name in names], spine)
    row, *empty = found.select(names).to_pylist()
    assert row == {
        "a": 9007199254740993,
        "b": "ä",
        "c": str(uuid.UUID(int=1)),
        "d": datetime(2024, 3, 1, 10, 0, 0, 1),  # noqa: DTZ001 - as Feast has it
        "e": True,
        "f": [1.5, None],
        "g": '{"a": [1, null]}',
        "h": "[1]",
        "i": 1.25,
        "j": b"\x00\xff",
        "k": ["x", None, ""],
        "l": datetime(2024, 3, 1),  # noqa: DTZ001
        "m": "1 day",
        "n": 7,
        "o": [str(uuid.UUID(int=2))],
        "p": "x  ",
    }
    assert empty == [dict.fromkeys(names)] * 2
    # What Feast's own store can read at all it reads as these types.
    plain = [name for name in names if name not in "cghmo"]
    stock = ask([view], [f"kinds:{name}" for name in plain], spine, stock=True)
    assert stock.select(plain).schema.types == found.select(plain).schema.types
    assert stock.schema.names[:2] == found.schema.names[:2]
    assert stock.schema.types[:2] == found.schema.types[:2]


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow", "sql", "strings", "floats"])
def test_spines_of_every_form(ask: Ask, form: str) -> None:
    frame = pd.DataFrame(
        {
            "driver_id": [2, 1, 2],
            "event_timestamp": [_AT - 3 * _DAY, _AT, _AT],
            "label": [0.5, 1, 2],
        }
    )
    spines = {
        "pandas": frame,
        "polars": pl.from_pandas(frame),
        "arrow": pa.Table.from_pandas(frame, preserve_index=False),
        "sql": "SELECT * FROM (VALUES (2::int8, '2024-03-07'::timestamptz, 0.5), (1, '2024-03-10', 1), "
        "(2, '2024-03-10', 2)) AS asked (driver_id, event_timestamp, label) ORDER BY label;",
        "strings": frame.assign(event_timestamp=frame["event_timestamp"].map(str)),
        "floats": frame.astype({"driver_id": "float64"}),
    }
    found = ask([_stats()], ["stats:trips"], spines[form])
    assert found.column("trips").to_pylist() == [5, 3, 4]
    assert found.column("label").to_pylist() == [0.5, 1, 2]
    moments = [_AT - 3 * _DAY, _AT, _AT]
    assert found.column("event_timestamp").to_pylist() == [
        at.replace(tzinfo=None) for at in moments
    ]


@pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature")
def test_on_demand_features_get_their_inputs(ask: Ask) -> None:
    stats = _stats()
    asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Int64)])

    @on_demand_feature_view(
        sources=[stats, asked], schema=[Field(name="scaled", dtype=Int64)], mode="pandas"
    )
    def scaled_view(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": (inputs["trips"] * inputs["factor"]).astype("Int64")})

    spine = pd.DataFrame({"driver_id": [1, 2], "event_timestamp": [_AT] * 2, "factor": [10, 100]})
    found = ask([stats, scaled_view], ["stats:conv", "scaled_view:scaled"], spine)
    assert found.column("scaled").to_pylist() == [30, 400]


def test_a_range_of_dates_of_one_view(ask: Ask) -> None:
    """Feast gives both rows of 2024-03-05 and, against filter_by_created_timestamp, what came later."""
    days = {
        "start_date": datetime(2024, 3, 1, tzinfo=UTC),
        "end_date": datetime(2024, 3, 9, tzinfo=UTC),
    }
    found = ask([_stats()], ["stats:trips"], None, **days)
    assert found.column_names == ["event_timestamp", "created_timestamp", "driver_id", "trips"]
    assert found.column("trips").to_pylist() == [1, 5, 9, 3, 4]
    known = ask([_stats()], ["stats:trips"], None, filter_by_created_timestamp=True, **days)
    assert known.column("trips").to_pylist() == [1, 9, 2]
    stock = ask(
        [_stats()], ["stats:trips"], None, stock=True, filter_by_created_timestamp=True, **days
    )
    assert sorted(stock.column("trips").to_pylist()) == [1, 2, 3, 4, 5, 9]
    assert stock.schema.equals(found.schema)


def test_a_range_of_dates_of_views_of_different_entities(ask: Ask) -> None:
    views = [_stats(ttl=2 * _DAY), _view("weather", "weather", {"rain": Float64}, ())]
    days = {
        "start_date": datetime(2024, 3, 1, tzinfo=UTC),
        "end_date": datetime(2024, 3, 9, tzinfo=UTC),
    }
    found = ask(views, ["stats:trips", "weather:rain"], None, **days)
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (datetime(2024, 3, day), key, trips, rain)  # noqa: DTZ001
        for day, key, trips, rain in [
            (1, 1, 1, 1), (1, None, None, 1), (2, 2, 5, 1), (2, None, None, 1), (5, 1, 3, 1),
            (9, 2, 4, 2), (9, None, None, 2),
        ]
    ]  # fmt: skip


def test_the_plan_is_logged_and_explained(
    tables: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tables.connect() as opened:
        opened.execute("""
            INSERT INTO stats SELECT n % 100, '2020-01-01'::timestamptz + n * interval '1 minute', now(), n, n
            FROM generate_series(1, 30000) AS n;
            CREATE INDEX ON stats (driver_id, ts DESC);
            CREATE TABLE unindexed AS SELECT * FROM stats;
            ANALYZE;
        """)
    store = repo(tmp_path, tables.dsn)
    other = _view("unindexed", "unindexed", {"trips": Int64}, created_timestamp_column="created")
    store.apply([_DRIVER, _stats(), other])
    job = store.get_historical_features(
        _spine([(number, _AT) for number in range(50)]),
        ["stats:trips", "unindexed:trips"],
        full_feature_names=True,
    )
    text = job.explain()
    assert "50 spine rows, strategy auto" in text
    assert "  stats: lookup of 1 features" in text
    assert "  unindexed: merge of 1 features" in text
    with caplog.at_level(logging.INFO, "hyperfeast.stores"):
        found = job.to_arrow()
    assert text in caplog.text
    assert found.column("stats__trips").equals(found.column("unindexed__trips"))


def test_to_sql_gives_the_same_answer(tables: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, tables.dsn)
    store.apply([_DRIVER, _stats()])
    spine = _spine([(1, _AT), (None, None), (2, _AT)])
    job = store.get_historical_features(spine, ["stats:trips"], filter_by_created_timestamp=True)
    rows = tables.fetch(job.to_sql())  # type: ignore[arg-type]
    assert rows == job.to_arrow().to_pylist()
    whole = store.get_historical_features(
        "SELECT 1::int8 AS driver_id, now() AS event_timestamp FROM generate_series(1, 10001)",
        ["stats:trips"],
    )
    with pytest.raises(UsageError, match=r"10,000 rows at most.*found 10,001"):
        whole.to_sql()


_KINDS = {
    "whole": pa.array([1, None, 3], pa.int64()),
    "small": pa.array([1, None, 3], pa.int32()),
    "real": pa.array([1.5, None, float("nan")]),
    "text": pa.array(["it's", None, "\\x"]),
    "truth": pa.array([True, None, False]),
    "day": pa.array([date(2024, 1, 2), None, date(1, 1, 1)]),
    "raw": pa.array([b"\x00'\xff", None, b""]),
    "exact": pa.array([Decimal("1.50"), None, Decimal("-2.25")]),
    "moment": pa.array([_AT + timedelta(microseconds=6), None, _AT], pa.timestamp("us")),
    "wholes": pa.array([[1, None], None, []], pa.list_(pa.int64())),
    "reals": pa.array([[1.5, None], None, []], pa.list_(pa.float64())),
    "truths": pa.array([[True, None], None, []], pa.list_(pa.bool_())),
    "texts": pa.array([["a,b", None, '"', "{}"], None, []], pa.list_(pa.string())),
    "days": pa.array([[date(2024, 1, 2)], None, []], pa.list_(pa.date32())),
    "raws": pa.array([[b"\x01", None], None, []], pa.list_(pa.binary())),
    "moments": pa.array([[_AT], None, []], pa.list_(pa.timestamp("us"))),
}


def test_to_sql_keeps_the_types_of_the_spine(tables: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, tables.dsn)
    store.apply([_DRIVER, _stats()])
    spine = _spine([(1, _AT), (None, None), (2, _AT)])
    for name, column in _KINDS.items():
        spine = spine.append_column(name, column)
    job = store.get_historical_features(spine, ["stats:trips"])
    with tables.connect() as opened:
        cursor = opened.execute(job.to_sql())  # type: ignore[call-overload]
        types = [column.type_display for column in cursor.description or ()][-1 - len(_KINDS) : -1]
        rows = cursor.fetchall()
    assert types == [
        *("int8", "int4", "float8", "text", "bool", "date", "bytea", "numeric", "timestamp"),
        *("int8[]", "float8[]", "bool[]", "text[]", "date[]", "bytea[]", "timestamp[]"),
    ]
    answer = job.to_arrow().to_pylist()
    for row, right in zip(rows, answer, strict=True):
        assert all(judge.same(row[name], right[name]) for name in right)


@pytest.mark.parametrize("years", [5_000, 6_738, 8_000, 30_000])
def test_a_ttl_may_reach_behind_the_calendar(ask: Ask, years: int) -> None:
    ancient = _spine([(1, datetime(1900, 1, 1, tzinfo=UTC)), (1, _AT), (1, _AT + 30_000 * _DAY)])
    found = ask([_stats(ttl=years * 365 * _DAY)], ["stats:trips"], ancient)
    assert found.column("trips").to_pylist() == [None, 3, 3]


def test_a_ttl_of_thousands_of_years_still_ends(ask: Ask, tables: Database) -> None:
    tables.execute("INSERT INTO stats VALUES (3, '4700-01-01 BC', '2024-03-01', 1, 1)")
    spine = _spine([(3, datetime(1, 1, 1, tzinfo=UTC)), (3, datetime(3000, 1, 1, tzinfo=UTC))])
    assert ask([_stats(ttl=7_000 * 365 * _DAY)], ["stats:trips"], spine).column(
        "trips"
    ).to_pylist() == [1, None]


def test_a_key_that_is_no_uuid_matches_nothing(ask: Ask, tables: Database) -> None:
    tables.execute(
        "CREATE TABLE things (thing uuid, ts timestamptz, x float8);"
        "INSERT INTO things VALUES ('00000000-0000-0000-0000-000000000001', '2024-03-01', 1)"
    )
    thing = Entity(name="thing", join_keys=["thing"], value_type=ValueType.STRING)
    view = _view("things", "things", {"x": Float64}, entities=(thing,))
    ids = ["x" * 36, "00000000-0000-0000-0000-000000000001", "0" * 31 + "1", None]
    spine = pa.table({"thing": ids, "event_timestamp": [_AT] * 4})
    assert ask([thing, view], ["things:x"], spine).column("x").to_pylist() == [None, 1, 1, None]


def test_a_closed_stream_has_given_its_connections_back(tables: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, tables.dsn, offline_options={"strategy": "merge"})
    store.apply([_DRIVER, _stats()])
    reader = store.get_historical_features(
        "SELECT i AS driver_id, now() AS event_timestamp FROM generate_series(1, 100000) i",
        ["stats:trips"],
    ).to_arrow_reader()
    assert reader.read_next_batch().num_rows == 65_536
    reader.close()
    others = _work_of_others(tables)
    deadline = time.monotonic() + 2
    while others and time.monotonic() < deadline:
        time.sleep(0.02)
        others = _work_of_others(tables)
    assert others == []


def _work_of_others(database: Database) -> list[Any]:
    """What the other connections do; a backend takes a moment to end."""
    return database.fetch(
        "SELECT query FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
    )


def test_the_job_knows_its_spine(tables: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, tables.dsn)
    store.apply([_DRIVER, _stats()])
    query = "SELECT driver_id, ts AS event_timestamp, conv AS label FROM stats"
    job = store.get_historical_features(query, ["stats:trips"])
    found = job.metadata
    assert (found.features, found.keys) == (["stats:trips"], ["driver_id", "label"])
    assert found.min_event_timestamp == datetime(2024, 3, 1, tzinfo=UTC)
    assert found.max_event_timestamp == datetime(2024, 3, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("view", "spine", "message"),
    [
        (
            _view("stats", "nowhere", _STATS),
            _spine([]),
            r"'stats'.*\"nowhere\" does not exist.*correct",
        ),
        (
            _view("stats", "stats", {"convs": Float64}),
            _spine([]),
            r"'stats'.*no column 'convs' \(feature convs\): did you mean 'conv'\?.*field_mapping",
        ),
        (
            _view("stats", "stats", _STATS, timestamp_field="conv"),
            _spine([]),
            r"'stats'.*a time in its column 'conv' \(timestamp_field\), found float8: make it timestamptz",
        ),
        (
            _stats(),
            pd.DataFrame({"driver": [1], "event_timestamp": [_AT]}),
            r"'stats': the spine .* has no column 'driver_id'.*it has driver, event_timestamp: add",
        ),
        (
            _stats(),
            pd.DataFrame({"driver_id": ["1"], "event_timestamp": [_AT]}),
            r"'stats': its join key 'driver_id' is int8.*'driver_id' is string: convert",
        ),
        (
            _stats(),
            pd.DataFrame({"driver_id": [1], "trips": [1], "event_timestamp": [_AT]}),
            r"'stats'.*both called 'trips': ask with full_feature_names=True",
        ),
        (
            _stats(),
            "SELECT nothing",
            r"the spine \(entity_df\): PostgreSQL refused its query .*correct",
        ),
    ],
)
def test_errors_name_the_view_the_column_and_the_remedy(
    tables: Database, tmp_path: Path, view: FeatureView, spine: Any, message: str
) -> None:
    store = repo(tmp_path, tables.dsn)
    store.apply([_DRIVER, view])
    feature = "convs" if "convs" in message else "trips"
    job = store.get_historical_features(spine, [f"stats:{feature}"])
    for read in (job.to_arrow, lambda: job.to_arrow_reader().read_all()):
        with pytest.raises(FeatureError, match=message):
            read()


def test_what_fails_on_the_way_names_the_view(ask: Ask) -> None:
    view = _view(
        "stats",
        None,
        {"trips": Int64},
        query="SELECT driver_id, ts, 1 / (trips - 3) AS trips FROM stats",
    )
    with pytest.raises(
        QueryFailed, match=r"feature view 'stats' cannot be read: .*division by zero"
    ):
        ask([view], ["stats:trips"], _spine([(1, _AT)]))


def test_a_timeout_is_the_servers(tables: Database, tmp_path: Path) -> None:
    store = repo(tmp_path, tables.dsn)
    view = _view(
        "slow", None, {"trips": Int64}, query="SELECT driver_id, ts, trips, pg_sleep(2) FROM stats"
    )
    store.apply([_DRIVER, view])
    slow = store.get_historical_features(
        "SELECT 1::int8 AS driver_id, now() AS event_timestamp, pg_sleep(3)::text AS s",
        ["slow:trips"],
    )
    with pytest.raises(QueryFailed, match=r"the spine .* statement timeout"):
        slow.to_arrow(timeout=1)
