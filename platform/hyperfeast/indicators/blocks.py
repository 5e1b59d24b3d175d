"""Evaluates rules in blocks of bars, so that whoever computes a value computes the same bits.

The last bits of a recursive indicator, or of a running sum, depend on where its series begins. So the
beginning is made part of the definition: time is cut into blocks at moments that depend on the
timeframe alone, and each value of a block is computed on the bars from `warm_up` bars before the
block's first bar up to its own. In one run over all years, or for the newest bar only, in this
process or another, the same array goes into the same function.

A new bar costs its block and the warm-up, of its symbol. A correction touches its own block from the
bar on, and a later block only where it lies within that block's warm-up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from hyperfeast.indicators.cross_section import CrossSection
from hyperfeast.indicators.rule import CLOSED, OPENED, FloatArray, Rule, Window
from hyperfeast.types import Timeframe

AnyRule: TypeAlias = Rule | CrossSection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS_A_YEAR = 12


@dataclass(frozen=True)
class _Length:
    """How long the blocks of a timeframe are: a number of days, or of months."""

    days: int = 0
    months: int = 0


# Some 500 to 1,000 bars of a market that is open six hours and a half, some 2,000 of one that never shuts.
_LENGTHS = {
    Timeframe.M1: _Length(days=2),
    Timeframe.M5: _Length(days=7),
    Timeframe.M15: _Length(months=1),
    Timeframe.H1: _Length(months=3),
    Timeframe.H4: _Length(months=12),
    Timeframe.D1: _Length(months=48),
    Timeframe.W1: _Length(months=240),
}


def block_start(timeframe: Timeframe, moment: datetime) -> datetime:
    """The beginning of the block that holds the bar opening at a moment.

    Days are counted from 1970-01-01 and months from the year 0, both in UTC: daily bars have a block
    from each 1 January of a year that four divides.
    """
    moment = moment.astimezone(UTC)
    length = _LENGTHS[timeframe]
    if length.days:
        days = (moment - _EPOCH).days
        return _EPOCH + timedelta(days=days - days % length.days)
    months = moment.year * _MONTHS_A_YEAR + moment.month - 1
    year, month = divmod(months - months % length.months, _MONTHS_A_YEAR)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def touched_until(
    opens: pl.Series, timeframe: Timeframe, warm_up: int, corrected: datetime
) -> datetime | None:
    """From which bar on a correction touches nothing any more.

    Args:
        opens: Datetime(UTC), the opens of all bars of the symbol, ascending, after the correction.
        timeframe: of the bars.
        warm_up: the longest of the rules.
        corrected: the open of the bar that was corrected, inserted or deleted.

    Returns:
        The open of the first bar behind it whose values are as they were; None where there is none.
    """
    numbers = _block_numbers(opens, timeframe)
    place = int((opens < corrected).sum())
    starts = np.flatnonzero(np.diff(numbers)) + 1
    for start in starts[starts > place].tolist():
        if place < start - warm_up and opens[start] > corrected:
            untouched: datetime = opens[start]
            return untouched
    return None


def evaluate(
    rules: Mapping[str, AnyRule],
    bars: pl.DataFrame,
    timeframe: Timeframe,
    *,
    since: Mapping[str, datetime] | None = None,
    until: Mapping[str, datetime] | None = None,
) -> pl.DataFrame:
    """The values of rules over the bars of many symbols.

    Args:
        rules: by the name of their column.
        bars: columns symbol, ts (the bar's open, UTC), event_timestamp (from when it is known), those
            that the rules read, and split_factor if prices are forward-adjusted (`adjustment`). In
            any order. With `since`, only the bars from the longest warm-up before that block on are
            needed; for a rule over a cross-section, those of all its symbols.
        timeframe: of the bars: it says where the blocks begin.
        since: by symbol, the open (zoned) of the first bar to give; symbols that are not in it are left
            out. None for all bars of all symbols.
        until: by symbol, the open of the first bar not to give any more.

    Returns:
        symbol, ts, event_timestamp and a column a rule, sorted by symbol and ts: Float64, or a list of
        Float64 for a sequence. Null where there is no value, never NaN or infinite. Equal to the
        last bit for every way to ask for a row.
    """
    ordered = _ordered(bars)
    wanted = _wanted(ordered, since, until)
    own = {name: rule for name, rule in rules.items() if isinstance(rule, Rule)}
    across = {name: rule for name, rule in rules.items() if not isinstance(rule, Rule)}
    values = _evaluate(own, ordered, timeframe, wanted)
    if across:
        moments = _same_moments(ordered, wanted)
        inner = _evaluate(
            {name: one.of for name, one in across.items()}, ordered, timeframe, moments
        )
        others, asked = ordered.filter(moments), wanted[moments]
        values |= {name: one.across(others, inner[name])[asked] for name, one in across.items()}
    rows = ordered.select("symbol", "ts", "event_timestamp").filter(wanted)
    return rows.with_columns(_series(values[name]).alias(name) for name in rules)


def _ordered(bars: pl.DataFrame) -> pl.DataFrame:
    """By symbol and time, each column in one piece."""
    symbol, opened = pl.col("symbol"), pl.col("ts")
    later = (symbol == symbol.shift()) & (opened > opened.shift())
    in_order = bars.select((later | (symbol > symbol.shift())).fill_null(value=True).all()).item()
    return (bars if in_order else bars.sort("symbol", "ts")).rechunk()


def _wanted(
    bars: pl.DataFrame,
    since: Mapping[str, datetime] | None,
    until: Mapping[str, datetime] | None,
) -> NDArray[np.bool_]:
    """Of each bar, whether its values are asked for."""
    asked = pl.repeat(value=True, n=pl.len())
    if since is not None:
        asked &= (pl.col("ts") >= _bound(since)).fill_null(value=False)
    if until is not None:
        asked &= (pl.col("ts") < _bound(until)).fill_null(value=True)
    return bars.select(asked.alias("asked"))["asked"].to_numpy()


def _bound(bounds: Mapping[str, datetime]) -> pl.Expr:
    return pl.col("symbol").replace_strict(
        list(bounds),
        [moment.astimezone(UTC) for moment in bounds.values()],
        default=None,
        return_dtype=pl.Datetime("us", "UTC"),
    )


def _same_moments(bars: pl.DataFrame, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The bars of all symbols from the first moment that is asked for to the last."""
    if not wanted.any():
        return wanted
    moments = bars["event_timestamp"]
    asked = moments.filter(wanted)
    return ((moments >= asked.min()) & (moments <= asked.max())).fill_null(value=False).to_numpy()


@dataclass(frozen=True)
class _Stretch:
    """Bars of one symbol and block that are asked for, as positions in the ordered frame.

    Attributes:
        symbol_first: the symbol's first bar.
        block_first: the block's first bar.
        first: the first that is asked for; all are from there to `end`.
        end: behind the last that is asked for.
        rows: where their results stand.
    """

    symbol_first: int
    block_first: int
    first: int
    end: int
    rows: slice


def _stretches(
    bars: pl.DataFrame, timeframe: Timeframe, wanted: NDArray[np.bool_]
) -> Iterator[_Stretch]:
    symbols = bars["symbol"].rle_id().to_numpy()
    new_symbol = np.diff(symbols, prepend=-1) != 0
    new_block = new_symbol | (np.diff(_block_numbers(bars["ts"], timeframe), prepend=-1) != 0)
    block_firsts = np.flatnonzero(new_block)
    symbol_firsts = np.flatnonzero(new_symbol)[symbols[block_firsts]]
    asked = np.flatnonzero(wanted)
    edges = np.searchsorted(asked, [*block_firsts, len(wanted)])
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        if low < high:
            yield _Stretch(
                int(symbol_firsts[number]),
                int(block_firsts[number]),
                int(asked[low]),
                int(asked[high - 1]) + 1,
                slice(low, high),
            )


def _block_numbers(opens: pl.Series, timeframe: Timeframe) -> NDArray[np.int64]:
    length = _LENGTHS[timeframe]
    if length.days:
        return opens.dt.epoch("d").cast(pl.Int64).to_numpy() // length.days
    months = opens.dt.year().cast(pl.Int64) * _MONTHS_A_YEAR + opens.dt.month() - 1
    return months.to_numpy() // length.months


def _evaluate(
    rules: Mapping[str, Rule],
    bars: pl.DataFrame,
    timeframe: Timeframe,
    wanted: NDArray[np.bool_],
) -> dict[str, FloatArray]:
    """The values of rules over single symbols, one row a bar that is wanted."""
    results = _empty(rules, int(wanted.sum()))
    columns = _columns(bars, rules)
    factors = bars["split_factor"].to_numpy() if "split_factor" in bars.columns else None
    # Rules of one warm-up share a window, and what they have in common is computed once.
    together: dict[int, list[tuple[Rule, FloatArray]]] = {}
    for name, rule in rules.items():
        together.setdefault(rule.warm_up, []).append((rule, results[name]))
    with np.errstate(all="ignore"):
        for stretch in _stretches(bars, timeframe, wanted):
            for factor, own in _shares(factors, stretch):
                for warm_up, members in together.items():
                    begin = max(stretch.symbol_first, stretch.block_first - warm_up)
                    window = Window(columns, slice(begin, stretch.end), factor=factor)
                    skip = stretch.first - begin
                    for rule, result in members:
                        values = rule.function(window)[skip:]
                        if own is None:
                            result[stretch.rows] = values
                        else:
                            result[stretch.rows][own] = values[own]
    return results


def _empty(rules: Mapping[str, Rule], rows: int) -> dict[str, FloatArray]:
    """Room for the results, in one piece: the system hands that out in far fewer pages."""
    ends = np.cumsum([rule.width * rows for rule in rules.values()]).tolist()
    pieces = np.split(np.empty(ends[-1] if ends else 0), ends[:-1])
    return {
        name: piece if rule.width == 1 else piece.reshape(rows, rule.width)
        for (name, rule), piece in zip(rules.items(), pieces, strict=False)
    }


def _shares(
    factors: FloatArray | None, stretch: _Stretch
) -> list[tuple[float, NDArray[np.bool_] | None]]:
    """The split factors of a stretch, each with the rows that have it; None for all."""
    if factors is None:
        return [(1.0, None)]
    own = factors[stretch.first : stretch.end]
    if (own == own[0]).all():
        return [(float(own[0]), None)]
    return [(float(one), own == one) for one in np.unique(own)]


def _columns(bars: pl.DataFrame, rules: Mapping[str, Rule]) -> dict[str, FloatArray]:
    names = sorted(frozenset().union(*(rule.columns for rule in rules.values())))
    seconds = {OPENED: "ts", CLOSED: "event_timestamp"}
    numbers = bars.select(
        (pl.col(seconds[name]).dt.epoch("us") / 1e6 if name in seconds else pl.col(name))
        .cast(pl.Float64)
        .fill_null(float("nan"))
        .alias(name)
        for name in names
    )
    return {name: np.ascontiguousarray(numbers[name].to_numpy()) for name in names}


def _series(values: FloatArray) -> pl.Series:
    """A column, or one of lists; null where a number is missing or infinite."""
    finite = np.isfinite(values)
    if values.ndim == 1:
        return _nullable(values, finite)
    lists = pl.Series(values, dtype=pl.Array(pl.Float64, values.shape[1])).arr.to_list()
    return pl.select(pl.when(pl.Series(finite.all(axis=1))).then(lists)).to_series()


def _nullable(values: FloatArray, valid: NDArray[np.bool_]) -> pl.Series:
    """The same memory with a mask; Polars' own ways there copy it."""
    bits = np.packbits(valid, bitorder="little")
    buffers = [pa.py_buffer(bits.data), pa.py_buffer(values.data)]
    return pl.Series(pa.Array.from_buffers(pa.float64(), len(values), [*buffers]))
