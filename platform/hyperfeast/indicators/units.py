"""In what a rule's values are counted, found by doubling every price, or every volume.

A level in money says which instrument it is and which decade; a number compares across both.
"""

from dataclasses import dataclass

import numpy as np

from hyperfeast.indicators.cross_section import CrossSection
from hyperfeast.indicators.rule import PRICES, FloatArray, Rule, Window

_BARS = 400
_POWERS = (0, 1, -1, 2, -2, 3)


@dataclass(frozen=True)
class Units:
    """By which power of the price, and of the volume, values scale; None where they follow no power."""

    price: int | None
    volume: int | None

    def __str__(self) -> str:
        if self.price is None or self.volume is None:
            return "none"
        names = [
            name if power == 1 else f"{name}^{power}"
            for name, power in (("price", self.price), ("volume", self.volume))
            if power
        ]
        return " x ".join(names) or "number"


def units(rule: Rule | CrossSection) -> Units:
    """The units of a rule; what compares symbols is a number."""
    if isinstance(rule, CrossSection):
        return Units(0, 0)
    usual, dearer, busier = (
        _values(rule, price=price, volume=volume) for price, volume in ((1, 1), (2, 1), (1, 2))
    )
    return Units(_power(usual, dearer), _power(usual, busier))


def _values(rule: Rule, *, price: float, volume: float) -> FloatArray:
    random = np.random.default_rng(7)
    close = 50 * np.exp(random.normal(0, 0.02, _BARS + rule.lookback).cumsum())
    start = close * np.exp(random.normal(0, 0.01, len(close)))
    columns = {
        "open": start,
        "high": np.maximum(start, close) * 1.01,
        "low": np.minimum(start, close) * 0.99,
        "close": close,
        "volume": random.uniform(1e3, 1e4, len(close)),
    }
    scaled = {name: columns[name] * (price if name in PRICES else volume) for name in columns}
    days = np.arange(len(close)) * 86_400.0
    scaled |= dict.fromkeys(rule.columns - columns.keys(), days)
    with np.errstate(all="ignore"):
        return rule.function(Window(scaled))


def _power(usual: FloatArray, doubled: FloatArray) -> int | None:
    if np.isnan(usual).all():
        return None
    for power in _POWERS:
        if np.allclose(doubled, usual * 2.0**power, rtol=1e-7, atol=1e-12, equal_nan=True):
            return power
    return None
