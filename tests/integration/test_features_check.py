"""The check of declared sets in a real database: bars of its own, and relations on copies of what they read."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import psycopg
import pytest

from hyperfeast import sqlfiles
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, Key, Relation
from hyperfeast.features.check import _sample, check, try_bars
from hyperfeast.features.verdict import Fault, Verdict
from hyperfeast.indicators import expression
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe
from market import bars
from market_technical import market_technical
from personal_baseline import personal_baseline

USERS = ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002")


@pytest.fixture
def readings(database: Database) -> Database:
    """Sixty days of two users, six readings a day."""
    first = datetime(2024, 1, 1, tzinfo=UTC)
    moments = [first + timedelta(hours=4 * step) for step in range(360)]
    for number, user in enumerate(USERS):
        values = [100.0 + (17 * step * (number + 1)) % 41 for step in range(len(moments))]
        frame = pl.DataFrame({"ts": moments, "value": values}).with_columns(
            pl.lit(user).alias("user_id"),
            pl.lit("glucose").alias("metric"),
            pl.lit("ring").alias("source"),
        )
        ingest_metrics(database, frame, source="test")
    return database


@pytest.fixture
def relation(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FeatureSet]:
    """A set over a query of the test's own, with the features a and b."""

    def declare(text: str) -> FeatureSet:
        monkeypatch.setitem(sqlfiles._queries("features", "queries"), "planted", text)
        return FeatureSet(
            name="planted",
            version=3,
            keys=(Key("user", "user_id"),),
            source=Relation("planted"),
            features=(Feature("a", "Honest."), Feature("b", "Not so.")),
            freshness=timedelta(days=1),
        )

    return declare


def faults(verdict: Verdict) -> set[tuple[str, Fault]]:
    return {(one.feature, one.fault) for one in verdict.findings}


HONEST = "avg(value) OVER (PARTITION BY user_id ORDER BY ts)"
CHEATS = {
    "the next row": "lead(value) OVER (PARTITION BY user_id ORDER BY ts)",
    "a centered mean": (
        "avg(value) OVER (PARTITION BY user_id ORDER BY ts ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING)"
    ),
    "a share of the greatest": "value / max(value) OVER (PARTITION BY user_id)",
    "the mean of all users and times": "value - (SELECT avg(value) FROM user_baseline_raw)",
    "how many there will be": "(count(*) OVER (PARTITION BY user_id))::double precision",
}


def text_of(rule: str) -> str:
    return (
        f"SELECT user_id::text AS user_id, ts AS event_timestamp, {HONEST} AS a, {rule} AS b "
        "FROM user_baseline_raw WHERE metric LIKE 'glu%'"
    )


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_relation_that_looks_ahead_is_caught(
    readings: Database, relation: Callable[[str], FeatureSet], cheat: str
) -> None:
    verdict = check(relation(text_of(CHEATS[cheat])), readings, moments=3)
    assert faults(verdict) == {("b", Fault.LOOKS_AHEAD)}
    (finding,) = verdict.findings
    assert finding.input is not None
    assert "user_baseline_raw" in finding.input
    assert finding.at is not None
    assert finding.moment is not None
    assert finding.at <= finding.moment
    assert finding.entity in USERS
    assert finding.message.startswith(
        f"feature set planted v3: feature b looks ahead: changing {finding.input} after "
    )


def test_a_day_stamped_with_its_beginning_is_caught(
    readings: Database, relation: Callable[[str], FeatureSet]
) -> None:
    """The sums of a day are known when it is over: under its beginning they are the future."""
    begins = "SELECT user_id::text AS user_id, day AS event_timestamp, min AS a, max AS b FROM user_baseline_daily"
    ends = begins.replace("day AS", "day + interval '24 hours' AS")
    assert faults(check(relation(begins), readings, moments=3)) == {
        ("a", Fault.LOOKS_AHEAD),
        ("b", Fault.LOOKS_AHEAD),
    }
    assert check(relation(ends), readings, moments=3).passed


def test_random_numbers_and_infinity_are_caught(
    readings: Database, relation: Callable[[str], FeatureSet]
) -> None:
    verdict = check(relation(text_of("random()")), readings, moments=2)
    assert ("b", Fault.NOT_REPEATABLE) in faults(verdict)
    verdict = check(relation(text_of("'Infinity'::double precision")), readings, moments=2)
    assert faults(verdict) == {("b", Fault.NOT_FINITE)}


def test_declared_bounds_are_held_against_the_rows(
    readings: Database, relation: Callable[[str], FeatureSet]
) -> None:
    whole = relation(text_of("value"))
    low = replace(whole, features=(whole.features[0], Feature("b", "Low.", bounds=(0, 120))))
    assert faults(check(low, readings, moments=2)) == {("b", Fault.OUT_OF_BOUNDS)}
    high = replace(low, features=(whole.features[0], Feature("b", "High.", bounds=(0, 200))))
    assert check(high, readings, moments=2).passed


def test_the_shipped_relation_is_not_accused_and_nothing_stays(readings: Database) -> None:
    before = readings.fetch("SELECT count(*), sum(value) FROM user_baseline_raw")
    verdict = check(personal_baseline, readings, moments=12)
    assert verdict == Verdict("personal_baseline v1", verdict.trials, ())
    assert verdict.trials > 20
    assert readings.fetch("SELECT count(*), sum(value) FROM user_baseline_raw") == before


def test_the_check_of_a_relation_waits_for_no_writer(readings: Database) -> None:
    with psycopg.connect(readings.dsn) as writer:
        writer.execute("LOCK TABLE user_baseline_raw IN ROW EXCLUSIVE MODE")
        writer.execute("UPDATE user_baseline_raw SET value = value + 1")
        assert check(personal_baseline, readings, moments=2).passed


def test_a_relation_without_rows_or_database_is_untried(database: Database) -> None:
    for verdict in (check(personal_baseline, database), check(personal_baseline, None)):
        assert verdict.passed
        assert verdict.trials == 0
        assert len(verdict.untried) == 1


def test_what_a_function_reads_is_said_to_be_untried(
    readings: Database, relation: Callable[[str], FeatureSet]
) -> None:
    text = (
        "SELECT user_id::text AS user_id, day AS event_timestamp, min AS a, max AS b "
        "FROM user_baseline_daily_as_known_at(now())"
    )
    (untried, *_) = check(relation(text), readings).untried
    assert "through the function user_baseline_daily_as_known_at()" in untried


def test_a_relation_without_a_declared_column_is_refused(
    readings: Database, relation: Callable[[str], FeatureSet]
) -> None:
    with pytest.raises(FeatureError, match=r"planted v3: b declared, but not in"):
        check(relation(text_of("value").replace("AS b", "AS c")), readings)


def test_bars_of_the_database_are_tried_too(database: Database) -> None:
    ingest_candles(
        database,
        bars(500).drop("event_timestamp", "split_factor"),
        source="test",
        timeframe=Timeframe.D1,
    )
    alone, both = (
        check(market_technical, None, moments=3),
        check(market_technical, database, moments=3),
    )
    assert both.passed
    assert both.trials > 1.5 * alone.trials
    ten_bars = expression(pl.col("close").shift(-1) * (pl.col("volume") > 0), lookback=0)
    cheat = FeatureSet(
        name="planted",
        version=1,
        keys=(Key("symbol", "symbol"),),
        source=Bars(Timeframe.D1),
        features=(Feature("cheat", "It.", ten_bars),),
        freshness=timedelta(days=1),
    )
    (sample,) = _sample(database, cheat, Timeframe.D1)
    assert sample["symbol"].unique().sort().to_list() == ["AAA", "BBB"]
    assert sample.group_by("symbol").len()["len"].to_list() == [400, 400]
    (finding,) = [
        one for one in try_bars(cheat, sample, "its own", moments=3).findings if one.moment
    ]
    assert finding.entity in {"AAA", "BBB"}
    assert "(its own)" in finding.message
