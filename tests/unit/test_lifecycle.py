"""The declaration of lifecycles, and its intervals."""

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.cli.lifecycle import human_bytes
from hyperfeast.errors import DataError
from hyperfeast.lifecycle import Interval, TableLifecycle, load
from hyperfeast.types import Timeframe

VALID = """
[signals]
time_column = "ts"
chunk_interval = "1 day"
compress_after = "30 days"
segment_by = ["symbol"]
order_by = ["ts DESC", "id ASC"]
keep_for = "1 year"
"""

counts = st.integers(1, 100)


@given(counts, st.sampled_from(["hour", "day", "week", "month", "year"]))
def test_what_is_written_is_read_back(count: int, unit: str) -> None:
    interval = Interval.parse(f"{count} {unit}{'s' if count > 1 else ''}")
    assert Interval.parse(f"{count} {unit}") == interval
    if unit != "week":
        assert Interval.parse(str(interval)) == interval


@pytest.mark.parametrize(
    ("printed", "written"),
    [
        ("7 days", "7 days"),
        ("1 day", "24 hours"),
        ("6 mons", "6 months"),
        ("1 year", "12 months"),
        ("1 year 6 mons", "18 months"),
        ("36:00:00", "36 hours"),
        ("1 day 12:00:00", "36 hours"),
    ],
)
def test_what_postgresql_prints(printed: str, written: str) -> None:
    found = Interval.printed(printed)
    assert found is not None
    assert found.folded == Interval.parse(written).folded


def test_what_postgresql_prints_otherwise() -> None:
    assert Interval.printed("-7 days") is None
    assert Interval.printed("00:05:00") is None


def test_order() -> None:
    written = ["1 hour", "1 day", "1 week", "1 month", "6 months", "1 year", "100 years"]
    intervals = [Interval.parse(one) for one in written]
    assert sorted(intervals) == intervals
    assert Interval.parse("1 year").approximate == timedelta(days=365)


@pytest.mark.parametrize(
    "text", ["", "7", "days", "0 days", "-1 day", "1.5 days", "7  days", "1 day 2", "9999 years"]
)
def test_no_interval(text: str) -> None:
    with pytest.raises(DataError, match="expected"):
        Interval.parse(text)


def test_what_the_product_declares() -> None:
    tables = load()
    candles = tables["candles"]
    assert set(candles.keep_for) == set(Timeframe)
    assert {tf for tf, kept in candles.keep_for.items() if kept is None} == {"1d", "1w"}
    assert {kept for kept in candles.keep_for.values() if kept} == {Interval(months=6)}
    assert (candles.segment_by, candles.order_by) == (("symbol", "tf"), ("ts DESC",))
    assert not candles.dropped_by_policy
    assert tables["signals"].dropped_by_policy
    assert tables["signals"].chunk_interval == Interval(days=1)


MANY = """
["features_*"]
time_column = "event_timestamp"
chunk_interval = "30 days"
compress_after = "30 days"
order_by = ["event_timestamp DESC"]
keep_for = "1 year"
"""


def test_many_tables_may_be_declared_at_once(tmp_path: Path) -> None:
    table = _load(tmp_path, MANY)["features_*"]
    assert table.of_many
    assert table.segment_by == ()
    assert not _load(tmp_path, VALID)["signals"].of_many


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            'segment_by = ["symbol"]',
            r"features_\*\.segment_by: expected none: every table has its own",
        ),
        ('rollups = ["candles_1d"]', r"features_\*\.rollups: expected none"),
    ],
)
def test_what_each_of_many_has_itself_is_refused(
    tmp_path: Path, written: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        _load(tmp_path, f"{MANY}{written}\n")


@pytest.mark.parametrize("name", ["*", "a*b", "features_**", "Features_*"])
def test_a_beginning_is_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="expected the name of a table, found"):
        _load(tmp_path, MANY.replace("features_*", name))


def test_ascending_is_the_default(tmp_path: Path) -> None:
    assert _load(tmp_path, VALID)["signals"].order_by == ("ts DESC", "id")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('keep_for = "1 year"', "", r"signals\.keep_for: expected a value, found none"),
        ("[signals]", '[signals]\nkeep_fro = "1 year"', r"signals\.keep_fro: expected one of .*keep_for"),
        ('"1 year"', '"1 yr"', r"signals\.keep_for: expected a number of hours.*found \"1 yr\""),
        ('"1 year"', "365", r"signals\.keep_for: expected an interval.*found 365"),
        ('"1 year"', '"20 days"', r"signals\.compress_after: expected at most keep_for, 20 days, found '30 days'"),
        ('"1 year"', '"23 hours"', r"signals\.keep_for: expected at least one chunk_interval, 1 day"),
        ('"1 day"', '"1 month"', r"signals\.chunk_interval: expected hours, days or weeks, found '1 month'"),
        ('"1 day"', '"forever"', r"signals\.chunk_interval: expected a number of hours"),
        ("[signals]", '["sig; DROP"]', r"expected the name of a table, found 'sig; DROP'"),
        ('time_column = "ts"', 'time_column = "ts; --"', r"signals\.time_column: expected a column's name"),
        ('["symbol"]', '"symbol"', r"signals\.segment_by: expected a list of names, found 'symbol'"),
        ('["symbol"]', '["id"]', r"signals\.order_by: expected columns that segment_by does not name, found 'id'"),
        ('"id ASC"', '"id UP"', r"signals\.order_by: expected names in lower case, found 'id UP'"),
        ('"1 year"', '{ 1m = "1 year" }', r"signals\.keep_for: expected an interval"),
        ("[signals]", "[candles]", r"candles\.keep_for: expected a value for each of 1m 5m 15m 1h 4h 1d 1w"),
        ("[signals]", "signals = 1\n[other]", r"signals: expected a section \[signals\], found 1"),
        ("[signals]", "[signals", "expected a readable TOML file"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _load(tmp_path, VALID.replace(old, new, 1))


def test_rollups_of_an_unknown_timeframe(tmp_path: Path) -> None:
    text = VALID + 'rollups = ["signals_daily"]\nrollups_of = "1m"\n'
    with pytest.raises(DataError, match=r"signals\.rollups_of: expected a timeframe of keep_for"):
        _load(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.toml: expected a readable TOML file"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 60, "5120.0 PiB"),
    ],
)
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text


def _load(folder: Path, text: str) -> dict[str, TableLifecycle]:
    path = folder / "lifecycle.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)
