"""The verdict of Great Expectations, imported when the first suspect comes."""

import os
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, cast

import polars as pl

from hyperfeast.ingest.gate.rules import Rule

# The library keeps its current context in a global: one validation at a time.
_ONE_AT_A_TIME = threading.Lock()


def no_refusals() -> pl.DataFrame:
    """Columns row (UInt32) and rule (str), without rows."""
    return pl.DataFrame(schema={"row": pl.UInt32, "rule": pl.String})


def first_broken(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Each row that breaks a rule, with the first one of `rules` that it breaks.

    Args:
        rows: a column `row` (UInt32, unique) and what the rules name, as `screen.comparable` returns them.
        rules: in the order in which they are tried.

    Returns:
        Columns row (UInt32) and rule (str), sorted by row.

    Raises:
        RuntimeError: a rule cannot be judged.
    """
    if rows.is_empty():
        return no_refusals()
    broken = [
        pl.DataFrame({"row": found}, schema={"row": pl.UInt32}).with_columns(
            rank=pl.lit(rank), rule=pl.lit(rules[rank].name)
        )
        for rank, found in _broken_rows(rows, rules)
    ]
    if not broken:
        return no_refusals()
    return (
        pl.concat(broken).sort("row", "rank").unique("row", keep="first", maintain_order=True)
    ).select("row", "rule")


def _broken_rows(rows: pl.DataFrame, rules: Sequence[Rule]) -> list[tuple[int, list[int]]]:
    """(index of the rule, rows that break it) for each rule that is broken."""
    table = rows.to_pandas().set_index("row").rename_axis(None)  # a named index is read row by row
    with _ONE_AT_A_TIME:
        result = _batch(table).validate(_suite(rules), result_format={"result_format": "COMPLETE"})
    for outcome in result.results:
        if (
            outcome.exception_info.get("raised_exception")
            or "unexpected_index_list" not in outcome.result
        ):
            raise RuntimeError(f"{outcome.expectation_config.type}: {outcome.exception_info}")
    return [
        (outcome.expectation_config.meta["rank"], outcome.result["unexpected_index_list"])
        for outcome in result.results
        if not outcome.success
    ]


def _batch(table: Any) -> Any:
    """A context a batch: one that lives longer would keep every table that it saw."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral", project_config=_project())
    asset = context.data_sources.add_pandas("gate").add_dataframe_asset("rows")
    whole = asset.add_batch_definition_whole_dataframe("whole")
    return whole.get_batch({"dataframe": table})


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


def _suite(rules: Sequence[Rule]) -> Any:
    gx = _great_expectations()
    from great_expectations.expectations.registry import get_expectation_impl

    expectations = [
        get_expectation_impl(rule.expectation)(**rule.arguments, meta={"rank": rank})
        for rank, rule in enumerate(rules)
    ]
    return gx.ExpectationSuite(name="gate", expectations=expectations)


@cache
def _great_expectations() -> ModuleType:
    """The library, silent: it reports its use over the network unless told not to before its import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import great_expectations.expectations
    return cast("ModuleType", gx)
