"""Fifty features of TA-Lib over daily bars: as a feature set, and as calls of TA-Lib for those who do without."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import talib
from numpy.typing import NDArray

from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import ta
from hyperfeast.types import Timeframe

Floats = NDArray[np.float64]
Columns = Mapping[str, Any]

_C, _HLC, _HL = ("close",), ("high", "low", "close"), ("high", "low")

# Function, parameters, inputs, and which of the outputs, in TA-Lib's order; None for the only one.
_CALLS: tuple[tuple[str, dict[str, float], tuple[str, ...], tuple[str, ...]], ...] = (
    *(("EMA", {"timeperiod": n}, _C, ()) for n in (5, 10, 12, 20, 26, 50)),
    *(("SMA", {"timeperiod": n}, _C, ()) for n in (5, 10, 20, 50, 100, 200)),
    *(("RSI", {"timeperiod": n}, _C, ()) for n in (7, 14, 21)),
    *(("ROC", {"timeperiod": n}, _C, ()) for n in (1, 5, 20)),
    *(("MAX", {"timeperiod": n}, _C, ()) for n in (20, 60)),
    *(("MIN", {"timeperiod": n}, _C, ()) for n in (20, 60)),
    ("MACD", {}, _C, ("macd", "macdsignal", "macdhist")),
    ("BBANDS", {"timeperiod": 20}, _C, ("upperband", "middleband", "lowerband")),
    ("STOCH", {}, _HLC, ("slowk", "slowd")),
    ("AROON", {"timeperiod": 14}, _HL, ("aroondown", "aroonup")),
    *(("ATR", {"timeperiod": n}, _HLC, ()) for n in (7, 14)),
    ("NATR", {"timeperiod": 14}, _HLC, ()),
    ("ADX", {"timeperiod": 14}, _HLC, ()),
    ("PLUS_DI", {"timeperiod": 14}, _HLC, ()),
    ("MINUS_DI", {"timeperiod": 14}, _HLC, ()),
    ("CCI", {"timeperiod": 20}, _HLC, ()),
    ("WILLR", {"timeperiod": 14}, _HLC, ()),
    ("MOM", {"timeperiod": 10}, _C, ()),
    ("APO", {}, _C, ()),
    ("TRIX", {"timeperiod": 15}, _C, ()),
    ("STDDEV", {"timeperiod": 20}, _C, ()),
    ("LINEARREG_SLOPE", {"timeperiod": 14}, _C, ()),
    ("TSF", {"timeperiod": 14}, _C, ()),
    ("WMA", {"timeperiod": 20}, _C, ()),
    ("MIDPRICE", {"timeperiod": 14}, _HL, ()),
    ("TYPPRICE", {}, _HLC, ()),
    ("TRANGE", {}, _HLC, ()),
)


def _name(function: str, parameters: Mapping[str, float], output: str) -> str:
    words = [function.lower(), *(str(value) for value in parameters.values())]
    return "_".join([*words, output] if output else words)


NAMES = tuple(
    _name(function, parameters, output)
    for function, parameters, _, outputs in _CALLS
    for output in outputs or ("",)
)

FIFTY = FeatureSet(
    name="fifty",
    version=1,
    keys=(Key("symbol", "symbol", "An instrument."),),
    source=Bars(Timeframe.D1),
    features=tuple(
        Feature(
            _name(function, parameters, output),
            f"{function} of daily bars.",
            ta(function, **parameters, **({"output": output} if output else {})),  # type: ignore[arg-type]
        )
        for function, parameters, _, outputs in _CALLS
        for output in outputs or ("",)
    ),
    freshness=timedelta(days=7),
    description="Fifty features of TA-Lib.",
)


def by_talib(columns: Columns) -> dict[str, Any]:
    """All fifty of one symbol, each function called once on what it is given: arrays, or pandas' series."""
    results: dict[str, Any] = {}
    for function, parameters, inputs, outputs in _CALLS:
        call: Callable[..., Any] = getattr(talib, function)
        found = call(*(columns[name] for name in inputs), **parameters)
        for output, values in zip(outputs or ("",), found if outputs else (found,), strict=True):
            results[_name(function, parameters, output)] = values
    return results
