"""The last resort: a rule that is a Python function over Arrow batches.

Slower than the others, and all that identifies it is its own source: what it calls may change unseen.
"""

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from hyperfeast.errors import FeatureError
from hyperfeast.indicators.rule import COLUMNS, FloatArray, Rule, Window


def python(
    function: "Callable[[pa.RecordBatch], pa.Array[Any]]",
    *,
    columns: tuple[str, ...],
    lookback: int,
    warm_up: int | None = None,
) -> Rule:
    """A rule that is a Python function, where no other does.

    Args:
        function: from a window of one symbol's bars in time order, as float64 columns, to one number a
            bar. It must look only backward, and give the same whenever it is given the same. A
            function with a name, written with `def`, that holds nothing but what its source shows.
        columns: of the bars that it reads: open, high, low, close, volume.
        lookback: how many earlier bars the first value needs.
        warm_up: how many bars to put before a block; None for `lookback`.

    Its text holds a digest of the function's source: another source is another rule.

    Raises:
        FeatureError: no such column, a warm-up shorter than the lookback, or a function that its source
            does not tell from others. When it is evaluated: it gives anything but a number a bar.
    """
    if unknown := set(columns) - set(COLUMNS):
        raise FeatureError(
            f"{_name(function)} reads {', '.join(sorted(unknown))}: bars have {', '.join(COLUMNS)}"
        )
    warm_up = lookback if warm_up is None else warm_up
    if not 0 <= lookback <= warm_up:
        raise FeatureError(
            f"{_name(function)}: a warm-up of {warm_up} bars is less than its lookback of {lookback}"
        )

    def evaluate(bars: Window) -> FloatArray:
        batch = pa.RecordBatch.from_pydict({name: pa.array(bars[name]) for name in columns})
        values = _numbers(_name(function), function(batch), batch.num_rows)
        values[:lookback] = np.nan
        return values

    digest = hashlib.sha256(_source(function).encode()).hexdigest()[:16]
    inputs = ", ".join(columns)
    return Rule(
        f"python({_name(function)}({inputs}), {lookback}, {warm_up}, {digest})",
        lookback,
        warm_up,
        evaluate,
        frozenset(columns),
    )


def _source(function: Callable[..., object]) -> str:
    name = _name(function)
    if not inspect.isfunction(function) or name == "<lambda>" or function.__closure__:
        raise FeatureError(
            f"{name} holds what its source does not show, so that another rule could look the same: write it "
            "with `def` at the top of a module"
        )
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        raise FeatureError(f"{name} has no source: write it into a module") from None


def _name(function: object) -> str:
    return str(getattr(function, "__name__", repr(function)))


def _numbers(name: str, found: object, rows: int) -> FloatArray:
    """What a function gave, as Float64 with NaN for null."""
    if not isinstance(found, pa.Array) or len(found) != rows:
        shown = f"{len(found)} values" if isinstance(found, pa.Array) else type(found).__name__
        raise FeatureError(f"{name}: expected an Arrow array of {rows} numbers, found {shown}")
    try:
        floats = found.cast(pa.float64())
    except pa.ArrowException as error:
        raise FeatureError(f"{name}: expected numbers, found {found.type}: {error}") from None
    # Nulls become NaN.
    values: FloatArray = floats.to_numpy(zero_copy_only=False).copy()
    return values
