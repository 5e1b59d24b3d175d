"""How many earlier bars TA-Lib's functions remember, beyond those of their lookback.

A function over a window of bars remembers nothing else: zero. A smoothing gives what lies k bars back a
weight of (1 - a)^k, and is taken to have forgotten it where that weight is under 1e-12: so far back
from the first value that is asked for its seed is put. Smoothings of smoothings add up.
Two kinds never forget in that sense: what adds up from the first bar on (OBV, AD, VWAP), and what
adapts to the market or follows its turns (KAMA, MAMA, SAR, the Hilbert transforms). They begin anew a
fixed number of bars before each block of bars, which is part of their definition.
"""

import math
from collections.abc import Callable, Mapping

# ln(1e12): after that many time constants a weight is 1e-12 of what it was.
_FORGOTTEN = math.log(1e12)

ADAPTIVE = 1_000
"""Bars before a block from which an adaptive function begins."""

CUMULATIVE = 250
"""Bars before a block from which a sum over all bars begins."""

Parameters = Mapping[str, float]

CUMULATIVE_FUNCTIONS = frozenset({"AD", "CUMSUM", "NVI", "OBV", "PVI", "PVT", "VWAP", "WAD"})
ADAPTIVE_FUNCTIONS = frozenset(
    {
        "HT_DCPERIOD",
        "HT_DCPHASE",
        "HT_PHASOR",
        "HT_SINE",
        "HT_TRENDLINE",
        "HT_TRENDMODE",
        "KAMA",
        "MAMA",
        "SAR",
        "SAREXT",
        "SUPERTREND",
    }
)

# TA-Lib's numbers of the averages that remember more than their window, and of "the usual one".
_SMA, _EMA, _DEMA, _TEMA, _KAMA, _MAMA, _T3, _DEFAULT, _ZLEMA, _RMA = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    11,
    12,
    13,
)


def exponential(period: float) -> int:
    """Memory of an exponential average, whose weight of the newest bar is 2 / (period + 1)."""
    return _until_forgotten(2 / (period + 1))


def wilder(period: float) -> int:
    """Memory of Wilder's average, whose weight of the newest bar is 1 / period."""
    return _until_forgotten(1 / period)


def average(kind: float, period: float) -> int:
    """Memory of one of TA-Lib's moving averages, by the number of its kind (`matype`)."""
    memories: dict[int, int] = {
        _EMA: exponential(period),
        _DEMA: 2 * exponential(period),
        _TEMA: 3 * exponential(period),
        _KAMA: ADAPTIVE,
        _MAMA: ADAPTIVE,
        _T3: 6 * exponential(period),
        _ZLEMA: exponential(period),
        _RMA: wilder(period),
    }
    return memories.get(int(kind), 0)


def beyond_lookback(name: str, parameters: Parameters) -> int:
    """How many bars a function remembers beyond its lookback.

    Args:
        name: a function of TA-Lib, in capitals.
        parameters: all of its parameters.
    """
    if name in ADAPTIVE_FUNCTIONS:
        return ADAPTIVE
    if name in CUMULATIVE_FUNCTIONS:
        return CUMULATIVE
    return _MEMORIES[name](parameters) if name in _MEMORIES else 0


def _until_forgotten(weight: float) -> int:
    return 0 if weight >= 1 else math.ceil(-_FORGOTTEN / math.log1p(-weight))


def _period(memory: Callable[[float], int], times: int = 1) -> Callable[[Parameters], int]:
    return lambda p: times * memory(p["timeperiod"])


def _fast_and_slow(p: Parameters) -> int:
    return max(exponential(p["fastperiod"]), exponential(p["slowperiod"]))


def _difference_of_averages(p: Parameters) -> int:
    kind = p["matype"]
    if int(kind) == _DEFAULT:
        kind = _EMA
    return max(average(kind, p["fastperiod"]), average(kind, p["slowperiod"]))


def _stochastic(default: int) -> Callable[[Parameters], int]:
    """The averages of a stochastic's lines, one upon the other."""

    def memory(p: Parameters) -> int:
        total = 0
        for line in ("slowk", "slowd", "fastd"):
            if f"{line}_period" in p:
                kind = p[f"{line}_matype"]
                total += average(default if int(kind) == _DEFAULT else kind, p[f"{line}_period"])
        return total

    return memory


def _macd_of_kinds(p: Parameters) -> int:
    fast, slow, signal = (
        average(p[f"{line}matype"], p[f"{line}period"]) for line in ("fast", "slow", "signal")
    )
    return max(fast, slow) + signal


_MEMORIES: dict[str, Callable[[Parameters], int]] = {
    "ADOSC": _fast_and_slow,
    "ADX": _period(wilder, 2),
    "ADXR": _period(wilder, 2),
    "APO": _difference_of_averages,
    "ATR": _period(wilder),
    "BBANDS": lambda p: average(p["matype"], p["timeperiod"]),
    "CMO": _period(wilder),
    "CVI": _period(exponential),
    "DEMA": _period(exponential, 2),
    "DX": _period(wilder),
    "EFI": _period(exponential),
    "EMA": _period(exponential),
    "ERI": _period(exponential),
    "HA": lambda _: exponential(3),  # an open is half the open before it
    "KC": lambda p: max(exponential(p["timeperiod"]), wilder(p["atrperiod"])),
    "KDJ": _stochastic(_RMA),
    "MA": lambda p: average(p["matype"], p["timeperiod"]),
    "MACD": lambda p: _fast_and_slow(p) + exponential(p["signalperiod"]),
    "MACDEXT": _macd_of_kinds,
    "MACDFIX": lambda p: exponential(26) + exponential(p["signalperiod"]),
    "MASSI": lambda p: 2 * exponential(p["fastperiod"]),
    "MAVP": lambda p: average(p["matype"], p["maxperiod"]),
    "MINUS_DI": _period(wilder),
    "MINUS_DM": _period(wilder),
    "NATR": _period(wilder),
    "PLUS_DI": _period(wilder),
    "PLUS_DM": _period(wilder),
    "PPO": _difference_of_averages,
    "PVO": _difference_of_averages,
    "RMA": _period(wilder),
    "RSI": _period(wilder),
    "RVI": _period(wilder),
    "SMI": lambda p: _fast_and_slow(p) * 2 + exponential(p["signalperiod"]),
    "STOCH": _stochastic(_SMA),
    "STOCHF": _stochastic(_SMA),
    "STOCHRSI": lambda p: wilder(p["timeperiod"]) + _stochastic(_SMA)(p),
    "T3": _period(exponential, 6),
    "TEMA": _period(exponential, 3),
    "TRIX": _period(exponential, 3),
    "TSI": lambda p: exponential(p["firstperiod"]) + exponential(p["secondperiod"]),
    "ZLEMA": _period(exponential),
}
