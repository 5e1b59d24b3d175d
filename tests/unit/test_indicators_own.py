"""What TA-Lib lacks: equal to its formulas, null where it means nothing, and honest about who was there."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from every_rule import EVERY
from hyperfeast.errors import FeatureError
from hyperfeast.features import Bars, Feature, FeatureSet, FeatureType, Key
from hyperfeast.features.bars import with_sessions
from hyperfeast.features.compute import over_bars
from hyperfeast.indicators import (
    SESSION_FEATURES,
    AnyRule,
    Member,
    change,
    column,
    cross_rank,
    cross_z_score,
    distance_to_high,
    distance_to_low,
    distance_to_vwap,
    drawdown,
    evaluate,
    expression,
    higher,
    illiquidity,
    lag,
    log_return,
    realized_volatility,
    relative_volume,
    sequence,
    session,
    signed_volume,
    ta,
    traded_value,
    units,
    volume_z_score,
    vwap,
    z_score,
)
from hyperfeast.types import Timeframe
from market import bars

PRICES = bars(90, symbols=("AAA",))
OPEN, HIGH, LOW, CLOSE, VOLUME = (
    PRICES[name].to_numpy() for name in ("open", "high", "low", "close", "volume")
)
TYPICAL = (HIGH + LOW + CLOSE) / 3
RETURNS = np.diff(np.log(CLOSE))
WITHIN = np.log(HIGH / LOW) ** 2
DRIFT = np.log(CLOSE / OPEN) ** 2
YEAR = np.sqrt(252)


def last(rule: AnyRule) -> float | None:
    value = evaluate({"value": rule}, PRICES, Timeframe.D1)["value"][-1]
    assert value is None or isinstance(value, float)
    return value


FORMULAS: dict[str, tuple[AnyRule, float]] = {
    "log_return": (log_return(3), RETURNS[-3:].sum()),
    "close to close": (realized_volatility(20), RETURNS[-20:].std(ddof=1) * YEAR),
    "parkinson": (
        realized_volatility(20, estimator="parkinson"),
        np.sqrt(WITHIN[-20:].mean() / (4 * np.log(2))) * YEAR,
    ),
    "garman_klass": (
        realized_volatility(20, estimator="garman_klass", bars_a_year=365),
        np.sqrt((WITHIN[-20:] / 2 - (2 * np.log(2) - 1) * DRIFT[-20:]).mean() * 365),
    ),
    "drawdown": (drawdown(60), CLOSE[-1] / CLOSE[-60:].max() - 1),
    "distance_to_high": (distance_to_high(30), CLOSE[-1] / HIGH[-30:].max() - 1),
    "distance_to_low": (distance_to_low(30), CLOSE[-1] / LOW[-30:].min() - 1),
    "volume_z_score": (
        volume_z_score(20),
        (VOLUME[-1] - VOLUME[-20:].mean()) / VOLUME[-20:].std(ddof=1),
    ),
    "z_score": (
        z_score(log_return(1), 15),
        (RETURNS[-1] - RETURNS[-15:].mean()) / RETURNS[-15:].std(ddof=1),
    ),
    "relative_volume": (relative_volume(20), VOLUME[-1] / VOLUME[-20:].mean()),
    "traded_value": (traded_value(20), (CLOSE * VOLUME)[-20:].mean()),
    "illiquidity": (illiquidity(20), (np.abs(RETURNS) / (CLOSE * VOLUME)[1:])[-20:].mean()),
    "vwap": (vwap(20), np.average(TYPICAL[-20:], weights=VOLUME[-20:])),
    "distance_to_vwap": (
        distance_to_vwap(20),
        CLOSE[-1] / np.average(TYPICAL[-20:], weights=VOLUME[-20:]) - 1,
    ),
    "signed_volume": (
        signed_volume(20),
        (np.sign(CLOSE - OPEN) * VOLUME)[-20:].sum() / VOLUME[-20:].sum(),
    ),
    "lag": (lag("close", 4), CLOSE[-5]),
    "change": (change("close", 4), CLOSE[-1] - CLOSE[-5]),
    "algebra": (
        1 + 2 * (column("close") - column("open")) / (column("high") - 1.5) - (-column("low")),
        1 + 2 * (CLOSE[-1] - OPEN[-1]) / (HIGH[-1] - 1.5) + LOW[-1],
    ),
    "numbers first": (3 - 1 / column("close"), 3 - 1 / CLOSE[-1]),
    "polars": (
        expression(pl.col("close") - pl.col("close").rolling_median(9), lookback=8),
        CLOSE[-1] - np.median(CLOSE[-9:]),
    ),
}


@pytest.mark.parametrize(("rule", "expected"), FORMULAS.values(), ids=FORMULAS)
def test_equal_to_its_formula(rule: AnyRule, expected: float) -> None:
    assert last(rule) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("rule", "unit"),
    [
        (ta("EMA"), "price"),
        (ta("RSI"), "number"),
        (ta("CDLDOJI"), "number"),
        (ta("VAR"), "price^2"),
        (ta("OBV"), "volume"),
        (traded_value(5), "price x volume"),
        (1 / column("volume"), "volume^-1"),
        (ta("LINEARREG_ANGLE"), "none"),
        (ta("ACOS"), "none"),
        (session("month"), "number"),
        (higher(Timeframe.W1, "close", base=Timeframe.D1), "price"),
        (cross_rank("close"), "number"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.text,
)
def test_units_are_found_by_doubling(rule: AnyRule, unit: str) -> None:
    assert str(units(rule)) == unit


def test_change_of_a_running_sum_is_the_sum_of_its_window() -> None:
    signed = np.sign(np.diff(CLOSE)) * VOLUME[1:]
    assert last(change(ta("OBV"), 10)) == pytest.approx(signed[-10:].sum())


def test_nothing_traded_or_moved_is_null() -> None:
    flat = PRICES.with_columns(
        *(pl.lit(0.1).alias(name) for name in ("open", "high", "low", "close")),
        volume=pl.lit(0.0),
    )
    rules: dict[str, AnyRule] = {
        "z": z_score("close", 20),
        "relative": relative_volume(20),
        "vwap": vwap(20),
        "illiquidity": illiquidity(20),
        "log": (column("close") - 0.1).log(),
    }
    found = evaluate(rules, flat, Timeframe.D1)
    assert all(found[name].null_count() == flat.height for name in rules)


def test_a_day_without_trade_is_missed_by_its_windows_only() -> None:
    idle = PRICES.with_columns(
        pl.when(pl.int_range(pl.len()) == 40).then(0.0).otherwise(pl.col("volume")).alias("volume")
    )
    rules: dict[str, AnyRule] = {
        "illiquidity": illiquidity(20),
        "smoothed": ta("EMA", timeperiod=10, on=1 / column("volume")),
        "bands": ta(
            "BBANDS", timeperiod=5, on=column("close") / column("volume"), output="upperband"
        ),
        "highest": ta("MAXINDEX", timeperiod=5, on=1 / column("volume")),
        "pair": ta("CORREL", timeperiod=8, on=(1 / column("volume"), "close")),
    }
    found = evaluate(rules, idle, Timeframe.D1)
    for name, bars_missed in {
        "illiquidity": 20, "smoothed": 10, "bands": 5, "highest": 5, "pair": 8,
    }.items():  # fmt: skip
        missing = [row for row, value in enumerate(found[name]) if value is None and row > 30]
        assert missing == list(range(40, 40 + bars_missed)), name
    never = evaluate({"none": ta("RSI", on=column("close") / 0.0)}, PRICES, Timeframe.D1)
    assert never["none"].null_count() == PRICES.height


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lag("close", 0), "lag.close. over 0 bars: expected a whole number from 1"),
        (lambda: lag("close", -1), "over -1 bars"),
        (lambda: z_score("close", 1), "over 1 bars: expected a whole number from 2"),
        (lambda: log_return(0), "expected a whole number from 1"),
        (lambda: realized_volatility(20, estimator="yang"), "no estimator 'yang': take close"),  # type: ignore[arg-type]
        (lambda: column("vwap"), "no column 'vwap': take one of open"),
        (lambda: expression(pl.col("x"), lookback=0), "reads x: bars have open"),
        (lambda: expression(pl.col("low").map_batches(abs), lookback=0), "python_udf.* holds Python code"),
        (lambda: expression(pl.col("low") + pl.Series([1.0]), lookback=0), "holds Python code or data"),
        (lambda: expression(pl.col("low"), lookback=3, warm_up=2), "warm-up of 2 bars is less"),
        (lambda: lag(sequence("close", 3), 1), "is a sequence: make the sequence of a rule"),
        (lambda: higher(Timeframe.D1, "close", base=Timeframe.D1), "1d is not higher than"),
        (lambda: higher(Timeframe.W1, session("month"), base=Timeframe.D1), "bars of 1w have no session_month"),
        (lambda: session("moon"), "no calendar feature 'moon': take one of weekday"),
        (lambda: cross_rank("close", universe=(Member("A", datetime(2020, 1, 1)),)), "A has no time zone"),  # noqa: DTZ001
    ],
)  # fmt: skip
def test_bad_declarations_say_what_is_right(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(FeatureError, match=message):
        call()


def test_what_differs_in_one_parameter_has_another_text() -> None:
    close = pl.col("close")
    rules = [
        expression(close.rolling_mean(7), lookback=7),
        expression(close.rolling_mean(8), lookback=7),
        expression(close.rolling_mean(8), lookback=8),
        expression(close.rolling_mean(8), lookback=8, warm_up=30),
        ta("BBANDS", nbdevup=2, output="upperband"),
        ta("BBANDS", nbdevup=2.0000001, output="upperband"),
        ta("BBANDS", nbdevup=2, output="lowerband"),
        column("close") * 0.1,
        column("close") * 0.10000001,
    ]
    assert len({rule.text for rule in rules}) == len(rules)
    assert len({rule.text for rule in EVERY.values()}) == len(EVERY)


# --- sequences


def test_a_sequence_is_the_last_values_oldest_first() -> None:
    found = evaluate({"last": sequence("close", 3)}, PRICES, Timeframe.D1)["last"]
    assert found.dtype == pl.List(pl.Float64)
    assert found.null_count() == 2
    assert found[-1].to_list() == CLOSE[-3:].tolist()


def declared(*features: Feature, timeframe: Timeframe = Timeframe.D1) -> FeatureSet:
    return FeatureSet(
        "shape", 1, (Key("symbol", "symbol"),), Bars(timeframe), features, timedelta(days=1)
    )


def test_a_set_with_a_sequence_and_a_count() -> None:
    made = declared(
        Feature("last", "Closes; price.", sequence("close", 3), FeatureType.FLOAT64_LIST),
        Feature("pattern", "Doji.", ta("CDLDOJI"), FeatureType.INT64),
    )
    found = over_bars(made, PRICES)
    assert found.schema["last"] == pl.List(pl.Float64)
    assert found.schema["pattern"] == pl.Int64
    assert made.warm_up == 10
    assert not made.compares_symbols


def test_a_sequence_is_declared_a_list_and_nothing_else_is() -> None:
    with pytest.raises(FeatureError, match=r"last: .* is 3 number.* FeatureType.FLOAT64_LIST$"):
        declared(Feature("last", "Closes.", sequence("close", 3)))
    with pytest.raises(FeatureError, match=r"rsi: .* is 1 number.* declare FeatureType.FLOAT64$"):
        declared(Feature("rsi", "Strength.", ta("RSI"), FeatureType.FLOAT64_LIST))


# --- cross-sections


def market() -> pl.DataFrame:
    """Three symbols, of which CCC is listed on the 30th day."""
    whole = bars(60, symbols=("AAA", "BBB", "CCC"))
    return whole.filter((pl.col("symbol") != "CCC") | (pl.int_range(pl.len()).over("symbol") >= 30))


def test_ranks_and_z_scores_are_of_those_who_were_there() -> None:
    rules = {"rank": cross_rank("volume"), "z": cross_z_score("volume")}
    found = evaluate(rules, market(), Timeframe.D1).join(
        market().select("symbol", "ts", "volume"), on=["symbol", "ts"]
    )
    assert found.height == 150
    for _, moment in found.group_by("event_timestamp"):
        volumes = moment["volume"].to_numpy()
        ranks = volumes.argsort().argsort() / (len(volumes) - 1)
        assert moment["rank"].to_list() == pytest.approx(ranks.tolist())
        scores = (volumes - volumes.mean()) / volumes.std(ddof=1)
        assert moment["z"].to_list() == pytest.approx(scores.tolist())


def test_a_symbol_listed_later_changes_nothing_before() -> None:
    rules = {"rank": cross_rank(log_return(1)), "z": cross_z_score(ta("RSI", timeperiod=3))}
    listed = market()["ts"].filter(market()["symbol"] == "CCC").min()
    with_it = evaluate(rules, market(), Timeframe.D1)
    without = evaluate(rules, market().filter(pl.col("symbol") != "CCC"), Timeframe.D1)
    assert with_it.filter(pl.col("ts") < listed).equals(without.filter(pl.col("ts") < listed))
    both = pl.col("symbol") != "CCC"
    assert not with_it.filter(both).equals(without)


def test_a_listed_universe_counts_its_members_of_the_moment() -> None:
    begin = market()["event_timestamp"].min()
    assert isinstance(begin, datetime)
    leaves = begin + timedelta(days=40)
    universe = (
        Member("AAA", begin),
        Member("BBB", begin, leaves),
        Member("CCC", begin + timedelta(days=50)),
    )
    rule = cross_rank("close", universe=universe)
    found = evaluate({"rank": rule}, market(), Timeframe.D1).drop_nulls("rank")
    at = found.group_by("event_timestamp").agg(pl.col("symbol").sort())
    expected = {
        moment: ["AAA", "BBB"] if moment < leaves else ["AAA", "CCC"]
        for moment in market()["event_timestamp"].unique()
        if moment < leaves or moment >= begin + timedelta(days=50)
    }
    assert dict(at.iter_rows()) == expected
    assert rule.text != cross_rank("close").text


def test_equal_values_share_a_rank_and_have_no_z_score() -> None:
    equal = market().with_columns(close=pl.lit(3.0))
    found = evaluate(
        {"rank": cross_rank("close"), "z": cross_z_score("close")}, equal, Timeframe.D1
    )
    assert found["rank"].unique().to_list() == [0.5]
    assert found["z"].null_count() == found.height


# --- a higher timeframe


def test_a_week_counts_from_the_bar_that_knows_it_is_over() -> None:
    weekly = higher(Timeframe.W1, "close", base=Timeframe.D1)
    found = evaluate({"week": weekly}, PRICES, Timeframe.D1)
    for number, row in enumerate(found.iter_rows(named=True)):
        known: datetime = row["event_timestamp"]
        monday = (known - timedelta(days=known.weekday())).replace(hour=0)
        over = PRICES.filter(pl.col("ts") < monday, pl.col("ts") >= monday - timedelta(days=7))
        begun = PRICES["ts"][0] < monday - timedelta(days=7)
        assert row["week"] == (over["close"][-1] if begun else None), number


def test_higher_bars_are_made_as_aggregates_are() -> None:
    names = ("open", "high", "low", "close", "volume")
    rules = {name: higher(Timeframe.W1, name, base=Timeframe.D1) for name in names}
    found = evaluate(rules, PRICES, Timeframe.D1).row(-1, named=True)
    monday = datetime(2020, 3, 23, tzinfo=UTC)
    week = PRICES.filter(
        pl.col("ts") >= monday - timedelta(0), pl.col("ts") < monday + timedelta(days=7)
    )
    assert PRICES["ts"][-1] == datetime(2020, 3, 30, tzinfo=UTC)
    assert [found[name] for name in names] == [
        week["open"][0],
        week["high"].max(),
        week["low"].min(),
        week["close"][-1],
        pytest.approx(week["volume"].sum()),
    ]


# --- the trading calendar


def sessions_of(calendar: str, days: list[date], close: str = "21:00") -> pl.DataFrame:
    hour, minute = map(int, close.split(":"))
    opens = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
    made = bars(len(days), symbols=("AAA",)).with_columns(
        pl.Series("ts", opens, dtype=pl.Datetime("us", "UTC")),
        pl.Series(
            "event_timestamp",
            [one + timedelta(hours=hour, minutes=minute) for one in opens],
            dtype=pl.Datetime("us", "UTC"),
        ),
        calendar=pl.lit(calendar),
    )
    made_of = declared(*(Feature(name, "Calendar.", session(name)) for name in SESSION_FEATURES))
    return over_bars(made_of, made)


def test_sessions_are_those_of_the_instruments_own_calendar() -> None:
    days = [date(2024, 11, 27), date(2024, 11, 29), date(2024, 12, 2)]
    found = sessions_of("XNYS", days)
    assert found["weekday"].to_list() == [3, 5, 1]
    assert found["session_of_month"].to_list() == [19, 20, 1]
    assert found["session_of_week"].to_list() == [3, 4, 1]
    assert found["days_since_session"].to_list() == [1, 2, 3]  # Thanksgiving, a weekend
    assert found["month"].to_list() == [11, 11, 12]
    assert found["day_of_month"].to_list() == [27, 29, 2]
    assert found["time_of_day"].to_list() == [16, 16, 16]
    assert found["hours_of_session"].to_list() == [6.5, 6.5, 6.5]
    always = sessions_of("24/7", days)
    assert always["session_of_month"].to_list() == [27, 29, 2]
    assert always["days_since_session"].to_list() == [1, 1, 1]


def test_a_bar_within_a_day_belongs_to_the_session_that_it_is_in() -> None:
    opens = [datetime(2024, 11, 29, hour, 30, tzinfo=UTC) for hour in (14, 15)]
    made = bars(2, symbols=("AAA",)).with_columns(
        pl.Series("ts", opens, dtype=pl.Datetime("us", "UTC")),
        pl.Series("event_timestamp", opens, dtype=pl.Datetime("us", "UTC")) + timedelta(hours=1),
        calendar=pl.lit("XNYS"),
    )
    wanted = frozenset(
        {"session_hours_of_session", "session_time_of_day", "session_session_of_month"}
    )
    found = with_sessions(made, Timeframe.H1, wanted)
    assert found["session_hours_of_session"].to_list() == [1, 2]
    assert found["session_time_of_day"].to_list() == [10.5, 11.5]
    assert found["session_session_of_month"].to_list() == [20, 20]


def test_sessions_are_the_same_when_only_the_newest_bars_are_read() -> None:
    opens = pl.date_range(date(2024, 1, 1), date(2024, 12, 1), eager=True).to_list()
    whole = sessions_of("XNYS", [day for day in opens if day.weekday() < 5])
    newest = sessions_of("XNYS", [day for day in opens if day.weekday() < 5][-5:])
    assert whole[-5:].equals(newest)


def test_a_set_that_reads_no_calendar_needs_none() -> None:
    assert with_sessions(PRICES, Timeframe.D1, frozenset({"close"})) is PRICES
    with pytest.raises(FeatureError, match="reads volume, and its bars have no such column"):
        over_bars(declared(Feature("v", "Volume.", column("volume"))), PRICES.drop("volume"))
