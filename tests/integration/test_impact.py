"""Which training runs and signals had used what was revised since."""

import json
from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from psycopg.types.json import Jsonb

from hyperfeast.db import Database, copy_frame
from hyperfeast.features.compute import refresh
from hyperfeast.features.impact import Impact, impact
from market import bars
from market_technical import market_technical

PRICES = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
VIEW = "market_technical_v1"
SERVED = ["log_return_1", "rsi_14"]


@pytest.fixture
def computed(database: Database) -> Database:
    """Two symbols of eighty days, and their features."""
    prices = bars(80).select("symbol", "ts", *PRICES).rename(PRICES).with_columns(tf=pl.lit("1d"))
    with database.connect() as connection:
        connection.execute("INSERT INTO instruments (symbol) VALUES ('AAA'), ('BBB')")
        copy_frame(connection, "candles", prices)
    refresh(database, market_technical)
    return database


def correct(database: Database, *, day: int, column: str = "c", symbol: str = "AAA") -> None:
    """Change a bar by a little, and compute what follows."""
    database.execute(
        f"UPDATE candles SET {column} = {column} * 0.9999 WHERE symbol = %s AND ts = %s",
        [symbol, moment(day)],
    )
    refresh(database, market_technical)


def moment(day: int) -> datetime:
    return bars(80, symbols=("AAA",))["ts"][day]


def train(
    database: Database,
    *,
    first: int,
    last: int,
    features: list[str] | None = None,
    symbols: tuple[str, ...] = ("AAA", "BBB"),
    as_known_at: datetime | None = None,
) -> str:
    """Record a run over some days; with features, the model that came of it."""
    row = database.fetch(
        "INSERT INTO training_runs (model_name, status, data_range, symbols, feature_service, "
        "definition_hashes, random_seed, as_known_at) "
        "VALUES ('direction', 'COMPLETED', daterange(%s, %s, '[]'), %s, 'service', %s, 1, %s) RETURNING run_id",
        [
            moment(first).date(),
            moment(last).date(),
            list(symbols),
            Jsonb({VIEW: market_technical.definition_hash}),
            as_known_at,
        ],
    )[0]
    if features is not None:
        database.execute(
            "INSERT INTO model_registry (model_name, model_type, version, training_date, metrics, "
            "hyperparameters, feature_columns, feature_service, artifact_path, artifact_sha256, run_id) "
            "SELECT 'direction', 'xgboost', 1 + count(*), now(), '{}', '{}', %s, 'service', 'here', %s, %s "
            "FROM model_registry",
            [features, "0" * 64, row["run_id"]],
        )
    return str(row["run_id"])


def answer(database: Database, *, day: int, symbol: str = "AAA") -> str:
    """Record a prediction made from the features of a day, an hour after they were known."""
    known = moment(day) + timedelta(hours=24)
    served = database.fetch(
        f"SELECT {', '.join(SERVED)} FROM features_market_technical_v1 "
        "WHERE symbol = %s AND event_timestamp = %s ORDER BY recorded_at DESC LIMIT 1",
        [symbol, known],
    )[0]
    row = database.fetch(
        "INSERT INTO signals (label, pred, proba, ts, symbol, tf, features, feature_ages, model_id, request_id, "
        "latency_ms) VALUES ('BUY', 0.2, 0.6, %s, %s, '1d', %s, %s, gen_random_uuid(), gen_random_uuid(), 1) "
        "RETURNING id",
        [
            known + timedelta(hours=1, microseconds=7),
            symbol,
            Jsonb(served),
            Jsonb({VIEW: 3600.000007}),
        ],
    )[0]
    return str(row["id"])


def found(database: Database, **wanted: Any) -> Impact:
    return impact(database, [market_technical], **wanted)


def test_nothing_was_revised(computed: Database) -> None:
    train(computed, first=0, last=79)
    answer(computed, day=79)
    assert found(computed) == Impact([], [], [])


def test_a_run_that_read_a_revised_row_is_named_with_what_it_read(computed: Database) -> None:
    before = train(computed, first=0, last=60, features=SERVED)
    train(computed, first=0, last=30, features=SERVED)
    train(computed, first=0, last=60, features=SERVED, symbols=("BBB",))
    correct(computed, day=50)
    train(computed, first=0, last=60, features=SERVED)
    (one,) = found(computed).trainings
    assert (str(one.run_id), one.symbol, one.model_version) == (before, "AAA", 1)
    assert one.first_event == moment(50) + timedelta(hours=24)
    assert one.last_event >= moment(60)
    assert set(one.features) >= {"log_return_1", "rsi_14"}
    assert one.rows == (one.last_event - one.first_event) // timedelta(days=1) + 1


def test_only_the_features_that_a_model_reads_count(computed: Database) -> None:
    train(computed, first=0, last=79, features=["volume_z_score_20"])
    untold = train(computed, first=0, last=79)
    correct(computed, day=50, column="h")
    (one,) = found(computed).trainings
    assert str(one.run_id) == untold
    assert "atr_14" in one.features
    assert "volume_z_score_20" not in one.features


def test_a_run_that_asked_for_an_earlier_knowledge_read_that(computed: Database) -> None:
    then = computed.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    correct(computed, day=50)
    run = train(computed, first=0, last=79, features=SERVED, as_known_at=then)
    (one,) = found(computed).trainings
    assert (str(one.run_id), one.known_at) == (run, then)


def test_what_is_corrected_back_concerns_nobody(computed: Database) -> None:
    train(computed, first=0, last=79, features=SERVED)
    answer(computed, day=50)
    correct(computed, day=50)
    assert found(computed).trainings
    computed.execute(
        "UPDATE candles SET c = %s WHERE symbol = 'AAA' AND ts = %s",
        [bars(80, symbols=("AAA",))["close"][50], moment(50)],
    )
    refresh(computed, market_technical)
    after = found(computed)
    assert len(after.corrections) == 2
    assert (after.trainings, after.signals) == ([], [])


def test_a_signal_that_was_made_of_a_revised_row_is_named(computed: Database) -> None:
    touched = answer(computed, day=50)
    answer(computed, day=49)
    answer(computed, day=50, symbol="BBB")
    correct(computed, day=50)
    answer(computed, day=50)
    (one,) = found(computed).signals
    assert (str(one.signal_id), one.symbol, one.view) == (touched, "AAA", VIEW)
    assert one.event_timestamp == moment(50) + timedelta(hours=24)
    assert set(one.features) == set(SERVED)


def test_corrections_are_listed_by_time_and_symbol(computed: Database) -> None:
    correct(computed, day=50)
    then = computed.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    correct(computed, day=60, symbol="BBB")
    both = found(computed).corrections
    assert [one.entity for one in both] == [("BBB",), ("AAA",)]
    assert both[1].first_event == moment(50) + timedelta(hours=24)
    assert both[1].revised > 1
    assert [one.entity for one in found(computed, since=then).corrections] == [("BBB",)]
    assert [one.entity for one in found(computed, symbol="AAA").corrections] == [("AAA",)]


def test_a_new_bar_corrects_nothing(computed: Database) -> None:
    computed.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c, v) VALUES ('AAA', '1d', %s, 9, 10, 8, 9, 1)",
        [moment(79) + timedelta(days=1)],
    )
    assert refresh(computed, market_technical).written == 1
    assert found(computed).corrections == []


def test_the_answer_can_be_written_as_json(computed: Database) -> None:
    import orjson

    train(computed, first=0, last=79, features=SERVED)
    answer(computed, day=50)
    correct(computed, day=50)
    read = json.loads(orjson.dumps(found(computed), default=str))
    assert read["corrections"][0]["entity"] == ["AAA"]
    assert read["trainings"][0]["rows"] > 1
    assert read["signals"][0]["label"] == "BUY"
