"""Baselines out of readings, against the plainest computation that there is."""

import json
import math
import statistics
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline_samples import DAY, KNOWN_AT, readings
from hyperfeast.baselines import Baseline, MetricBaseline, deviations, extract
from hyperfeast.baselines.baseline import read_document
from hyperfeast.baselines.daybook import DayBook
from hyperfeast.baselines.units import in_one_unit
from hyperfeast.errors import DataError, UsageError

START = datetime(
    2024, 2, 10, tzinfo=UTC
)  # Berlin's clocks change on 31 March, New York's on 10 March
FAR = datetime(2100, 1, 1, tzinfo=UTC)
Row = tuple[str, datetime, float, datetime]


def frame(rows: list[Row], replaced: list[datetime | None] | None = None) -> pl.DataFrame:
    made = pl.DataFrame(
        [("pulse", *row) for row in rows],
        schema={"metric": pl.String, "source": pl.String, "ts": pl.Datetime("us", "UTC"),
                "value": pl.Float64, "recorded_at": pl.Datetime("us", "UTC")},
        orient="row",
    )  # fmt: skip
    return made.with_columns(
        pl.Series("replaced_at", replaced or [None] * len(rows), dtype=pl.Datetime("us", "UTC"))
    )


@st.composite
def rows_of_a_user(draw: st.DrawFn) -> list[Row]:
    """Gaps, duplicate keys, late rows and two devices, one of which may come later."""
    minutes = st.integers(0, 70 * 24 * 60 - 1)
    rows = []
    for minute in draw(st.lists(minutes, min_size=1, max_size=80)):
        ts = START + timedelta(minutes=minute)
        source = draw(st.sampled_from(["ring", "watch"]))
        late = draw(st.sampled_from([0, 1, 50, 2000]))
        rows.append((source, ts, draw(st.floats(30, 220)), ts + timedelta(hours=late)))
        if draw(st.integers(0, 5)) == 0:
            rows.append((source, ts, draw(st.floats(30, 220)), ts + timedelta(hours=late + 1)))
    return rows


def naive(rows: list[Row], day: date) -> dict[str, Any]:
    """The readings of the 30 UTC days before a day; of one key the one recorded last."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC)
    served: dict[tuple[str, datetime], float] = {}
    for source, ts, value, _ in sorted(rows, key=lambda row: row[3]):
        served[source, ts] = value
    window = {
        key: value for key, value in served.items() if end - timedelta(days=30) <= key[1] < end
    }
    values = list(window.values())
    if not values:
        return {}
    by_source = {
        source: [value for key, value in window.items() if key[0] == source]
        for source in {key[0] for key in window}
    }
    median = statistics.median(values)
    return {
        "n": len(values),
        "days_present": len({ts.date() for _, ts in window}),
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "median": median,
        "mad": statistics.median(abs(value - median) for value in values),
        "sources": {source: statistics.mean(values) for source, values in by_source.items()},
    }


@settings(max_examples=60)
@given(rows_of_a_user(), st.integers(0, 75))
def test_the_window_equals_the_naive_one(rows: list[Row], offset: int) -> None:
    day = (START + timedelta(days=offset)).date()
    found = extract(frame(rows), day, known_at=FAR).metrics.get("pulse")
    expected = naive(rows, day)
    if not expected:
        assert found is None
        return
    assert found is not None
    for name in ("n", "days_present"):
        assert getattr(found, name) == expected[name]
    for name in ("mean", "std", "median", "mad"):
        number = expected[name]
        assert getattr(found, name) == (number and pytest.approx(number, rel=1e-13, abs=1e-13)), (
            name
        )
    assert {one.source: one.mean for one in found.segments} == pytest.approx(expected["sources"])
    assert found.confidence == expected["days_present"] / 30


@settings(max_examples=60)
@given(rows_of_a_user(), st.randoms(use_true_random=False))
def test_a_book_kept_up_to_date_equals_one_written_anew(rows: list[Row], rng: Any) -> None:
    unique = {(source, ts): value for source, ts, value, _ in rows}
    items = [(source, ts, value) for (source, ts), value in unique.items()]
    anew = DayBook.of(
        pl.DataFrame(items, schema=["source", "ts", "value"], orient="row").with_columns(
            pl.col("ts").cast(pl.Datetime("us", "UTC"))
        )
    )
    rng.shuffle(items)
    kept = DayBook()
    for source, ts, value in items:
        kept.add(source, ts.date(), value)
    assert kept.days == anew.days
    for offset in range(0, 75, 7):
        day = (START + timedelta(days=offset)).date()
        one, other = kept.window(day), anew.window(day)
        assert dict(one.moments) == dict(other.moments)
        assert sorted(one.values) == sorted(other.values)
        assert (one.whole.std, one.harmonized_std) == (other.whole.std, other.harmonized_std)


@settings(max_examples=15)
@given(rows_of_a_user(), rows_of_a_user(), st.integers(30, 69))
def test_nothing_after_a_day_changes_its_score(
    rows: list[Row], more: list[Row], offset: int
) -> None:
    day = (START + timedelta(days=offset)).date()
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    later = [row for row in more if row[1] >= end]
    first, last = START.date(), day
    before = deviations(frame(rows), first, last)
    assert deviations(frame([*rows, *later]), first, last) == before


@settings(max_examples=15)
@given(rows_of_a_user(), rows_of_a_user(), st.integers(30, 69))
def test_a_late_row_changes_no_score_as_known(
    rows: list[Row], more: list[Row], offset: int
) -> None:
    day = (START + timedelta(days=offset)).date()
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    late = [
        (source, ts, value, max(at, end + timedelta(hours=1))) for source, ts, value, at in more
    ]
    there = {(row[0], row[1]) for row in rows}
    # A correction: what is replaced stays readable as a revision until it was.
    corrected = {(source, ts): at for source, ts, _, at in late if (source, ts) in there}
    kept = [row for row in rows if row[3] < end]
    replaced = [corrected.get((row[0], row[1])) for row in kept]
    found = deviations(
        frame([*kept, *late], [*replaced, *[None] * len(late)]),
        START.date(),
        day,
        as_known=True,
    )
    assert found == deviations(frame(kept), START.date(), day, as_known=True)


def test_a_late_row_changes_the_score_as_revised() -> None:
    rows = every_hour(40)
    end = rows[-1][1] + timedelta(hours=1)
    late = ("ring", end - timedelta(days=3, minutes=30), 500.0, end + timedelta(days=2))
    first = last = (end - timedelta(hours=1)).date()
    (known,) = deviations(frame([*rows, late]), first, last, as_known=True)
    (revised,) = deviations(frame([*rows, late]), first, last)
    assert known == deviations(frame(rows), first, last)[0]
    assert revised.mean != known.mean


def every_hour(days: int, value: float = 60.0, source: str = "ring", first: int = 0) -> list[Row]:
    moments = [START + timedelta(hours=hour) for hour in range(first * 24, (first + days) * 24)]
    return [(source, ts, value + ts.hour % 5, ts) for ts in moments]


def metric(rows: list[Row], offset: int, **options: Any) -> MetricBaseline:
    day = (START + timedelta(days=offset)).date()
    return extract(frame(rows), day, known_at=FAR, **options).metrics["pulse"]


def test_the_score_of_a_day_is_held_against_the_baseline_that_is_extracted_for_it() -> None:
    rows = [(s, ts, v, ts) for _, s, ts, v in readings(days=60).iter_rows()]
    found = deviations(frame(rows), DAY - timedelta(days=20), DAY - timedelta(days=1))
    assert len(found) == 20
    for one in found:
        extracted = extract(frame(rows), one.day, known_at=FAR).metrics["pulse"]
        assert (one.mean, one.std, one.baseline_n) == (extracted.mean, extracted.std, extracted.n)
        assert one.z_score == extracted.z_score(one.value)
        assert one.robust_z_score == extracted.robust_z_score(one.value)


def test_hours_are_the_users_and_move_with_daylight_saving() -> None:
    """A reading at 07:30 in Berlin each day is one at 06:30 UTC in winter and at 05:30 in summer."""
    berlin = ZoneInfo("Europe/Berlin")
    moments = [datetime(2024, 3, day, 7, 30, tzinfo=berlin) for day in range(20, 32)]
    moments += [datetime(2024, 4, day, 7, 30, tzinfo=berlin) for day in range(1, 10)]
    rows = [("ring", ts.astimezone(UTC), 60.0, ts.astimezone(UTC)) for ts in moments]
    day = date(2024, 4, 10)
    local = extract(frame(rows), day, known_at=FAR, time_zone="Europe/Berlin").metrics["pulse"]
    utc = extract(frame(rows), day, known_at=FAR).metrics["pulse"]
    assert [hour for hour, one in enumerate(local.hours) if one] == [7]
    assert [hour for hour, one in enumerate(utc.hours) if one] == [5, 6]
    assert local.n == utc.n == 21


def test_weekdays_and_trend() -> None:
    rows = [
        ("ring", ts := START + timedelta(days=day, hours=12), 60.0 + day + 10 * (ts.weekday() == 6), ts)
        for day in range(28)
    ]  # fmt: skip
    found = metric(rows, 28)
    assert found.trend == pytest.approx(1.0, abs=0.1)
    assert found.robust_trend == pytest.approx(1.0, abs=0.1)
    assert max(range(7), key=lambda one: found.weekdays[one] or 0) == 6
    assert sum(effect or 0 for effect in found.weekdays) == pytest.approx(0)


def test_gaps_are_missing_and_not_zero() -> None:
    rows = [row for row in every_hour(30) if row[1].day % 3 == 0]
    found = metric(rows, 30)
    assert found.days_present == len({row[1].date() for row in rows}) < 15
    assert found.confidence == found.days_present / 30
    assert found.mean == pytest.approx(61.9, abs=0.1)


@pytest.mark.parametrize(("readings", "days"), [(9, 9), (40, 2)])
def test_too_little_is_said_and_scores_nothing(readings: int, days: int) -> None:
    rows = [
        ("ring", ts := START + timedelta(days=one % days, minutes=one), 60.0 + one, ts)
        for one in range(readings)
    ]
    found = metric(rows, 20)
    assert (found.n, found.days_present, found.sufficient) == (readings, days, False)
    assert found.z_score(99.0) is found.robust_z_score(99.0) is None
    assert found.harmonized_z_score(99.0, "ring") is None


def test_a_new_device_that_reads_higher_deviates_raw_and_not_harmonized() -> None:
    rows = every_hour(15) + every_hour(16, value=90.0, source="watch", first=15)
    (last,) = deviations(
        frame(rows), START.date() + timedelta(days=30), START.date() + timedelta(days=30)
    )
    assert last.harmonized_z_score == pytest.approx(0.0, abs=1e-9)
    assert last.z_score is not None
    assert last.z_score > 0.9
    extracted = metric(rows, 30)
    assert [one.source for one in extracted.segments] == ["ring", "watch"]
    assert extracted.harmonized_z_score(91.9, "watch") == pytest.approx(0.0, abs=0.1)
    assert extracted.harmonized_z_score(61.9, "ring") == pytest.approx(0.0, abs=0.1)
    assert extracted.harmonized_z_score(61.9, "belt") is None


def test_the_first_days_of_a_device_have_no_harmonized_score() -> None:
    rows = every_hour(30) + every_hour(1, value=90.0, source="watch", first=30)
    day = START.date() + timedelta(days=30)
    (last,) = deviations(frame(rows), day, day)
    assert last.harmonized_z_score is None
    assert last.z_score is not None
    assert last.z_score > 5


def test_single_errors_of_a_sensor_hardly_move_what_is_robust() -> None:
    rows = every_hour(31)
    broken = [(s, ts, 1e6 if number % 97 == 0 else value, at)
              for number, (s, ts, value, at) in enumerate(rows[:-24])] + rows[-24:]  # fmt: skip
    day = START.date() + timedelta(days=30)
    (clean,), (dirty,) = (deviations(frame(one), day, day) for one in (rows, broken))
    assert dirty.robust_z_score == pytest.approx(clean.robust_z_score, abs=0.05)
    assert dirty.std is not None
    assert dirty.std > 1000 * (clean.std or 0)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (frame(every_hour(3)).with_columns(value=math.nan), "no finite value"),
        (frame(every_hour(3)).with_columns(pl.col("ts").dt.replace_time_zone(None)), "with a zone"),
        (frame(every_hour(3)).drop("source"), "missing: source"),
    ],
    ids=["NaN", "naive", "column"],
)
def test_bad_readings_are_refused(bad: pl.DataFrame, says: str) -> None:
    with pytest.raises(DataError, match=says):
        extract(bad, DAY, known_at=KNOWN_AT)


def test_a_naive_moment_and_an_unknown_zone_are_refused() -> None:
    with pytest.raises(UsageError, match="a moment with a zone"):
        extract(frame(every_hour(3)), DAY, known_at=datetime(2024, 1, 1))  # noqa: DTZ001
    with pytest.raises(UsageError, match="no time zone 'Mars'"):
        extract(frame(every_hour(3)), DAY, known_at=KNOWN_AT, time_zone="Mars")


def glucose(values: list[float], source: str = "cgm") -> pl.DataFrame:
    rows = [
        (source, ts := START + timedelta(hours=hour), value, ts)
        for hour, value in enumerate(values)
    ]
    return frame(rows).with_columns(metric=pl.lit("glucose"))


def test_units_that_were_mixed_up_are_refused() -> None:
    mixed = pl.concat([glucose([100.0] * 50), glucose([5.5] * 50, source="other")])
    with pytest.raises(
        DataError, match=r"50 of 50 readings of glucose by other .* look like mmol/L"
    ):
        in_one_unit(mixed)
    with pytest.raises(DataError, match=r"cannot be mmol/L and look like mg/dL"):
        in_one_unit(glucose([100.0] * 50), {"glucose": "mmol/L"})


def test_units_are_converted_as_declared() -> None:
    mixed = pl.concat([glucose([100.0] * 50), glucose([5.5] * 50, source="other")])
    converted = in_one_unit(mixed, {"glucose/other": "mmol/L"})
    assert converted.filter(source="other")["value"].to_list() == pytest.approx([99.088] * 50)
    assert converted.filter(source="cgm")["value"].to_list() == [100.0] * 50
    assert (
        extract(converted, (START + timedelta(days=10)).date(), known_at=FAR)
        .metrics["glucose"]
        .unit
        == "mg/dL"
    )


def test_single_impossible_readings_are_no_other_unit() -> None:
    assert in_one_unit(glucose([100.0] * 95 + [5.0] * 5)).height == 100


@pytest.mark.parametrize("declared", [{"glucose": "stones"}, {"steps": "m"}])
def test_an_unknown_unit_is_refused(declared: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="known are"):
        in_one_unit(glucose([100.0]), declared)


def test_a_document_says_what_the_baseline_says() -> None:
    one = extract(readings(), DAY, known_at=KNOWN_AT, time_zone="Europe/Berlin")
    assert read_document(json.loads(one.to_json()), where="here") == one
    assert Baseline.model_validate_json(one.to_json()) == one
