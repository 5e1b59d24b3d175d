"""The pieces of a backfill: they cover the range, once, and another range has the same ones."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperfeast.errors import UsageError
from hyperfeast.ingest.backfill import pieces
from hyperfeast.types import Timeframe

MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
TIMEFRAMES = st.sampled_from(Timeframe)


@given(MOMENTS, MOMENTS, TIMEFRAMES)
def test_they_cover_the_range_without_a_gap_and_in_order(
    one: datetime, other: datetime, timeframe: Timeframe
) -> None:
    start, end = min(one, other), max(one, other) + timedelta(minutes=1)
    found = pieces(["A"], timeframe, start, end)
    assert (found[0].start, found[-1].end) == (start, end)
    assert all(first.end == then.start for first, then in pairwise(found))
    assert all(piece.start < piece.end for piece in found)


@given(MOMENTS, st.timedeltas(timedelta(days=1), timedelta(days=4000)), TIMEFRAMES)
def test_a_longer_range_has_the_same_pieces_but_for_its_ends(
    start: datetime, length: timedelta, timeframe: Timeframe
) -> None:
    inner = pieces(["A"], timeframe, start, start + length)
    longer = pieces(
        ["A"], timeframe, start - timedelta(days=500), start + length + timedelta(days=500)
    )
    assert set(inner[1:-1]) <= set(longer)


def test_a_piece_is_named_by_all_that_it_is() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
    found = [
        *pieces(["A", "B"], Timeframe.M1, start, end),
        *pieces(["A"], Timeframe.M5, start, end),
    ]
    keys = {piece.key(source) for piece in found for source in ("ccxt:binance", "yfinance")}
    assert len(keys) == 2 * len(found) == 10
    assert all(len(key) <= 255 for key in keys)


def test_a_symbol_given_twice_counts_once() -> None:
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    assert len(pieces(["A", "A"], Timeframe.D1, start, end)) == 1


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC), "is empty"),
        (datetime(2024, 1, 1), datetime(2024, 1, 2, tzinfo=UTC), "no time zone"),  # noqa: DTZ001
    ],
)
def test_no_range(start: datetime, end: datetime, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pieces(["A"], Timeframe.D1, start, end)
