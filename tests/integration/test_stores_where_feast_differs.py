"""Where Feast's own stores give a wrong answer or none: theirs, ours, and why ours is the right one.

`docs/feast.md` lists these for users. Each test first holds Feast to its answer: if a later Feast gives
another one, the test fails, and the page has to change.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, ValueType
from feast.errors import EntityTimestampInferenceException
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import FeastType, Float64, Int64, Map, Uuid

from feast_repos import repo
from hyperfeast.db import Database

_DAY = timedelta(days=1)
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_BOTH = pytest.mark.parametrize("strategy", ["lookup", "merge"])


def at(days: float) -> datetime:
    """So many days after the first."""
    return _FIRST + days * _DAY


class Repo:
    """One view over one table, for both stores."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        columns: str,
        rows: Sequence[Sequence[Any]],
        *,
        keys: Sequence[str] = ("k",),
        feature: tuple[str, FeastType] = ("f", Float64),
        created: str = "",
        ttl: timedelta = timedelta(0),
        redis_url: str | None = None,
    ) -> None:
        self._folder, self.dsn, self._redis_url = folder, database.dsn, redis_url
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"CREATE TABLE source ({columns})".encode())
        self.insert(rows)
        entities = [Entity(name=key, join_keys=[key], value_type=ValueType.INT64) for key in keys]
        view = FeatureView(
            name="view",
            entities=entities,
            ttl=ttl,
            schema=[
                *(Field(name=key, dtype=Int64) for key in keys),
                Field(name=feature[0], dtype=feature[1]),
            ],
            source=PostgreSQLSource(
                name="source",
                table="source",
                timestamp_field="ts",
                created_timestamp_column=created,
            ),
        )
        self.store("stock").apply([*entities, view])

    def insert(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows to the view's table."""
        with psycopg.connect(self.dsn) as connection, connection.cursor() as cursor:
            for row in rows:
                marks = ", ".join(["%s"] * len(row))
                cursor.execute(f"INSERT INTO source VALUES ({marks})".encode(), row)

    def store(self, whose: Any, **options: Any) -> FeatureStore:
        """Feast over stores that are all Feast's own, or all ours."""
        return repo(
            self._folder,
            self.dsn,
            self._redis_url,
            offline=whose,
            online=whose,
            engine=whose if self._redis_url else "stock",
            offline_options=options,
        )

    def table(self, whose: Any, spine: Any, *, options: Any = (), **asked: Any) -> pa.Table:
        """The training set of a spine."""
        job = self.store(whose, **dict(options)).get_historical_features(
            entity_df=spine, features=["view:f"], **asked
        )
        return job.to_arrow()

    def stock(self, spine: Any, **asked: Any) -> list[dict[str, Any]]:
        """What Feast's own store answers, in the spine's order."""
        found = self.table("stock", spine, **asked)
        return list(
            found.sort_by([(name, "ascending") for name in found.column_names[:-1]]).to_pylist()
        )

    def ours(self, spine: Any, strategy: str, **asked: Any) -> list[dict[str, Any]]:
        """What ours answers."""
        found = self.table("ours", spine, options={"strategy": strategy}, **asked)
        return list(found.to_pylist())


def spine(*rows: tuple[Any, ...], keys: Sequence[str] = ("k",)) -> pd.DataFrame:
    """A spine of keys and moments."""
    return pd.DataFrame(rows, columns=[*keys, "event_timestamp"])


def features(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """The feature of every row."""
    return [row["f"] for row in rows]


@_BOTH
def test_two_composite_keys_of_one_text_are_two_entities(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast joins the keys' texts: (1, 11) and (11, 1) are both 111, and get each other's rows as well."""
    made = Repo(
        tmp_path,
        empty_database,
        "a bigint, b bigint, ts timestamptz, f double precision",
        [(1, 11, at(0), 1.0), (11, 1, at(0), 2.0)],
        keys=("a", "b"),
    )
    asked = spine((1, 11, at(1)), (11, 1, at(1)), keys=("a", "b"))
    feasts = [(row["a"], row["b"], row["f"]) for row in made.stock(asked)]
    assert len(feasts) == 4
    assert {(1, 11, 2.0), (11, 1, 1.0)} <= set(feasts)
    assert features(made.ours(asked, strategy)) == [1.0, 2.0]


@_BOTH
def test_a_spine_row_stays_one_row_where_feature_rows_tie(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast joins by the newest time, and so gives one row for each that has it: a training set with doubles."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, f double precision",
        [(1, at(0), 1.0), (1, at(0), 2.0)],
    )
    asked = spine((1, at(1)), (2, at(1)))
    assert sorted(features(made.stock(asked))[:2]) == [1.0, 2.0]
    assert len(made.stock(asked)) == 3
    ours = features(made.ours(asked, strategy))
    assert ours[0] in (1.0, 2.0)
    assert ours[1:] == [None]
    assert all(features(made.ours(asked, strategy)) == ours for _ in range(3))


@_BOTH
def test_a_row_without_created_time_still_counts(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast joins the created time with `=`, which a NULL never meets: an older row, or none, is taken."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, created timestamptz, f double precision",
        [(1, at(0), at(0), 1.0), (1, at(1), None, 2.0), (2, at(1), None, 3.0)],
        created="created",
    )
    asked = spine((1, at(2)), (2, at(2)))
    assert features(made.stock(asked)) == [1.0, None]
    assert features(made.ours(asked, strategy)) == [2.0, 3.0]


@_BOTH
def test_a_ttl_below_a_second_is_kept(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast cuts a TTL to whole seconds, and takes none left for no TTL at all."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, f double precision",
        [(1, at(0), 1.0)],
        ttl=timedelta(milliseconds=500),
    )
    asked = spine((1, at(1)))
    assert features(made.stock(asked)) == [1.0]
    assert features(made.ours(asked, strategy)) == [None]


@_BOTH
def test_moments_may_be_texts(tmp_path: Path, empty_database: Database, strategy: str) -> None:
    """Feast reads them for the range of the spine, and then compares a time with a text."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, f double precision",
        [(1, at(0), 1.0)],
    )
    asked = spine((1, "2024-01-01T00:00:00"), (1, "2023-12-31T23:59:59"))
    with pytest.raises(psycopg.errors.UndefinedFunction):
        made.stock(asked)
    assert features(made.ours(asked, strategy)) == [1.0, None]
    mixed = spine(
        (1, "2024-01-01"), (1, "2023-12-31 23:00:00-01:00"), (1, "2024-01-01T00:30+01:00")
    )
    assert features(made.ours(mixed, strategy)) == [1.0, 1.0, None]


@_BOTH
def test_a_key_that_is_always_missing_matches_nothing(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast stages the spine in a table, with a column of the type `null`."""
    made = Repo(
        tmp_path, empty_database, "k bigint, ts timestamptz, f double precision", [(1, at(0), 1.0)]
    )
    asked = spine((None, at(1)))
    with pytest.raises(psycopg.errors.SyntaxError):
        made.stock(asked)
    assert features(made.ours(asked, strategy)) == [None]


@_BOTH
def test_the_moments_column_may_have_any_name(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast quotes every name but this one."""
    made = Repo(
        tmp_path, empty_database, "k bigint, ts timestamptz, f double precision", [(1, at(0), 1.0)]
    )
    asked = spine((1, at(1))).rename(columns={"event_timestamp": "Known at"})
    with pytest.raises(psycopg.errors.SyntaxError):
        made.stock(asked)
    assert features(made.ours(asked, strategy)) == [1.0]
    with pytest.raises(EntityTimestampInferenceException):
        made.stock(asked.drop(columns="Known at"))


@_BOTH
def test_jsonb_can_be_read(tmp_path: Path, empty_database: Database, strategy: str) -> None:
    """Feast's type for jsonb is a map of texts, to which it cannot cast what psycopg has read."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, f jsonb",
        [(1, at(0), '{"a": [1, null]}')],
        feature=("f", Map),
    )
    asked = spine((1, at(1)), (2, at(1)))
    with pytest.raises(pa.ArrowNotImplementedError):
        made.stock(asked)
    assert features(made.ours(asked, strategy)) == ['{"a": [1, null]}', None]


@_BOTH
def test_a_uuid_is_its_text(tmp_path: Path, empty_database: Database, strategy: str) -> None:
    """Feast gives the 16 bytes, and calls them a string."""
    number = "31313131-3131-3131-3131-313131313131"
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, f uuid",
        [(1, at(0), number)],
        feature=("f", Uuid),
    )
    asked = spine((1, at(1)))
    assert features(made.stock(asked)) == ["1" * 16]
    assert features(made.ours(asked, strategy)) == [number]


_CORRECTED = [(1, at(1), at(1), 1.0), (1, at(1), at(3), 2.0), (1, at(2), at(2.5), 3.0)]


@_BOTH
def test_a_range_of_dates_has_each_event_once(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast gives the row that was corrected, and its correction: the same moment with two truths."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, created timestamptz, f double precision",
        _CORRECTED,
        created="created",
    )
    asked: dict[str, Any] = {"start_date": at(0), "end_date": at(9)}
    assert features(made.stock(None, **asked)) == [1.0, 2.0, 3.0]
    ours = sorted(made.ours(None, strategy, **asked), key=lambda row: row["event_timestamp"])
    assert features(ours) == [2.0, 3.0]


@_BOTH
def test_a_range_of_dates_has_a_row_that_came_twice_once(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Without a created time, too: Feast gives both."""
    twice = [(1, at(1), 1.0), (1, at(1), 1.0), (1, at(2), 2.0)]
    made = Repo(tmp_path, empty_database, "k bigint, ts timestamptz, f double precision", twice)
    asked: dict[str, Any] = {"start_date": at(0), "end_date": at(9)}
    assert features(made.stock(None, **asked)) == [1.0, 1.0, 2.0]
    assert features(made.ours(None, strategy, **asked)) == [1.0, 2.0]


@_BOTH
def test_a_range_of_dates_knows_when_a_row_was_created(
    tmp_path: Path, empty_database: Database, strategy: str
) -> None:
    """Feast ignores `filter_by_created_timestamp` there: what nobody knew at its own moment leaks."""
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, created timestamptz, f double precision",
        _CORRECTED,
        created="created",
    )
    asked: dict[str, Any] = {
        "start_date": at(0), "end_date": at(9), "filter_by_created_timestamp": True,
    }  # fmt: skip
    assert features(made.stock(None, **asked)) == [1.0, 2.0, 3.0]
    assert 2.0 not in features(made.ours(None, strategy, **asked))
    assert 1.0 in features(made.ours(None, strategy, **asked))


def test_a_view_without_entity_can_be_read_for_materialization(
    tmp_path: Path, empty_database: Database
) -> None:
    """Feast's `pull_all` has no key to write such a row under."""
    made = Repo(
        tmp_path, empty_database, "ts timestamptz, f double precision", [(at(0), 1.0)], keys=()
    )

    def pulled(whose: Any) -> list[str]:
        store = made.store(whose)
        view = store.get_feature_view("view")
        assert view.batch_source is not None
        job = store._get_provider().offline_store.pull_all_from_table_or_query(
            config=store.config,
            data_source=view.batch_source,
            join_key_columns=[],
            feature_name_columns=["f"],
            timestamp_field="ts",
            start_date=at(0),
            end_date=at(1),
        )
        return list(job.to_arrow().column_names)

    assert "__dummy_id" not in pulled("stock")
    assert "__dummy_id" in pulled("ours")


def _served(store: FeatureStore) -> float | None:
    found = store.get_online_features(["view:f"], [{"k": 1}]).to_dict()["f"]
    return found[0]


@pytest.mark.parametrize(("whose", "served"), [("stock", 2.0), ("ours", 3.0)])
def test_a_row_that_arrives_behind_the_watermark_is_served(
    tmp_path: Path, empty_database: Database, redis_url: str, whose: str, served: float
) -> None:
    """Feast reads the event times after the last run alone: who comes late is never looked at."""
    now = datetime.now(UTC)
    early, late, watermark = now - 3 * _DAY, now - 2 * _DAY, now - _DAY
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, created timestamptz, f double precision",
        [(1, early, early, 2.0)],
        created="created",
        ttl=30 * _DAY,
        redis_url=redis_url,
    )
    store = made.store(whose)
    store.materialize_incremental(watermark)
    assert _served(store) == 2.0
    made.insert([(1, late, now - _DAY / 2, 3.0)])
    store.materialize_incremental(now)
    assert _served(store) == served


@pytest.mark.parametrize(("whose", "served"), [("stock", 1.0), ("ours", 2.0)])
def test_a_correction_of_the_served_row_is_served(
    tmp_path: Path, empty_database: Database, redis_url: str, whose: str, served: float
) -> None:
    """Feast's Redis store skips a row whose event time is stored already."""
    now = datetime.now(UTC)
    made = Repo(
        tmp_path,
        empty_database,
        "k bigint, ts timestamptz, created timestamptz, f double precision",
        [(1, now - 2 * _DAY, now - 2 * _DAY, 1.0)],
        created="created",
        ttl=30 * _DAY,
        redis_url=redis_url,
    )
    store = made.store(whose)
    store.materialize(now - 3 * _DAY, now - _DAY)
    assert _served(store) == 1.0
    made.insert([(1, now - 2 * _DAY, now - _DAY, 2.0)])
    store.materialize(now - 3 * _DAY, now)
    assert _served(store) == served


def test_a_view_without_entity_is_served(
    tmp_path: Path, empty_database: Database, redis_url: str
) -> None:
    """Feast's materialization finds no key; ours writes the one that Feast's own reads ask for."""
    now = datetime.now(UTC)
    made = Repo(
        tmp_path,
        empty_database,
        "ts timestamptz, f double precision",
        [(now - _DAY, 1.0)],
        keys=(),
        ttl=30 * _DAY,
        redis_url=redis_url,
    )
    with pytest.raises(ValueError, match="__dummy_id"):
        made.store("stock").materialize(now - 2 * _DAY, now)
    made.store("ours").materialize(now - 2 * _DAY, now)
    for whose in ("stock", "ours"):
        assert _served(made.store(whose)) == 1.0
