"""Random training sets: Feast's own store, ours, and a judge that knows neither, must come to the same."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg import conninfo, sql

from feast_cases import MOMENTS, Case, cases
from feast_repos import Whose, repo
from hyperfeast.db import Database
from hyperfeast.servers import Endpoints
from hyperfeast.stores import as_known_at

_STRATEGIES = ("lookup", "merge")
_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
# To shrink a case costs hundreds of round trips to the database: it is printed as it was found.
_PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
_few = settings(max_examples=25, derandomize=True, phases=_PHASES, suppress_health_check=_QUIET)
_asked = os.environ.get("HYPERFEAST_CASES")


def _many(cases: int) -> settings:
    """The same cases each time, unless somebody asks for a number of other ones."""
    return settings(_few, max_examples=int(_asked or cases), derandomize=_asked is None)


# Feast reads the columns of a SQL spine by pandas, which would rather have SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy:UserWarning")
_numbers = count()


@dataclass
class World:
    """One database for all cases, and where their registries lie."""

    dsn: str = field(repr=False)
    folder: Path
    connection: psycopg.Connection[Any] = field(repr=False)

    @contextmanager
    def holding(self, case: Case) -> Iterator["Asking"]:
        """The case's tables and registry, for as long as it is asked about."""
        spine_table = "spine rows"
        folder = self.folder / str(next(_numbers))
        folder.mkdir()
        case.create(self.connection, spine_table)
        try:
            repo(folder, self.dsn, offline="stock").apply(case.objects())
            yield Asking(self, case, folder, spine_table)
        finally:
            case.drop(self.connection, spine_table)


@dataclass
class Asking:
    """A case that can be asked."""

    world: World
    case: Case
    folder: Path
    spine_table: str

    def of(self, whose: Whose, **options: Any) -> pa.Table:
        """The training set of a store with these options."""
        return self._asked(whose, options, entity_df=self.case.asked_with(self.spine_table))

    def of_range(self, whose: Whose, start: datetime, end: datetime, **options: Any) -> pa.Table:
        """The features of a range of dates."""
        return self._asked(whose, options, start_date=start, end_date=end)

    def latest(self, whose: Whose, start: datetime, end: datetime, **options: Any) -> pa.Table:
        """What a materialization of the only view reads, by the table's own names."""
        store = repo(self.folder, self.world.dsn, offline=whose, offline_options=options)
        (view,) = self.case.views
        source = store.get_feature_view(view.name).batch_source
        assert source is not None
        job = store._get_provider().offline_store.pull_latest_from_table_or_query(
            config=store.config,
            data_source=source,
            join_key_columns=list(view.key_columns.values()),
            feature_name_columns=list(view.feature_columns.values()),
            timestamp_field=view.timestamp,
            created_timestamp_column=view.created,
            start_date=start,
            end_date=end,
        )
        return job.to_arrow()

    def _asked(self, whose: Whose, options: Mapping[str, Any], **asked: Any) -> pa.Table:
        store = repo(self.folder, self.world.dsn, offline=whose, offline_options=options)
        job = store.get_historical_features(
            **asked,
            features=store.get_feature_service("all"),
            full_feature_names=self.case.full_names,
            filter_by_created_timestamp=self.case.filter_by_created,
        )
        return job.to_arrow()


@pytest.fixture(scope="module")
def world(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A database of this module's own."""
    admin, name = Database(endpoints.postgres_dsn), f"equality_{next(_numbers)}"
    identifier = sql.Identifier(name)
    with admin.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
    dsn = conninfo.make_conninfo(endpoints.postgres_dsn, dbname=name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = error")
        yield World(dsn, tmp_path_factory.mktemp("repos"), connection)
    with admin.connect(autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def _in_order(table: pa.Table) -> pa.Table:
    """Feast leaves the order open."""
    return table.sort_by("number")


def _feast_is_right(world: World, case: Case) -> None:
    with world.holding(case) as asking:
        found = _in_order(asking.of("stock"))
        assert case.wrong(found) == []


def _ours_is_as_feasts(world: World, case: Case, strategy: str) -> None:
    with world.holding(case) as asking:
        feasts, ours = asking.of("stock"), asking.of("ours", strategy=strategy)
        assert case.wrong(ours) == []
        assert {field.name: field.type for field in ours.schema} == {
            field.name: field.type for field in feasts.schema
        }
        assert repr(_in_order(ours).to_pylist()) == repr(_in_order(feasts).to_pylist())


def _ours_is_right(world: World, case: Case) -> None:
    with world.holding(case) as asking:
        for strategy in _STRATEGIES:
            assert case.wrong(asking.of("ours", strategy=strategy)) == [], strategy


def _ours_knows_what_was_known(world: World, case: Case, moment: datetime) -> None:
    asked = replace(case, known_at=moment)
    with world.holding(asked) as asking:
        for strategy in _STRATEGIES:
            with as_known_at(moment):
                assert asked.wrong(asking.of("ours", strategy=strategy)) == [], strategy
        assert asked.wrong(asking.of("ours", as_known_at=moment.isoformat())) == []


def _ours_has_the_range(world: World, case: Case, start: datetime, end: datetime) -> None:
    with world.holding(case) as asking:
        assert case.wrong_of_range(asking.of_range("ours", start, end), start, end) == []


def _ours_has_the_latest(
    world: World, case: Case, start: datetime, end: datetime, overlap: timedelta
) -> None:
    seconds = int(overlap.total_seconds())
    with world.holding(case) as asking:
        found = asking.latest("ours", start, end, late_overlap_seconds=seconds)
        assert case.wrong_of_latest(found, start, end, start - overlap) == []


@_few
@given(case=cases(stock=True))
def test_feasts_store_and_the_judge_agree(world: World, case: Case) -> None:
    _feast_is_right(world, case)


@_few
@given(case=cases(stock=True), strategy=st.sampled_from(_STRATEGIES))
def test_ours_equals_feasts(world: World, case: Case, strategy: str) -> None:
    _ours_is_as_feasts(world, case, strategy)


@settings(_few, max_examples=40)
@given(case=cases(stock=False))
def test_ours_is_right_where_feasts_is_not(world: World, case: Case) -> None:
    _ours_is_right(world, case)


@settings(_few, max_examples=15)
@given(case=cases(stock=False, always_created=True), moment=MOMENTS)
def test_ours_knows_what_was_known(world: World, case: Case, moment: datetime) -> None:
    _ours_knows_what_was_known(world, case, moment)


@_few
@given(case=cases(stock=False, most_views=1), range_=st.tuples(MOMENTS, MOMENTS).map(sorted))
def test_ours_has_a_range_of_dates(world: World, case: Case, range_: list[datetime]) -> None:
    _ours_has_the_range(world, case, *range_)


_OVERLAPS = st.sampled_from([timedelta(0), timedelta(minutes=5), timedelta(hours=1)])


@_few
@given(
    case=cases(stock=False, most_views=1),
    range_=st.tuples(MOMENTS, MOMENTS).map(sorted),
    overlap=_OVERLAPS,
)
def test_ours_has_the_newest_rows(
    world: World, case: Case, range_: list[datetime], overlap: timedelta
) -> None:
    _ours_has_the_latest(world, case, range_[0], range_[1], overlap)


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestManyMore:
    """The same: some 2,000 cases, or of each kind HYPERFEAST_CASES other ones each time.

    Hypothesis prints how to see a failing one again.
    """

    @_many(250)
    @given(case=cases(stock=True), strategy=st.sampled_from(_STRATEGIES))
    def test_ours_equals_feasts(self, world: World, case: Case, strategy: str) -> None:
        _ours_is_as_feasts(world, case, strategy)

    @_many(300)
    @given(case=cases(stock=False))
    def test_ours_is_right_where_feasts_is_not(self, world: World, case: Case) -> None:
        _ours_is_right(world, case)

    @_many(300)
    @given(case=cases(stock=False, always_created=True), moment=MOMENTS)
    def test_ours_knows_what_was_known(self, world: World, case: Case, moment: datetime) -> None:
        _ours_knows_what_was_known(world, case, moment)

    @_many(600)
    @given(case=cases(stock=False, most_views=1), range_=st.tuples(MOMENTS, MOMENTS).map(sorted))
    def test_ours_has_a_range_of_dates(
        self, world: World, case: Case, range_: list[datetime]
    ) -> None:
        _ours_has_the_range(world, case, *range_)

    @_many(600)
    @given(
        case=cases(stock=False, most_views=1),
        range_=st.tuples(MOMENTS, MOMENTS).map(sorted),
        overlap=_OVERLAPS,
    )
    def test_ours_has_the_newest_rows(
        self, world: World, case: Case, range_: list[datetime], overlap: timedelta
    ) -> None:
        _ours_has_the_latest(world, case, range_[0], range_[1], overlap)
