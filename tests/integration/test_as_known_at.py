"""`…_as_known_at(T)`: what was served at T, of every relation."""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe

USER = "00000000-0000-0000-0000-000000000001"
MINUTES = [f"2024-03-04T10:{minute:02d}Z" for minute in range(10)]


def test_a_corrected_candle_is_read_as_it_was(database: Database) -> None:
    _candle(database, Timeframe.D1, "2024-01-02", 10.0)
    before = _now(database)
    _candle(database, Timeframe.D1, "2024-01-02", 11.0)
    after = _now(database)

    closes = "SELECT c FROM candles_as_known_at(%s) WHERE symbol = 'A' AND tf = '1d'"
    assert _values(database, closes, before) == [10.0]
    assert _values(database, closes, after) == [11.0]
    assert _values(database, closes, before - timedelta(days=1)) == []
    market = "SELECT close FROM market_data_as_known_at(%s)"
    assert _values(database, market, before) == [10.0]
    assert _values(database, market, after) == [11.0]


def test_at_the_moment_of_a_correction_the_new_row_is_known_and_only_it(database: Database) -> None:
    _candle(database, Timeframe.D1, "2024-01-02", 10.0)
    _candle(database, Timeframe.D1, "2024-01-02", 11.0)
    moment = database.fetch("SELECT recorded_at AS at FROM candles")[0]["at"]

    closes = "SELECT c FROM candles_as_known_at(%s)"
    assert _values(database, closes, moment) == [11.0]
    assert _values(database, closes, moment - timedelta(microseconds=1)) == [10.0]


def test_a_corrected_reading_is_read_as_it_was(database: Database) -> None:
    _reading(database, 100.0)
    before = _now(database)
    _reading(database, 90.0)

    readings = "SELECT value FROM user_baseline_raw_as_known_at(%s)"
    assert _values(database, readings, before) == [100.0]
    assert _values(database, readings, _now(database)) == [90.0]
    sums = "SELECT sum FROM user_baseline_daily_as_known_at(%s)"
    assert _values(database, sums, before) == [100.0]
    assert _values(database, sums, _now(database)) == [90.0]


def test_rollups_are_those_of_the_bars_known_then(database: Database) -> None:
    _minutes(database, dict.fromkeys(MINUTES, 5.0))
    before = _now(database)
    _minutes(database, {MINUTES[4]: 7.0})

    rolled = (
        "SELECT c FROM candles_rolled_up_as_known_at('5 minutes', %s) "
        "WHERE symbol = 'A' AND ts >= '2024-03-04' AND ts < '2024-03-05' ORDER BY ts"
    )
    assert _values(database, rolled, before) == [5.0, 5.0]
    assert _values(database, rolled, _now(database)) == [7.0, 5.0]


@pytest.mark.parametrize(
    ("relation", "width"), [("candles_5m", "5 minutes"), ("candles_1w", "7 days")]
)
def test_known_now_is_what_the_aggregates_say(
    database: Database, relation: str, width: str
) -> None:
    _minutes(database, {minute: 5.0 + at for at, minute in enumerate(MINUTES)})
    now = (
        "SELECT symbol, ts, o, h, l, c, v, vwap, n "
        "FROM candles_rolled_up_as_known_at({}, now()) ORDER BY symbol, ts"
    )
    kept = "SELECT symbol, ts, o, h, l, c, v, vwap, n FROM {} ORDER BY symbol, ts"
    rows = database.fetch(sql.SQL(now).format(sql.Literal(width)))
    assert rows == database.fetch(sql.SQL(kept).format(sql.Identifier(relation)))
    assert rows != []


def test_actions_and_features_are_those_known_then(database: Database) -> None:
    _candle(database, Timeframe.D1, "2024-01-02", 10.0)
    for ratio in (2, 3):
        database.execute(
            "INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
            "VALUES ('A', '2024-01-02', 'split', %s, 'test')",
            [ratio],
        )
        database.execute(
            "INSERT INTO features_market_technical_v1 (symbol, event_timestamp, rsi_14) "
            "VALUES ('A', '2024-01-02 21:00Z', %s)",
            [ratio * 10],
        )
        if ratio == 2:
            between = _now(database)
    ratios = "SELECT ratio FROM corporate_actions_as_known_at(%s)"
    assert _values(database, ratios, between) == [2]
    assert _values(database, ratios, _now(database)) == [3]
    served = "SELECT rsi_14 FROM features_market_technical_v1_as_known_at(%s)"
    assert _values(database, served, between) == [20]
    assert _values(database, served, _now(database)) == [30]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([f"2024-01-0{day}" for day in range(2, 6)]),
            st.sampled_from([1.0, 2.0, 3.0]),
            min_size=1,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_every_past_state_can_be_read_again(
    database: Database, batches: list[dict[str, float]]
) -> None:
    """After any corrections, known-at-T equals what the table showed at T."""
    shown: list[tuple[datetime, dict[str, float]]] = []
    expected: dict[str, float] = {}
    database.execute("TRUNCATE candles, candle_revisions")
    for batch in batches:
        frame = pl.DataFrame({"symbol": "A", "ts": list(batch), **_prices(list(batch.values()))})
        ingest_candles(database, frame, timeframe=Timeframe.D1, source="test")
        expected = expected | batch
        shown.append((_now(database), expected))
    for moment, state in shown:
        rows = database.fetch(
            "SELECT to_char(ts, 'YYYY-MM-DD') AS day, c FROM candles_as_known_at(%s)", [moment]
        )
        assert {row["day"]: row["c"] for row in rows} == state


def test_the_planner_looks_through_the_function(database: Database) -> None:
    plan = database.fetch(
        "EXPLAIN SELECT * FROM candles_as_known_at(now()) "
        "WHERE symbol = 'A' AND tf = '1d' AND ts >= '2024-01-01' AND ts < '2025-01-01'"
    )
    text = "\n".join(row["QUERY PLAN"] for row in plan)
    assert "Function Scan" not in text
    assert "symbol = 'A'" in text


def _candle(database: Database, timeframe: Timeframe, ts: str, close: float) -> None:
    frame = pl.DataFrame({"symbol": ["A"], "ts": [ts], **_prices([close])})
    assert ingest_candles(database, frame, timeframe=timeframe, source="test").quarantined == 0


def _minutes(database: Database, closes: dict[str, float]) -> None:
    frame = pl.DataFrame({"symbol": "A", "ts": list(closes), **_prices(list(closes.values()))})
    assert ingest_candles(database, frame, timeframe=Timeframe.M1, source="test").quarantined == 0


def _prices(closes: list[float]) -> dict[str, Any]:
    return {"open": closes, "high": closes, "low": closes, "close": closes, "volume": 10.0}


def _reading(database: Database, value: float) -> None:
    frame = pl.DataFrame({"ts": ["2024-01-02T10:00Z"], "value": [value]})
    ingest_metrics(database, frame, source="test", user=USER, metric="glucose")


def _now(database: Database) -> datetime:
    return database.fetch("SELECT clock_timestamp() AS at")[0]["at"]  # type: ignore[no-any-return]


def _values(database: Database, query: Any, at: datetime) -> list[Any]:
    return [next(iter(row.values())) for row in database.fetch(query, [at])]


def test_the_worked_example(database: Database) -> None:
    """Every statement of the page, in one session, with the answers that the page shows."""
    page = (Path(__file__).parents[2] / "docs" / "clocks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(sql|text)\n(.*?)```", page, re.DOTALL)
    answers = [text for kind, text in blocks if kind == "text"]
    assert len(blocks) == 2 * len(answers) == 6
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for statements, answer in zip(
            [text for kind, text in blocks if kind == "sql"], answers, strict=True
        ):
            cursor = connection.execute(statements)
            while cursor.nextset():
                pass
            assert cursor.description is not None
            shown = [" | ".join(column.name for column in cursor.description)]
            shown += [" | ".join(map(_shown, row)) for row in cursor]
            assert shown == answer.split("\n")[:-1]


def _shown(value: Any) -> str:
    return {True: "t", False: "f"}[value] if isinstance(value, bool) else str(value)
