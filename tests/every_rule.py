"""One rule of every kind that ships: all outputs of TA-Lib's catalogue, and what it lacks."""

import polars as pl

from hyperfeast.indicators import (
    AnyRule,
    Rule,
    change,
    column,
    cross_rank,
    cross_z_score,
    distance_to_high,
    distance_to_low,
    distance_to_vwap,
    drawdown,
    expression,
    functions,
    higher,
    illiquidity,
    lag,
    log_return,
    mean,
    realized_volatility,
    relative_volume,
    sample_deviation,
    sequence,
    signed_volume,
    ta,
    traded_value,
    volume_z_score,
    vwap,
    z_score,
)
from hyperfeast.types import Timeframe


def _operands(name: str, group: str) -> tuple[Rule | str, ...] | None:
    """What to compute a function of, where the close makes no sense."""
    if name == "MAVP":
        return ("close", ta("CEIL", on=ta("RSI")) * 0.4)
    if group == "Math Transform":
        return (ta("ROC"),)
    return None


CATALOG: dict[str, Rule] = {
    f"{function.name}.{output}": ta(
        function.name, output=output, on=_operands(function.name, function.group)
    )
    for function in functions()
    for output in function.outputs
}

OWN: dict[str, AnyRule] = {
    "log_return": log_return(5),
    "realized_volatility": realized_volatility(20),
    "parkinson": realized_volatility(20, estimator="parkinson"),
    "garman_klass": realized_volatility(20, estimator="garman_klass"),
    "drawdown": drawdown(60),
    "distance_to_high": distance_to_high(30),
    "distance_to_low": distance_to_low(30),
    "volume_z_score": volume_z_score(20),
    "relative_volume": relative_volume(20),
    "traded_value": traded_value(20),
    "illiquidity": illiquidity(20),
    "vwap": vwap(20),
    "distance_to_vwap": distance_to_vwap(20),
    "signed_volume": signed_volume(20),
    "lag": lag(ta("RSI"), 3),
    "change": change(ta("OBV"), 10),
    "sequence": sequence(log_return(1), 4),
    "mean": mean("close", 10),
    "sample_deviation": sample_deviation("close", 10),
    "z_score": z_score("close", 30),
    "nested": ta("EMA", timeperiod=5, on=ta("RSI", timeperiod=5)),
    "algebra": (column("close") - ta("SMA", timeperiod=20)) / ta("ATR", timeperiod=14),
    "expression": expression(pl.col("close").rolling_mean(7), lookback=6),
    "higher": higher(Timeframe.W1, ta("EMA", timeperiod=4), base=Timeframe.D1),
    "cross_rank": cross_rank(log_return(5)),
    "cross_z_score": cross_z_score(ta("RSI")),
}

EVERY: dict[str, AnyRule] = {**CATALOG, **OWN}
