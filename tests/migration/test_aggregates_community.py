"""The continuous aggregates on TimescaleDB Community, and that they are the same as elsewhere."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import pytest

from aggregate_oracle import Bar, Key, expected, stored
from hyperfeast.aggregates import aggregates, refresh, verify
from hyperfeast.aggregates.levels import CANDLES, FAMILIES
from hyperfeast.db import Database
from hyperfeast.migrate import migrate
from migration.conftest import relations

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
BAR = Bar(10.0, 12.5, 9.25, 11.0, 3.5, None)

COLUMNS: LiteralString = """
SELECT c.relname AS relation, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
    col_description(c.oid, a.attnum) AS comment, obj_description(c.oid) AS about
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relname = ANY(%s) AND c.relnamespace = current_schema()::regnamespace
ORDER BY 1, a.attnum
"""
NAMES = [*CANDLES.names, "dirty_days", "stale_days"]


def test_the_same_relations_columns_types_and_comments(
    migrated_community: Database, database: Database
) -> None:
    here, there = (one.fetch(COLUMNS, [NAMES]) for one in (migrated_community, database))
    assert here == there
    assert {row["relation"] for row in here} == set(NAMES)
    assert all(row["comment"] and row["about"] for row in here)


def test_every_kept_table_and_column_has_a_comment(database: Database) -> None:
    kept = [level.kept for family in FAMILIES for level in family.levels]
    rows = database.fetch(COLUMNS, [kept])
    assert {row["relation"] for row in rows} == set(kept)
    assert all(row["comment"] and row["about"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("edition", ["migrated_community", "database"])
def test_back_and_forth_with_rows(edition: str, request: pytest.FixtureRequest) -> None:
    database: Database = request.getfixturevalue(edition)
    rows = random_bars(200)
    insert(database, rows)
    read(database, UUID(int=1))
    whole, readings = relations(database), database.fetch(READINGS)
    refresh(database)

    for number in (14, 13):
        migrate(database, to=number)
        assert database.fetch(READINGS) == readings
        assert "candles_5m" not in relations(database)
        migrate(database)
        assert relations(database) == whole
        assert stored(database) == expected(rows)  # what was there has been marked
        assert refresh(database).days == len({(key[0], key[1].date()) for key in rows}) + 1
        assert (stored(database), database.fetch(READINGS)) == (expected(rows), readings)
        assert verify(database) == []


def test_kept_corrected_and_late(migrated_community: Database) -> None:
    rows = random_bars(300)
    insert(migrated_community, rows)
    refresh(migrated_community)
    assert stored(migrated_community) == expected(rows)

    key = sorted(rows)[50]
    late = ("A", MONDAY - timedelta(days=2000))
    correct(migrated_community, key, BAR)
    insert(migrated_community, {late: BAR})
    rows |= {key: BAR, late: BAR}
    stale = verify(migrated_community)
    assert {one.relation for one in stale} == set(CANDLES.names)  # kept, not computed
    assert all(one.stale for one in stale)
    assert {(one.key, one.column) for one in stale} >= {("A", "n")}

    assert refresh(migrated_community).days == 2
    assert stored(migrated_community) == expected(rows)
    assert verify(migrated_community) == []


def test_a_refresh_leaves_no_gap_behind_it(migrated_community: Database) -> None:
    """What is not materialized is computed only above the watermark, which a refresh moves."""
    rows: dict[Key, Bar] = {("A", MONDAY): BAR, ("A", MONDAY + timedelta(days=30)): BAR}
    insert(migrated_community, rows)
    assert stored(migrated_community) == expected(rows)
    refresh(migrated_community, since=(MONDAY + timedelta(days=20)).date())
    assert stored(migrated_community) == expected(rows)
    later: dict[Key, Bar] = {("A", MONDAY + timedelta(days=days)): BAR for days in (60, 90)}
    insert(migrated_community, later)
    refresh(migrated_community, since=(MONDAY + timedelta(days=80)).date())
    assert stored(migrated_community) == expected(rows | later)


def test_what_is_deleted_by_row_is_marked_once_a_day(migrated_community: Database) -> None:
    for symbol in "AB":
        insert(
            migrated_community,
            {(symbol, MONDAY + timedelta(minutes=20 * i)): BAR for i in range(100)},
        )
    insert(migrated_community, {("C", MONDAY): BAR}, tf="1d")
    migrated_community.execute("DELETE FROM dirty_days")

    migrated_community.execute("DELETE FROM candles WHERE ts < %s", [MONDAY + timedelta(days=1)])
    assert marks(migrated_community) == [("A", MONDAY.date()), ("B", MONDAY.date())]

    migrated_community.execute("DELETE FROM dirty_days")
    with migrated_community.connect() as connection:
        connection.execute("SET LOCAL hyperfeast.retention = 'on'")
        connection.execute("DELETE FROM candles WHERE symbol = 'A'")
    assert marks(migrated_community) == []
    migrated_community.execute("TRUNCATE candles")
    assert marks(migrated_community) == [("B", (MONDAY + timedelta(days=1)).date())]


def test_new_rows_of_today_are_seen_at_once_after_a_refresh(migrated_community: Database) -> None:
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = {("A", minute - timedelta(minutes=back)): BAR for back in range(2, 400, 7)}
    insert(migrated_community, rows)
    assert refresh(migrated_community).days > 0
    assert stored(migrated_community) == expected(rows)

    insert(migrated_community, {("A", minute): BAR})
    now = expected(rows | {("A", minute): BAR})
    found = stored(migrated_community)
    assert found == now  # the buckets that have not passed are computed as they are read
    assert all(one.dirty_days for one in aggregates(migrated_community)[:6])


@pytest.mark.slow
def test_the_policies_stay_above_the_retention_of_minute_bars(migrated_community: Database) -> None:
    old = {("A", MONDAY + timedelta(minutes=5 * i)): BAR for i in range(10)}
    insert(migrated_community, old)
    refresh(migrated_community)
    kept = stored(migrated_community)
    with migrated_community.connect() as connection:
        connection.execute("SET LOCAL hyperfeast.retention = 'on'")
        connection.execute("DELETE FROM candles")

    jobs = migrated_community.fetch(
        "SELECT job_id, config FROM timescaledb_information.jobs "
        "WHERE proc_name = 'policy_refresh_continuous_aggregate' AND config ->> 'start_offset' <> ''"
    )
    assert len(jobs) == len(CANDLES.levels)
    for job in jobs:
        call(migrated_community, "CALL run_job(%s)", [job["job_id"]])
    assert stored(migrated_community) == kept

    recent = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(
        days=30
    )
    new = {("A", recent + timedelta(minutes=3 * i)): BAR for i in range(900)}
    insert(migrated_community, new)
    for job in jobs:
        call(migrated_community, "CALL run_job(%s)", [job["job_id"]])
    migrated_community.execute("UPDATE candles SET v = 2 * v WHERE ts = %s", [recent])
    new["A", recent] = BAR._replace(v=2 * BAR.v)
    for job in jobs:
        call(migrated_community, "CALL run_job(%s)", [job["job_id"]])
    wanted = expected(new)
    assert stored(migrated_community) == {name: kept[name] | wanted[name] for name in kept}


@pytest.mark.slow
def test_chunks_are_excluded_and_the_index_is_used(migrated_community: Database) -> None:
    rows = {("A", MONDAY + timedelta(days=day, hours=12)): BAR for day in range(0, 400, 40)}
    insert(migrated_community, rows)
    refresh(migrated_community)

    with migrated_community.connect() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        chunks = connection.execute(
            "SELECT count(*) AS n FROM show_chunks('candles_1d')"
        ).fetchall()[0]["n"]
        plan = "\n".join(
            row["QUERY PLAN"]
            for row in connection.execute(
                "EXPLAIN SELECT * FROM candles_1d WHERE symbol = 'A' "
                "AND ts >= '2024-06-01' AND ts < '2024-12-01'"
            )
        )
    scans = plan.count("candles_1d_key")
    assert 0 < scans < chunks


def test_the_list(migrated_community: Database) -> None:
    insert(migrated_community, {("A", MONDAY): BAR})
    refresh(migrated_community)
    first, *_ = aggregates(migrated_community)

    assert (first.relation, first.built_on, first.newest) == ("candles_5m", "candles", MONDAY)
    assert first.kept_by == "continuous aggregate"
    assert first.policy == "every 00:05:00, from 5 mons to 00:05:00 ago"


READINGS: LiteralString = "SELECT * FROM user_baseline_daily ORDER BY user_id, metric, source, day"


def random_bars(number: int) -> dict[Key, Bar]:
    rng = random.Random(number)
    rows = {}
    while len(rows) < number:
        low, one, other, high = sorted(10 ** rng.uniform(-2, 12) for _ in range(4))
        volume = rng.choice([0.0, 10 ** rng.uniform(-8, 18)])
        key = (rng.choice("AB"), MONDAY + timedelta(minutes=rng.randrange(20 * 1440)))
        rows[key] = Bar(one, high, low, other, volume, rng.choice([None, one]))
    return rows


def insert(database: Database, rows: dict[Key, Bar], *, tf: str = "1m") -> None:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO instruments (symbol) VALUES (%s) ON CONFLICT DO NOTHING",
            [(symbol,) for symbol in sorted({symbol for symbol, _ in rows})],
        )
        cursor.executemany(
            "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, vwap) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [(symbol, tf, ts, *bar) for (symbol, ts), bar in rows.items()],
        )


def marks(database: Database) -> list[tuple[str, Any]]:
    rows = database.fetch("SELECT key, day FROM dirty_days ORDER BY key, day")
    return [(row["key"], row["day"]) for row in rows]


def correct(database: Database, key: Key, bar: Bar) -> None:
    database.execute(
        "UPDATE candles SET (o, h, l, c, v, vwap) = ROW(%s, %s, %s, %s, %s, %s) "
        "WHERE symbol = %s AND tf = '1m' AND ts = %s",
        [*bar, *key],
    )


def read(database: Database, user: UUID) -> None:
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, value, ts) VALUES (%s, 'pulse', 61.5, %s)",
        [user, MONDAY],
    )


def call(database: Database, statement: LiteralString, parameters: list[Any]) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute(statement, parameters)
