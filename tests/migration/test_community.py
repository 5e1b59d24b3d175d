"""The schema on TimescaleDB Community: hypertables and a continuous aggregate that are real."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from hyperfeast.db import Database
from hyperfeast.errors import AccessDenied, SchemaError
from hyperfeast.migrate import files, migrate, state
from hyperfeast.migrate.ledger import Ledger
from hyperfeast.types import Edition
from migration.conftest import columns, relations
from timescale.server import community_server

HYPERTABLES = {
    "candles": "ts",
    "candle_revisions": "recorded_at",
    "quarantine": "recorded_at",
    "user_baseline_raw": "ts",
    "features_market_technical_v1": "event_timestamp",
    "features_personal_baseline_v1": "event_timestamp",
    "signals": "ts",
    "data_quality_results": "ts",
    "feature_importance": "ts",
    "model_performance": "evaluation_date",
    "generated_signals": "ts",
    "prediction_metrics": "ts",
    "drift_results": "ts",
    "user_baseline_revisions": "replaced_at",
}
USER = UUID(int=1)
NOON_TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

RAW = """
SELECT user_id, metric, source, date_trunc('day', ts, 'UTC') AS day, count(*) AS n, sum(value) AS sum,
    sum(value * value) AS sum_of_squares, min(value) AS min, max(value) AS max
FROM user_baseline_raw GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
KEPT = "SELECT * FROM user_baseline_daily ORDER BY user_id, metric, source, day"


@pytest.fixture
def fresh_server() -> Iterator[Database]:
    """A server where TimescaleDB is available, and not yet created in the database."""
    with community_server() as dsn:
        yield Database(dsn)


def test_everything_applies_once(community: Database) -> None:
    migrate(community, to=0)
    first, second = migrate(community), migrate(community)

    assert first.edition is Edition.COMMUNITY is community.edition()
    assert first.applied == [*files.of_edition(Edition.COMMUNITY)]
    assert (second.applied, second.rolled_back) == ([], [])


def test_back_to_nothing(migrated_community: Database) -> None:
    migrate(migrated_community, to=0)

    assert relations(migrated_community) == []
    assert state(migrated_community).current == 0
    assert migrated_community.fetch("SELECT FROM timescaledb_information.hypertables") == []


def test_back_and_forth_with_rows(migrated_community: Database) -> None:
    whole = relations(migrated_community)
    _insert(migrated_community, days=40)
    before = migrated_community.fetch(RAW)

    for number in (9, 8, 7, files.newest_number()):
        migrate(migrated_community, to=number)
        assert migrated_community.fetch(RAW) == before
    assert relations(migrated_community) == whole
    assert migrated_community.fetch(KEPT) == before


def test_rows_taken_in_before_the_hypertables_are_kept(community: Database) -> None:
    migrate(community, to=0)
    migrate(community, to=7)
    _insert(community, days=40)
    before = community.fetch(RAW)

    migrate(community)
    assert community.fetch(RAW) == before
    assert len(community.fetch("SELECT show_chunks('user_baseline_raw')")) > 1


def test_a_dry_run_changes_nothing(community: Database) -> None:
    migrate(community, to=0)
    report = migrate(community, dry_run=True)

    assert report.applied == [*files.of_edition(Edition.COMMUNITY)]
    assert relations(community) == []


def test_hypertables(migrated_community: Database) -> None:
    rows = migrated_community.fetch(
        "SELECT hypertable_name AS name, primary_dimension AS time "
        "FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema()"
    )
    assert {row["name"]: row["time"] for row in rows} == HYPERTABLES


def test_same_relations_columns_and_types_as_plain_postgresql(
    migrated_community: Database, database: Database
) -> None:
    assert database.edition() is Edition.PLAIN
    assert columns(migrated_community) == columns(database)


def test_the_aggregate_is_kept_and_corrected(migrated_community: Database) -> None:
    _insert(migrated_community, days=40)
    assert migrated_community.fetch(KEPT) == migrated_community.fetch(RAW)  # computed as it is read
    _call(
        migrated_community, "CALL refresh_continuous_aggregate('user_baseline_daily', NULL, NULL)"
    )
    assert migrated_community.fetch(KEPT) == migrated_community.fetch(RAW)

    _insert_one(migrated_community, NOON_TODAY - timedelta(days=20), 1e3)
    assert migrated_community.fetch(KEPT) != migrated_community.fetch(RAW)  # kept, not computed
    _call(
        migrated_community, "CALL refresh_continuous_aggregate('user_baseline_daily', NULL, NULL)"
    )
    assert migrated_community.fetch(KEPT) == migrated_community.fetch(RAW)


def test_the_policy_alone_leaves_nothing_behind(migrated_community: Database) -> None:
    jobs = migrated_community.fetch(
        "SELECT job_id FROM timescaledb_information.jobs AS j "
        "JOIN timescaledb_information.continuous_aggregates AS a "
        "ON j.hypertable_name IN (a.view_name, a.materialization_hypertable_name) "
        "WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND a.view_name = 'user_baseline_daily'"
    )
    assert len(jobs) == 1

    _insert(migrated_community, days=40)  # history far behind any window of days
    _call(migrated_community, "CALL run_job(%s)", [jobs[0]["job_id"]])
    assert migrated_community.fetch(KEPT) == migrated_community.fetch(RAW)

    _insert_one(migrated_community, NOON_TODAY - timedelta(days=30), 1e3)
    _call(migrated_community, "CALL run_job(%s)", [jobs[0]["job_id"]])
    assert migrated_community.fetch(KEPT) == migrated_community.fetch(RAW)


def test_a_database_set_up_as_plain_postgresql_stays_so(fresh_server: Database) -> None:
    _set_up_as_plain(fresh_server)

    report = migrate(fresh_server)
    assert (report.edition, report.applied) == (Edition.PLAIN, [])
    assert state(fresh_server).edition is Edition.PLAIN


def test_an_edition_changed_under_the_schema_is_refused(fresh_server: Database) -> None:
    _set_up_as_plain(fresh_server)
    _call(fresh_server, "CREATE EXTENSION timescaledb")
    before = relations(fresh_server)

    with pytest.raises(SchemaError, match=r"set up as another edition.*0008\.hypertables"):
        migrate(fresh_server)
    assert relations(fresh_server) == before


def test_the_extension_is_created_where_it_is_available(fresh_server: Database) -> None:
    assert fresh_server.edition() is Edition.PLAIN
    assert state(fresh_server).edition is Edition.COMMUNITY
    assert migrate(fresh_server, to=1).edition is Edition.COMMUNITY is fresh_server.edition()


def test_without_the_right_to_create_the_extension(fresh_server: Database) -> None:
    _call(fresh_server, "CREATE ROLE weak")
    weak = Database(f"{fresh_server.dsn}&options=-c%20role%3Dweak")

    with pytest.raises(AccessDenied, match=r"permission denied.*superuser.*CREATE EXTENSION"):
        migrate(weak)
    assert relations(fresh_server) == []


def _set_up_as_plain(database: Database) -> None:
    with database.connect(autocommit=True) as connection:
        paths = files.of_edition(Edition.PLAIN)
        ledger = Ledger(connection, paths)
        for migration_id in paths:
            ledger.apply(migration_id)


def _call(database: Database, statement: Any, parameters: tuple[Any, ...] | list[Any] = ()) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute(statement, parameters)


def _insert(database: Database, *, days: int) -> None:
    """A reading every four hours up to a moment ago; values whose sums are exact in any order."""
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, value, ts, source) "
        "SELECT %s, 'glucose', (i %% 32)::double precision / 4, "
        "now() - i * interval '4 hours', 'watch' FROM generate_series(0, %s) AS i",
        [USER, days * 6],
    )


def _insert_one(database: Database, ts: datetime, value: float) -> None:
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, value, ts, source) "
        "VALUES (%s, 'glucose', %s, %s, 'watch')",
        [USER, value, ts],
    )
