"""The migrator on plain PostgreSQL: forward, back, twice, at once, killed, refused."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import pytest
from psycopg import conninfo, sql

from hyperfeast.db import Database
from hyperfeast.errors import AccessDenied, QueryFailed, SchemaError, UsageError
from hyperfeast.migrate import files, migrate, state
from hyperfeast.migrate.ledger import Ledger
from hyperfeast.types import Edition
from migration.conftest import relations

ALL = [*files.of_edition(Edition.PLAIN)]
NEWEST = files.newest_number()
HOSTILE_PASSWORD = "p@ss /:?#%41'\\&=word"
CHILD = (
    "import os; from hyperfeast.db import Database; from hyperfeast.migrate import migrate; "
    "report = migrate(Database(os.environ['DSN']), to=int(os.environ['TO'])); "
    "print(len(report.applied), len(report.rolled_back))"
)


def test_goes_to_the_newest_and_then_has_nothing_to_do(empty_database: Database) -> None:
    first = migrate(empty_database)
    before = relations(empty_database)
    second = migrate(empty_database)

    assert (first.edition, first.applied, first.current) == (Edition.PLAIN, ALL, NEWEST)
    assert (second.applied, second.rolled_back, second.current) == ([], [], NEWEST)
    assert relations(empty_database) == before


def test_goes_back_and_forth(empty_database: Database) -> None:
    migrate(empty_database)
    whole = relations(empty_database)

    back = migrate(empty_database, to=4)
    assert back.rolled_back == [id_ for id_ in reversed(ALL) if files.number_of(id_) > 4]
    assert (back.current, state(empty_database).current) == (4, 4)
    assert "candles" in relations(empty_database)
    assert "signals" not in relations(empty_database)

    forth = migrate(empty_database, to=NEWEST)
    assert (forth.rolled_back, forth.current) == ([], NEWEST)
    assert relations(empty_database) == whole


def test_every_rollback_undoes_its_migration(empty_database: Database) -> None:
    seen = [relations(empty_database)]
    numbers = [files.number_of(id_) for id_ in ALL]
    for number in numbers:
        migrate(empty_database, to=number)
        seen.append(relations(empty_database))
    for number in reversed([0, *numbers[:-1]]):
        seen.pop()
        migrate(empty_database, to=number)
        assert relations(empty_database) == seen[-1]
    assert seen[-1] == []


def test_a_number_that_only_another_edition_has_stops_below_it(empty_database: Database) -> None:
    assert migrate(empty_database, to=8).current == 7


@pytest.mark.parametrize("number", [-1, NEWEST + 1])
def test_a_number_that_is_not_there_is_refused(empty_database: Database, number: int) -> None:
    with pytest.raises(UsageError, match=rf"from 0 \(empty\) to {NEWEST}"):
        migrate(empty_database, to=number)
    assert relations(empty_database) == []


def test_a_dry_run_tells_and_changes_nothing(empty_database: Database) -> None:
    forward = migrate(empty_database, dry_run=True)
    assert (forward.applied, forward.current, forward.dry_run) == (ALL, 0, True)
    assert relations(empty_database) == []

    migrate(empty_database, to=3)
    before = relations(empty_database)
    back = migrate(empty_database, to=1, dry_run=True)
    assert (back.rolled_back, back.current) == ([ALL[2], ALL[1]], 3)
    assert relations(empty_database) == before


def test_the_state_is_read_without_leaving_a_trace(empty_database: Database) -> None:
    fresh = state(empty_database)
    assert (fresh.edition, fresh.applied, fresh.pending) == (Edition.PLAIN, [], ALL)
    assert relations(empty_database) == []

    migrate(empty_database, to=3)
    halfway = state(empty_database)
    assert (halfway.applied, halfway.pending, halfway.current) == (ALL[:3], ALL[3:], 3)


def test_two_processes_at_once(empty_database: Database) -> None:
    children = [_child(empty_database) for _ in range(2)]
    outcomes = sorted((child.communicate(timeout=60), child.returncode) for child in children)

    assert outcomes == [(("0 0\n", ""), 0), ((f"{len(ALL)} 0\n", ""), 0)]
    log = empty_database.fetch("SELECT migration_id FROM _yoyo_log ORDER BY 1")
    assert [row["migration_id"] for row in log] == ALL


@pytest.mark.parametrize(
    ("block", "waiting"),
    [
        ("CREATE TABLE quarantine ()", "%CREATE TABLE quarantine%"),
        ("LOCK TABLE _yoyo_migration IN EXCLUSIVE MODE", '%INSERT INTO "_yoyo_migration"%'),
    ],
    ids=["between its statements", "before it is recorded"],
)
def test_killed_in_the_middle_of_a_migration(
    empty_database: Database, block: LiteralString, waiting: str
) -> None:
    migrate(empty_database, to=2)
    with empty_database.connect() as blocker:
        blocker.execute(block)
        _kill_when_it_waits(empty_database, _child(empty_database), waiting)
        blocker.rollback()

    assert migrate(empty_database, dry_run=True).applied == ALL[2:]
    assert "ingest_batches" not in relations(empty_database)
    assert migrate(empty_database).current == NEWEST


def test_killed_in_the_middle_of_a_rollback(empty_database: Database) -> None:
    migrate(empty_database, to=2)
    before = relations(empty_database)
    with empty_database.connect() as blocker:
        blocker.execute("LOCK TABLE candles")  # dropped after candle_revisions
        _kill_when_it_waits(empty_database, _child(empty_database, to=1), "DROP TABLE candles%")
        blocker.rollback()

    assert migrate(empty_database, dry_run=True, to=1).rolled_back == [ALL[1]]
    assert relations(empty_database) == before
    assert migrate(empty_database, to=0).rolled_back == [ALL[1], ALL[0]]
    assert relations(empty_database) == []


def test_a_lock_row_left_behind_by_yoyo_itself_does_not_block(empty_database: Database) -> None:
    migrate(empty_database, to=1)
    empty_database.execute(
        "CREATE TABLE yoyo_lock (locked int PRIMARY KEY, ctime timestamp, pid int)"
    )
    empty_database.execute("INSERT INTO yoyo_lock VALUES (1, now(), 1)")

    assert migrate(empty_database).current == NEWEST


def test_a_newer_schema_is_refused(database: Database, tmp_path: Path) -> None:
    _apply(database, tmp_path, "9999.future", "CREATE TABLE future ()")
    before = relations(database)

    for call in (
        lambda: migrate(database),
        lambda: migrate(database, to=0),
        lambda: state(database),
    ):
        with pytest.raises(SchemaError, match=r"newer than this hyperfeast.*9999\.future.*upgrade"):
            call()
    assert relations(database) == before


def test_a_failing_migration_leaves_nothing(database: Database, tmp_path: Path) -> None:
    before = relations(database)
    with pytest.raises(QueryFailed, match="division by zero"):
        _apply(database, tmp_path, "9999.bad", "CREATE TABLE half (); SELECT 1 / 0")
    assert relations(database) == before
    assert state(database).applied == ALL


def test_a_migration_may_ask_for_no_transaction(database: Database, tmp_path: Path) -> None:
    _apply(database, tmp_path, "9999.vacuum", "-- transactional: false\nVACUUM instruments")

    rows = database.fetch("SELECT migration_id FROM _yoyo_migration ORDER BY 1")
    assert [row["migration_id"] for row in rows] == [*ALL, "9999.vacuum"]


def test_what_a_statement_returns_is_not_printed(
    database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _apply(database, tmp_path, "9999.rows", "SELECT 'noise'")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", ["keywords", "url"])
def test_any_dsn_and_any_password(empty_database: Database, form: str) -> None:
    with _role(empty_database, owner=True) as dsn:
        parts = conninfo.conninfo_to_dict(dsn)
        database = Database(dsn if form == "keywords" else _url(parts))
        assert migrate(database).current == NEWEST


def test_a_wrong_password_is_not_told(empty_database: Database) -> None:
    with _role(empty_database, owner=True) as dsn:
        wrong = Database(conninfo.make_conninfo(dsn, password="wrong-but-secret"))
        with pytest.raises(AccessDenied) as caught:
            migrate(wrong)
    assert "secret" not in str(caught.value)


def test_a_user_without_rights_is_told_what_to_do(empty_database: Database) -> None:
    with (
        _role(empty_database, owner=False) as dsn,
        pytest.raises(AccessDenied, match=r"permission denied for schema.*database's owner"),
    ):
        migrate(Database(dsn))
    assert relations(empty_database) == []


def test_editions_have_the_same_numbers_but_for_hypertables_and_policies() -> None:
    community, apache = files.of_edition(Edition.COMMUNITY), files.of_edition(Edition.APACHE)
    assert set(community) - set(apache) == {"0019.lifecycle-policies"}
    assert set(apache) <= set(community)
    assert set(apache) - set(ALL) == {
        "0008.hypertables",
        "0012.operations-hypertables",
        "0020.revisions-hypertable",
    }


@pytest.mark.parametrize("edition", Edition)
def test_every_migration_has_a_rollback_and_depends_on_earlier_ones(edition: Edition) -> None:
    earlier: set[str] = set()
    for id_, path in files.of_edition(edition).items():
        lines = path.read_text(encoding="ascii").splitlines()
        assert path.with_name(f"{id_}.rollback.sql").read_text(encoding="ascii").strip()
        depends = {line.removeprefix("-- depends: ") for line in lines if "-- depends:" in line}
        assert depends <= earlier
        assert depends or not earlier
        earlier.add(id_)


def _apply(database: Database, folder: Path, migration_id: str, statements: str) -> None:
    path = folder / f"{migration_id}.sql"
    path.write_text(statements, encoding="utf-8")
    with database.connect(autocommit=True) as connection:
        Ledger(connection, {migration_id: path}).apply(migration_id)


def _child(database: Database, *, to: int = NEWEST) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD],
        env={**os.environ, "DSN": database.dsn, "TO": str(to)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _kill_when_it_waits(database: Database, child: subprocess.Popen[str], statement: str) -> None:
    deadline = time.monotonic() + 60
    try:
        while not _waits(database, statement):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        child.kill()
        child.communicate()


def _waits(database: Database, statement: str) -> bool:
    rows = database.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE %s",
        [statement],
    )
    return bool(rows)


@contextmanager
def _role(database: Database, *, owner: bool) -> Iterator[str]:
    """The DSN of a user without any privilege but those of the database's owner, if asked for."""
    name = sql.Identifier(role := f"role_{secrets.token_hex(4)}")
    with database.connect(autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(HOSTILE_PASSWORD))
        )
        if owner:
            here = sql.Identifier(admin.info.dbname)
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(here, name))
        try:
            yield conninfo.make_conninfo(database.dsn, user=role, password=HOSTILE_PASSWORD)
        finally:
            admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(name))
            admin.execute(sql.SQL("DROP OWNED BY {}").format(name))
            admin.execute(sql.SQL("DROP ROLE {}").format(name))


def _url(parts: dict[str, str | int | None]) -> str:
    from urllib.parse import quote

    def quoted(key: str) -> str:
        return quote(str(parts[key]), safe="")

    return (
        f"postgresql://{quoted('user')}:{quoted('password')}@/{quoted('dbname')}"
        f"?host={quoted('host')}&port={quoted('port')}&options={quote('-c statement_timeout=60s')}"
    )
