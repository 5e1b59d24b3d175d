"""What commands print on 80 columns: names, numbers and days stay whole."""

import re

import pytest
import typer
from typer.testing import CliRunner

from hyperfeast.cli import aggregates, data, lifecycle, quality, servers
from hyperfeast.db import Database

USER = "123e4567-e89b-12d3-a456-426614174000"
COMMANDS = {
    "aggregates list": {"candles_15m", "user_baseline_daily", "incremental", "2,016,000"},
    "lifecycle show": {
        "features_personal_baseline_v1", "user_baseline_revisions", "2024-01-02", "2,016,000",
    },
    "lifecycle plan": {"features_personal_baseline_v1", "keep_for"},
    "quality report": {"high_is_highest", "2024-01-03"},
    "completeness": {"BTC/USDT", "95.83%"},
    "quarantine": {"high_is_highest", "'open':"},
    "status": {"features_personal_baseline_v1", "2024-01-03"},
}  # fmt: skip


@pytest.fixture
def app(database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The commands on a database of two days."""
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "80")
    database.execute("INSERT INTO instruments (symbol) VALUES ('BTC/USDT')")
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, source) "
        "SELECT 'BTC/USDT', '1m', ts, 1, 1, 1, 1, 1, 'test' FROM generate_series("
        "'2024-01-02'::timestamptz, '2024-01-03 23:59', '1 minute') AS ts WHERE date_part('hour', ts) <> 1"
    )
    database.execute(
        "INSERT INTO quarantine (batch_id, target, rule, row, recorded_at) VALUES "
        "(gen_random_uuid(), 'candles', 'high_is_highest', '{\"open\": 1, \"high\": 0}', '2024-01-03')"
    )
    # What the planner thinks of: as many as a name and a number have to stand beside.
    database.execute(
        "UPDATE pg_class SET reltuples = 2016000 WHERE relname IN ('candles', 'candles_5m_kept')"
    )
    app = typer.Typer()
    for one in (aggregates, data, lifecycle, quality, servers):
        one.register(app)
    return app


@pytest.mark.parametrize("command", COMMANDS)
def test_words_stay_whole(app: typer.Typer, command: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.exception
    # Sentences begin at the margin; the terminal breaks them.
    assert max(len(line) for line in result.stdout.splitlines() if line.startswith(" ")) <= 80
    words = set(re.split(r"\s+", result.stdout))
    assert COMMANDS[command] <= words
