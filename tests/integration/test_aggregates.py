"""Aggregates of 1m bars and readings on plain PostgreSQL: marked, refreshed, verified, killed, raced."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
import typer
from psycopg import errors, sql
from typer.testing import CliRunner

from aggregate_oracle import Bar, Key, expected, stored
from hyperfeast.aggregates import aggregates, refresh, verify
from hyperfeast.cli import aggregates as commands
from hyperfeast.db import Database
from hyperfeast.errors import UsageError

MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
USER = UUID(int=7)
SOAK_S = float(os.environ.get("HYPERFEAST_SOAK_S", "8"))
LONGEST_WAIT_S = 90
CHILD = (
    "import os; from hyperfeast.db import Database; from hyperfeast.aggregates import refresh; "
    "refresh(Database(os.environ['DSN']))"
)


def test_every_level_is_what_python_computes(database: Database) -> None:
    rows = random_bars(600, days=20)
    insert(database, rows)

    wanted = expected(rows)
    assert stored(database) == wanted  # computed as it is read
    report = refresh(database)
    assert stored(database) == wanted  # kept
    assert report.days == len({(symbol, ts.date()) for symbol, ts in rows})
    assert wanted["candles_1w"].keys() == {
        (symbol, ts - timedelta(days=ts.weekday(), hours=ts.hour, minutes=ts.minute))
        for symbol, ts in rows
    }


def test_weeks_and_days_are_those_of_utc_whatever_the_session(database: Database) -> None:
    insert(database, {("A", datetime(2024, 1, 7, 23, 59, tzinfo=UTC)): BAR})
    refresh(database)
    with database.connect() as connection:
        connection.execute("SET LOCAL timezone = 'Asia/Tokyo'")
        starts = connection.execute(
            "SELECT d.ts AS day, w.ts AS week FROM candles_1d d JOIN candles_1w w USING (symbol)"
        ).fetchall()
    assert starts == [{"day": datetime(2024, 1, 7, tzinfo=UTC), "week": MONDAY}]


def test_what_is_written_is_marked_in_its_transaction(database: Database) -> None:
    insert(database, {("A", MONDAY): BAR, ("A", MONDAY + timedelta(minutes=5)): BAR})
    assert marks(database) == [("candles", "A", MONDAY.date())]

    move = "UPDATE candles SET ts = ts + interval '48 hours' WHERE ts = %s"
    assert touched(database, move, [MONDAY]) == {MONDAY.date(), date(2024, 1, 3)}
    assert touched(database, "DELETE FROM candles WHERE ts < '2024-01-02'") == {MONDAY.date()}
    assert touched(database, "TRUNCATE candles") == {date(2024, 1, 3)}
    assert touched(database, "DELETE FROM candles") == set()

    with suppress(ZeroDivisionError), database.connect() as connection:
        _insert(connection, {("A", MONDAY): BAR})
        raise ZeroDivisionError
    assert marks(database) == []


def test_only_minute_bars_are_marked_and_retention_is_silent(database: Database) -> None:
    insert(database, {("A", MONDAY): BAR}, tf="1d")
    assert marks(database) == []

    insert(database, {("A", MONDAY): BAR})
    refresh(database)
    with database.connect() as connection:
        connection.execute("SET LOCAL hyperfeast.retention = 'on'")
        connection.execute("DELETE FROM candles")
    assert marks(database) == []
    assert len(stored(database)["candles_5m"]) == 1


def test_readings(database: Database) -> None:
    for hour in (1, 2, 30):
        database.execute(
            "INSERT INTO user_baseline_raw (user_id, metric, value, ts) VALUES (%s, 'pulse', %s, %s)",
            [USER, hour / 3, MONDAY + timedelta(hours=hour)],
        )
    read = (
        "SELECT metric, day, n, sum, sum_of_squares, min, max FROM user_baseline_daily ORDER BY day"
    )
    before = database.fetch(read)
    assert [row["n"] for row in before] == [2, 1]
    assert before[0]["sum"] == 1 / 3 + 2 / 3
    assert before[0]["sum_of_squares"] == 1 / 3 * (1 / 3) + 2 / 3 * (2 / 3)

    assert refresh(database, relation="user_baseline_daily").days == 2
    assert database.fetch(read) == before
    database.execute("UPDATE user_baseline_raw SET value = 9 WHERE value > 5")
    assert marks(database) == [("user_baseline_raw", str(USER), date(2024, 1, 2))]
    assert database.fetch(read)[1]["sum"] == 9
    refresh(database)
    assert (verify(database), database.fetch(read)[1]["sum"]) == ([], 9)
    database.execute("DELETE FROM user_baseline_raw")
    assert database.fetch(read) == []
    assert refresh(database).days == 2
    assert database.fetch("SELECT FROM user_baseline_daily_kept") == []


def test_a_refresh_does_exactly_what_is_dirty(database: Database) -> None:
    rows = random_bars(300, days=20)
    insert(database, rows)
    refresh(database)
    before = versions(database)

    key = sorted(rows)[100]
    correct(database, key, BAR)
    rows[key] = BAR
    assert refresh(database).days == 1
    changed = {row for row, version in versions(database).items() if before.get(row) != version}
    assert {(symbol, (ts - MONDAY) // timedelta(weeks=1)) for _, symbol, ts in changed} == {
        (key[0], (key[1] - MONDAY) // timedelta(weeks=1))
    }
    assert len(changed) == 6  # one bucket a level, its equal neighbors left alone
    assert stored(database) == expected(rows)
    assert refresh(database).days == 0


def test_a_row_far_behind_every_window(database: Database) -> None:
    """A1"""
    rows = random_bars(200, days=20)
    insert(database, rows)
    refresh(database)

    late = {("A", MONDAY - timedelta(days=3000)): BAR}
    insert(database, late)
    assert stored(database) == expected(rows | late)
    refresh(database)
    assert stored(database) == expected(rows | late)
    assert verify(database) == []


def test_a_refresh_of_some_symbols_leaves_the_others_marked(database: Database) -> None:
    insert(database, {("A", MONDAY): BAR, ("B", MONDAY): BAR})
    assert refresh(database, symbols=["B"]).days == 1
    assert marks(database) == [("candles", "A", MONDAY.date())]
    assert verify(database) == []


def test_symbols_and_users_are_told_apart(database: Database) -> None:
    insert(database, {("A", MONDAY): BAR, ("B", MONDAY): BAR})
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, value, ts) VALUES (%s, 'pulse', 60, %s)",
        [USER, MONDAY],
    )
    assert refresh(database, since=MONDAY.date(), symbols=["A"]).days == 1
    assert verify(database, symbols=["A"]) == []
    assert refresh(database, since=MONDAY.date(), symbols=[str(USER).upper()]).days == 1
    assert [key for _, key, _ in marks(database)] == ["B"]
    with pytest.raises(UsageError, match=r"user_baseline_daily: expected .* a UUID; found A"):
        verify(database, relation="user_baseline_daily", symbols=["A"])


def test_verify_names_what_is_wrong_and_a_range_refresh_heals_it(database: Database) -> None:
    insert(database, random_bars(300, days=10))
    refresh(database)
    database.execute("UPDATE candles_1h_kept SET v = v + 1e-9, c = 2 * c WHERE ts = %s", [HOUR])
    database.execute("DELETE FROM candles_5m_kept WHERE ts = (SELECT min(ts) FROM candles_5m_kept)")
    database.execute(
        "INSERT INTO candles_1w_kept SELECT symbol, ts - interval '3 weeks', o, h, l, c, v, vwap, n, "
        "notional FROM candles_1w_kept WHERE symbol = 'A' AND ts = %s",
        [MONDAY],
    )

    found = verify(database)
    assert {one.relation for one in found} == {"candles_5m", "candles_1h", "candles_1w"}
    assert not any(one.stale for one in found)
    missing = [one for one in found if one.relation == "candles_5m"]
    assert [(one.column, one.kept) for one in missing] == [("n", None)] * len(missing)
    extra = [one for one in found if one.relation == "candles_1w"]
    assert [(one.key, one.bucket, one.recomputed) for one in extra] == [
        ("A", MONDAY - timedelta(weeks=3), None)
    ]
    assert {one.column for one in found if one.relation == "candles_1h"} >= {"c"}
    assert verify(database, relation="candles_4h") == []
    assert verify(database, limit=1) == found[:1]
    assert refresh(database).days == 0  # nothing tells a refresh of these

    refresh(database, since=date(2023, 12, 1), until=date(2024, 1, 12))
    assert verify(database) == []


def test_below_the_horizon_nothing_is_computed_again(database: Database) -> None:
    rows = random_bars(300, days=20)
    insert(database, rows)
    refresh(database)
    before = stored(database)
    horizon = MONDAY + timedelta(weeks=1)
    with database.connect() as connection:
        drop_before(connection, horizon)

    assert stored(database) == before
    assert verify(database) == []
    assert refresh(database, since=date(2023, 1, 1), until=date(2025, 1, 1)).days == len(
        {(symbol, ts.date()) for symbol, ts in rows if ts >= horizon}
    )
    assert stored(database) == before

    insert(database, {("A", MONDAY): BAR})  # a writer that does not ask for the horizon
    assert stored(database) == before
    report = refresh(database)
    assert (report.days, report.out_of_reach) == (0, 1)
    assert (stored(database), marks(database)) == (before, [])


def test_retention_that_comes_while_weeks_are_compared_makes_no_difference(
    database: Database,
) -> None:
    insert(database, random_bars(300, days=20))
    refresh(database)
    with database.connect() as connection, ThreadPoolExecutor(1) as pool:
        # The weeks are listed once the lock is gone; by then the first ones have no raw rows any more.
        connection.execute("LOCK TABLE candles_4h_kept")
        checking = pool.submit(verify, database, relation="candles_4h")
        waiting(database)
        drop_before(connection, MONDAY + timedelta(weeks=1))
        connection.commit()
        assert checking.result(timeout=30) == []


def test_killed_in_the_middle(database: Database) -> None:
    """A2: SIGKILL for a process that refreshes; the next refresh heals what it left."""
    rows = random_bars(300, days=20)
    insert(database, rows)
    dirty = marks(database)
    with database.connect() as blocker:
        blocker.execute("LOCK TABLE candles_1d_kept")
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD], env=os.environ | {"DSN": database.dsn}
        )
        with child:
            pid = waiting(database)  # it has written the finer levels by now
            child.send_signal(signal.SIGKILL)
        blocker.rollback()
    assert child.returncode == -signal.SIGKILL
    gone(database, pid)

    assert database.fetch("SELECT FROM candles_5m_kept") == []
    assert (marks(database), stored(database)) == (dirty, expected(rows))
    refresh(database)
    assert (marks(database), stored(database)) == ([], expected(rows))


def test_backend_terminated_in_the_middle(database: Database) -> None:
    """A2"""
    rows = random_bars(300, days=20)
    insert(database, rows)
    with ThreadPoolExecutor(1) as pool, database.connect() as blocker:
        blocker.execute("LOCK TABLE candles_1d_kept")
        refreshing = pool.submit(refresh, database)
        pid = waiting(database)
        assert database.fetch("SELECT pg_terminate_backend(%s)", [pid])
        error = refreshing.exception(timeout=30)
        blocker.rollback()
    assert "terminating connection" in str(error)
    assert stored(database) == expected(rows)
    refresh(database)
    assert (marks(database), verify(database)) == ([], [])


def test_a_deadlock_and_a_lock_timeout_are_retried(database: Database) -> None:
    rows = random_bars(50, days=5)
    insert(database, rows)
    hasty = Database(f"{database.dsn} options='-c lock_timeout=300ms'")
    with ThreadPoolExecutor(1) as pool, database.connect() as blocker:
        blocker.execute("LOCK TABLE candles_1d_kept")
        refreshing = pool.submit(refresh, hasty)
        waiting(database)
        time.sleep(1)  # It waits no longer than 0.3 s, by the server's own clock.
        blocker.rollback()
        assert refreshing.result(timeout=30).retries > 0
    assert (marks(database), stored(database)) == ([], expected(rows))

    correct(database, min(rows), BAR)
    with ThreadPoolExecutor(1) as pool, database.connect() as blocker:
        blocker.execute("LOCK TABLE candles_1d_kept")
        refreshing = pool.submit(refresh, database)
        waiting(database)
        with suppress(errors.DeadlockDetected):
            blocker.execute("LOCK TABLE candles_5m_kept")  # which the refresh has written
        blocker.rollback()
        assert refreshing.result(timeout=30).days == 1
    assert deadlocks(database) == 1
    assert verify(database) == []


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 180)
def test_writers_refresh_and_retention_at_once(database: Database) -> None:
    """A3: eight writers; what is kept equals what the raw rows give, all the time and in the end."""
    symbols, stop = [f"S{number}" for number in range(4)], threading.Event()
    insert(database, {(symbol, MONDAY): BAR for symbol in symbols})
    with database.connect() as connection:
        drop_before(connection, MONDAY)  # nothing; from now on writers have a row to hold
    done = dict.fromkeys(("written", "retried", "refreshed", "checked", "dropped"), 0)
    with ThreadPoolExecutor(11) as pool:
        working = [pool.submit(write, database, symbols, seed, stop, done) for seed in range(8)]
        working += [
            pool.submit(role, database, stop, done)
            for role in (refresh_until, verify_until, retain_until)
        ]
        _let_them_work(working, done)
        stop.set()
        for one in working:
            one.result()
    horizon = horizon_of(database)
    frozen = {
        name: {key: bucket for key, bucket in buckets.items() if key[1] < horizon}
        for name, buckets in stored(database).items()
    }
    refresh(database)

    assert min(done.values()) > 0, done
    assert (verify(database), marks(database)) == ([], [])
    now = expected(raw(database))
    for name, buckets in stored(database).items():
        assert buckets == frozen[name] | now[name]
    sys.stdout.write(f"{done}\n")


def test_a_year_of_one_symbol_is_read_by_its_index(database: Database) -> None:
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO candles_1d_kept SELECT 'S' || s, timestamptz '2019-01-01 00:00+00' "
            "+ d * interval '24 hours', 1, 1, 1, 1, 1, 1, 1, 1 "
            "FROM generate_series(1, 40) AS s, generate_series(1, 1800) AS d"
        )
        connection.execute("ANALYZE candles_1d_kept")
        plan = connection.execute(
            "EXPLAIN (FORMAT json) SELECT * FROM candles_1d "
            "WHERE symbol = 'S7' AND ts >= '2021-01-01' AND ts < '2022-01-01'"
        ).fetchall()[0]["QUERY PLAN"]
    scans = [node for node in nodes(plan[0]["Plan"]) if "Scan" in node["Node Type"]]
    assert "candles_1d_key" in {node.get("Index Name") for node in scans}
    assert "Seq Scan" not in {
        node["Node Type"] for node in scans if node.get("Relation Name") == "candles_1d_kept"
    }


def test_the_documented_example_runs_and_gives_what_is_written(database: Database) -> None:
    text = (Path(__file__).parents[2] / "docs" / "aggregates.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["sql", "", "sql", ""]
    for (_, script), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        for statement in filter(str.strip, script.split(";")):
            with database.connect() as connection:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        found = [
            [f"{x:g}" if isinstance(x, float) else str(x) for x in row.values()] for row in rows
        ]
        assert found == [line.split() for line in shown.splitlines()]


def test_the_list(database: Database) -> None:
    insert(database, {("A", MONDAY): BAR})
    first, *_, readings = aggregates(database)
    assert (first.relation, first.built_on, first.bucket) == (
        "candles_5m",
        "candles",
        timedelta(minutes=5),
    )
    assert (first.rows, first.newest, first.dirty_days) == (0, None, 1)
    assert first.oldest_mark is not None
    assert (first.kept_by, first.policy) == ("incremental refresh", None)
    assert (readings.relation, readings.dirty_days) == ("user_baseline_daily", 0)

    refresh(database)
    first = aggregates(database)[0]
    assert (first.rows, first.newest, first.oldest_mark) == (1, MONDAY, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relation": "candles_2m"}, r"no aggregate 'candles_2m': there are candles_5m, .*1w"),
        ({"since": date(2024, 1, 2), "until": date(2024, 1, 2)}, "no day lies from 2024-01-02"),
    ],
)
def test_a_mistaken_call_is_refused(
    database: Database, arguments: dict[str, Any], message: str
) -> None:
    for call in (refresh, verify):
        with pytest.raises(UsageError, match=message):
            call(database, **arguments)


def test_the_commands(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    app = typer.Typer()
    commands.register(app)

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["aggregates", *arguments])
        return result.exit_code, result.stdout

    insert(database, {("A", MONDAY): BAR})
    code, text = call("refresh", "--json")
    assert (code, json.loads(text)["days"]) == (0, 1)
    assert call("verify")[0] == 0
    assert call("list")[0] == 0
    assert len(json.loads(call("list", "--json")[1])) == 7

    database.execute("UPDATE candles_1d_kept SET c = c + 1")
    code, text = call("verify", "--json", "--relation", "candles_1d", "--symbol", "A")
    assert (code, [one["column"] for one in json.loads(text)]) == (1, ["c"])
    code, text = call("verify")
    assert code == 1
    assert "wrong" in text
    assert call("refresh", "--since", "2024-01-01", "--until", "2024-01-02")[0] == 0
    assert call("verify") == (0, "every bucket equals its recomputation from raw rows\n")


# --- What the tests write --------------------------------------------------------------------------

BAR = Bar(10.0, 12.5, 9.25, 11.0, 3.5, None)
HOUR = MONDAY + timedelta(hours=9)


def random_bars(number: int, *, days: int) -> dict[Key, Bar]:
    """Prices and volumes whose sums depend on the order; A always has a bar at 09:00 on the first Monday."""
    rng = random.Random(number)
    rows = {("A", HOUR): BAR}
    while len(rows) < number:
        ts = MONDAY + timedelta(minutes=rng.randrange(days * 1440))
        rows[rng.choice("AB"), ts] = random_bar(rng)
    return rows


def random_bar(rng: random.Random) -> Bar:
    low, one, other, high = sorted(10 ** rng.uniform(-2, 12) for _ in range(4))
    volume = rng.choice([0.0, 10 ** rng.uniform(-8, 18)])
    return Bar(one, high, low, other, volume, rng.choice([None, one]))


def insert(database: Database, rows: dict[Key, Bar], *, tf: str = "1m") -> None:
    with database.connect() as connection:
        _insert(connection, rows, tf)


def _insert(connection: psycopg.Connection[Any], rows: dict[Key, Bar], tf: str = "1m") -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO instruments (symbol) VALUES (%s) ON CONFLICT DO NOTHING",
            [(symbol,) for symbol in sorted({symbol for symbol, _ in rows})],
        )
        cursor.execute("CREATE TEMPORARY TABLE batch (LIKE candles) ON COMMIT DROP")
        cursor.executemany(
            "INSERT INTO batch (symbol, tf, ts, o, h, l, c, v, vwap, source, recorded_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'test', now())",
            [(symbol, tf, ts, *bar) for (symbol, ts), bar in rows.items()],
        )
        cursor.execute("INSERT INTO candles SELECT * FROM batch")


def correct(database: Database, key: Key, bar: Bar) -> None:
    touched_rows = database.execute(
        "UPDATE candles SET (o, h, l, c, v, vwap) = ROW(%s, %s, %s, %s, %s, %s) "
        "WHERE symbol = %s AND tf = '1m' AND ts = %s",
        [*bar, *key],
    )
    assert touched_rows == 1


# --- What they look at -----------------------------------------------------------------------------


def marks(database: Database) -> list[tuple[str, str, date]]:
    rows = database.fetch("SELECT DISTINCT relation, key, day FROM dirty_days ORDER BY 1, 2, 3")
    return [(row["relation"], row["key"], row["day"]) for row in rows]


def touched(
    database: Database, statement: LiteralString, parameters: list[Any] | None = None
) -> set[date]:
    """The days that a statement marks."""
    database.execute("DELETE FROM dirty_days")
    database.execute(statement, parameters or [])
    days = {day for _, _, day in marks(database)}
    database.execute("DELETE FROM dirty_days")
    return days


def versions(database: Database) -> dict[tuple[str, str, datetime], tuple[str, str]]:
    """Where and by which transaction each kept row was written."""
    return {
        (name, row["symbol"], row["ts"]): (row["ctid"], row["xmin"])
        for name in expected({})
        for row in database.fetch(
            sql.SQL("SELECT symbol, ts, ctid::text, xmin::text FROM {}").format(
                sql.Identifier(f"{name}_kept")
            )
        )
    }


def raw(database: Database) -> dict[Key, Bar]:
    rows = database.fetch("SELECT symbol, ts, o, h, l, c, v, vwap FROM candles WHERE tf = '1m'")
    return {(symbol, ts): Bar(*numbers) for symbol, ts, *numbers in (row.values() for row in rows)}


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def waiting(database: Database) -> int:
    """The backend that waits for a lock on a table, once there is one."""
    for _ in range(600):
        rows = database.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock' AND wait_event = 'relation'"
        )
        if rows:
            return int(rows[0]["pid"])
        time.sleep(0.05)
    raise AssertionError("nobody came to wait for the lock")


def gone(database: Database, pid: int) -> None:
    for _ in range(600):
        if not database.fetch("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]):
            return
        time.sleep(0.05)
    raise AssertionError(f"backend {pid} goes on")


def deadlocks(database: Database) -> int:
    """As the server counts them; its counts come with a delay."""
    for _ in range(100):
        count: int = database.fetch(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )[0]["deadlocks"]
        if count:
            return count
        time.sleep(0.1)
    return 0


# --- Who works at once -----------------------------------------------------------------------------


def _let_them_work(working: Sequence[Future[None]], done: Mapping[str, int]) -> None:
    """For the time that is asked for, and until everything has happened at least once."""
    begun = time.monotonic()
    while time.monotonic() - begun < SOAK_S + (0 if min(done.values()) else LONGEST_WAIT_S):
        if any(one.done() for one in working):
            return  # Somebody has failed, and says so.
        time.sleep(0.1)


def write(
    database: Database,
    symbols: list[str],
    seed: int,
    stop: threading.Event,
    done: dict[str, int],
) -> None:
    """Bars in, corrected and out again, above the horizon; what a deadlock undoes is counted as well."""
    rng = random.Random(seed)
    with writer(database) as connection:
        while not stop.is_set():
            try:
                with connection.transaction():
                    _some(connection, symbols, rng)
                done["written"] += 1
            except errors.DeadlockDetected:
                done["retried"] += 1


@contextmanager
def writer(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(autocommit=True) as connection:
        connection.execute("SET deadlock_timeout = '20ms'")
        yield connection


def _some(connection: psycopg.Connection[Any], symbols: list[str], rng: random.Random) -> None:
    """Rows in no order, so that writers wait for each other in both directions."""
    (in_force,) = connection.execute(
        "SELECT dropped_before FROM lifecycle_in_force "
        "WHERE relation = 'candles' AND tf = '1m' FOR SHARE"
    ).fetchall()
    for _ in range(rng.randint(1, 6)):
        ts = in_force["dropped_before"] + timedelta(
            days=7 + rng.randrange(14), minutes=rng.randrange(3) * 480
        )
        key = (rng.choice(symbols), ts)
        if rng.random() < 0.2:
            connection.execute(
                "DELETE FROM candles WHERE symbol = %s AND tf = '1m' AND ts = %s", key
            )
            continue
        connection.execute(
            "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, vwap) "
            "VALUES (%s, '1m', %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (symbol, tf, ts) "
            "DO UPDATE SET (o, h, l, c, v, vwap) = ROW(excluded.o, excluded.h, excluded.l, "
            "excluded.c, excluded.v, excluded.vwap)",
            [*key, *random_bar(rng)],
        )


def refresh_until(database: Database, stop: threading.Event, done: dict[str, int]) -> None:
    while not stop.is_set():
        done["refreshed"] += refresh(database).days > 0


def verify_until(database: Database, stop: threading.Event, done: dict[str, int]) -> None:
    while not stop.is_set():
        assert verify(database, relation="candles_4h") == []
        done["checked"] += 1


def retain_until(database: Database, stop: threading.Event, done: dict[str, int]) -> None:
    """A week at a time, once nothing before the new horizon is dirty."""
    while not stop.wait(0.2):
        with database.connect() as connection:
            horizon = horizon_of(database) + timedelta(weeks=1)
            connection.execute("SELECT FROM lifecycle_in_force FOR UPDATE")
            if connection.execute(
                "SELECT FROM dirty_days WHERE day < %s::date", [horizon]
            ).fetchall():
                connection.rollback()
                continue
            drop_before(connection, horizon)
            done["dropped"] += 1


def horizon_of(database: Database) -> datetime:
    rows = database.fetch("SELECT dropped_before FROM lifecycle_in_force WHERE tf = '1m'")
    return rows[0]["dropped_before"]  # type: ignore[no-any-return]


def drop_before(connection: psycopg.Connection[Any], horizon: datetime) -> None:
    connection.execute("SET LOCAL hyperfeast.retention = 'on'")
    connection.execute(
        "INSERT INTO lifecycle_in_force (relation, tf, dropped_before) VALUES ('candles', '1m', %s) "
        "ON CONFLICT (relation, tf) DO UPDATE SET dropped_before = excluded.dropped_before",
        [horizon],
    )
    connection.execute("DELETE FROM candles WHERE tf = '1m' AND ts < %s", [horizon])
