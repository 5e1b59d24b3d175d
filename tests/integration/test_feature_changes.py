"""Every change of bars is marked, whoever makes it, and every set is told of it once."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from feature_world import made
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import FeatureError
from hyperfeast.features import FeatureSet, changes, schema
from hyperfeast.features.changes import BEGINNING, END, Change, collect, settle, waiting
from hyperfeast.features.incremental import pending
from hyperfeast.indicators import ta
from hyperfeast.ingest import ingest_actions, ingest_candles
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe
from personal_baseline import personal_baseline

FIRST = datetime(2024, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = made("changes_of_days", Timeframe.D1, {"mean": ta("SMA", timeperiod=5)})
OTHERS = made("changes_of_others", Timeframe.D1, {"ema": ta("EMA", timeperiod=5)})
MINUTES = made("changes_of_minutes", Timeframe.M1, {"mean": ta("SMA", timeperiod=5)})


@pytest.fixture
def market(database: Database) -> Database:
    """Two instruments, ten days of one of them, and sets that were told of all that."""
    with database.connect() as connection:
        for one in (DAYS, OTHERS, MINUTES):
            schema.create(connection, one)
    database.execute("INSERT INTO instruments (symbol) VALUES ('AAA'), ('BBB')")
    copy(database, "AAA", range(10))
    for one in (DAYS, OTHERS, MINUTES):
        done(database, one)
    return database


def bars(symbol: str, days: range, tf: str = "1d") -> pl.DataFrame:
    return pl.DataFrame({"ts": [FIRST + day * DAY for day in days]}).with_columns(
        symbol=pl.lit(symbol), tf=pl.lit(tf), o=10.0, h=12.0, l=9.0, c=11.0, v=100.0
    )


def copy(database: Database, symbol: str, days: range, tf: str = "1d") -> None:
    with database.connect() as connection:
        copy_frame(connection, "candles", bars(symbol, days, tf))


def done(database: Database, feature_set: FeatureSet) -> None:
    """As if everything that waits had been computed."""
    found = collect(database, feature_set)
    with database.connect() as connection:
        assert settle(connection, found)


def spans(database: Database, feature_set: FeatureSet) -> dict[str, tuple[datetime, datetime]]:
    return {one.symbol: (one.first, one.last) for one in collect(database, feature_set)}


def test_a_set_begins_with_everything(market: Database) -> None:
    new = made("changes_new", Timeframe.D1, {"mean": ta("SMA", timeperiod=3)})
    with market.connect() as connection:
        schema.create(connection, new)
    assert pending(market, new) == {"AAA": BEGINNING, "BBB": BEGINNING}
    assert pending(market, DAYS) == {}


def test_a_table_that_was_made_anew_begins_with_everything(market: Database) -> None:
    market.execute(f"DROP TABLE {DAYS.table} CASCADE")
    with market.connect() as connection:
        schema.create(connection, DAYS)
    assert spans(market, DAYS) == dict.fromkeys(("AAA", "BBB"), (BEGINNING, END))


@pytest.mark.parametrize(
    ("statement", "first", "last"),
    [
        (("INSERT INTO candles (symbol, tf, ts, o, h, l, c) "
          "SELECT 'AAA', '1d', ts + interval '10 days', o, h, l, c FROM candles WHERE symbol = 'AAA'"), 10, 19),
        ("UPDATE candles SET c = 10 WHERE ts >= '2024-01-05'", 3, 9),
        ("UPDATE candles SET ts = ts + interval '30 days' WHERE ts = '2024-01-02'", 0, 30),
        ("DELETE FROM candles WHERE ts = '2024-01-04'", 2, 3),
        ("DELETE FROM candles", 0, 10),
        ("TRUNCATE candles", 0, 9),
        (("INSERT INTO candles (symbol, tf, ts, o, h, l, c) VALUES ('AAA', '1d', '2024-01-04', 1, 1, 1, 1) "
         "ON CONFLICT (symbol, tf, ts) DO UPDATE SET c = 10"), 2, 2),
    ],
)  # fmt: skip
def test_a_statement_marks_what_it_touches(
    market: Database, statement: str, first: int, last: int
) -> None:
    market.execute(statement)
    expected = {"AAA": (FIRST + first * DAY, FIRST + last * DAY)}
    assert spans(market, DAYS) == expected
    assert spans(market, OTHERS) == expected
    assert spans(market, MINUTES) == {}


def test_a_copy_marks_a_row_a_symbol(market: Database) -> None:
    with market.connect() as connection:
        copy_frame(
            connection, "candles", pl.concat([bars("AAA", range(20, 90)), bars("BBB", range(5))])
        )
    assert len(market.fetch("SELECT FROM changed_bars")) == 2
    assert spans(market, DAYS) == {
        "AAA": (FIRST + 20 * DAY, FIRST + 89 * DAY),
        "BBB": (FIRST, FIRST + 4 * DAY),
    }


def test_only_the_timeframe_that_changed(market: Database) -> None:
    copy(market, "BBB", range(3), tf="1m")
    assert spans(market, DAYS) == {}
    assert spans(market, MINUTES) == {"BBB": (FIRST, FIRST + 2 * DAY)}


@pytest.mark.parametrize(
    ("statement", "day"),
    [
        ("UPDATE corporate_actions SET ratio = 3 WHERE ex_date = '2024-02-01'", 30),
        ("UPDATE corporate_actions SET ex_date = '2024-01-12'", 10),
        ("DELETE FROM corporate_actions WHERE kind = 'split'", 30),
        (("INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
         "VALUES ('AAA', '2024-01-04', 'split', 2, 'test')"), 2),
    ],
)  # fmt: skip
def test_a_split_marks_all_timeframes_from_its_ex_date_on(
    market: Database, statement: str, day: int
) -> None:
    market.execute(
        "INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
        "VALUES ('AAA', '2024-02-01', 'split', 2, 'test')"
    )
    for one in (DAYS, MINUTES):
        done(market, one)
    market.execute(statement)
    for one in (DAYS, MINUTES):
        assert spans(market, one) == {"AAA": (FIRST + day * DAY, END)}


def test_a_dividend_marks_nothing(market: Database) -> None:
    market.execute(
        "INSERT INTO corporate_actions (symbol, ex_date, kind, amount, source) "
        "VALUES ('AAA', '2024-02-01', 'dividend', 2, 'test')"
    )
    market.execute("DELETE FROM corporate_actions")
    market.execute("UPDATE instruments SET currency = 'EUR'")
    assert spans(market, DAYS) == {}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE instruments SET calendar = 'XNYS' WHERE symbol = 'AAA'",
        "DELETE FROM instruments WHERE symbol = 'AAA'",
    ],
)
def test_another_calendar_marks_all_bars(market: Database, statement: str) -> None:
    market.execute(statement)
    assert spans(market, DAYS) == {"AAA": (BEGINNING, END)}


def test_what_is_rolled_back_marks_nothing(market: Database) -> None:
    with market.connect() as connection:
        connection.execute("DELETE FROM candles")
        connection.rollback()
        connection.execute("SAVEPOINT before")
        connection.execute("DELETE FROM candles WHERE ts = '2024-01-04'")
        connection.execute("ROLLBACK TO SAVEPOINT before")
        connection.execute("DELETE FROM candles WHERE ts = '2024-01-04'")
    assert spans(market, DAYS) == {"AAA": (FIRST + 2 * DAY, FIRST + 3 * DAY)}


def test_what_retention_deletes_marks_nothing(market: Database) -> None:
    with market.connect() as connection:
        connection.execute(query("lifecycle", "silence_marks"))
        connection.execute("DELETE FROM candles WHERE ts < '2024-01-06'")
    assert spans(market, DAYS) == {}
    market.execute("DELETE FROM candles WHERE ts < '2024-01-08'")
    assert spans(market, DAYS) == {"AAA": (FIRST + 4 * DAY, FIRST + 6 * DAY)}


def test_ingestion_marks_what_it_writes_and_no_more(market: Database) -> None:
    frame = bars("AAA", range(8, 12)).select(
        "symbol", "ts", open="o", high="h", low="l", close="c", volume="v"
    )
    taken = ingest_candles(market, frame, timeframe=Timeframe.D1, source="test")
    assert (taken.inserted, taken.unchanged) == (2, 2)
    assert spans(market, DAYS) == {"AAA": (FIRST + 10 * DAY, FIRST + 11 * DAY)}
    done(market, DAYS)
    ingest_candles(market, frame, timeframe=Timeframe.D1, source="test")
    assert spans(market, DAYS) == {}
    splits = pl.DataFrame(
        {"symbol": ["AAA"], "ex_date": [date(2024, 1, 9)], "kind": ["split"], "ratio": [2.0]}
    )
    ingest_actions(market, splits, source="test")
    assert spans(market, DAYS) == {"AAA": (FIRST + 7 * DAY, END)}


def test_each_set_is_told_once(market: Database) -> None:
    copy(market, "AAA", range(10, 12))
    (first,) = collect(market, DAYS)
    assert collect(market, DAYS) == [first] == waiting(market, DAYS, ["AAA"])
    assert waiting(market, DAYS, ["BBB"]) == []
    done(market, DAYS)
    assert collect(market, DAYS) == []
    assert [one.symbol for one in collect(market, OTHERS)] == ["AAA"]


def test_who_settles_second_finds_the_marks_gone(market: Database) -> None:
    copy(market, "AAA", range(10, 12))
    found = collect(market, DAYS)
    copy(market, "AAA", range(12, 13))
    later = collect(market, DAYS)
    assert len(later[0].ids) == 2
    for order, answers in (((found, later), (True, False)), ((later,), (False,))):
        for marks, answer in zip(order, answers, strict=True):
            with market.connect() as connection:
                assert settle(connection, marks) is answer
                if not answer:
                    connection.rollback()
    assert spans(market, DAYS) == {"AAA": (FIRST + 12 * DAY, FIRST + 12 * DAY)}


def test_what_is_left_of_a_change(market: Database) -> None:
    copy(market, "AAA", range(10, 12))
    (found,) = collect(market, DAYS)
    with market.connect() as connection:
        assert settle(connection, [found])
        changes.leave(connection, DAYS, [Change("AAA", (), FIRST + 40 * DAY, found.last)])
    assert spans(market, DAYS) == {"AAA": (FIRST + 40 * DAY, FIRST + 11 * DAY)}


def test_a_retired_set_gathers_no_marks_and_begins_anew(market: Database) -> None:
    market.execute(
        "INSERT INTO feature_sets (name, version, entity, description, features, is_active) "
        "VALUES (%s, 1, 'symbol', '', '{}', false)",
        [OTHERS.name],
    )
    copy(market, "AAA", range(10, 12))
    collect(market, DAYS)
    assert market.fetch("SELECT FROM feature_backlog WHERE feature_set = %s", [OTHERS.name]) == []
    assert spans(market, OTHERS) == dict.fromkeys(("AAA", "BBB"), (BEGINNING, END))


def test_full_marks_the_symbols_that_are_named(market: Database) -> None:
    found = collect(market, DAYS, ["BBB"], full=True)
    assert [(one.symbol, one.first, one.last) for one in found] == [("BBB", BEGINNING, END)]
    assert pending(market, DAYS) == {"BBB": BEGINNING}


def test_a_set_over_readings_is_told_by_others(market: Database) -> None:
    with pytest.raises(FeatureError, match="changes of bars do not touch it"):
        collect(market, personal_baseline)
