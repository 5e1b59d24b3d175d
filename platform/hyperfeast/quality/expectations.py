"""Suites of Great Expectations, generated from what is declared, and run on bounded samples.

A suite is a list of expectations under the names of their checks. The library takes four seconds to
import and about 10 microseconds a row and expectation: it sees samples, whole tables are for SQL.
"""

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import groupby
from types import ModuleType
from typing import Any, cast

import polars as pl

from hyperfeast.features import Feature, FeatureSet, FeatureType
from hyperfeast.features.bounds import rounding
from hyperfeast.quality.results import Result

_EXAMPLES = 5
_EARLIEST = "1970-01-01T00:00:00+00:00"
_EARLIEST_ACTION, _LATEST_ACTION = "1900-01-01T00:00:00+00:00", "2100-12-31T00:00:00+00:00"
_FINITE: dict[str, Any] = {
    "min_value": -1.7976931348623157e308,
    "max_value": 1.7976931348623157e308,
}
_HIGHEST_PRICE, _HIGHEST_VOLUME = 1e12, 1e18
_METRIC_NAME = r"\A[a-z][a-z0-9_]{0,62}\Z"
# Some rules have no answer on some rows: a z-score of what does not move.
_MAY_LACK = 0.05

# The library keeps its current context in a global: one validation at a time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Expectation:
    """One expectation of the library, under the name of its check."""

    check: str
    type: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def of_candles(now: datetime) -> list[Expectation]:
    """What must hold of a sample of bars: see `samples.candles` for its columns."""
    return [
        *_not_null("prices", "o", "h", "l", "c"),
        *_between("prices", "o", "h", "l", "c", "vwap", min_value=0, strict_min=True),
        *_between("prices", "o", "h", "l", "c", "vwap", max_value=_HIGHEST_PRICE),
        *_between("volumes", "v", "taker_buy_vol", min_value=0, max_value=_HIGHEST_VOLUME),
        *_at_least("ohlc", "h", "o", "c", "l"),
        *_at_least("ohlc", "o", "l"),
        *_at_least("ohlc", "c", "l"),
        *_between("time", "ts", min_value=_EARLIEST),
        *_between("time", "closes", max_value=now.isoformat()),
        *_between("time", "step_s", min_value=0, strict_min=True),
        _true("grid", "on_grid"),
        _true("sessions", "in_session"),
    ]


def of_metrics(now: datetime) -> list[Expectation]:
    """What must hold of a sample of readings."""
    return [
        *_not_null("values", "value"),
        *_between("values", "value", **_FINITE),
        Expectation(
            "names", "ExpectColumnValuesToMatchRegex", {"column": "metric", "regex": _METRIC_NAME}
        ),
        *_between("time", "ts", min_value=_EARLIEST, max_value=now.isoformat()),
        *_between("time", "step_s", min_value=0, strict_min=True),
    ]


def of_actions() -> list[Expectation]:
    """What must hold of the corporate actions."""
    return [
        Expectation(
            "kinds",
            "ExpectColumnValuesToBeInSet",
            {"column": "kind", "value_set": ["split", "dividend", "rename", "delisting"]},
        ),
        *_between("terms", "ratio", min_value=0, max_value=10_000, strict_min=True),
        *_between("terms", "amount", min_value=0, max_value=_HIGHEST_PRICE),
        _true("terms", "stated"),
        *_between("time", "ex_date", min_value=_EARLIEST_ACTION, max_value=_LATEST_ACTION),
    ]


def of_features(feature_set: FeatureSet, now: datetime) -> list[Expectation]:
    """What must hold of a sample of a feature set's rows, by its declaration."""
    floats = [one.name for one in feature_set.features if one.dtype is FeatureType.FLOAT64]
    return [
        *_not_null("keys", *feature_set.key_columns, "event_timestamp"),
        *_between("finite", *floats, **_FINITE),
        *(_bounds(one) for one in feature_set.features if _is_bounded(one)),
        *_between("time", "event_timestamp", max_value=now.isoformat()),
    ]


def _is_bounded(feature: Feature) -> bool:
    """Whether it declares bounds that the library can look at, which knows no lists."""
    return feature.bounds != (None, None) and feature.dtype is not FeatureType.FLOAT64_LIST


def _bounds(feature: Feature) -> Expectation:
    low, high = feature.bounds
    bounds = {
        "min_value": None if low is None else low - rounding(low),
        "max_value": None if high is None else high + rounding(high),
    }
    arguments = {name: bound for name, bound in bounds.items() if bound is not None}
    return Expectation(
        "bounds", "ExpectColumnValuesToBeBetween", {"column": feature.name, **arguments}
    )


def of_warm_features(feature_set: FeatureSet) -> list[Expectation]:
    """What must hold of the rows that have all the history that the set's rules need."""
    return [
        Expectation(
            "present_once_warm",
            "ExpectColumnValuesToNotBeNull",
            {
                "column": one.name,
                "mostly": 1 - (_MAY_LACK if one.null_rate is None else one.null_rate),
            },
        )
        for one in feature_set.features
        if one.rule is not None or one.null_rate is not None
    ]


def validate(scope: str, rows: pl.DataFrame, suite: Sequence[Expectation]) -> list[Result]:
    """Run a suite on a sample; one result a check, in the suite's order.

    Args:
        scope: what the sample is of.
        rows: with the columns that the suite names; nothing is checked where there are none.
        suite: the expectations of one check follow each other.
    """
    if rows.is_empty():
        return []
    with _ONE_AT_A_TIME:
        report = _batch(rows.to_pandas()).validate(
            _suite(scope, suite),
            result_format={"result_format": "SUMMARY", "partial_unexpected_count": _EXAMPLES},
        )
    outcomes = sorted(report.results, key=_rank)
    return [
        _result(scope, check, rows.height, list(found))
        for check, found in groupby(outcomes, key=lambda one: suite[_rank(one)].check)
    ]


def _result(scope: str, check: str, rows: int, outcomes: list[Any]) -> Result:
    failed = [one for one in outcomes if not one.success]
    observed: dict[str, Any] = {
        "rows": rows,
        "broken": max((one.result.get("unexpected_count", rows) for one in failed), default=0),
    }
    if failed:
        observed["failures"] = [_failure(one) for one in failed]
    return Result(
        check,
        scope,
        passed=not failed,
        observed=observed,
        expectation={
            "engine": "great_expectations",
            "expectations": [_configuration(one) for one in outcomes],
        },
    )


def _failure(outcome: Any) -> dict[str, Any]:
    found = {
        **_configuration(outcome),
        "broken": outcome.result.get("unexpected_count"),
        "examples": outcome.result.get("partial_unexpected_list", [])[:_EXAMPLES],
    }
    if outcome.exception_info.get("raised_exception"):
        found["error"] = str(outcome.exception_info.get("exception_message"))
    return found


def _configuration(outcome: Any) -> dict[str, Any]:
    arguments = outcome.expectation_config.to_json_dict()["kwargs"]
    return {
        "type": outcome.expectation_config.type,
        **{name: value for name, value in arguments.items() if name != "batch_id"},
    }


def _rank(outcome: Any) -> int:
    return int(outcome.expectation_config.meta["rank"])


def _not_null(check: str, *columns: str) -> list[Expectation]:
    return [Expectation(check, "ExpectColumnValuesToNotBeNull", {"column": one}) for one in columns]


def _between(
    check: str, *columns: str, strict_min: bool = False, **bounds: Any
) -> list[Expectation]:
    strict = {"strict_min": True} if strict_min else {}
    return [
        Expectation(check, "ExpectColumnValuesToBeBetween", {"column": one, **bounds, **strict})
        for one in columns
    ]


def _at_least(check: str, column: str, *others: str) -> list[Expectation]:
    return [
        Expectation(
            check,
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": column, "column_B": other, "or_equal": True},
        )
        for other in others
    ]


def _true(check: str, column: str) -> Expectation:
    return Expectation(
        check, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": [True]}
    )


def _suite(name: str, suite: Sequence[Expectation]) -> Any:
    gx = _great_expectations()
    expectations = [
        getattr(gx.expectations, one.type)(**one.arguments, meta={"rank": rank})
        for rank, one in enumerate(suite)
    ]
    return gx.ExpectationSuite(name=name, expectations=expectations)


def _batch(table: Any) -> Any:
    """A context a sample: one that lives longer would keep every table that it saw."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral", project_config=_project())
    asset = context.data_sources.add_pandas("quality").add_dataframe_asset("rows")
    return asset.add_batch_definition_whole_dataframe("sample").get_batch({"dataframe": table})


def _project() -> Any:
    """Everything in memory: the default makes a temporary folder for a site of documents."""
    from great_expectations.data_context.types.base import (
        DataContextConfig,
        InMemoryStoreBackendDefaults,
        ProgressBarsConfig,
    )

    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )


@cache
def _great_expectations() -> ModuleType:
    """The library, silent: it reports its use over the network unless told not to before its import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import great_expectations.expectations
    return cast("ModuleType", gx)
