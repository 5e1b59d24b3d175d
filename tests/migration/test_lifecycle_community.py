"""Lifecycles on TimescaleDB Community: compression, policies and dropped chunks that are real."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyperfeast.aggregates import refresh
from hyperfeast.db import Database
from hyperfeast.lifecycle import Enforced, Interval, TableState, apply, enforce, load, plan, show
from hyperfeast.migrate import migrate

NOW = datetime(2025, 6, 18, 12, tzinfo=UTC)  # a Wednesday
HORIZON = datetime(2024, 12, 16, tzinfo=UTC)  # the Monday before six months earlier
CHUNK_END = datetime(2024, 12, 12, tzinfo=UTC)  # the newest end of a 7-day chunk at or before it
WEEK = timedelta(days=7)
ALL = ["1m", "5m", "15m", "1h", "4h", "1d", "1w"]


@pytest.fixture
def in_force(migrated_community: Database) -> Database:
    """A database in which what is declared is in force."""
    migrated_community.execute("INSERT INTO instruments (symbol) VALUES ('A'), ('B')")
    apply(migrated_community, plan(migrated_community))
    # A server with background workers would run them at any moment: the tests say when.
    migrated_community.execute(
        "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs "
        "WHERE hypertable_schema = current_schema()"
    )
    return migrated_community


def test_what_is_declared_is_what_the_database_says(migrated_community: Database) -> None:
    tables = load()
    names = {
        row["hypertable_name"]
        for row in migrated_community.fetch(
            "SELECT hypertable_name FROM timescaledb_information.hypertables "
            "WHERE hypertable_schema = current_schema()"
        )
    }
    assert names <= set(tables)
    first = plan(migrated_community)
    assert [one for one in first.changes if one.setting == "chunk_interval"] == []
    assert len(apply(migrated_community, first)) == len(first.changes) > 0

    assert plan(migrated_community).changes == []
    settings = migrated_community.fetch(
        "SELECT hypertable_name AS name, attname FROM timescaledb_information.compression_settings "
        "WHERE segmentby_column_index IS NOT NULL ORDER BY 1, segmentby_column_index"
    )
    for name in names:
        segment_by = tuple(row["attname"] for row in settings if row["name"] == name)
        assert segment_by == tables[name].segment_by
    after = _policies(migrated_community)
    assert after["candles", "policy_compression"]["compress_after"] == "7 days"
    assert after["signals", "policy_retention"]["drop_after"] == "1 year"
    assert after["candles_5m", "policy_refresh_continuous_aggregate"]["start_offset"] == "6 mons"
    retention = {name for name, kind in after if kind == "policy_retention"}
    assert retention == {name for name in names if tables[name].dropped_by_policy}


def test_a_changed_declaration_changes_what_is_in_force(in_force: Database) -> None:
    tables = load()
    signals = replace(
        tables["signals"],
        chunk_interval=Interval(hours=48),
        compress_after=None,
        keep_for={"": Interval(months=18)},
    )
    changed = apply(in_force, plan(in_force, {**tables, "signals": signals}))
    assert {(one.setting, one.found, one.declared) for one in changed} == {
        ("chunk_interval", "1 day", "2 days"),
        ("compress_after", "30 days", "never"),
        ("keep_for", "1 year", "18 months"),
        ("retention_policy", "1 year", "18 months"),
    } | {(one.setting, one.found, one.declared) for one in changed if one.setting.endswith("_by")}
    assert [one.setting for one in plan(in_force, {**tables, "signals": signals}).changes] == []
    assert ("signals", "policy_compression") not in _policies(in_force)


def test_the_compression_policy_compresses(in_force: Database) -> None:
    _walk(in_force, days=8)
    raw = "SELECT symbol, tf, ts, o, h, l, c, v FROM candles ORDER BY 1, 2, 3"
    before, due = in_force.fetch(raw), plan(in_force).compress
    assert due is not None
    assert [one.relation for one in due] == ["candles"]

    _run_job(in_force, "candles", "policy_compression")
    state = _state(in_force)
    assert state.compressed_chunks == due[0].chunks
    assert state.bytes_uncompressed > 3 * state.bytes
    assert plan(in_force).compress == []
    assert in_force.fetch(raw) == before


def test_compressing_now_does_the_same(in_force: Database) -> None:
    _walk(in_force, days=8)
    due = plan(in_force).compress or []

    done = {one.relation: one for one in _enforce(in_force, compress_now=True)}
    assert done["candles"].chunks_compressed == due[0].chunks == _state(in_force).compressed_chunks
    assert sum(one.chunks_compressed for one in _enforce(in_force, compress_now=True)) == 0


def test_the_retention_policy_drops(in_force: Database) -> None:
    in_force.execute(
        "INSERT INTO quarantine (batch_id, target, rule, row, recorded_at) "
        "SELECT gen_random_uuid(), 'candles', 'rule', '{}', now() - i * interval '100 days' "
        "FROM generate_series(0, 9) AS i"
    )
    _run_job(in_force, "quarantine", "policy_retention")
    rows = in_force.fetch("SELECT count(*) AS n, min(recorded_at) AS oldest FROM quarantine")
    assert rows[0]["n"] == 4
    assert plan(in_force).drops == []


@pytest.mark.parametrize("compress_now", [False, True])
def test_whole_chunks_go_and_mixed_ones_are_thinned_out(
    in_force: Database, *, compress_now: bool
) -> None:
    _bars(in_force, "5m", CHUNK_END - 2 * WEEK, 14)  # a chunk of nothing else, and a mixed one
    # Of what stays, a chunk below the horizon and one that reaches above it.
    _bars(in_force, "1d", CHUNK_END - WEEK, 14)
    _bars(in_force, "1h", CHUNK_END, 7)
    if compress_now:
        _compress_all(in_force)
    before = plan(in_force, now=NOW)
    assert [(one.tf, one.chunks, one.rows) for one in before.drops] == [("5m", 2, 14)]

    done = {one.relation: one for one in _enforce(in_force)}["candles"]
    assert (done.chunks_dropped, done.rows_dropped) == (1, 14)
    assert _count(in_force) == {"1d": 14, "1h": 7}
    state = _state(in_force)
    assert (state.chunks, state.compressed_chunks) == ((2, 2) if compress_now else (2, 0))
    assert plan(in_force, now=NOW).drops == []
    assert [one for one in _enforce(in_force) if one.chunks_dropped or one.rows_dropped] == []


def test_the_rollups_outlive_their_rows(in_force: Database) -> None:
    """Dropped, refreshed, and refreshed by the database's own policies: the same to the last bit."""
    _walk(in_force, days=1, end=CHUNK_END - WEEK)
    _walk(in_force, days=1, end=CHUNK_END + WEEK)
    _bars(in_force, "1d", CHUNK_END - WEEK, 1)
    refresh(in_force)
    before = _rollups(in_force)
    assert len(before["candles_1d"]) == 4

    _enforce(in_force)
    assert _count(in_force) == {"1d": 1, "1m": 2 * 24 * 60}
    refresh(in_force)
    for name in before:
        _run_job(in_force, name, "policy_refresh_continuous_aggregate")
    assert _rollups(in_force) == before


def test_no_refresh_policy_reaches_below_the_horizon(in_force: Database) -> None:
    """Also when more is kept than when rows were dropped."""
    now = datetime.now(UTC)
    enforce(in_force, refresh=_refresher(in_force))
    tables = load()
    candles = tables["candles"]
    longer = {tf: kept and Interval(months=24) for tf, kept in candles.keep_for.items()}
    tables["candles"] = replace(candles, keep_for=longer)

    apply(in_force, plan(in_force, tables))
    assert plan(in_force, tables).changes == []
    horizon = in_force.fetch(
        "SELECT dropped_before FROM lifecycle_in_force WHERE relation = 'candles' AND tf = '1m'"
    )[0]["dropped_before"]
    for name in candles.rollups:
        start = _policies(in_force)[name, "policy_refresh_continuous_aggregate"]["start_offset"]
        reach = in_force.fetch("SELECT now() - %s::interval AS reach", [start])[0]["reach"]
        assert horizon <= reach < now - timedelta(days=180)


@pytest.mark.slow
def test_rolling_back_takes_compression_and_policies_back(in_force: Database) -> None:
    _walk(in_force, days=2)
    _compress_all(in_force)
    assert _state(in_force).compressed_chunks > 0
    raw = "SELECT symbol, tf, ts, o, h, l, c, v FROM candles ORDER BY 1, 2, 3"
    before = in_force.fetch(raw)

    migrate(in_force, to=17)
    assert in_force.fetch(raw) == before
    assert {kind for _, kind in _policies(in_force)} == {"policy_refresh_continuous_aggregate"}
    assert in_force.fetch("SELECT FROM timescaledb_information.compression_settings") == []
    migrate(in_force)
    assert in_force.fetch(raw) == before


operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.sampled_from(ALL), st.integers(150, 240)),
        st.tuples(st.just("enforce"), st.just(""), st.integers(0, 30)),
        st.tuples(st.just("compress"), st.just(""), st.just(0)),
    ),
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_any_interleaving_drops_what_has_expired_and_nothing_else(
    in_force: Database, done: list[tuple[str, str, int]]
) -> None:
    in_force.execute("TRUNCATE candles")
    in_force.execute("DELETE FROM dirty_days")
    in_force.execute("UPDATE lifecycle_in_force SET dropped_before = NULL")
    now, rows = NOW, set[tuple[str, datetime]]()
    for what, tf, days in [*done, ("enforce", "", 0)]:
        if what == "insert":
            ts = now - timedelta(days=days)
            _bars(in_force, tf, ts, 1)
            rows.add((tf, ts))
        elif what == "compress":
            _compress_all(in_force)
        else:
            now += timedelta(days=days)
            horizon = _enforce_candles(in_force, now).dropped_before["1m"]
            left = {(r["tf"], r["ts"]) for r in in_force.fetch("SELECT tf, ts FROM candles")}
            assert left <= rows
            assert left >= {one for one in rows if one[0] in {"1d", "1w"} or one[1] >= horizon}
            assert {one for one in left if one[0] not in {"1d", "1w"}} == {
                one for one in rows if one[0] not in {"1d", "1w"} and _chunk_end(one[1]) > horizon
            }
            assert _enforce_candles(in_force, now).rows_dropped == 0
            rows = left


def _chunk_end(ts: datetime) -> datetime:
    """Chunks of 7 days are counted from 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + WEEK * ((ts - epoch) // WEEK + 1)


def _refresher(database: Database) -> Callable[[], object]:
    return lambda: refresh(database)


def _enforce(database: Database, now: datetime | None = NOW, *, compress_now: bool = False) -> Any:
    return enforce(database, refresh=_refresher(database), now=now, compress_now=compress_now)


def _enforce_candles(database: Database, now: datetime) -> Enforced:
    tables = {"candles": load()["candles"]}
    return enforce(database, tables, refresh=_refresher(database), now=now)[0]


def _state(database: Database) -> TableState:
    return next(one for one in show(database) if one.relation == "candles")


def _policies(database: Database) -> dict[tuple[str, str], dict[str, Any]]:
    rows = database.fetch(
        "SELECT hypertable_name, proc_name, config FROM timescaledb_information.jobs "
        "WHERE hypertable_schema = current_schema()"
    )
    return {(row["hypertable_name"], row["proc_name"]): row["config"] for row in rows}


def _run_job(database: Database, relation: str, kind: str) -> None:
    jobs = database.fetch(
        "SELECT job_id FROM timescaledb_information.jobs WHERE hypertable_name = %s AND proc_name = %s",
        [relation, kind],
    )
    with database.connect(autocommit=True) as connection:
        connection.execute("CALL run_job(%s)", [jobs[0]["job_id"]])


def _compress_all(database: Database) -> None:
    database.execute("SELECT compress_chunk(c, true) FROM show_chunks('candles') AS c")


def _count(database: Database) -> dict[str, int]:
    rows = database.fetch("SELECT tf, count(*) AS n FROM candles GROUP BY tf")
    return {row["tf"]: row["n"] for row in rows}


def _rollups(database: Database) -> dict[str, list[dict[str, Any]]]:
    names = load()["candles"].rollups
    assert all(re.fullmatch("candles_[0-9]+[mhdw]", name) for name in names)
    return {name: database.fetch(f"SELECT * FROM {name} ORDER BY symbol, ts") for name in names}  # type: ignore[arg-type]


def _bars(database: Database, tf: str, first: datetime, count: int) -> None:
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) "
        "SELECT 'A', %s, %s + i * interval '1 day', 10, 12, 9, 11, 1 FROM generate_series(0, %s) AS i "
        "ON CONFLICT DO NOTHING",
        [tf, first, count - 1],
    )


def _walk(database: Database, *, days: int, end: datetime = NOW - timedelta(days=20)) -> None:
    """1-minute bars of two symbols whose prices wander by cents."""
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) "
        "SELECT symbol, '1m', ts, c, c + 0.03, c - 0.02, round((c + 0.01)::numeric, 2), v FROM ("
        "  SELECT symbol, %(end)s - i * interval '1 minute' AS ts, "
        "    round((100 + sum(round(random()::numeric * 0.1 - 0.05, 2)) OVER (PARTITION BY symbol "
        "    ORDER BY i))::numeric, 2)::float8 AS c, floor(random() * 1000) AS v "
        "  FROM (VALUES ('A'), ('B')) AS s (symbol), generate_series(1, %(bars)s) AS i) AS walk",
        {"end": end, "bars": days * 24 * 60},
    )
