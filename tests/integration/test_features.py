"""Feature sets on a real database: declared = stored, revisions, no look-ahead, as known at."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast import calendars
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, Key, table
from hyperfeast.features.bars import read_bars
from hyperfeast.features.compute import compute, over_bars, refresh
from hyperfeast.indicators import cross_rank, higher, session, ta
from hyperfeast.types import Timeframe
from market import bars
from market_technical import market_technical
from personal_baseline import personal_baseline

USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
PRICES = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}


def store(database: Database, prices: pl.DataFrame) -> None:
    rows = prices.select("symbol", "ts", *PRICES).rename(PRICES).with_columns(tf=pl.lit("1d"))
    with database.connect() as connection:
        for symbol in rows["symbol"].unique():
            connection.execute("INSERT INTO instruments (symbol) VALUES (%s)", [symbol])
        copy_frame(connection, "candles", rows)


@pytest.mark.parametrize("feature_set", [market_technical, personal_baseline], ids=str)
def test_the_table_is_what_is_declared(database: Database, feature_set: FeatureSet) -> None:
    table.check(database, feature_set)
    columns = database.frame(f"SELECT * FROM {feature_set.table}").columns
    keys = [*feature_set.key_columns, "event_timestamp", "recorded_at"]
    assert columns == [*keys, *feature_set.feature_names]


def test_another_column_is_named_with_the_remedy(database: Database) -> None:
    database.execute("ALTER TABLE features_market_technical_v1 RENAME rsi_14 TO rsi")
    with pytest.raises(FeatureError, match=r"rsi_14 declared, but not in .* a new version"):
        refresh(database, market_technical)


def test_a_column_of_another_type_is_named(database: Database) -> None:
    database.execute("DROP VIEW feature_values, feature_store")
    database.execute("ALTER TABLE features_market_technical_v1 ALTER rsi_14 TYPE bigint")
    with pytest.raises(FeatureError, match=r"rsi_14 is declared double precision, but .* bigint"):
        refresh(database, market_technical)


def test_what_is_stored_is_what_was_computed_to_the_last_bit(database: Database) -> None:
    store(database, bars(300))
    refresh(database, market_technical)
    computed = compute(database, market_technical).sort("symbol", "event_timestamp")
    stored = table.newest(database, market_technical).sort("symbol", "event_timestamp")
    assert computed.height == 600
    assert_frame_equal(stored, computed, check_exact=True)


def test_the_second_time_nothing_is_written(database: Database) -> None:
    store(database, bars(60))
    assert refresh(database, market_technical).written == 120
    assert refresh(database, market_technical).written == 0


def test_a_correction_adds_revisions_from_its_bar_on_and_keeps_the_old(database: Database) -> None:
    prices = bars(60, symbols=("AAA",))
    store(database, prices)
    refresh(database, market_technical)
    corrected_at = prices["ts"][40]
    database.execute("UPDATE candles SET h = h * 2 WHERE ts = %s", [corrected_at])
    changed = refresh(database, market_technical).written
    rows = database.fetch(
        "SELECT event_timestamp, count(*) AS revisions FROM features_market_technical_v1 "
        "GROUP BY 1 ORDER BY 1"
    )
    revised = [row["event_timestamp"] for row in rows if row["revisions"] == 2]
    assert len(revised) == changed > 0
    assert min(revised) > corrected_at
    assert len(rows) == 60


def test_features_as_known_before_a_correction(database: Database) -> None:
    store(database, bars(60, symbols=("AAA",)))
    before = compute(database, market_technical)
    known_at = database.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    database.execute(
        "WITH old AS (SELECT * FROM candles WHERE ts = (SELECT max(ts) FROM candles)), kept AS ("
        "  INSERT INTO candle_revisions (symbol, tf, ts, o, h, l, c, v, source, recorded_at)"
        "  SELECT symbol, tf, ts, o, h, l, c, v, source, recorded_at FROM old)"
        "UPDATE candles SET h = h * 2, recorded_at = clock_timestamp() "
        "WHERE ts = (SELECT max(ts) FROM candles)"
    )
    assert not compute(database, market_technical).equals(before)
    assert_frame_equal(compute(database, market_technical, as_known_at=known_at), before)


def test_a_split_recorded_later_was_not_known_before(database: Database) -> None:
    store(database, bars(60, symbols=("AAA",)))
    before = compute(database, market_technical)
    known_at = database.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    database.execute(
        "INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, source) "
        "VALUES ('AAA', '2020-02-10', 'split', 2, 'test')"
    )
    assert not compute(database, market_technical).equals(before)
    assert_frame_equal(compute(database, market_technical, as_known_at=known_at), before)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(known=st.integers(0, 119), seed=st.integers(0, 1000))
def test_multiplying_later_candles_changes_no_earlier_row(
    database: Database, known: int, seed: int
) -> None:
    database.execute("TRUNCATE candles, instruments, features_market_technical_v1 CASCADE")
    prices = bars(120, seed=seed)
    store(database, prices)
    refresh(database, market_technical)
    moment = prices["event_timestamp"][known]
    then = pl.col("event_timestamp") <= moment
    before = table.newest(database, market_technical).filter(then)
    database.execute(
        "UPDATE candles SET o = o * 1.5, h = h * 1.5, l = l * 1.5, c = c * 1.5, v = v * 1.5 WHERE ts > %s",
        [prices["ts"][known]],
    )
    written = refresh(database, market_technical).written
    assert_frame_equal(
        table.newest(database, market_technical).filter(then), before, check_exact=True
    )
    assert written <= 2 * (119 - known)


def test_calendar_weeks_and_other_symbols_from_stored_bars(database: Database) -> None:
    store(database, _on_sessions(bars(300)))
    database.execute("UPDATE instruments SET calendar = 'XNYS'")
    rules = {
        "since_session": session("days_since_session"),
        "weekly_rsi": higher(Timeframe.W1, ta("RSI", timeperiod=5), base=Timeframe.D1),
        "rank": cross_rank("close"),
    }
    made = FeatureSet(
        "mixed",
        1,
        (Key("symbol", "symbol"),),
        Bars(Timeframe.D1),
        tuple(Feature(name, "One of a kind.", rule) for name, rule in rules.items()),
        timedelta(days=7),
    )
    full = compute(database, made)
    assert full.height == 600
    assert sorted(full["rank"].unique()) == [0, 1]
    assert full["since_session"].value_counts(sort=True)["since_session"][0] == 1
    assert full["weekly_rsi"].is_between(0, 100).sum() > 500
    stored = read_bars(database, Timeframe.D1)
    moment = stored["ts"][280]
    newest = over_bars(made, stored, since=dict.fromkeys(("AAA", "BBB"), moment))
    known = stored["event_timestamp"][280]
    assert newest.height == 40
    assert_frame_equal(newest, full.filter(pl.col("event_timestamp") >= known), check_exact=True)


def _on_sessions(prices: pl.DataFrame) -> pl.DataFrame:
    """The same bars on the first sessions of 2020 in New York."""
    sessions = calendars.sessions("XNYS")["session"]
    first = sessions.filter(sessions >= date(2020, 1, 1)).cast(pl.Datetime("us"))
    each = prices.height // prices["symbol"].n_unique()
    dates = first.head(each).dt.replace_time_zone("UTC").to_list()
    return prices.with_columns(
        pl.Series("ts", dates * prices["symbol"].n_unique(), dtype=pl.Datetime("us", "UTC"))
    )


def test_a_bar_that_is_no_session_is_named(database: Database) -> None:
    store(database, bars(5, symbols=("AAA",)))
    database.execute("UPDATE instruments SET calendar = 'XNYS'")
    with pytest.raises(FeatureError, match=r"AAA has a daily bar of 2020-01-01, .* XNYS: delete"):
        refresh(database, market_technical)


def test_a_relation_has_no_past(database: Database) -> None:
    with pytest.raises(FeatureError, match="over bars only"):
        compute(database, personal_baseline, as_known_at=datetime(2020, 1, 1, tzinfo=UTC))


def test_rewriting_the_readings_changes_no_feature(database: Database) -> None:
    with database.connect() as connection:
        copy_frame(connection, "user_baseline_raw", _readings(days=40))
    refresh(database, personal_baseline)
    database.execute("UPDATE user_baseline_raw SET value = value WHERE extract(hour from ts) < 12")
    assert refresh(database, personal_baseline).written == 0


def test_a_day_is_compared_with_the_thirty_days_before_it(database: Database) -> None:
    readings = _readings(days=40)
    with database.connect() as connection:
        copy_frame(connection, "user_baseline_raw", readings)
    refresh(database, personal_baseline)
    stored = table.newest(database, personal_baseline).sort("event_timestamp")
    last = stored.row(-1, named=True)
    day = last["event_timestamp"] - timedelta(days=1)
    window = readings.filter(pl.col("ts") < day, pl.col("ts") >= day - timedelta(days=30))["value"]
    of_day = readings.filter(pl.col("ts") >= day)["value"]
    assert last["day_mean"] == pytest.approx(of_day.mean())
    assert last["mean_30d"] == pytest.approx(window.mean())
    assert last["std_30d"] == pytest.approx(window.std())
    assert last["n_30d"] == window.len()
    assert last["z_score"] == pytest.approx((of_day.mean() - window.mean()) / window.std())
    assert stored["z_score"][0] is None
    assert stored["n_30d"][0] is None


def _readings(days: int) -> pl.DataFrame:
    first = datetime(2021, 1, 1, tzinfo=UTC)
    times = [first + timedelta(hours=6 * step) for step in range(days * 4) if step % 7]
    values = [100 + (step * 37) % 50 for step in range(len(times))]
    return pl.DataFrame(
        {"ts": times, "value": values}, schema_overrides={"value": pl.Float64}
    ).with_columns(user_id=pl.lit(USER), metric=pl.lit("glucose"), source=pl.lit("cgm"))
