"""A symbol or a user that nobody knows is a mistake in the call, not a series without faults."""

import pytest
import typer
from typer.testing import CliRunner

from hyperfeast.aggregates import refresh
from hyperfeast.cli import aggregates as commands
from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.quality import check_keys

USER = "123e4567-e89b-12d3-a456-426614174000"
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def known(database: Database) -> Database:
    """An instrument without bars, one with bars, and a user."""
    database.execute("INSERT INTO instruments (symbol) VALUES ('A'), ('B')")
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, source) "
        "VALUES ('B', '1m', '2024-01-02 09:00+00', 1, 1, 1, 1, 1, 'test')"
    )
    database.execute(
        "INSERT INTO user_baseline_raw (user_id, metric, source, ts, value) "
        "VALUES (%s, 'pulse', 'watch', '2024-01-02 09:00+00', 60)",
        [USER],
    )
    return database


def test_what_is_known_is_let_through(known: Database) -> None:
    check_keys(known, ["A", "B", USER, USER.upper()])


def test_readings_that_are_gone_leave_their_user_known(known: Database) -> None:
    refresh(known)
    with known.connect() as connection:
        connection.execute("SET LOCAL hyperfeast.retention = 'on'")
        connection.execute("DELETE FROM user_baseline_raw")
    check_keys(known, [USER])


@pytest.mark.parametrize("key", ["NOPE", NOBODY, "a", "A'; DROP TABLE candles", ""])
def test_what_nobody_knows_is_named(known: Database, key: str) -> None:
    with pytest.raises(UsageError, match="nothing is known of") as raised:
        check_keys(known, ["A", key])
    assert repr(key) in str(raised.value)
    assert "'A'" not in str(raised.value)


@pytest.mark.parametrize("command", ["verify", "refresh"])
def test_the_commands_say_so(
    known: Database, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", known.dsn)
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, ["aggregates", command, "--symbol", "NOPE"])
    assert isinstance(result.exception, UsageError)
    assert "'NOPE'" in str(result.exception)
    assert CliRunner().invoke(app, ["aggregates", "refresh", "--symbol", "B"]).exit_code == 0
    assert CliRunner().invoke(app, ["aggregates", "verify", "--symbol", "B"]).exit_code == 0
    assert CliRunner().invoke(app, ["aggregates", "verify", "--symbol", USER]).exit_code == 0
