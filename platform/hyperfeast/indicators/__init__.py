"""Rules that turn bars into features: TA-Lib by name, what it lacks, and how they are computed.

Every rule looks only backward, is null until it is warm, and gives the same bits whoever computes it:
all at once, or the newest bar alone (`blocks`).
"""

from hyperfeast.indicators.arrow import python
from hyperfeast.indicators.blocks import AnyRule, block_start, evaluate, touched_until
from hyperfeast.indicators.catalog import Function, Parameter, functions, parameters, ta
from hyperfeast.indicators.cross_section import CrossSection, Member, cross_rank, cross_z_score
from hyperfeast.indicators.higher import higher
from hyperfeast.indicators.listing import catalog_table
from hyperfeast.indicators.prices import (
    distance_to_high,
    distance_to_low,
    drawdown,
    log_return,
    realized_volatility,
)
from hyperfeast.indicators.rolling import change, lag, mean, sample_deviation, sequence, z_score
from hyperfeast.indicators.rule import COMPUTED, Rule, Window, column, expression
from hyperfeast.indicators.sessions import SESSION_FEATURES, session
from hyperfeast.indicators.units import Units, units
from hyperfeast.indicators.volume import (
    distance_to_vwap,
    illiquidity,
    relative_volume,
    signed_volume,
    traded_value,
    volume_z_score,
    vwap,
)

__all__ = [
    "COMPUTED",
    "SESSION_FEATURES",
    "AnyRule",
    "CrossSection",
    "Function",
    "Member",
    "Parameter",
    "Rule",
    "Units",
    "Window",
    "block_start",
    "catalog_table",
    "change",
    "column",
    "cross_rank",
    "cross_z_score",
    "distance_to_high",
    "distance_to_low",
    "distance_to_vwap",
    "drawdown",
    "evaluate",
    "expression",
    "functions",
    "higher",
    "illiquidity",
    "lag",
    "log_return",
    "mean",
    "parameters",
    "python",
    "realized_volatility",
    "relative_volume",
    "sample_deviation",
    "sequence",
    "session",
    "signed_volume",
    "ta",
    "touched_until",
    "traded_value",
    "units",
    "volume_z_score",
    "vwap",
    "z_score",
]
