"""Tries a declared set: does it look ahead, and is it the same whoever computes it?

A set over bars is computed on bars, and again on bars of which everything that was not known at a
moment is changed, removed or added to: what it said up to that moment has to stay, to the last bit.
Then it is computed in pieces, in other orders, in other company. The bars are made up to be hard on
rules (`hard_bars`), and a sample of the database's own. A set over a relation is tried on a copy of
what the relation reads (`check_relation`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast.db import Database
from hyperfeast.features.bars import Stretch, read_stretches
from hyperfeast.features.bounds import bounds_text, outside
from hyperfeast.features.check_relation import check_relation
from hyperfeast.features.computation import over_bars
from hyperfeast.features.declaration import Bars, FeatureSet, Relation
from hyperfeast.features.hard_bars import SYMBOLS, hard_bars
from hyperfeast.features.verdict import Fault, Finding, Verdict, found, name
from hyperfeast.indicators import CrossSection, Rule, block_start
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

MOMENTS = 12
"""At how many moments the inputs that come later are changed."""

_PRICES = ("open", "high", "low", "close")
_NEWEST_TIMES = 300
_LEAPS = 0.05
_BEHIND_ALL = datetime(9999, 1, 1, tzinfo=UTC)
_SAMPLED_SYMBOLS, _LEAST_SAMPLED_BARS, _MOST_SAMPLED_BARS = 5, 400, 5_000


def check(
    feature_set: FeatureSet,
    database: Database | None,
    *,
    moments: int = MOMENTS,
    seed: int = 7,
    progress: Progress | None = None,
) -> Verdict:
    """Try a set on made-up bars and on the database's own.

    Args:
        feature_set: what to try.
        database: where candles, or what a relation reads, may be; None to try on made-up bars alone.
        moments: at how many moments later inputs are changed, on each kind of bars; at a quarter as many of a
            relation.
        seed: the same one tries the same.
        progress: told (trials done, trials in all), of each kind of bars anew.

    Raises:
        FeatureError: a rule reads what bars do not have, or the relation lacks a declared column.
    """
    match feature_set.source:
        case Relation():
            # Each trial computes the whole relation.
            few = math.ceil(moments / 4)
            return check_relation(feature_set, database, moments=few, progress=progress)
        case Bars(timeframe):
            made_up = hard_bars(
                timeframe, warm_up=feature_set.warm_up, seed=seed, symbols=_symbols(feature_set)
            )
            kinds = [("made-up bars", made_up)]
            if database is not None:
                kinds += [
                    ("bars of the database", own)
                    for own in _sample(database, feature_set, timeframe)
                ]
            verdicts = [
                try_bars(feature_set, bars, kind, moments=moments, seed=seed, progress=progress)
                for kind, bars in kinds
            ]
            return _together(verdicts)


def try_bars(
    feature_set: FeatureSet,
    bars: pl.DataFrame,
    kind: str,
    *,
    moments: int = MOMENTS,
    seed: int = 7,
    progress: Progress | None = None,
) -> Verdict:
    """Try a set over bars on these bars.

    Args:
        feature_set: what to try.
        bars: as `bars.read_bars` gives them; at least one.
        kind: what they are, in words.
        moments: at how many moments later inputs are changed.
        seed: the same one tries the same.
        progress: told (trials done, trials in all).

    Raises:
        FeatureError: a rule reads what `bars` lacks.
    """
    trial = _Trial(feature_set, bars, kind, np.random.default_rng(seed))
    parts = [
        *(part for moment in trial.moments(moments) for part in trial.look_ahead(moment)),
        *([trial.incremental] * moments),
        trial.repeated,
        trial.orders,
        trial.company,
    ]
    trial.values()
    for done, part in enumerate(parts):
        if progress:
            progress(done, len(parts))
        part()
    if progress:
        progress(len(parts), len(parts))
    return Verdict(name(feature_set), trial.trials, tuple(trial.findings.values()), trial.untried())


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict: of a feature's fault the first case, and untried only what no bars could try."""
    findings: dict[tuple[str, Fault], Finding] = {}
    for finding in (one for verdict in verdicts for one in verdict.findings):
        findings.setdefault((finding.feature, finding.fault), finding)
    everywhere = set.intersection(*(set(one.untried) for one in verdicts))
    return Verdict(
        verdicts[0].feature_set,
        sum(one.trials for one in verdicts),
        tuple(findings.values()),
        tuple(one for one in verdicts[0].untried if one in everywhere),
    )


def _symbols(feature_set: FeatureSet) -> tuple[str, ...]:
    """The made-up symbols; members of a declared universe first, since only those have a value."""
    members = [
        member.symbol
        for rule in feature_set.rules.values()
        if isinstance(rule, CrossSection)
        for member in rule.universe
    ]
    return tuple(dict.fromkeys([*members, *SYMBOLS]))[: len(SYMBOLS)]


def _sample(
    database: Database, feature_set: FeatureSet, timeframe: Timeframe
) -> Iterator[pl.DataFrame]:
    """The newest bars of some symbols, if there are any."""
    listed = database.fetch(query("feature_check", "symbols"), {"tf": timeframe.value})
    if not listed:
        return
    places = np.unique(np.linspace(0, len(listed) - 1, _SAMPLED_SYMBOLS).astype(int))
    count = min(_MOST_SAMPLED_BARS, feature_set.warm_up + _LEAST_SAMPLED_BARS)
    newest = [Stretch(listed[place]["symbol"], _BEHIND_ALL, _BEHIND_ALL) for place in places]
    yield read_stretches(database, timeframe, newest, before=count)


@dataclass(frozen=True)
class _Change:
    """Something that is done to bars which were not known yet at a moment.

    Attributes:
        input: what is changed, in words.
        made: from the bars, and of each whether it was not known yet, to other bars.
    """

    input: str
    made: Callable[[pl.DataFrame, pl.Series], pl.DataFrame]


class _Trial:
    """A set on some bars: what it says of them, and what was found."""

    def __init__(
        self, feature_set: FeatureSet, bars: pl.DataFrame, kind: str, random: np.random.Generator
    ) -> None:
        self._set = feature_set
        self._timeframe = cast("Bars", feature_set.source).timeframe
        self._bars = bars.sort("symbol", "ts")
        self._kind = kind
        self._random = random
        self._full = over_bars(feature_set, self._bars)
        self.trials = 0
        self.findings: dict[tuple[str, Fault], Finding] = {}

    def untried(self) -> tuple[str, ...]:
        """The features that had no value on any bar: of those nothing is known."""
        return tuple(
            f"{self._set}: feature {feature} had no value on any bar, so nothing of it was tried: ingest bars "
            "that it has one on"
            for feature in self._set.feature_names
            if self._full[feature].null_count() == self._full.height
        )

    # What it says

    def values(self) -> None:
        """Finite, null before the lookback, within the declared bounds."""
        place = self._full.select(pl.int_range(pl.len()).over("symbol")).to_series()
        for feature in self._set.features:
            values, rule = self._full[feature.name], feature.rule
            numbers = values.explode() if isinstance(values.dtype, pl.List) else values
            if numbers.dtype.is_float() and not numbers.drop_nulls().is_finite().all():
                self._found(feature.name, Fault.NOT_FINITE, "a value is NaN or infinite")
            early = (place < rule.lookback) & values.is_not_null() if rule else place < 0
            for row in self._rows(early):
                self._found(
                    feature.name,
                    Fault.TOO_EARLY,
                    f"it is {row[feature.name]} on {_bar(row)}, before it has the {rule.lookback if rule else 0} "
                    f"earlier bars that it says it needs ({self._kind})",
                    row,
                )
            for row in self._rows(outside(values, feature)):
                self._found(
                    feature.name,
                    Fault.OUT_OF_BOUNDS,
                    f"it is {row[feature.name]} on {_bar(row)}, and declared {bounds_text(feature)} "
                    f"({self._kind})",
                    row,
                )

    # What it reads

    def moments(self, count: int) -> list[datetime]:
        """The moments after which inputs are changed: at edges of blocks, where it is hard, and anywhere."""
        times = self._bars["event_timestamp"].unique().sort()
        newest = times.tail(_NEWEST_TIMES)[:-1]
        close, volume = pl.col("close"), pl.col("volume")
        step = (close / close.shift().over("symbol")).log()
        hard = (
            self._bars.filter(
                (volume == 0) | (step == 0) | (step.abs() > 1),
                pl.col("event_timestamp").is_in(newest.implode()),
            )["event_timestamp"]
            .unique()
            .sort()
        )
        starts = self._bars.filter(
            pl.Series([block_start(self._timeframe, one) for one in self._bars["ts"]])
            .diff()
            .dt.total_days()
            > 0
        )["event_timestamp"].unique()
        edges = [one for one in newest if one in set(starts)][-1:]
        chosen = {*edges, *self._drawn(hard, count // 2)}
        chosen |= set(self._drawn(newest, count - len(chosen)))
        return sorted(chosen)

    def look_ahead(self, moment: datetime) -> list[Callable[[], None]]:
        """One trial for everything that can happen after a moment."""
        return [partial(self._try_change, moment, change) for change in self._changes()]

    def incremental(self) -> None:
        """From a random bar on, up to another, on no more bars than are needed: the full result's bits."""
        since = {
            symbol: cast("datetime", opens[int(self._random.integers(len(opens)))])
            for symbol, opens in self._opens(int(self._random.integers(1, 4)))
        }
        until = {
            symbol: opened + (1 + int(self._random.integers(1, 60))) * self._timeframe.width
            for symbol, opened in since.items()
            if self._random.integers(2)
        }
        keys = self._bars.select("symbol", "ts", "event_timestamp")
        wanted = _within(keys, since, until).select("symbol", "event_timestamp")
        expected = self._full.join(wanted, on=wanted.columns, how="semi", maintain_order="left")
        again = over_bars(self._set, self._needed(since), since=since, until=until)
        first = min(since.values())
        self._compare(
            expected,
            again,
            Fault.NOT_INCREMENTAL,
            lambda row, was, now: (
                f"computed from {_moment(first)} on it is {now} on {_bar(row)}, computed as a whole {was} "
                f"({self._kind})"
            ),
        )

    def repeated(self) -> None:
        """The same bars twice."""
        self._compare(
            self._full,
            over_bars(self._set, self._bars),
            Fault.NOT_REPEATABLE,
            lambda row, was, now: (
                f"on the same bars it is {was} and then {now} on {_bar(row)} ({self._kind})"
            ),
        )

    def orders(self) -> None:
        """The same bars in other orders."""
        shuffled = self._bars.sample(
            fraction=1, shuffle=True, seed=int(self._random.integers(2**31))
        )
        for bars in (self._bars.reverse(), shuffled):
            self._compare(
                self._full,
                over_bars(self._set, bars),
                Fault.MINDS_ORDER,
                lambda row, was, now: (
                    f"it is {was} or {now} on {_bar(row)} by the order in which bars arrive ({self._kind})"
                ),
            )

    def company(self) -> None:
        """Each symbol alone, where symbols are not compared; and each feature alone."""
        own = tuple(one for one in self._set.features if isinstance(one.rule, Rule))
        if own:
            apart = replace(self._set, features=own)
            for (symbol,), part in self._bars.group_by("symbol", maintain_order=True):
                self._compare(
                    self._full.filter(pl.col("symbol") == symbol).select(
                        "symbol", "event_timestamp", *apart.feature_names
                    ),
                    over_bars(apart, part),
                    Fault.MINDS_COMPANY,
                    lambda row, was, now: (
                        f"it is {was} on {_bar(row)} among other symbols and {now} without them ({self._kind})"
                    ),
                )
        for one in self._set.features:
            self._compare(
                self._full.select("symbol", "event_timestamp", one.name),
                over_bars(replace(self._set, features=(one,)), self._bars),
                Fault.MINDS_COMPANY,
                lambda row, was, now: (
                    f"it is {was} on {_bar(row)} among the set's features and {now} alone ({self._kind})"
                ),
            )

    def _try_change(self, moment: datetime, change: _Change) -> None:
        later = self._bars["event_timestamp"] > moment
        known = pl.col("event_timestamp") <= moment
        again = over_bars(self._set, change.made(self._bars, later))
        self._compare(
            self._full.filter(known),
            again.filter(known),
            Fault.LOOKS_AHEAD,
            lambda row, was, now: (
                f"changing {change.input} after {_moment(moment)} changed it on {_bar(row)} from {was} to {now} "
                f"({self._kind})"
            ),
            moment=moment,
            changed=change.input,
        )

    def _changes(self) -> list[_Change]:
        """What can happen to bars; one column at a time first, so that a finding names it."""
        columns = [one for one in (*_PRICES, "volume") if one in self._set.columns]
        own = self._bars["symbol"][0]
        changes = [_Change(f"the {one} of every symbol", self._noisy([one])) for one in columns]
        changes += [
            _Change("every price and volume", self._noisy([*_PRICES, "volume"])),
            _Change(
                f"the bars of every symbol but {own}", self._noisy([*_PRICES, "volume"], but=own)
            ),
            _Change("every volume to 0", lambda bars, later: _set_to(bars, later, ["volume"], 0.0)),
            _Change("every price to one", lambda bars, later: _set_to(bars, later, _PRICES, 1e-3)),
            _Change("whether there are bars", lambda bars, later: bars.filter(~later)),
            _Change("whether there is a next bar", _without_next),
            _Change("which symbols are listed", _with_listed),
        ]
        if "split_factor" in self._bars.columns:
            changes.append(_Change("how shares are split", _with_split))
        return changes

    def _noisy(
        self, columns: Sequence[str], *, but: str | None = None
    ) -> Callable[[pl.DataFrame, pl.Series], pl.DataFrame]:
        """A change that multiplies columns by random numbers, here and there by a large one."""

        def made(bars: pl.DataFrame, later: pl.Series) -> pl.DataFrame:
            changed = later if but is None else later & (bars["symbol"] != but)
            return bars.with_columns(
                pl.when(changed)
                .then(pl.col(one) * self._noise(bars.height))
                .otherwise(pl.col(one))
                .alias(one)
                for one in columns
            )

        return made

    def _noise(self, count: int) -> pl.Series:
        usual = self._random.uniform(0.5, 2, count)
        leaps = self._random.uniform(size=count) < _LEAPS
        return pl.Series(np.where(leaps, usual * 1e4, usual))

    def _drawn(self, times: pl.Series, count: int) -> list[datetime]:
        count = min(count, len(times))
        if count <= 0:
            return []
        return [times[int(one)] for one in self._random.choice(len(times), count, replace=False)]

    def _opens(self, count: int) -> list[tuple[str, pl.Series]]:
        """Of some symbols the opens of their newest bars."""
        symbols = self._bars["symbol"].unique().sort()
        chosen = self._random.choice(len(symbols), min(count, len(symbols)), replace=False)
        return [
            (
                symbols[int(place)],
                self._bars.filter(symbol=symbols[int(place)])["ts"].tail(_NEWEST_TIMES),
            )
            for place in chosen
        ]

    def _needed(self, since: dict[str, datetime]) -> pl.DataFrame:
        """No more bars than an incremental run reads: a warm-up before the block of what is asked for."""
        first = _within(self._bars, since, {})["event_timestamp"].min()
        parts = []
        for (symbol,), own in self._bars.group_by("symbol", maintain_order=True):
            if symbol in since:
                begin = block_start(self._timeframe, since[str(symbol)])
            elif self._set.compares_symbols:
                asked = own.filter(pl.col("event_timestamp") >= first)["ts"]
                if asked.is_empty():
                    continue
                begin = block_start(self._timeframe, asked[0])
            else:
                continue
            if self._set.compares_symbols:
                asked = own.filter(pl.col("event_timestamp") >= first)["ts"]
                begin = min(begin, block_start(self._timeframe, asked[0])) if len(asked) else begin
            parts += [
                own.filter(pl.col("ts") < begin).tail(self._set.warm_up),
                own.filter(pl.col("ts") >= begin),
            ]
        return pl.concat(parts)

    # What was found

    def _compare(
        self,
        before: pl.DataFrame,
        after: pl.DataFrame,
        fault: Fault,
        case: Callable[[dict[str, Any], str, str], str],
        *,
        moment: datetime | None = None,
        changed: str | None = None,
    ) -> None:
        """Find the features of `after` that are not those of `before`, row by row."""
        self.trials += 1
        for feature in before.columns[2:]:
            if (feature, fault) in self.findings:
                continue
            for place in np.flatnonzero(different(before[feature], after[feature]))[:1].tolist():
                row = before.row(place, named=True)
                was, now = _value(row[feature]), _value(after[feature][place])
                self._found(feature, fault, case(row, was, now), row, moment, changed)

    def _rows(self, wrong: pl.Series) -> list[dict[str, Any]]:
        return self._full.filter(wrong).head(1).to_dicts()

    def _found(
        self,
        feature: str,
        fault: Fault,
        case: str,
        row: dict[str, Any] | None = None,
        moment: datetime | None = None,
        changed: str | None = None,
    ) -> None:
        self.findings.setdefault(
            (feature, fault),
            found(
                self._set,
                feature,
                fault,
                case,
                entity=row["symbol"] if row else None,
                at=row["event_timestamp"] if row else None,
                moment=moment,
                changed=changed,
            ),
        )


def different(before: pl.Series, after: pl.Series) -> NDArray[np.bool_]:
    """Of each row, whether two columns of equal length hold other bits there; null is equal to null."""
    if not before.dtype.is_float():
        return before.ne_missing(after).to_numpy()
    bits = [one.fill_null(0.0).to_numpy().view(np.int64) for one in (before, after)]
    nulls = (before.is_null() != after.is_null()).to_numpy()
    return np.asarray(nulls | (bits[0] != bits[1]), dtype=np.bool_)


def _within(
    keys: pl.DataFrame, since: dict[str, datetime], until: dict[str, datetime]
) -> pl.DataFrame:
    """The rows of the symbols in `since` from there on, up to `until`."""
    asked = pl.lit(value=False)
    for symbol, first in since.items():
        own = (pl.col("symbol") == symbol) & (pl.col("ts") >= first)
        asked |= own & (pl.col("ts") < until[symbol]) if symbol in until else own
    return keys.filter(asked)


def _set_to(
    bars: pl.DataFrame, later: pl.Series, columns: Sequence[str], value: float
) -> pl.DataFrame:
    return bars.with_columns(
        pl.when(later).then(value).otherwise(pl.col(one)).alias(one) for one in columns
    )


def _without_next(bars: pl.DataFrame, later: pl.Series) -> pl.DataFrame:
    count = pl.col("later").cast(pl.Int64).cum_sum().over("symbol")
    return (
        bars.with_columns(later.alias("later"))
        .filter(~pl.col("later") | (count != 1))
        .drop("later")
    )


def _with_listed(bars: pl.DataFrame, later: pl.Series) -> pl.DataFrame:
    """Symbols that are first and last by name join with the later bars of the others."""
    new = bars.filter(later).unique("ts", keep="first", maintain_order=True)
    return pl.concat(
        [bars, *(new.with_columns(pl.lit(one).alias("symbol")) for one in ("0LATER", "zzLATER"))]
    )


def _with_split(bars: pl.DataFrame, later: pl.Series) -> pl.DataFrame:
    """A split of two for one: forward-adjusted prices go on as before, under another factor."""
    doubled = pl.when(later).then(pl.col("split_factor") * 2).otherwise(pl.col("split_factor"))
    return bars.with_columns(doubled.alias("split_factor"))


def _bar(row: dict[str, Any]) -> str:
    return f"{row['symbol']}'s row of {_moment(row['event_timestamp'])}"


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _value(value: Any) -> str:
    return "NULL" if value is None else str(value)
