"""Tables and views that other systems write: what they refuse, and what the views over them show."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import QueryFailed


def test_the_audit_log_is_append_only(database: Database) -> None:
    database.execute("INSERT INTO audit_log (action, object) VALUES ('promote', 'model/a/1')")
    for statement in (
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ):
        with pytest.raises(QueryFailed, match="audit_log is append-only"):
            database.execute(statement)
    assert database.fetch("SELECT action FROM audit_log") == [{"action": "promote"}]


def test_a_deployment_is_ended_once_and_never_changed(database: Database) -> None:
    model = _model(database)
    deploy = "INSERT INTO model_deployments (model_name, model_id, role, reason) VALUES ('m', %s, 'champion', 'x')"
    database.execute(deploy, [model])

    with pytest.raises(QueryFailed, match="model_deployments_one_champion"):
        database.execute(deploy, [model])
    for change in ("reason = 'other'", "started_at = now()", "model_name = 'n'"):
        with pytest.raises(QueryFailed, match="append-only"):
            database.execute(f"UPDATE model_deployments SET {change}")
    assert database.execute("UPDATE model_deployments SET ended_at = clock_timestamp()") == 1
    with pytest.raises(QueryFailed, match="append-only"):
        database.execute("UPDATE model_deployments SET ended_at = clock_timestamp()")
    with pytest.raises(QueryFailed, match="append-only"):
        database.execute("DELETE FROM model_deployments")
    assert database.execute(deploy, [model]) == 1


def test_there_is_one_scheduler_state(database: Database) -> None:
    database.execute("INSERT INTO scheduler_state DEFAULT VALUES")
    for statement in (
        "INSERT INTO scheduler_state DEFAULT VALUES",
        "INSERT INTO scheduler_state (only_row) VALUES (false)",
    ):
        with pytest.raises(QueryFailed):
            database.execute(statement)


def test_feature_values_are_the_revisions_that_are_served(database: Database) -> None:
    database.execute(
        "INSERT INTO features_market_technical_v1 (symbol, event_timestamp, recorded_at, rsi_14, ema_12) "
        "VALUES ('A', '2024-01-02 21:00Z', '2024-01-03Z', 40, NULL), "
        "('A', '2024-01-02 21:00Z', '2024-01-04Z', 41.5, 'NaN')"
    )
    database.execute(
        "INSERT INTO features_personal_baseline_v1 (user_id, metric, event_timestamp, n_30d) "
        "VALUES ('u', 'glucose', '2024-01-02Z', 9007199254740992)"
    )
    rows = _rows(
        database,
        "SELECT feature_name, entity_id, value::text, metadata ->> 'set' FROM feature_values "
        "WHERE feature_name IN ('rsi_14', 'ema_12', 'n_30d')",
    )
    assert sorted(rows) == [
        ("ema_12", "A", "NaN", "market_technical"),
        ("n_30d", "u/glucose", "9.007199254740992e+15", "personal_baseline"),
        ("rsi_14", "A", "41.5", "market_technical"),
    ]
    stored = _rows(database, "SELECT symbol, feature_set ->> 'rsi_14', version FROM feature_store")
    assert sorted(stored) == [("A", "41.5", 1), ("u/glucose", None, 1)]


def test_market_data_is_the_daily_candles(database: Database) -> None:
    database.execute("INSERT INTO instruments (symbol) VALUES ('A')")
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) VALUES "
        "('A', '1d', '2024-01-02Z', 1, 3, 1, 2, 10), ('A', '1h', '2024-01-02Z', 1, 9, 1, 2, 10)"
    )
    assert _rows(database, "SELECT symbol, open, high, low, close, volume FROM market_data") == [
        ("A", 1, 3, 1, 2, 10)
    ]


def test_before_a_worker_has_run_there_are_no_jobs(database: Database) -> None:
    assert database.fetch("SELECT * FROM computation_jobs") == []


def test_every_table_view_and_column_says_what_it_is(database: Database) -> None:
    """The record of migrations and the queue's own tables are not ours to describe."""
    silent = _rows(
        database,
        "SELECT c.relname, a.attname FROM pg_class AS c LEFT JOIN pg_attribute AS a "
        "ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "AND col_description(c.oid, a.attnum) IS NULL "
        "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p') "
        "AND c.relname !~ '^_?(yoyo|procrastinate)' "
        "AND (a.attname IS NOT NULL OR obj_description(c.oid, 'pg_class') IS NULL) ORDER BY 1, 2",
    )
    assert silent == []


def _model(database: Database) -> Any:
    run = uuid4()
    database.execute(
        "INSERT INTO training_runs (run_id, model_name, feature_service, definition_hashes, random_seed) "
        "VALUES (%s, 'm', 's', '{}', 1)",
        [run],
    )
    return database.fetch(
        "INSERT INTO model_registry (model_name, model_type, version, training_date, metrics, hyperparameters, "
        "feature_columns, feature_service, artifact_path, artifact_sha256, run_id) "
        "VALUES ('m', 'xgboost', 1, now(), '{}', '{}', '{}', 's', 'p', repeat('0', 64), %s) RETURNING model_id",
        [run],
    )[0]["model_id"]


def _rows(database: Database, statement: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.dsn) as connection:
        return connection.execute(statement).fetchall()
