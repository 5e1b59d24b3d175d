"""The module that a new feature set begins as: it works as it stands, and is there to be changed."""

import keyword
from datetime import timedelta
from importlib.util import find_spec

from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.features.declaration import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import ta
from hyperfeast.types import Timeframe

_MODULE = '''\
"""{title}."""

from datetime import timedelta

from hyperfeast.features import Bars, Feature, FeatureSet, Key
from hyperfeast.indicators import log_return, realized_volatility, ta
from hyperfeast.types import Timeframe

{name} = FeatureSet(
    name="{name}",
    version=1,
    description="{title}, known when a bar has closed.",
    keys=(Key("symbol", "symbol", "An instrument."),),
    source=Bars(Timeframe.{timeframe}),
    freshness=timedelta(days=7),
    features=(
        Feature(
            "rsi_14",
            "Relative strength index, 14 bars; 0 to 100.",
            ta("RSI", timeperiod=14),
            bounds=(0, 100),
        ),
        Feature("log_return_1", "Log return over 1 bar.", log_return(1)),
        Feature(
            "volatility_20",
            "Sample deviation of 20 log returns; a bar.",
            realized_volatility(20, bars_a_year=1),
            bounds=(0, None),
        ),
    ),
)
'''

_VIEWS = """\
from {name} import {name}

{name}_v1 = feature_view({name}, [symbol])
"""


def module(name: str, timeframe: Timeframe) -> str:
    """A module that declares a feature set over bars.

    Args:
        name: of the set and the module.
        timeframe: of the bars.

    Raises:
        UsageError: no set or no module can be called so.
    """
    _check(name, timeframe)
    title = name.replace("_", " ").capitalize()
    return _MODULE.format(
        name=name, title=f"{title} of {timeframe.value} bars", timeframe=timeframe.name
    )


def feast_lines(name: str) -> str:
    """What `definitions.py` needs for Feast to know the set: an import and a view."""
    return _VIEWS.format(name=name)


def _check(name: str, timeframe: Timeframe) -> None:
    """See that a set and a module can be called so: the one's own rules, and the other's."""
    rsi = Feature("rsi", "", ta("RSI"))
    try:
        FeatureSet(name, 1, (Key("symbol", "symbol"),), Bars(timeframe), (rsi,), timedelta(days=1))
    except FeatureError as error:
        raise UsageError(str(error)) from None
    if keyword.iskeyword(name) or find_spec(name) is not None:
        raise UsageError(
            f"no module can be called {name!r}: Python has one of that name, or means something else by it; "
            "choose another name"
        )
