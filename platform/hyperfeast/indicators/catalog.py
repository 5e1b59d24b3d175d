"""TA-Lib's whole catalogue, by name: `ta("RSI", timeperiod=14)`, `ta("MACD", output="macdsignal")`.

What a function is called, reads, takes and gives is what TA-Lib says of itself; nothing of it is
written a second time here. Values are TA-Lib's own, but for two things that would otherwise depend
on where a series happens to begin: an index of a bar (MAXINDEX) is given as how many bars ago that was,
and before its lookback a pattern is null, not "none found".
"""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any

import numpy as np
import talib
from numpy.typing import NDArray
from talib.abstract import Function as Described  # type: ignore[attr-defined]

from hyperfeast.errors import FeatureError
from hyperfeast.indicators import memory
from hyperfeast.indicators.rule import COLUMNS, FloatArray, Rule, Window, as_rule

# TA-Lib's largest number, its way to say that there is no bound.
_HUGE = 2.9e37

_INDEXES = frozenset({"MAXINDEX", "MININDEX", "MINMAXINDEX"})


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function: its default and the values that TA-Lib takes."""

    name: str
    default: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.name}={self.default:g} ({self.range})"

    @property
    def range(self) -> str:
        """The values that it takes, in words."""
        match self.least > -_HUGE, self.most < _HUGE:
            case True, True:
                return f"{self.least:.7g} to {self.most:.7g}"
            case True, False:
                return f"from {self.least:.7g}"
            case _:
                return "any number"


@dataclass(frozen=True)
class Function:
    """What TA-Lib says of one of its functions.

    Attributes:
        name: in capitals.
        group: as "Momentum Indicators".
        title: its name in words.
        settable: default columns of the inputs that `on` replaces, in order.
        fixed: columns that it always reads.
        parameters: names and defaults, in order.
        outputs: names of what it gives, in order.
    """

    name: str
    group: str
    title: str
    settable: tuple[str, ...]
    fixed: tuple[str, ...]
    parameters: dict[str, float]
    outputs: tuple[str, ...]


def functions() -> list[Function]:
    """The catalogue, in TA-Lib's order of groups."""
    return [_function(name) for name in _names()]


def parameters(name: str) -> list[Parameter]:
    """The parameters of a function with their ranges, which are found by trying.

    Raises:
        FeatureError: TA-Lib has no such function.
    """
    function = _function(_known(name))
    return [_ranged(function, parameter) for parameter in function.parameters]


def ta(
    name: str,
    *,
    output: str | None = None,
    on: "Rule | str | Sequence[Rule | str] | None" = None,
    **parameters: float,
) -> Rule:
    """A function of TA-Lib as a rule.

    Args:
        name: as TA-Lib spells it.
        output: which of several, by its name; not needed for a function with one.
        on: what to compute it of, for functions of a series: a column or another rule; several for
            functions of several. None for what TA-Lib's abstract interface takes, mostly the close.
        **parameters: by TA-Lib's names; what is left out has TA-Lib's default.

    Raises:
        FeatureError: no such function, parameter, output or input, or a value out of range. The
            message has the nearest name, or those there are.
    """
    function = _function(_known(name))
    values = _checked(function, parameters)
    inputs = _inputs(function, on)
    chosen = _output(function, output)
    call = f"{function.name}({', '.join([*(i.text for i in inputs), *_texts(values)])})"
    compute = _computation(function, inputs, values)
    lookback = _lookback(function, values)
    text = f"{call}.{function.outputs[chosen]}" if len(function.outputs) > 1 else call
    return Rule(
        text,
        lookback=max(i.lookback for i in inputs) + lookback,
        warm_up=max(i.warm_up for i in inputs)
        + lookback
        + memory.beyond_lookback(function.name, values),
        function=_chosen(f"{call}.*", compute, chosen) if text != call else compute,
        columns=frozenset().union(*(i.columns for i in inputs)),
    )


def _chosen(
    call: str, compute: Callable[[Window], Any], chosen: int
) -> Callable[[Window], FloatArray]:
    """One of several outputs, which a window computes once for all of them."""

    def choose(bars: Window) -> FloatArray:
        return bars.once(call, compute)[chosen]

    return choose


@cache
def _names() -> tuple[str, ...]:
    groups: dict[str, list[str]] = talib.__function_groups__
    return tuple(name for names in groups.values() for name in names)


@cache
def _function(name: str) -> Function:
    info: dict[str, Any] = Described(name).info
    settable: list[str] = []
    fixed: list[str] = []
    for kind, columns in info["input_names"].items():
        if kind == "prices":
            fixed += columns
        else:
            settable.append(columns)
    return Function(
        name,
        group=info["group"],
        title=info["display_name"],
        settable=tuple(settable),
        fixed=tuple(fixed),
        parameters=dict(info["parameters"]),
        outputs=tuple(info["output_names"]),
    )


def _known(name: str) -> str:
    names = _names()
    if name.upper() in names:
        return name.upper()
    close = get_close_matches(name.upper(), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else "see hyperfeast.indicators.functions"
    raise FeatureError(f"TA-Lib has no function {name!r}: {hint}")


def _checked(function: Function, given: dict[str, float]) -> dict[str, float]:
    """All parameters, in TA-Lib's order and of its types."""
    for name in given:
        if name not in function.parameters:
            raise FeatureError(
                f"{function.name} has no parameter {name!r}: it takes {_listed(function)}"
            )
    values = {
        name: _typed(function, name, given.get(name, default))
        for name, default in function.parameters.items()
    }
    if not _accepts(function, values):
        for name in given:
            if not _accepts(function, function.parameters | {name: values[name]}):
                raise FeatureError(
                    f"{function.name}: {name}={values[name]:g} is out of range: it takes "
                    f"{_ranged(function, name)}"
                )
        raise FeatureError(
            f"{function.name} does not take {', '.join(_texts(values))} together: it takes "
            f"{_listed(function)}"
        )
    return values


def _typed(function: Function, name: str, value: float) -> float:
    whole = isinstance(function.parameters[name], int)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or (whole and value % 1):
        raise FeatureError(
            f"{function.name}: {name}={value!r}: expected a {'whole ' if whole else ''}number, "
            f"{_ranged(function, name)}"
        )
    return int(value) if whole else float(value)


def _inputs(function: Function, on: "Rule | str | Sequence[Rule | str] | None") -> list[Rule]:
    """The rules whose values are the arguments of the C function, in its order."""
    chosen: Sequence[Rule | str]
    match on:
        case None:
            chosen = function.settable
            if "periods" in chosen:
                raise FeatureError(
                    f"{function.name} takes a series of periods, which no column is: on=(what to "
                    "average, the rule that gives each bar's period)"
                )
        case Rule() | str():
            chosen = (on,)
        case _:
            chosen = on
    if len(chosen) != len(function.settable):
        takes = (
            f"{len(function.settable)} (by default {', '.join(function.settable)})"
            if function.settable
            else f"none: it always reads {', '.join(function.fixed)}"
        )
        raise FeatureError(f"{function.name}: on= names {len(chosen)} inputs, but it takes {takes}")
    # TA-Lib lists a series before the columns (OBV: close, volume) and so do its functions.
    return [as_rule(operand) for operand in (*chosen, *function.fixed)]


def _output(function: Function, output: str | None) -> int:
    if output is None and len(function.outputs) == 1:
        return 0
    if output in function.outputs:
        return function.outputs.index(output)
    raise FeatureError(
        f"{function.name} gives {', '.join(function.outputs)}"
        + (": say which with output=" if output is None else f", not {output!r}")
    )


def _computation(
    function: Function, inputs: list[Rule], values: dict[str, float]
) -> Callable[[Window], Any]:
    """From a window to the function's output, or to a tuple of its outputs."""
    # Without the layer that looks for pandas and Polars series, which costs more than most functions.
    compute = inspect.unwrap(getattr(talib, function.name))
    arguments = tuple(values.values())
    columns = [rule.text for rule in inputs]
    lookback = _lookback(function, values)

    def of_arrays(arrays: list[FloatArray]) -> Any:
        return compute(*arrays, *arguments)

    def as_floats(arrays: list[FloatArray]) -> Any:
        return _each(of_arrays(arrays), lambda one: _as_floats(function, one, lookback))

    only_numbers = all(one.dtype == np.float64 for one in _tried(function, values))
    evaluate = of_arrays if only_numbers else as_floats
    if all(name in COLUMNS for name in columns):
        return lambda bars: evaluate([bars[name] for name in columns])
    outputs = len(function.outputs)
    return lambda bars: _around_gaps(evaluate, [rule(bars) for rule in inputs], outputs)


def _each(found: Any, change: Callable[[Any], FloatArray]) -> Any:
    return tuple(change(one) for one in found) if isinstance(found, tuple) else change(found)


def _around_gaps(
    evaluate: Callable[[list[FloatArray]], Any], arrays: list[FloatArray], outputs: int
) -> Any:
    """A function of values some of which are missing: it begins anew behind each gap.

    TA-Lib would carry one missing or infinite number along in its running sums for ever.
    """
    present = np.logical_and.reduce([np.isfinite(one) for one in arrays])
    edges = np.flatnonzero(np.diff(present, prepend=False, append=False)).tolist()
    wholes = [np.full(len(present), np.nan) for _ in range(outputs)]
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        found = evaluate([one[begin:end] for one in arrays])
        for whole, part in zip(
            wholes, found if isinstance(found, tuple) else (found,), strict=True
        ):
            whole[begin:end] = part
    return tuple(wholes) if outputs > 1 else wholes[0]


def _as_floats(function: Function, values: NDArray[Any], first: int) -> FloatArray:
    """Integers as numbers, NaN before the first: TA-Lib gives 0 there, which also means "none"."""
    if values.dtype == np.float64:
        return values
    floats: FloatArray = values.astype(np.float64)
    if function.name in _INDEXES:
        floats = np.arange(len(floats)) - floats
    floats[:first] = np.nan
    return floats


def _lookback(function: Function, values: dict[str, float]) -> int:
    return int(Described(function.name, **values).lookback)


def _accepts(function: Function, values: dict[str, float]) -> bool:
    """Whether TA-Lib computes with these parameters; it raises nothing narrower than Exception."""
    try:
        _tried(function, values)
    except Exception as error:
        if "TA_BAD_PARAM" in str(error):
            return False
        raise
    return True


def _tried(function: Function, values: dict[str, float]) -> tuple[NDArray[Any], ...]:
    """What TA-Lib gives for a few bars."""
    arrays = [np.ones(4) for _ in (*function.settable, *function.fixed)]
    found = getattr(talib, function.name)(*arrays, *values.values())
    return found if isinstance(found, tuple) else (found,)


def _listed(function: Function) -> str:
    return ", ".join(str(one) for one in parameters(function.name)) or "none"


def _texts(values: dict[str, float]) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items()]


def _ranged(function: Function, parameter: str) -> Parameter:
    return _range_of(function.name, parameter)


@cache
def _range_of(name: str, parameter: str) -> Parameter:
    function = _function(name)
    default = function.parameters[parameter]
    return Parameter(
        parameter,
        default,
        _farthest(function, parameter, -1),
        _farthest(function, parameter, 1),
    )


def _farthest(function: Function, parameter: str, direction: int) -> float:
    """The last value in a direction that TA-Lib takes, found by doubling steps and then halving."""
    default = function.parameters[parameter]
    whole = isinstance(default, int)

    def accepted(steps: float) -> bool:
        value = default + direction * steps
        return _accepts(function, function.parameters | {parameter: value})

    largest: float = 2**30 if whole else _HUGE
    good: float = 0
    bad: float = 1
    while accepted(bad):
        good, bad = bad, 2 * bad
        if bad > largest:
            return direction * 2.0**31 if whole else direction * 2 * _HUGE
    for _ in range(60):
        middle = (good + bad) // 2 if whole else (good + bad) / 2
        good, bad = (middle, bad) if accepted(middle) else (good, middle)
    return float(f"{default + direction * good:.9g}")
