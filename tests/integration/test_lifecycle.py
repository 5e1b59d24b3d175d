"""Lifecycles on plain PostgreSQL: planned, applied, enforced, killed half-way."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hyperfeast.aggregates import refresh
from hyperfeast.cli import lifecycle as commands
from hyperfeast.db import Database
from hyperfeast.errors import DataError, SchemaError, ServerError, ServerUnreachable, UsageError
from hyperfeast.lifecycle import Interval, TableLifecycle, apply, enforce, load, plan, show

NOW = datetime(2025, 6, 18, 12, tzinfo=UTC)  # a Wednesday
HORIZON = datetime(2024, 12, 16, tzinfo=UTC)  # the Monday before six months earlier
ALL = ["1m", "5m", "15m", "1h", "4h", "1d", "1w"]


@pytest.fixture
def in_force(database: Database) -> Database:
    """A database in which what is declared is in force."""
    database.execute("INSERT INTO instruments (symbol) VALUES ('A'), ('B')")
    apply(database, plan(database))
    return database


def test_nothing_is_in_force_before_it_is_applied(database: Database) -> None:
    first = plan(database)
    assert {(one.setting, one.found) for one in first.changes} == {("keep_for", None)}
    assert first.compress is None
    assert any("compression is unavailable on plain PostgreSQL" in note for note in first.notes)
    assert [kept.in_force for state in show(database) for kept in state.kept if kept.in_force] == []

    assert len(apply(database, first)) == len(first.changes)
    assert plan(database).changes == []
    assert apply(database, plan(database)) == []


def test_the_plan_counts_what_would_go(database: Database) -> None:
    _bars(database, "1m", HORIZON - timedelta(minutes=90), 100, step=timedelta(minutes=1))
    _bars(database, "1d", HORIZON - timedelta(days=900), 900)
    database.execute("ANALYZE")

    drops = plan(database, now=NOW).drops
    assert [(one.relation, one.tf, one.before, one.rows) for one in drops] == [
        ("candles", "1m", HORIZON, 90)
    ]
    size = next(one.bytes for one in show(database) if one.relation == "candles")
    assert drops[0].bytes == pytest.approx(size * 90 / 1000, abs=1)


def test_what_would_drop_needs_a_yes(database: Database) -> None:
    _bars(database, "1m", NOW - timedelta(days=400), 3)
    due = plan(database, now=NOW)

    with pytest.raises(UsageError, match=r"3 rows \([\d,]+ bytes\) would be dropped.*--yes"):
        apply(database, due)
    assert database.fetch("SELECT FROM lifecycle_in_force") == []
    apply(database, due, confirmed=True)
    assert _count(database) == {"1m": 3}  # apply itself drops nothing


def test_nothing_is_dropped_that_is_not_in_force(database: Database) -> None:
    _bars(database, "1m", NOW - timedelta(days=400), 3)
    assert _enforce(database) == 0
    assert _count(database) == {"1m": 3}


def test_expired_rows_go_and_the_others_stay(in_force: Database) -> None:
    for tf in ALL:
        _bars(in_force, tf, HORIZON - timedelta(days=2), 4)
    in_force.execute(
        "INSERT INTO quarantine (batch_id, target, rule, row, recorded_at) "
        "SELECT gen_random_uuid(), 'candles', 'rule', '{}', %s - i * interval '100 days' "
        "FROM generate_series(0, 9) AS i",
        [NOW],
    )
    done = {one.relation: one for one in enforce(in_force, refresh=_refresher(in_force), now=NOW)}

    assert _count(in_force) == {tf: 4 if tf in {"1d", "1w"} else 2 for tf in ALL}
    assert done["candles"].rows_dropped == 10
    assert done["quarantine"].rows_dropped == 6
    assert done["candle_revisions"].dropped_before == {}
    rows = in_force.fetch(
        "SELECT tf, dropped_before FROM lifecycle_in_force WHERE relation = 'candles'"
    )
    assert {row["tf"]: row["dropped_before"] for row in rows} == {
        "": None, "1d": None, "1w": None, **dict.fromkeys(ALL[:5], HORIZON)
    }  # fmt: skip
    assert _enforce(in_force) == 0


def test_the_rollups_outlive_their_rows(in_force: Database) -> None:
    _bars(in_force, "1m", HORIZON - timedelta(days=3), 6 * 24 * 60, step=timedelta(minutes=1))
    before = _daily(in_force)
    assert len(before) == 6

    assert _enforce(in_force) == 3 * 24 * 60
    assert in_force.fetch("SELECT FROM dirty_days") == []
    refresh(in_force)
    assert _daily(in_force) == before


def test_a_change_that_the_rollups_lack_stops_it(in_force: Database) -> None:
    _bars(in_force, "1m", HORIZON - timedelta(days=2), 4)
    in_force.execute(
        "INSERT INTO quarantine (batch_id, target, rule, row, recorded_at) "
        "VALUES (gen_random_uuid(), 'candles', 'rule', '{}', %s)",
        [NOW - timedelta(days=400)],
    )

    with pytest.raises(
        DataError, match=r"candles: expected aggregates.*2024-12-16, found 2 days.*refresh"
    ):
        enforce(in_force, refresh=lambda: None, now=NOW)
    assert _count(in_force) == {"1m": 4}
    assert _horizon(in_force) is None
    assert in_force.fetch("SELECT FROM quarantine") == []  # the other tables are done


def test_a_change_above_the_horizon_does_not_stop_it(in_force: Database) -> None:
    _bars(in_force, "1m", HORIZON, 2)
    enforce(in_force, refresh=lambda: None, now=NOW)
    assert _count(in_force) == {"1m": 2}


def test_the_horizon_never_moves_back(in_force: Database) -> None:
    _enforce(in_force)
    _enforce(in_force, now=NOW - timedelta(days=100))
    assert _horizon(in_force) == HORIZON

    tables = _kept_for(load(), Interval(months=24))
    apply(in_force, plan(in_force, tables))
    _enforce(in_force)
    assert _horizon(in_force) == HORIZON


def test_the_horizon_is_recorded_before_rows_go(in_force: Database) -> None:
    _bars(in_force, "1m", HORIZON - timedelta(days=2), 4)
    seen = []

    def progress(_done: int, _total: int) -> None:
        seen.append((_horizon(in_force), _count(in_force)))

    enforce(in_force, refresh=_refresher(in_force), now=NOW, progress=progress)
    assert seen[0] == (HORIZON, {"1m": 4})
    assert _count(in_force) == {"1m": 2}


def test_a_killed_run_leaves_nothing_wrong_and_the_next_heals_it(in_force: Database) -> None:
    _bars(in_force, "1m", HORIZON - timedelta(days=60), 100 * 24 * 60, step=timedelta(minutes=1))
    refresh(in_force)
    daily, total = _daily(in_force), 100 * 24 * 60
    killed: list[int] = []

    def kill(done: int, pages: int) -> None:
        if done and not killed:
            rows = in_force.fetch(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
            )
            killed.append(len(rows))

    with pytest.raises(ServerUnreachable):
        enforce(in_force, refresh=lambda: None, now=NOW, progress=kill)
    assert killed == [1]
    assert 40 * 24 * 60 < _count(in_force)["1m"] < total
    assert _horizon(in_force) == HORIZON
    kept = in_force.fetch("SELECT count(*) AS n FROM candles WHERE ts >= %s", [HORIZON])
    assert kept[0]["n"] == 40 * 24 * 60
    refresh(in_force)
    assert _daily(in_force) == daily

    _enforce(in_force)
    assert _count(in_force) == {"1m": 40 * 24 * 60}
    assert _daily(in_force) == daily


def test_one_run_at_a_time(in_force: Database) -> None:
    with _turn_of_another(in_force):
        with pytest.raises(ServerError, match="another run"):
            _enforce(in_force)
        with pytest.raises(ServerError, match="another run"):
            apply(in_force, plan(in_force))
    _enforce(in_force)


def test_a_deadlock_is_tried_again(in_force: Database) -> None:
    """The sweep holds the older row and waits for the newer one; the other one the other way round."""
    _bars(in_force, "5m", HORIZON - timedelta(days=2), 2)
    touch = "UPDATE candles SET v = 7 WHERE ts = %s"
    with in_force.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute("SET deadlock_timeout = '60s'")
        other.execute(touch, [HORIZON - timedelta(days=1)])
        run = pool.submit(_enforce, in_force)
        _until(in_force, "SELECT FROM pg_locks WHERE NOT granted")
        other.execute(touch, [HORIZON - timedelta(days=2)])
        other.commit()
        assert run.result() == 2
    _until(
        in_force,
        "SELECT FROM pg_stat_database WHERE datname = current_database() AND deadlocks = 1",
    )


def test_a_table_that_is_declared_no_more_stays(in_force: Database) -> None:
    tables = load()
    del tables["quarantine"]
    due = plan(in_force, tables)
    assert [(one.relation, one.found, one.declared) for one in due.changes] == [
        ("quarantine", "1 year", None)
    ]
    apply(in_force, due)
    assert plan(in_force, tables).changes == []
    assert in_force.fetch(
        "SELECT keep_for FROM lifecycle_in_force WHERE relation = 'quarantine'"
    ) == [{"keep_for": None}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relation": "candels"}, r"\[candels\]: expected a table of the database, found none"),
        ({"time_column": "tss"}, "found no column tss"),
        ({"segment_by": ("sym",)}, "found no column sym"),
    ],
)
def test_what_is_not_there_is_named(
    database: Database, change: dict[str, Any], message: str
) -> None:
    table = replace(load()["signals"], **change)
    with pytest.raises(SchemaError, match=message):
        plan(database, {table.relation: table})


operations = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.sampled_from(ALL), st.integers(-40, 400)),
        st.tuples(st.just("enforce"), st.just(""), st.integers(0, 60)),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_any_interleaving_drops_what_has_expired_and_nothing_else(
    in_force: Database, done: list[tuple[str, str, int]]
) -> None:
    with in_force.connect() as connection:
        connection.execute("TRUNCATE candles")
        connection.execute("DELETE FROM dirty_days")
        connection.execute("UPDATE lifecycle_in_force SET dropped_before = NULL")
    now, rows = NOW, set[tuple[str, datetime]]()
    for what, tf, days in [*done, ("enforce", "", 0)]:
        if what == "insert":
            ts = now - timedelta(days=days)
            _bars(in_force, tf, ts, 1)
            rows.add((tf, ts))
            continue
        now += timedelta(days=days)
        _enforce_candles(in_force, now)
        left = _left(in_force)
        horizon = _monday(_months_before(now, 6))
        young = {one for one in rows if one[0] in {"1d", "1w"} or one[1] >= horizon}
        assert left == young
        assert _enforce_candles(in_force, now) == 0
        rows = left


def test_the_commands(in_force: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", in_force.dsn)
    monkeypatch.setenv("COLUMNS", "200")
    _bars(in_force, "5m", NOW - timedelta(days=900), 3)

    states = json.loads(_run("show", "--json"))
    assert {one["relation"] for one in states} == set(load()) - {"features_*"}
    found = json.loads(_run("plan", "--json"))
    assert (found["changes"], found["compress"]) == ([], "unavailable")
    assert [(one["tf"], one["rows"]) for one in found["drops"]] == [("5m", 3)]
    assert "would be dropped" in _run("plan")
    assert "candles" in _run("show")

    refused = CliRunner().invoke(_app(), ["lifecycle", "apply"])
    assert isinstance(refused.exception, UsageError)
    assert "3 rows, about" in str(refused.exception)
    assert "settings changed: 0" in _run("apply", "--yes")
    done = json.loads(_run("enforce", "--json"))
    assert [one["rows_dropped"] for one in done if one["relation"] == "candles"] == [3]
    assert "rows dropped" in _run("enforce", "--compress-now")


def _app() -> typer.Typer:
    app = typer.Typer()
    commands.register(app)
    app.callback()(lambda: None)
    return app


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(_app(), ["lifecycle", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@contextmanager
def _turn_of_another(database: Database) -> Iterator[None]:
    with database.connect(autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('hyperfeast lifecycle', 0))")
        yield


def _until(database: Database, question: LiteralString) -> None:
    deadline = time.monotonic() + 120
    while not database.fetch(question):
        assert time.monotonic() < deadline, question
        time.sleep(0.05)


def _refresher(database: Database) -> Any:
    return lambda: refresh(database)


def _enforce(database: Database, now: datetime = NOW) -> int:
    return sum(one.rows_dropped for one in enforce(database, refresh=_refresher(database), now=now))


def _enforce_candles(database: Database, now: datetime) -> int:
    tables = {"candles": load()["candles"]}
    return enforce(database, tables, refresh=_refresher(database), now=now)[0].rows_dropped


def _kept_for(tables: dict[str, TableLifecycle], kept: Interval) -> dict[str, TableLifecycle]:
    candles = tables["candles"]
    keep_for = {tf: one and kept for tf, one in candles.keep_for.items()}
    return {**tables, "candles": replace(candles, keep_for=keep_for)}


def _bars(
    database: Database, tf: str, first: datetime, count: int, step: timedelta = timedelta(days=1)
) -> None:
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) "
        "SELECT 'A', %s, %s + i * %s, 10, 12, 9, 11, 1 + i %% 3 FROM generate_series(0, %s) AS i "
        "ON CONFLICT DO NOTHING",
        [tf, first, step, count - 1],
    )


def _count(database: Database) -> dict[str, int]:
    rows = database.fetch("SELECT tf, count(*) AS n FROM candles GROUP BY tf")
    return {row["tf"]: row["n"] for row in rows}


def _left(database: Database) -> set[tuple[str, datetime]]:
    return {(row["tf"], row["ts"]) for row in database.fetch("SELECT tf, ts FROM candles")}


def _daily(database: Database) -> list[dict[str, Any]]:
    return database.fetch("SELECT * FROM candles_1d ORDER BY symbol, ts")


def _horizon(database: Database) -> datetime | None:
    rows = database.fetch(
        "SELECT dropped_before FROM lifecycle_in_force WHERE relation = 'candles' AND tf = '1m'"
    )
    found: datetime | None = rows[0]["dropped_before"]
    return found


def _monday(moment: datetime) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def _months_before(moment: datetime, months: int) -> datetime:
    """As PostgreSQL counts: the same day of the month, or its last."""
    total = moment.year * 12 + moment.month - 1 - months
    year, month = divmod(total, 12)
    for day in range(moment.day, 27, -1):
        try:
            return moment.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    return moment.replace(year=year, month=month + 1)
