"""The feature set personal_baseline: equal to what `compare` says, never ahead."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from hyperfeast.aggregates import refresh as refresh_aggregates
from hyperfeast.baselines import compare
from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import UsageError
from hyperfeast.features import table
from hyperfeast.features.compute import compute, refresh
from hyperfeast.features.relation import follows_readings, pending, refresh_users
from hyperfeast.ingest import ingest_metrics
from market_technical import market_technical
from personal_baseline import personal_baseline

USER = UUID("6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b")
OTHER = UUID("0a4be2f7-58d5-45d4-a6c7-55d33a1de6f5")
DAY = timedelta(days=1)
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)

Row = tuple[UUID, str, str, datetime, float]


def put(database: Database, rows: Sequence[Row]) -> None:
    frame = pl.DataFrame(
        [(str(user), *rest) for user, *rest in rows],
        schema=["user_id", "metric", "source", "ts", "value"],
        orient="row",
    )
    with database.connect() as connection:
        copy_frame(connection, "user_baseline_raw", frame)


def history(
    days: int, *, until: datetime = FIRST + 90 * DAY, seed: int = 1, users: Sequence[UUID] = (USER,)
) -> list[Row]:
    """A few readings a day by one device, then by another one that reads higher; some days without."""
    rng = random.Random(seed)
    return [
        (user, "glucose", "ring" if back > days // 2 else "watch", until - back * DAY + timedelta(minutes=minute),
         rng.gauss(100 if back > days // 2 else 108, 15))
        for user in users
        for back in range(days, 0, -1)
        if rng.random() > 0.1
        for minute in rng.sample(range(24 * 60), rng.randint(1, 6))
    ]  # fmt: skip


def stored(database: Database, user: UUID = USER) -> pl.DataFrame:
    rows = table.newest(database, personal_baseline).filter(user_id=str(user))
    return rows.sort("metric", "event_timestamp")


def revisions(database: Database) -> int:
    return database.fetch("SELECT count(*) AS n FROM features_personal_baseline_v1")[0]["n"]  # type: ignore[no-any-return]


def rebuilt(database: Database, user: UUID = USER) -> pl.DataFrame:
    """Everything computed anew, in the order of what is stored."""
    rows = compute(database, personal_baseline).filter(user_id=str(user))
    return rows.sort("metric", "event_timestamp")


def test_it_says_what_compare_says(database: Database) -> None:
    put(database, history(80))
    refresh(database, personal_baseline)
    until = (FIRST + 89 * DAY).date()
    (compared,) = compare(database, USER, first=until - 79 * DAY, last=until)
    rows = {row["event_timestamp"].date() - DAY: row for row in stored(database).to_dicts()}
    assert set(rows) == {one.day for one in compared.days}
    scored = 0
    for one in compared.days:
        row = rows[one.day]
        assert row["day_mean"] == pytest.approx(one.value, rel=1e-12)
        assert row["n_day"] == one.n
        assert (row["n_30d"] or 0) == one.baseline_n
        assert row["days_present_30d"] == one.days_present
        for name, value in (
            ("mean_30d", one.mean),
            ("std_30d", one.std),
            ("z_score", one.z_score),
            ("harmonized_z_score", one.harmonized_z_score),
        ):
            assert row[name] == (
                value if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)
            )
        assert row["day_hours"] == 24
        scored += one.harmonized_z_score is not None
    assert scored > 40


def test_deviations_and_stability_against_a_naive_computation(database: Database) -> None:
    rows = history(50)
    put(database, rows)
    refresh(database, personal_baseline)
    means: dict[date, list[float]] = {}
    for *_, ts, value in rows:
        means.setdefault(ts.date(), []).append(value)
    for row in stored(database).to_dicts():
        day = row["event_timestamp"].date() - DAY
        own = sum(means[day]) / len(means[day])
        for back in (1, 7, 30):
            before = [
                v for d, values in means.items() if day - back * DAY <= d < day for v in values
            ]
            expected = own - sum(before) / len(before) if before else None
            found = row[f"deviation_{back}d"]
            assert found == (expected if expected is None else pytest.approx(expected, abs=1e-9))
        days = [sum(v) / len(v) for d, v in means.items() if day - 30 * DAY <= d < day]
        if len(days) < 3:
            assert row["stability_30d"] is None
            assert row["day_z_score"] is None
        else:
            spread = pl.Series(days).std()
            assert row["day_std_30d"] == pytest.approx(spread)
            if row["z_score"] is not None:
                assert row["day_z_score"] == pytest.approx(row["deviation_30d"] / spread)
            assert row["stability_30d"] == pytest.approx(1 / (1 + spread / row["mean_30d"]))
            assert 0 < row["stability_30d"] <= 1


def test_the_second_time_nothing_is_written_and_nothing_is_due(database: Database) -> None:
    put(database, history(60))
    assert refresh(database, personal_baseline).written > 40
    assert pending(database, personal_baseline) == {}
    assert refresh(database, personal_baseline).written == 0
    assert refresh(database, personal_baseline, full=True).written == 0


def test_a_late_reading_revises_its_day_and_the_thirty_after_it_and_nothing_else(
    database: Database,
) -> None:
    put(database, history(80, users=(USER, OTHER)))
    refresh(database, personal_baseline)
    before, count = stored(database), revisions(database)
    others = stored(database, OTHER)
    late = FIRST + 40 * DAY + timedelta(hours=3)
    put(database, [(USER, "glucose", "ring", late, 222.0)])
    assert pending(database, personal_baseline) == {str(USER): late.replace(hour=0)}
    done = refresh(database, personal_baseline)
    changed = stored(database).join(before, on=before.columns, how="anti", nulls_equal=True)
    days = {event.date() - DAY for event in changed["event_timestamp"]}
    assert days <= {late.date() + back * DAY for back in range(31)}
    assert late.date() in days
    assert late.date() + 30 * DAY in days
    assert done.written == changed.height == revisions(database) - count
    assert_frame_equal(stored(database, OTHER), others, check_exact=True)
    assert_frame_equal(stored(database), rebuilt(database), check_exact=True)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_arrival_gives_what_a_rebuild_gives(
    database: Database, data: st.DataObject
) -> None:
    database.execute(
        "TRUNCATE user_baseline_raw, features_personal_baseline_v1, reading_sets CASCADE"
    )
    database.execute("TRUNCATE dirty_days, reading_changes")
    rows = history(45, seed=data.draw(st.integers(0, 1000)), users=(USER, OTHER))
    order = data.draw(st.permutations(range(len(rows))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=4)))
    for first, last in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        put(database, [rows[position] for position in order[first:last]])
        if data.draw(st.booleans()):
            refresh_aggregates(database)
        users = [str(USER)] if data.draw(st.booleans()) else None
        refresh_users(database, personal_baseline, users)
    refresh(database, personal_baseline)
    for user in (USER, OTHER):
        assert_frame_equal(stored(database, user), rebuilt(database, user), check_exact=True)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(after=st.integers(31, 79), factor=st.floats(0.1, 10), seed=st.integers(0, 100))
def test_nothing_after_a_day_changes_it(
    database: Database, after: int, factor: float, seed: int
) -> None:
    database.execute(
        "TRUNCATE user_baseline_raw, features_personal_baseline_v1, reading_sets CASCADE"
    )
    database.execute("TRUNCATE dirty_days, reading_changes")
    rows = history(80, until=FIRST + 80 * DAY, seed=seed)
    put(database, rows)
    refresh(database, personal_baseline)
    end = FIRST + after * DAY
    then = pl.col("event_timestamp") <= end
    before = stored(database).filter(then)
    database.execute(
        "UPDATE user_baseline_raw SET value = value * %s WHERE ts >= %s", [factor, end]
    )
    put(database, [(USER, "glucose", "new", end + timedelta(seconds=1), 400.0)])
    refresh(database, personal_baseline)
    assert_frame_equal(stored(database).filter(then), before, check_exact=True)


def test_as_known_before_a_late_row_nothing_has_changed(database: Database) -> None:
    put(database, history(60))
    refresh(database, personal_baseline)
    known = "SELECT * FROM features_personal_baseline_v1_as_known_at(%s) ORDER BY event_timestamp"
    at = database.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    before = database.fetch(known, [at])
    put(database, [(USER, "glucose", "ring", FIRST + 60 * DAY, 300.0)])
    assert refresh(database, personal_baseline).written > 20
    assert database.fetch(known, [at]) == before


def test_a_day_that_is_not_over_is_known_as_of_its_newest_reading(database: Database) -> None:
    put(database, history(40, until=MIDNIGHT))
    now = datetime.now(UTC)
    moments = [MIDNIGHT + (now - MIDNIGHT) * share for share in (0.0, 0.4, 0.8)]
    for number, moment in enumerate(moments):
        put(database, [(USER, "glucose", "watch", moment, 100.0 + number)])
        refresh(database, personal_baseline)
    rows = stored(database).filter(pl.col("event_timestamp") > MIDNIGHT)
    stamp = timedelta(microseconds=1)
    assert rows["event_timestamp"].to_list() == [moment + stamp for moment in moments]
    assert rows["day_mean"].to_list() == pytest.approx([100.0, 100.5, 101.0])
    assert rows["n_day"].to_list() == [1, 2, 3]
    assert rows["day_hours"][2] == pytest.approx((moments[2] - MIDNIGHT) / timedelta(hours=1))
    # One baseline: the day itself is left out.
    assert rows["mean_30d"].n_unique() == 1
    yesterday = stored(database).filter(pl.col("event_timestamp") == MIDNIGHT)
    assert yesterday.height == 1
    assert yesterday["day_hours"].to_list() == [24.0]


def test_a_correction_of_today_is_served_and_what_was_said_before_stays_said(
    database: Database,
) -> None:
    put(database, history(40, until=MIDNIGHT))
    now = datetime.now(UTC)
    early, late = (MIDNIGHT + (now - MIDNIGHT) * share for share in (0.2, 0.6))
    put(database, [(USER, "glucose", "watch", early, 50.0)])
    refresh(database, personal_baseline)
    put(database, [(USER, "glucose", "watch", late, 100.0)])
    refresh(database, personal_baseline)
    database.execute("UPDATE user_baseline_raw SET value = 90 WHERE ts = %s", [early])
    done = refresh(database, personal_baseline)
    assert done.written == 1
    assert done.newest["day_mean"].to_list() == [95.0]
    rows = stored(database).filter(pl.col("event_timestamp") > MIDNIGHT)
    assert rows["day_mean"].to_list() == [50.0, 95.0]


def test_what_lost_its_readings_has_no_value_any_more(database: Database) -> None:
    put(database, history(40, until=MIDNIGHT))
    put(database, [(USER, "glucose", "watch", MIDNIGHT + timedelta(seconds=1), 50.0)])
    refresh(database, personal_baseline)
    day = FIRST.replace(year=MIDNIGHT.year, month=MIDNIGHT.month, day=MIDNIGHT.day) - 10 * DAY
    database.execute("DELETE FROM user_baseline_raw WHERE ts >= %s AND ts < %s", [day, day + DAY])
    database.execute("DELETE FROM user_baseline_raw WHERE ts >= %s", [MIDNIGHT])
    refresh(database, personal_baseline)
    rows = {row["event_timestamp"]: row for row in stored(database).to_dicts()}
    emptied = [rows[day + DAY], rows[MIDNIGHT + timedelta(seconds=1, microseconds=1)]]
    assert [row["day_mean"] for row in emptied] == [None, None]
    left = stored(database).filter(pl.col("day_mean").is_not_null())
    assert_frame_equal(left, rebuilt(database), check_exact=True)


def test_a_day_is_done_once_more_when_it_is_over(database: Database) -> None:
    put(database, [(USER, "glucose", "watch", MIDNIGHT, 50.0)])
    refresh(database, personal_baseline)
    marks = database.fetch("SELECT * FROM reading_marks")
    assert [(one["first"], one["due_at"]) for one in marks] == [(MIDNIGHT.date(), MIDNIGHT + DAY)]
    assert pending(database, personal_baseline) == {}
    refresh(database, personal_baseline, full=True)
    assert len(database.fetch("SELECT * FROM reading_marks")) == 1
    database.execute("UPDATE reading_marks SET due_at = clock_timestamp()")
    assert pending(database, personal_baseline) == {str(USER): MIDNIGHT}


def test_a_mark_is_gone_only_with_its_rows(database: Database) -> None:
    put(database, history(40))
    refresh(database, personal_baseline)
    put(database, [(USER, "glucose", "ring", FIRST + 70 * DAY, 300.0)])
    database.execute(
        "ALTER TABLE features_personal_baseline_v1 ADD CHECK (day_mean IS NULL) NOT VALID"
    )
    with pytest.raises(Exception, match="violates check"):
        refresh(database, personal_baseline)
    assert list(pending(database, personal_baseline)) == [str(USER)]
    database.execute(
        "ALTER TABLE features_personal_baseline_v1 DROP CONSTRAINT features_personal_baseline_v1_day_mean_check"
    )
    refresh(database, personal_baseline)
    assert_frame_equal(stored(database), rebuilt(database), check_exact=True)


def test_many_at_once_write_what_one_writes(database: Database) -> None:
    users = [uuid4() for _ in range(12)]
    put(database, history(40, users=users))
    stop = threading.Event()

    def work(part: Sequence[UUID] | None) -> None:
        while not stop.is_set():
            refresh_users(database, personal_baseline, part and [str(one) for one in part])

    with ThreadPoolExecutor(4) as threads:
        done = [threads.submit(work, part) for part in (None, users[:8], users[4:], None)]
        for number in range(6):
            moment = FIRST + (60 + number) * DAY
            put(database, [(user, "glucose", f"d{number}", moment, 150.0) for user in users])
        stop.set()
        for one in done:
            one.result(60)
    refresh(database, personal_baseline)
    for user in users:
        assert_frame_equal(stored(database, user), rebuilt(database, user), check_exact=True)
    assert table.newest(database, personal_baseline).height == sum(
        rebuilt(database, user).height for user in users
    )


def test_a_table_that_was_made_anew_is_computed_from_the_beginning(database: Database) -> None:
    put(database, history(40))
    written = refresh(database, personal_baseline).written
    database.execute(
        "CREATE TABLE another (LIKE features_personal_baseline_v1 INCLUDING ALL); "
        "ALTER TABLE features_personal_baseline_v1 RENAME TO old; "
        "ALTER TABLE another RENAME TO features_personal_baseline_v1"
    )
    assert refresh(database, personal_baseline).written == written


def test_a_retired_set_gathers_no_marks(database: Database) -> None:
    put(database, history(20))
    refresh(database, personal_baseline)
    database.execute("INSERT INTO reading_sets (name, version, relation) VALUES ('old', 1, 0)")
    database.execute(
        "INSERT INTO feature_sets (name, version, entity, description, features, is_active) "
        "VALUES ('old', 1, 'user, metric', '', '{}', false)"
    )
    put(database, [(USER, "glucose", "ring", FIRST, 300.0)])
    refresh(database, personal_baseline)
    assert database.fetch("SELECT FROM reading_marks WHERE name = 'old'") == []


def test_the_newest_row_of_each_entity_is_given_back(database: Database) -> None:
    put(database, history(40, users=(USER, OTHER)))
    newest = refresh(database, personal_baseline).newest
    assert newest.columns == [
        "user_id", "metric", "event_timestamp", "recorded_at", *personal_baseline.feature_names
    ]  # fmt: skip
    for user in (USER, OTHER):
        expected = stored(database, user).tail(1)
        found = newest.filter(user_id=str(user)).select(expected.columns)
        assert_frame_equal(found, expected, check_exact=True)


def test_other_sets_follow_no_readings(database: Database) -> None:
    assert follows_readings(personal_baseline)
    assert not follows_readings(market_technical)
    with pytest.raises(UsageError, match="a UUID each"):
        refresh_users(database, personal_baseline, ["AAPL"])


def test_ingestion_marks_only_what_it_changed(database: Database) -> None:
    rows = pl.DataFrame(
        {
            "ts": [FIRST + hour * timedelta(hours=1) for hour in range(60)],
            "value": [100.0 + hour for hour in range(60)],
        }
    )
    ingest_metrics(database, rows, source="t", user=USER, metric="glucose")
    assert len(database.fetch("SELECT FROM reading_changes")) == 1
    refresh(database, personal_baseline)
    again = rows.with_columns(value=pl.when(pl.col("ts") == FIRST).then(7.0).otherwise("value"))
    ingest_metrics(database, again, source="t", user=USER, metric="glucose")
    marks = database.fetch("SELECT first, last FROM reading_changes")
    assert [tuple(mark.values()) for mark in marks] == [(FIRST.date(), FIRST.date())]
    with database.connect() as connection:
        connection.execute("SET LOCAL hyperfeast.retention = 'on'")
        connection.execute("DELETE FROM user_baseline_raw")
    assert len(database.fetch("SELECT FROM reading_changes")) == 1
