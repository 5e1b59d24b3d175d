"""What a request is made of: spines of every form, and views out of Feast's definitions."""

from datetime import UTC, date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from hyperfeast.errors import DataError, FeatureError, UsageError
from hyperfeast.stores.as_known_at import as_known_at, asked_moment
from hyperfeast.stores.offline.historical import historical_features
from hyperfeast.stores.offline.request import wanted
from hyperfeast.stores.offline.spine import instant, of_frame

_AT = datetime(2024, 3, 31, 1, 30, 0, 123_456, tzinfo=UTC)
_US = int((_AT - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
_DRIVER = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


@pytest.mark.parametrize(
    "times",
    [
        [_AT],
        [_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))],
        [_AT.replace(tzinfo=None)],
        ["2024-03-31T01:30:00.123456Z"],
        ["2024-03-31 03:30:00.123456+02:00"],
        ["2024-03-31 01:30:00.123456"],
        [pd.Timestamp(_AT) + pd.Timedelta(999, "ns")],
    ],
)
def test_moments_are_utc_in_microseconds_however_they_are_written(times: list[object]) -> None:
    spine = of_frame(pd.DataFrame({"event_timestamp": times}))
    assert spine.moments.tolist() == [_US]
    assert spine.table.column("event_timestamp").to_pylist() == [_AT.replace(tzinfo=None)]
    assert instant(_US) == _AT


def test_times_of_different_zones_and_of_none_can_be_mixed() -> None:
    zoned = _AT.astimezone(timezone(timedelta(hours=-7)))
    frame = pd.DataFrame(
        {"event_timestamp": pd.Series([_AT, zoned, _AT.replace(tzinfo=None), None], dtype=object)}
    )
    spine = of_frame(frame)
    assert spine.moments[:3].tolist() == [_US] * 3
    assert spine.timeless is not None
    assert spine.timeless.tolist() == [False, False, False, True]
    assert spine.bounds() == (_US, _US)


def test_moments_before_1970_are_cut_off_downward() -> None:
    times = pa.array([-1, -1_000, 1_999], pa.timestamp("ns", "UTC"))
    spine = of_frame(pa.table({"event_timestamp": times}))
    assert spine.moments.tolist() == [-1, -1, 1]


@pytest.mark.parametrize("form", ["pandas", "polars", "lazy", "arrow", "batch", "reader"])
def test_every_form_is_the_same_spine(form: str) -> None:
    table = pa.table({"driver_id": [2, 1], "label": ["a", None], "event_timestamp": [_AT, _AT]})
    batch = table.to_batches()[0]
    frames = {
        "pandas": table.to_pandas,
        "polars": lambda: pl.from_arrow(table),
        "lazy": lambda: pl.from_arrow(table).lazy(),  # type: ignore[union-attr]
        "arrow": lambda: table,
        "batch": lambda: batch,
        "reader": lambda: pa.RecordBatchReader.from_batches(table.schema, [batch]),
    }
    spine = of_frame(frames[form]())
    assert spine.table.column_names == ["driver_id", "label", "event_timestamp"]
    assert spine.table.schema.types == [pa.int64(), pa.string(), pa.timestamp("us")]
    assert spine.table.column("driver_id").to_pylist() == [2, 1]
    assert spine.table.column("label").to_pylist() == ["a", None]


def test_columns_come_as_postgresql_would_give_them_back() -> None:
    frame = pd.DataFrame(
        {
            "small": pd.Series([1], dtype="int8"),
            "unsigned": pd.Series([2], dtype="uint32"),
            "real": pd.Series([0.5], dtype="float32"),
            "missing": [float("nan")],
            "kind": pd.Categorical(["x"]),
            "id": [UUID(int=1)],
            "event_timestamp": [date(2024, 1, 1)],
        }
    )
    table = of_frame(frame).table
    assert table.schema.types == [
        pa.int32(),
        pa.int64(),
        pa.float64(),
        pa.float64(),
        pa.string(),
        pa.string(),
        pa.timestamp("us"),
    ]
    row = table.to_pylist()[0]
    assert row["missing"] is None
    assert row["id"] == str(UUID(int=1))
    assert row["event_timestamp"] == datetime(2024, 1, 1)  # noqa: DTZ001 - as Feast gives it


def test_the_only_column_of_times_is_taken() -> None:
    assert of_frame(pl.DataFrame({"when": [_AT], "x": [1]})).timestamp == "when"
    with pytest.raises(FeatureError, match="found 2 columns of times: when, then: rename"):
        of_frame(pl.DataFrame({"when": [_AT], "then": [_AT]}))
    with pytest.raises(FeatureError, match="found no column of times"):
        of_frame(pl.DataFrame({"x": [1]}))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"event_timestamp": [_AT]}, "expected a pandas or Polars frame.* found dict"),
        (pd.DataFrame({"event_timestamp": ["soon"]}), "'event_timestamp' cannot be read as times"),
        (pd.DataFrame({"event_timestamp": [1.5]}), "expected times in its column .* found double"),
        (pd.DataFrame({"x": [1, "a"], "event_timestamp": [_AT] * 2}), "'x' cannot be read"),
        (
            pa.table({"x": pa.array([2**63], pa.uint64()), "event_timestamp": [_AT]}),
            "'x' holds what no bigint can",
        ),
        (
            pa.table([[1], [2], [_AT]], names=["x", "x", "event_timestamp"]),
            "two columns 'x': rename",
        ),
    ],
)
def test_what_is_no_spine_is_named(frame: object, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        of_frame(frame)


@pytest.mark.parametrize("text", ["02.05.2024", "05/02/2024", "2024/05/02", "May 2", "now", ""])
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame, pa.table, "categories"])
def test_texts_that_are_no_iso_8601_are_refused(frame: Any, text: str) -> None:
    columns = {"event_timestamp": ["2024-05-01T00:00:00Z", text]}
    made = pd.DataFrame(columns, dtype="category") if frame == "categories" else frame(columns)
    with pytest.raises(FeatureError, match=rf"'event_timestamp' .*{text!r}.*2024-01-31T12:00:00Z"):
        of_frame(made)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-02", "2024-05-02T00:00"),
        ("20240502T1230Z", "2024-05-02T12:30"),
        ("2024-05-02 12:30:00.5+02:00", "2024-05-02T10:30:00.5"),
        ("2024-05-02 12:30:00 +0200", "2024-05-02T10:30"),
        ("2024-05-02T12:30:00-03", "2024-05-02T15:30"),
    ],
)
def test_iso_8601_is_read(text: str, moment: str) -> None:
    spine = of_frame(pl.DataFrame({"event_timestamp": [text, None]}))
    assert spine.moments[0] == np.datetime64(moment, "us").astype("int64")
    assert spine.timeless is not None
    assert spine.timeless.tolist() == [False, True]


def test_a_moment_beyond_the_calendar_of_nanoseconds_is_named() -> None:
    with pytest.raises(FeatureError, match=r"'event_timestamp' .*1500-01-01.*: write them as"):
        of_frame(pd.DataFrame({"event_timestamp": ["1500-01-01"]}))


def test_a_key_beyond_64_bits_is_named() -> None:
    with pytest.raises(DataError, match="'user_id' holds what no bigint can"):
        of_frame(pd.DataFrame({"user_id": [2**70], "event_timestamp": [_AT]}))


def test_a_negative_age_is_refused() -> None:
    view = FeatureView(
        name="heart",
        source=PostgreSQLSource(table="h", timestamp_field="at"),
        ttl=timedelta(days=-1),
    )
    with pytest.raises(FeatureError, match="'heart': expected a ttl that is not negative"):
        _historical([view], None)


@pytest.mark.parametrize("name", ["start_date", "end_date"])
def test_a_range_of_texts_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"moment in {name}, found '2024-05-01'"):
        _historical([], None, **{name: "2024-05-01"})


def _historical(views: list[FeatureView], spine: Any, **dates: Any) -> None:
    config: Any = SimpleNamespace(offline_store=SimpleNamespace(as_known_at=None))
    dates = {"start_date": None, "end_date": None} | dates
    historical_features(
        config, views, [], spine, None, "p",
        full_feature_names=False, filter_by_created_timestamp=False, **dates,
    )  # fmt: skip


def test_an_empty_spine_has_its_columns() -> None:
    spine = of_frame(
        pd.DataFrame(
            {
                "driver_id": pd.Series([], dtype="int64"),
                "event_timestamp": pd.Series([], dtype="datetime64[ns, UTC]"),
            }
        )
    )
    assert spine.rows == 0
    assert spine.bounds() is None
    assert spine.table.schema.names == ["driver_id", "event_timestamp"]


def _view(**options: object) -> FeatureView:
    source = PostgreSQLSource(
        name="stats",
        table="stats",
        timestamp_field="event",
        created_timestamp_column="created",
        field_mapping={"ts": "event", "rec": "created", "drv": "driver_id", "c": "conv"},
    )
    defaults = {
        "name": "stats",
        "entities": [_DRIVER],
        "ttl": timedelta(seconds=1.5),
        "schema": [Field(name="conv", dtype=Float64), Field(name="acc", dtype=Float64)],
        "source": source,
    }
    return FeatureView(**{**defaults, **options})


def test_mappings_aliases_and_projections_are_resolved() -> None:
    view = _view()
    view.entity_columns = [Field(name="driver_id", dtype=String)]
    used = view.with_name("pickup").with_join_key_map({"driver_id": "pickup_id"})
    (found,) = wanted([used], ["pickup:conv", "pickup:acc"], full_feature_names=True)
    assert found.name == "pickup"
    assert found.keys == {"pickup_id": "drv"}
    assert (found.timestamp, found.created) == ("ts", "rec")
    assert found.features == [("c", "pickup__conv"), ("acc", "pickup__acc")]
    # Feast's own store cuts it to whole seconds, and 0.5 s to none at all.
    assert found.ttl_us == 1_500_000


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta.max])
def test_an_age_that_excludes_nothing_is_none(ttl: timedelta) -> None:
    (found,) = wanted([_view(ttl=ttl)], ["stats:conv"], full_feature_names=False)
    assert found.ttl_us is None


def test_two_features_of_one_name_are_refused() -> None:
    views = [_view(), _view(name="other")]
    with pytest.raises(FeatureError, match=r"'other'.*'stats'.*'conv'.*full_feature_names=True"):
        wanted(views, ["stats:conv", "other:conv"], full_feature_names=False)
    assert len(wanted(views, ["stats:conv", "other:conv"], full_feature_names=True)) == 2


def test_a_view_that_is_not_on_postgresql_is_named() -> None:
    view = _view(source=FileSource(path="x.parquet", timestamp_field="ts"))
    with pytest.raises(
        FeatureError, match="'stats': expected a PostgreSQLSource, found FileSource"
    ):
        wanted([view], ["stats:conv"], full_feature_names=False)


def test_a_view_without_an_event_time_is_named() -> None:
    view = _view(source=PostgreSQLSource(name="stats", table="stats"))
    with pytest.raises(FeatureError, match="'stats': its source 'stats' names no event time"):
        wanted([view], ["stats:conv"], full_feature_names=False)


def test_the_context_goes_before_the_configuration() -> None:
    configured, inside = _AT, _AT - timedelta(days=1)
    assert asked_moment(None) is None
    assert asked_moment(configured) == configured
    with as_known_at(inside):
        assert asked_moment(configured) == inside
        with as_known_at(configured.astimezone(timezone(timedelta(hours=9)))):
            assert asked_moment(None) == configured
        assert asked_moment(None) == inside
    assert asked_moment(None) is None


def test_a_moment_without_a_zone_is_refused() -> None:
    with (
        pytest.raises(UsageError, match="expected a moment with a time zone"),
        as_known_at(_AT.replace(tzinfo=None)),
    ):
        pass


def test_a_text_is_no_moment() -> None:
    text: Any = "2024-05-03"
    with pytest.raises(UsageError, match="with a time zone, found '2024-05-03'"), as_known_at(text):
        pass
