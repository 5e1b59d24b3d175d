"""Block-wise computation: whoever asks, and however, gets the same bits; and nobody sees the future."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from every_rule import CATALOG, EVERY, OWN
from hyperfeast.indicators import Rule, block_start, evaluate, log_return, ta, touched_until
from hyperfeast.types import Timeframe
from market import bars

SINGLE = {name: rule for name, rule in EVERY.items() if isinstance(rule, Rule)}
PRICES = ("open", "high", "low", "close")
SESSIONS = 420
WARM_UP = max(rule.warm_up for rule in EVERY.values())

seeds = st.integers(0, 2**32 - 1)
places = st.integers(0, SESSIONS - 1)
# Some days before or after 1 January 2024, where daily bars have a boundary, in bars of the series.
shifts = st.integers(-SESSIONS, SESSIONS)


def market(seed: int, shift: int, *, sessions: int = SESSIONS) -> pl.DataFrame:
    """Bars of three symbols with gaps, splits and days without trade, one listed late, around a boundary."""
    random = np.random.default_rng(seed)
    whole = bars(sessions, symbols=("AAA", "BBB", "CCC"), seed=seed)
    moved = timedelta(days=4 * 365 + 1 - sessions // 2 + shift)
    drawn = whole.with_columns(
        pl.col("ts") + moved,
        pl.col("event_timestamp") + moved,
        pl.Series("split_factor", _factors(random, whole.height, sessions)),
        pl.Series("there", random.uniform(size=whole.height) > 0.05),
        pl.Series(
            "volume", np.where(random.uniform(size=whole.height) < 0.02, 0.0, whole["volume"])
        ),
    )
    listed = (pl.col("symbol") != "CCC") | (pl.int_range(pl.len()).over("symbol") > 50)
    return drawn.filter("there", listed).drop("there")


def _factors(random: np.random.Generator, rows: int, sessions: int) -> np.ndarray:
    ratios = np.where(random.uniform(size=rows) < 0.003, 3.0, 1.0).reshape(-1, sessions)
    return np.cumprod(ratios, axis=1).ravel()


def assert_same_bits(found: pl.DataFrame, expected: pl.DataFrame) -> None:
    assert found.schema == expected.schema
    if not found.equals(expected):
        assert_frame_equal(found, expected, check_exact=True)
    for name, kind in expected.schema.items():
        values = [
            frame[name].explode() if kind.is_nested() else frame[name]
            for frame in (found, expected)
        ]
        if kind.is_float() or kind.is_nested():
            # Equal numbers are not yet equal bits: 0 and -0.
            assert values[0].to_numpy().tobytes() == values[1].to_numpy().tobytes(), name


def needed(prices: pl.DataFrame, since: dict[str, datetime]) -> pl.DataFrame:
    """No more bars than an incremental run has to read."""
    parts = []
    for symbol, moment in since.items():
        own = prices.filter(pl.col("symbol") == symbol)
        before = own.filter(pl.col("ts") < block_start(Timeframe.D1, moment))
        parts += [
            before.tail(WARM_UP),
            own.filter(pl.col("ts") >= block_start(Timeframe.D1, moment)),
        ]
    return pl.concat(parts)


@given(data=st.data())
@settings(max_examples=15)
def test_incremental_is_full(data: st.DataObject) -> None:
    check_incremental(data, SESSIONS)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=5)
def test_incremental_is_full_where_no_warm_up_reaches_the_beginning(data: st.DataObject) -> None:
    check_incremental(data, 3000)


def check_incremental(data: st.DataObject, sessions: int) -> None:
    prices = market(data.draw(seeds), data.draw(shifts), sessions=sessions)
    full = evaluate(SINGLE, prices, Timeframe.D1)
    opens = {symbol: part["ts"].to_list() for (symbol,), part in prices.group_by("symbol")}
    since = {
        symbol: opens[symbol][data.draw(st.integers(0, len(opens[symbol]) - 1))]
        for symbol in data.draw(st.sets(st.sampled_from(["AAA", "BBB", "CCC"]), min_size=1))
    }
    found = evaluate(SINGLE, needed(prices, since), Timeframe.D1, since=since)
    starts = pl.DataFrame(
        {"symbol": list(since), "since": list(since.values())},
        schema_overrides={"since": pl.Datetime("us", "UTC")},
    )
    asked = full.join(starts, on="symbol", maintain_order="left").filter(
        pl.col("ts") >= pl.col("since")
    )
    assert_same_bits(found, asked.drop("since"))


@given(seed=seeds, shift=shifts, place=places)
@settings(max_examples=15)
def test_incremental_is_full_across_symbols(seed: int, shift: int, place: int) -> None:
    prices = market(seed, shift)
    moment = prices["ts"][place]
    since = dict.fromkeys(("AAA", "BBB", "CCC"), moment)
    found = evaluate(EVERY, needed(prices, since), Timeframe.D1, since=since)
    full = evaluate(EVERY, prices, Timeframe.D1)
    assert_same_bits(found, full.filter(pl.col("ts") >= moment))


@given(seed=seeds, shift=shifts, place=places)
@settings(max_examples=15)
def test_no_rule_sees_the_future(seed: int, shift: int, place: int) -> None:
    prices = market(seed, shift)
    moment = prices["ts"][place]
    later = pl.col("ts") > moment
    noise = pl.Series(np.random.default_rng(seed).uniform(0.5, 2, prices.height))
    changed = prices.with_columns(
        pl.when(later).then(pl.col(name) * noise).otherwise(pl.col(name))
        for name in (*PRICES, "volume")
    )
    past = prices.filter(~later)
    before = evaluate(EVERY, prices, Timeframe.D1).filter(pl.col("ts") <= moment)
    assert_same_bits(evaluate(EVERY, changed, Timeframe.D1).filter(pl.col("ts") <= moment), before)
    assert_same_bits(evaluate(EVERY, past, Timeframe.D1), before)


@given(
    seed=seeds,
    shift=shifts,
    place=places,
    kind=st.sampled_from(["correct", "delete", "insert"]),
)
@settings(max_examples=25)
def test_a_correction_touches_its_stretch_and_no_more(
    seed: int, shift: int, place: int, kind: str
) -> None:
    rules = {name: rule for name, rule in SINGLE.items() if rule.warm_up < 60}
    warm_up = max(rule.warm_up for rule in rules.values())
    prices = market(seed, shift).filter(symbol="AAA")
    moment = prices["ts"][place % prices.height]
    whole, here = prices, pl.col("ts") == moment
    without = prices.filter(~here)
    doubled = prices.with_columns(
        pl.when(here).then(pl.col(name) * 2).otherwise(pl.col(name)).alias(name)
        for name in ("high", "close", "volume")
    )
    old, new = {
        "correct": (whole, doubled),
        "delete": (whole, without),
        "insert": (without, whole),
    }[kind]
    before, after = (evaluate(rules, one, Timeframe.D1) for one in (old, new))
    until = touched_until(new["ts"], Timeframe.D1, warm_up, moment)
    again = evaluate(
        rules,
        new,
        Timeframe.D1,
        since={"AAA": moment},
        until={"AAA": until} if until else None,
    )
    kept = before.filter(
        (pl.col("ts") < moment) | (pl.col("ts") >= until if until else pl.lit(value=False))
    )
    assert_same_bits(pl.concat([kept, again]).sort("ts"), after)


def test_a_correction_reaches_the_blocks_that_warm_up_on_it() -> None:
    opens = market(0, 0, sessions=900).filter(symbol="AAA")["ts"]
    boundary = datetime(2024, 1, 1, tzinfo=UTC)
    before = opens.filter(opens < boundary)
    after = opens.filter(opens >= boundary)
    assert touched_until(opens, Timeframe.D1, 20, before[-30]) == after[0]
    assert touched_until(opens, Timeframe.D1, 20, before[-20]) is None
    assert touched_until(opens, Timeframe.D1, 20, after[5]) is None


@given(seed=seeds, shift=shifts)
@settings(max_examples=10)
def test_the_order_of_arrival_and_the_company_do_not_matter(seed: int, shift: int) -> None:
    prices = market(seed, shift)
    full = evaluate(SINGLE, prices, Timeframe.D1)
    shuffled = prices.sample(fraction=1, shuffle=True, seed=seed % 2**31)
    assert_same_bits(evaluate(SINGLE, shuffled, Timeframe.D1), full)
    alone = evaluate(SINGLE, prices.filter(symbol="BBB"), Timeframe.D1)
    assert_same_bits(alone, full.filter(symbol="BBB"))
    one = evaluate({"RSI.real": SINGLE["RSI.real"]}, prices, Timeframe.D1)
    assert_same_bits(one, full.select("symbol", "ts", "event_timestamp", "RSI.real"))


def test_values_are_computed_as_the_shares_of_their_moment() -> None:
    prices = bars(200, symbols=("AAA",)).with_columns(
        pl.when(pl.int_range(pl.len()) >= 90).then(4.0).otherwise(1.0).alias("split_factor")
    )
    rules = {"angle": ta("LINEARREG_ANGLE"), "variance": ta("VAR"), "obv": ta("OBV")}
    found = evaluate(rules, prices, Timeframe.D1)
    for part, factor in ((slice(0, 90), 1.0), (slice(90, 200), 4.0)):
        drawn = prices.with_columns(
            *(pl.col(name) / factor for name in PRICES),
            volume=pl.col("volume") * factor,
            split_factor=pl.lit(1.0),
        )
        assert_same_bits(found[part], evaluate(rules, drawn, Timeframe.D1)[part])


@pytest.mark.parametrize(
    ("timeframe", "moment", "start"),
    [
        (Timeframe.M1, datetime(1970, 1, 4, 5, tzinfo=UTC), datetime(1970, 1, 3, tzinfo=UTC)),
        (Timeframe.M5, datetime(1970, 1, 8, tzinfo=UTC), datetime(1970, 1, 8, tzinfo=UTC)),
        (Timeframe.M15, datetime(2024, 2, 29, 5, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
        (Timeframe.H1, datetime(2024, 6, 30, 23, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)),
        (Timeframe.H4, datetime(2023, 12, 31, 20, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)),
        (Timeframe.D1, datetime(2023, 12, 31, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)),
        (Timeframe.D1, datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)),
        (Timeframe.W1, datetime(2019, 12, 30, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_blocks_begin_at_fixed_moments(
    timeframe: Timeframe, moment: datetime, start: datetime
) -> None:
    assert block_start(timeframe, moment) == start
    assert block_start(timeframe, start) == start
    assert block_start(timeframe, start - timedelta(microseconds=1)) < start


@pytest.mark.parametrize("timeframe", list(Timeframe))
def test_evaluation_and_block_start_cut_alike(timeframe: Timeframe) -> None:
    begin = block_start(timeframe, datetime(2024, 3, 5, tzinfo=UTC))
    end = begin
    while block_start(timeframe, end) == begin:
        end += timeframe.width * 50
    boundary = block_start(timeframe, end)
    opens = [boundary + timeframe.width * step for step in range(-40, 40)]
    prices = bars(80, symbols=("AAA",)).with_columns(
        pl.Series("ts", opens, dtype=pl.Datetime("us", "UTC")),
        pl.Series("event_timestamp", opens, dtype=pl.Datetime("us", "UTC")) + timeframe.width,
    )
    # A sum without a window shows where the array began: at the boundary, less a warm-up of none.
    rule = Rule("sum", 0, 0, lambda window: np.cumsum(window["volume"]), frozenset({"volume"}))
    sums = evaluate({"sum": rule}, prices, timeframe)["sum"]
    assert sums[39] == prices["volume"][:40].sum()
    assert sums[40] == prices["volume"][40]


def test_nothing_asked_for_is_nothing_given() -> None:
    prices = bars(30)
    none = evaluate(EVERY, prices, Timeframe.D1, since={})
    assert none.height == 0
    assert none.columns[3:] == list(EVERY)
    empty = evaluate({"return": log_return(1)}, prices.clear(), Timeframe.D1)
    assert empty.height == 0


def test_every_rule_gives_something() -> None:
    found = evaluate(EVERY, market(1, 0, sessions=1500), Timeframe.D1)
    for name, rule in EVERY.items():
        values = found[name]
        assert 3 * rule.lookback <= values.null_count() < values.len(), name
    assert len(CATALOG) > 230
    assert len(OWN) > 20
