"""Readings and users on TimescaleDB: features after one reading, and a user who is forgotten in aggregates too."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hyperfeast.aggregates import refresh as refresh_aggregates
from hyperfeast.db import Database, copy_frame
from hyperfeast.features import table
from hyperfeast.features.compute import compute, refresh
from hyperfeast.features.relation import pending
from hyperfeast.users import forget_user
from hyperfeast.users.exporting import export_user
from personal_baseline import personal_baseline

pytestmark = pytest.mark.slow

USER = UUID("6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b")
OTHER = UUID("0a4be2f7-58d5-45d4-a6c7-55d33a1de6f5")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class Nobody:
    """Nobody is online."""

    def of_entity(self, value: str) -> list[Any]:  # noqa: ARG002
        return []

    def forget_entity(self, value: str) -> int:  # noqa: ARG002
        return 0


def put(database: Database, *moments: datetime, user: UUID = USER) -> None:
    rng = random.Random(len(moments))
    frame = pl.DataFrame(
        {"ts": moments, "value": [rng.gauss(100, 9) for _ in moments]}
    ).with_columns(user_id=pl.lit(str(user)), metric=pl.lit("glucose"), source=pl.lit("cgm"))
    with database.connect() as connection:
        copy_frame(connection, "user_baseline_raw", frame)


def filled(database: Database) -> None:
    for user in (USER, OTHER):
        put(database, *(TODAY - timedelta(hours=7 * step) for step in range(1, 200)), user=user)
    refresh_aggregates(database)
    refresh(database, personal_baseline)


def rows(database: Database) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What is stored, and what a rebuild gives."""
    order = ["user_id", "event_timestamp"]
    return (
        table.newest(database, personal_baseline).sort(order),
        compute(database, personal_baseline).sort(order),
    )


def test_features_follow_readings_whether_the_aggregates_have_or_not(
    migrated_community: Database,
) -> None:
    filled(migrated_community)
    assert_frame_equal(*rows(migrated_community), check_exact=True)
    late = TODAY - timedelta(days=40, minutes=-31)
    put(migrated_community, late)
    # The continuous aggregate knows nothing of it yet, below its watermark.
    assert refresh(migrated_community, personal_baseline).written > 20
    stored = rows(migrated_community)[0]
    refresh_aggregates(migrated_community)
    assert_frame_equal(rows(migrated_community)[1], stored, check_exact=True)
    migrated_community.execute("DELETE FROM user_baseline_raw WHERE ts = %s", [late])
    assert pending(migrated_community, personal_baseline) == {
        str(USER): late.replace(hour=0, minute=0)
    }
    assert refresh(migrated_community, personal_baseline).written > 20
    refresh_aggregates(migrated_community)
    assert_frame_equal(*rows(migrated_community), check_exact=True)


def test_a_forgotten_user_is_gone_from_aggregates_and_compressed_chunks(
    migrated_community: Database, tmp_path: Any
) -> None:
    filled(migrated_community)
    migrated_community.execute(
        "ALTER TABLE user_baseline_raw SET (timescaledb.compress, "
        "timescaledb.compress_segmentby = 'user_id, metric, source')"
    )
    migrated_community.execute(
        "SELECT compress_chunk(c) FROM show_chunks('user_baseline_raw', older_than => interval '20 days') AS c"
    )
    others = migrated_community.fetch(
        "SELECT * FROM user_baseline_daily WHERE user_id = %s ORDER BY day", [OTHER]
    )
    done = export_user(migrated_community, USER, tmp_path / "out.zip", online=Nobody())
    assert done.rows["user_baseline_daily"] > 50
    deleted = forget_user(migrated_community, USER, online=Nobody()).deleted
    assert deleted["user_baseline_raw"] == 199
    assert deleted["user_baseline_daily"] > 50
    assert mentions(migrated_community) == {"audit_log"}
    for again in (False, True):
        if again:
            refresh_aggregates(migrated_community, since=TODAY.date() - timedelta(days=70))
        assert migrated_community.fetch("SELECT * FROM user_baseline_daily ORDER BY day") == others
    refresh(migrated_community, personal_baseline)
    assert mentions(migrated_community) == {"audit_log"}


def mentions(database: Database) -> set[str]:
    """Every table, chunks included, with rows that have the id. Compressed ones are read by their chunk."""
    found = set()
    for one in database.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n "
        "ON n.oid = c.relnamespace WHERE c.relkind = 'r' "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_temp' "
        "AND c.relname !~ '^_?compress'"
    ):
        statement: Any = f"SELECT count(*) AS n FROM {one['name']} AS t WHERE t::text ~* '{USER}'"
        if database.fetch(statement)[0]["n"]:
            found.add(one["name"])
    return found
