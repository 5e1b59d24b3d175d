"""The lane's own server: many clients on one backend must not notice one another."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from hyperfeast.db import Database

HERE = Path(__file__).parent


@pytest.fixture
def clients(community: Database) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with (
        psycopg.connect(community.dsn, autocommit=True) as one,
        psycopg.connect(community.dsn, autocommit=True) as other,
    ):
        one.execute("DROP TABLE IF EXISTS wire; CREATE TABLE wire (k int, ts timestamptz, s text)")
        yield one, other
        one.execute("DROP TABLE wire")


Clients = tuple[psycopg.Connection, psycopg.Connection]


def test_copy_both_ways(clients: Clients) -> None:
    one, other = clients
    rows = [(i, datetime(2024, 1, 1, tzinfo=UTC), "x" * (i % 300)) for i in range(20_000)]
    for form in ("text", "binary"):
        one.execute("TRUNCATE wire")
        with one.cursor() as cursor, cursor.copy(f"COPY wire FROM STDIN (FORMAT {form})") as copy:
            copy.set_types(["int4", "timestamptz", "text"])
            for row in rows:
                copy.write_row(row)
        with other.cursor() as cursor, cursor.copy("COPY wire TO STDOUT") as copy:
            assert sum(bytes(block).count(b"\n") for block in copy) == len(rows)
        assert other.execute("SELECT * FROM wire ORDER BY k").fetchall() == rows


def test_a_failed_copy_leaves_the_client_usable(clients: Clients) -> None:
    one, _ = clients
    with (
        pytest.raises(psycopg.errors.InvalidTextRepresentation),
        one.cursor() as cursor,
        cursor.copy("COPY wire FROM STDIN") as copy,
    ):
        copy.write("not a number\t\\N\t\\N\n")
    assert one.execute("SELECT count(*) FROM wire").fetchone() == (0,)


def test_a_message_of_megabytes_and_a_batch_of_thousands(clients: Clients) -> None:
    one, _ = clients
    one.execute("INSERT INTO wire (s) VALUES (%s)", ["z" * 4_000_000])
    assert one.execute("SELECT length(s) FROM wire").fetchone() == (4_000_000,)
    with one.cursor() as cursor:
        cursor.executemany("INSERT INTO wire (k) VALUES (%s)", [(i,) for i in range(3000)])
    assert one.execute("SELECT sum(k) FROM wire").fetchone() == (3000 * 2999 // 2,)


def test_each_client_has_its_own_settings_and_statements(clients: Clients) -> None:
    one, other = clients
    one.execute("SET timezone = 'Asia/Tokyo'")
    other.execute("SELECT set_config('work_mem', '7MB', false)")
    for number in range(8):  # psycopg prepares from the fifth time on, under the same names
        assert one.execute("SELECT %s + 1", [number], prepare=True).fetchone() == (number + 1,)
        assert other.execute("SELECT %s || 'z'", [f"{number}"], prepare=True).fetchone() == (
            f"{number}z",
        )
    assert one.execute("SHOW timezone").fetchone() == ("Asia/Tokyo",)
    assert one.execute("SHOW work_mem").fetchone() != ("7MB",)
    assert other.execute("SHOW timezone").fetchone() == ("UTC",)
    assert other.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_settings_of_the_start(community: Database) -> None:
    options = "-c statement_timeout=1234 -c search_path=pg_catalog,\\ public"
    with psycopg.connect(community.dsn, options=options) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1234ms",)
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog, public",)


def test_a_transaction_keeps_the_others_waiting(clients: Clients) -> None:
    one, other = clients
    done = threading.Event()

    def insert() -> None:
        other.execute("INSERT INTO wire (k) VALUES (2)")
        done.set()

    with one.transaction():
        one.execute("INSERT INTO wire (k) VALUES (1)")
        thread = threading.Thread(target=insert)
        thread.start()
        assert not done.wait(0.5)
    thread.join(10)
    assert done.is_set()
    assert one.execute("SELECT array_agg(k ORDER BY k) FROM wire").fetchone() == ([1, 2],)


def test_a_client_that_leaves_takes_its_transaction_along(
    clients: Clients, community: Database
) -> None:
    one, _ = clients
    leaver = psycopg.connect(community.dsn)
    leaver.execute("INSERT INTO wire (k) VALUES (1)")
    leaver.close()
    assert one.execute("SELECT count(*) FROM wire").fetchone() == (0,)


def test_notifications_reach_the_other_client(clients: Clients) -> None:
    one, other = clients
    one.execute("LISTEN news")
    other.execute("NOTIFY news, 'hello'")
    assert [each.payload for each in one.notifies(timeout=5, stop_after=1)] == ["hello"]


def test_the_package_is_pinned_by_integrity_and_by_no_address() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text(encoding="ascii"))
    wanted = json.loads((HERE / "package.json").read_text(encoding="ascii"))["dependencies"]
    packages = {path: entry for path, entry in lock["packages"].items() if path}

    assert {path.removeprefix("node_modules/") for path in packages} == set(wanted)
    for path, entry in packages.items():
        assert entry["version"] == wanted[path.removeprefix("node_modules/")]
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry
