"""What a feature is computed by: a pure function of a bounded stretch of one symbol's bars.

A rule is given a window: `warm_up` bars and those that are asked for. It looks only backward, and
what it says of a bar may depend on the bars of the window up to that bar, on nothing else. Rules
are added, subtracted, multiplied and divided like numbers:

    (column("close") - ta("SMA", timeperiod=20)) / ta("ATR", timeperiod=14)
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError

FloatArray: TypeAlias = NDArray[np.float64]

PRICES = ("open", "high", "low", "close")
COLUMNS = (*PRICES, "volume")
OPENED, CLOSED = "opened", "closed"
"""Columns of a window with the seconds since 1970 at which a bar opened, and was known."""
COMPUTED = frozenset({OPENED, CLOSED})
"""Columns that every window has, though no bar brings them."""


_ALL = slice(None)
# Expressions of Polars whose values depend on every bar before.
_REMEMBERING = re.compile(r"\.(ewm_\w+|cum_\w+|fill_null_with_strategy)\(")


class Window:
    """Consecutive bars of one symbol in time order, as contiguous arrays.

    Prices and volumes are those of the share that is traded at the last bar's moment: what came
    before a split is divided by it, as on a chart that is drawn then.
    """

    def __init__(
        self, columns: Mapping[str, FloatArray], bars: slice = _ALL, *, factor: float = 1.0
    ) -> None:
        """Look at a stretch of columns.

        Args:
            columns: Float64, contiguous, of one length; forward-adjusted (`adjustment`).
            bars: the stretch.
            factor: the split factor of the moment whose shares prices and volumes are given in.
        """
        self._all = columns
        self._bars = bars
        self._factor = factor
        self._columns: dict[str, FloatArray] = {}
        self._results: dict[str, tuple[FloatArray, ...]] = {}

    def __getitem__(self, column: str) -> FloatArray:
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = self._seen(column)
        return found

    def _seen(self, column: str) -> FloatArray:
        values = self._all[column][self._bars]
        if self._factor == 1:
            return values
        if column in PRICES:
            return values / self._factor
        return values * self._factor if column == "volume" else values

    def once(
        self, text: str, compute: Callable[["Window"], tuple[FloatArray, ...]]
    ) -> tuple[FloatArray, ...]:
        """What `text` stands for, computed once a window however many rules ask for it."""
        found = self._results.get(text)
        if found is None:
            found = self._results[text] = compute(self)
        return found

    def frame(self) -> pl.DataFrame:
        """The same as a frame, for rules that are Polars expressions."""
        return pl.DataFrame({name: self[name] for name in self._all})


@dataclass(frozen=True)
class Rule:
    """How a feature follows from one symbol's bars.

    Attributes:
        text: the rule in words that identify it: another text is another rule.
        lookback: how many earlier bars the first value needs, at the least.
        warm_up: how many bars before a block of bars (`blocks`) are put in front of it. Of what
            lies before them nothing is seen; at least `lookback`.
        function: from a window to one Float64 a bar, NaN where there is none; or, for a sequence,
            to one row a bar.
        columns: the columns of the bars that it reads.
        width: how many numbers a bar has; more than one for a sequence.
    """

    text: str
    lookback: int
    warm_up: int
    function: Callable[[Window], FloatArray] = field(compare=False, repr=False)
    columns: frozenset[str] = frozenset(COLUMNS)
    width: int = 1

    def __call__(self, window: Window) -> FloatArray:
        """The values over a window, the warm-up's bars included."""
        return window.once(self.text, lambda bars: (self.function(bars),))[0]

    def __add__(self, other: "Operand") -> "Rule":
        return _combined("+", np.add, self, other)

    def __radd__(self, other: "Operand") -> "Rule":
        return _combined("+", np.add, other, self)

    def __sub__(self, other: "Operand") -> "Rule":
        return _combined("-", np.subtract, self, other)

    def __rsub__(self, other: "Operand") -> "Rule":
        return _combined("-", np.subtract, other, self)

    def __mul__(self, other: "Operand") -> "Rule":
        return _combined("*", np.multiply, self, other)

    def __rmul__(self, other: "Operand") -> "Rule":
        return _combined("*", np.multiply, other, self)

    def __truediv__(self, other: "Operand") -> "Rule":
        return _combined("/", np.divide, self, other)

    def __rtruediv__(self, other: "Operand") -> "Rule":
        return _combined("/", np.divide, other, self)

    def __neg__(self) -> "Rule":
        return _combined("*", np.multiply, -1.0, self)

    def log(self) -> "Rule":
        """Its natural logarithm; null where it is not above 0."""
        return derived(f"log({self.text})", (self,), np.log)


Operand: TypeAlias = Rule | float


def column(name: str) -> Rule:
    """A column of the bars as it is: open, high, low, close or volume.

    Raises:
        FeatureError: bars have no such column.
    """
    if name not in COLUMNS:
        raise FeatureError(f"bars have no column {name!r}: take one of {', '.join(COLUMNS)}")
    return Rule(name, 0, 0, lambda bars: bars[name], frozenset({name}))


def as_rule(operand: "Rule | str") -> Rule:
    """A rule, or the rule that reads the column of this name.

    Raises:
        FeatureError: bars have no such column, or it is a sequence, of which no rule can be made.
    """
    rule = column(operand) if isinstance(operand, str) else operand
    if rule.width > 1:
        raise FeatureError(
            f"{rule.text} is a sequence: make the sequence of a rule, not the rule of a sequence"
        )
    return rule


def derived(
    text: str,
    inputs: tuple[Rule, ...],
    compute: Callable[..., FloatArray],
    *,
    lookback: int = 0,
    warm_up: int | None = None,
) -> Rule:
    """A rule over the values of other rules.

    Args:
        text: what identifies it; the inputs' texts must be part of it.
        inputs: their values become the arguments of `compute`.
        compute: from arrays of one length to one array of it; values may lean backward only.
        lookback: how many earlier values of the inputs the first value needs.
        warm_up: how many earlier values are put before a block; None for `lookback`.
    """
    for rule in inputs:
        as_rule(rule)
    return Rule(
        text,
        max(rule.lookback for rule in inputs) + lookback,
        max(rule.warm_up for rule in inputs) + (lookback if warm_up is None else warm_up),
        lambda bars: compute(*(rule(bars) for rule in inputs)),
        frozenset().union(*(rule.columns for rule in inputs)),
    )


def expression(value: pl.Expr, *, lookback: int | None = None, warm_up: int | None = None) -> Rule:
    """A rule that is a Polars expression over the columns open, high, low, close and volume.

    Args:
        value: evaluated over one symbol's window in time order; it must look only backward.
        lookback: how many earlier bars the first value needs; it has to be said.
        warm_up: how many bars to put before a block; None for `lookback`. An expression that remembers
            all bars before (`ewm_mean`, `cum_sum`) has to say how many are to count.

    Its text holds a digest of the expression as Polars writes it down, which another version of Polars may
    write differently; its values may differ then, too.

    Raises:
        FeatureError: a column that bars do not have, no lookback or warm-up where it has to be said, a
            warm-up shorter than the lookback, or Python code or data in the expression, which its text
            would not tell from others.
    """
    text = str(value)
    if lookback is None:
        raise FeatureError(
            f"{text} says nothing of its lookback: expression(..., lookback=how many earlier bars its first "
            "value needs)"
        )
    if warm_up is None and (found := _REMEMBERING.search(text)):
        raise FeatureError(
            f"{text}: {found[1]} remembers all bars before: say how many are to count, as in warm_up=250; for "
            "ewm_mean(span=n), 14 * (n + 1)"
        )
    if "python_udf" in text or "Series" in text:
        raise FeatureError(
            f"{text} holds Python code or data that its text does not show, so that another rule could look "
            "the same: write it of Polars' own expressions and numbers"
        )
    names = set(value.meta.root_names())
    first = min(names, default="close")
    if unknown := names - set(COLUMNS):
        raise FeatureError(
            f"{value} reads {', '.join(sorted(unknown))}: bars have {', '.join(COLUMNS)}"
        )
    # The text of an expression leaves out parameters: all of `rolling_mean` read alike.
    digest = hashlib.sha256(value.meta.serialize()).hexdigest()[:16]
    warm_up = lookback if warm_up is None else warm_up
    if not 0 <= lookback <= warm_up:
        raise FeatureError(
            f"{value}: a warm-up of {warm_up} bars is less than its lookback of {lookback}"
        )

    def evaluate(bars: Window) -> FloatArray:
        found = bars.frame().select(value.cast(pl.Float64).fill_null(float("nan")).alias("value"))
        values: FloatArray = found["value"].to_numpy().copy()
        if len(values) != len(bars[first]):
            raise FeatureError(
                f"{text} gives {len(values)} values for {len(bars[first])} bars, expected one a bar: what sums "
                "up a whole series looks ahead; take a rolling window"
            )
        values[:lookback] = np.nan
        return values

    return Rule(
        f"polars({text}, {lookback}, {warm_up}, {digest})",
        lookback,
        warm_up,
        evaluate,
        frozenset(names | {first}),
    )


def _combined(sign: str, compute: Callable[..., FloatArray], left: Operand, right: Operand) -> Rule:
    """Two operands, of which one at least is a rule."""
    text = f"({_text(left)} {sign} {_text(right)})"
    match left, right:
        case Rule(), Rule():
            return derived(text, (left, right), compute)
        case Rule(), _:
            return derived(text, (left,), lambda values: compute(values, right))
        case _, Rule():
            return derived(text, (right,), lambda values: compute(left, values))
    raise AssertionError(text)


def _text(operand: Operand) -> str:
    return operand.text if isinstance(operand, Rule) else repr(float(operand))
