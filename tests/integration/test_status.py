"""`hyperfeast status` on large tables: what the planner thinks of them, and the newest row by an index."""

import importlib
from datetime import UTC, datetime

import pytest
import typer
from psycopg import sql
from typer.testing import CliRunner

from hyperfeast.cli import servers
from hyperfeast.db import Database
from hyperfeast.monitoring import PlatformStatus, TableStatus, exact, status
from hyperfeast.sqlfiles import query

module = importlib.import_module("hyperfeast.monitoring.status")
NEWEST = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COUNTED", 50)


def fill(database: Database) -> None:
    """90 days of three instruments, in an order that says nothing; and 60 readings."""
    database.execute("INSERT INTO instruments (symbol) VALUES ('A'), ('B'), ('C')")
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, source) "
        "SELECT symbol, tf, ts, 1, 1, 1, 1, 1, 'test' "
        "FROM generate_series('2024-01-01Z'::timestamptz, '2024-02-29Z', '1 day') AS ts, "
        "unnest(ARRAY['A', 'B', 'C']) AS symbol, unnest(ARRAY['1d', '1h']) AS tf "
        "UNION ALL VALUES ('B', '1d', %s::timestamptz, 1, 1, 1, 1, 1, 'test') ORDER BY 1 DESC, 3",
        [NEWEST],
    )
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, source, ts, value) "
        "SELECT gen_random_uuid(), 'pulse', 'watch', ts, 60 "
        "FROM generate_series(%s::timestamptz - interval '59 minutes', %s, '1 minute') AS ts",
        [NEWEST, NEWEST],
    )


def looked_at(database: Database) -> PlatformStatus:
    return status(database, None, {})


def table(found: PlatformStatus, name: str) -> TableStatus:
    return next(one for one in found.tables if one.table == name)


@pytest.mark.parametrize("edition", ["database", "migrated_community"])
def test_a_large_table_is_not_counted_until_asked(
    edition: str, request: pytest.FixtureRequest
) -> None:
    database: Database = request.getfixturevalue(edition)
    fill(database)
    database.execute("ANALYZE")
    found = looked_at(database)
    assert table(found, "candles").estimated
    assert 300 <= table(found, "candles").rows <= 450
    assert table(found, "candles").newest == NEWEST
    assert table(found, "user_baseline_raw").newest == NEWEST
    assert table(found, "instruments") == TableStatus("instruments", 3, None)

    counted = exact(database, found)
    assert table(counted, "candles") == TableStatus("candles", 361, NEWEST)
    assert not any(one.estimated for one in counted.tables)


def test_a_table_that_was_never_analyzed_is_estimated_by_its_size(database: Database) -> None:
    fill(database)
    assert database.fetch("SELECT reltuples FROM pg_class WHERE relname = 'candles'") == [
        {"reltuples": -1}
    ]
    assert table(looked_at(database), "candles").estimated


def test_the_newest_chunk_may_be_empty(migrated_community: Database) -> None:
    fill(migrated_community)
    migrated_community.execute("DELETE FROM candles WHERE ts >= '2024-02-01Z'")
    assert table(looked_at(migrated_community), "candles").newest == datetime(
        2024, 1, 31, tzinfo=UTC
    )


def test_the_newest_row_is_found_by_the_index(database: Database) -> None:
    fill(database)
    database.execute("ANALYZE candles")
    statement = sql.SQL("EXPLAIN {}").format(
        sql.SQL(query("status", "newest_of_series")).format(
            table=sql.Identifier("candles"),
            newest=sql.Identifier("ts"),
            series=sql.SQL("symbol, tf"),
            of_series=sql.SQL("one.symbol, one.tf"),
        )
    )
    with database.connect() as connection:
        connection.execute("SET LOCAL enable_seqscan = off")
        plan = str(connection.execute(statement).fetchall())
    assert "candles_key" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


def test_the_command_marks_estimates(
    database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", redis_url)
    fill(database)
    app = typer.Typer()
    servers.register(app)

    def line(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, ["status", *arguments])
        assert result.exit_code == 0
        return next(one.split() for one in result.stdout.splitlines() if " candles " in one)

    assert line()[1].startswith("~")
    assert line("--exact")[1] == "361"
