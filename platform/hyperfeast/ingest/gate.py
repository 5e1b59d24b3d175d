"""The gate: a Great Expectations suite that judges every row before it nears a table.

Rules are declared as data; the library, which takes seconds to import, is imported when the first batch
comes. It validates slices of 50,000 rows at about 10 microseconds a row.
"""

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, cast

import polars as pl

Progress = Callable[[int, int], None]

_SLICE_ROWS = 50_000

# The library keeps its current context in a global: one validation at a time.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Rule:
    """What must hold of a row: a short name, and the expectation of Great Expectations that says so."""

    name: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgment:
    """What the gate said of a batch.

    Attributes:
        accepted: the rows that may go in, identical ones merged.
        merged: how many identical rows were merged away.
        refused: columns row (UInt32) and rule (str): each refused row with the first rule it broke.
    """

    accepted: pl.DataFrame
    merged: int
    refused: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Rule -> refused rows, the most frequent first."""
        counted = (
            self.refused["rule"].value_counts().sort(["count", "rule"], descending=[True, False])
        )
        return dict(counted.iter_rows())


def present(name: str, *columns: str) -> list[Rule]:
    """None of the columns is empty."""
    return [Rule(name, "ExpectColumnValuesToNotBeNull", {"column": column}) for column in columns]


def within(name: str, *columns: str, **bounds: Any) -> list[Rule]:
    """Every value that is there lies within min_value and max_value, strictly if so said."""
    return [
        Rule(name, "ExpectColumnValuesToBeBetween", {"column": column, **bounds})
        for column in columns
    ]


def matching(name: str, column: str, pattern: str) -> Rule:
    """The whole text matches the pattern."""
    # The library searches; `\Z`, unlike `$`, does not let a last newline through.
    arguments = {"column": column, "regex": rf"\A(?:{pattern})\Z"}
    return Rule(name, "ExpectColumnValuesToMatchRegex", arguments)


def among(name: str, column: str, values: Sequence[Any]) -> Rule:
    """Every value that is there is one of the values."""
    return Rule(name, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)})


def at_least(name: str, column: str, *others: str) -> list[Rule]:
    """The column is nowhere less than any of the others."""
    return [
        Rule(
            name,
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": column, "column_B": other, "or_equal": True},
        )
        for other in others
    ]


FINITE = {"min_value": -1.7976931348623157e308, "max_value": 1.7976931348623157e308}


def judge(
    rows: pl.DataFrame,
    rules: Sequence[Rule],
    *,
    key: Sequence[str],
    values: Sequence[str],
    progress: Progress | None = None,
) -> Judgment:
    """Judge every row by itself, then the keys of those that passed.

    A key that comes twice with different values is refused in all its rows (rule `duplicate_key`):
    nobody knows which is right. Rows that another rule refuses do not count for that, so that it
    makes no difference whether they come in this batch or in another.

    Args:
        rows: a column `row` (UInt32, unique) and what the rules, `key` and `values` name.
        rules: in the order in which they are tried.
        key: the columns that tell rows apart, two at least.
        values: the columns that make two rows of one key identical or contradictory.
        progress: told (rows judged, rows in all) before each slice.
    """
    broken = [_empty_refusals()]
    for start in range(0, rows.height, _SLICE_ROWS):
        if progress:
            progress(start, rows.height)
        broken.append(_first_broken(rows.slice(start, _SLICE_ROWS), rules))
    passed = rows.join(pl.concat(broken), on="row", how="anti", maintain_order="left")
    distinct = passed.unique([*key, *values], keep="first", maintain_order=True)
    contradictory = _contradictions(passed, distinct, key)
    accepted = distinct.join(contradictory, on="row", how="anti", maintain_order="left")
    refused = pl.concat([*broken, contradictory]).sort("row")
    return Judgment(accepted, rows.height - accepted.height - refused.height, refused)


def _contradictions(
    passed: pl.DataFrame, distinct: pl.DataFrame, key: Sequence[str]
) -> pl.DataFrame:
    unique = Rule("duplicate_key", "ExpectCompoundColumnsToBeUnique", {"column_list": list(key)})
    found = _first_broken(distinct.select("row", *key), [unique])
    keys = distinct.join(found, on="row", how="semi").select(key)
    every = passed.join(keys, on=key, how="semi", maintain_order="left")
    return every.select("row", rule=pl.lit(unique.name))


def _empty_refusals() -> pl.DataFrame:
    return pl.DataFrame(schema={"row": pl.UInt32, "rule": pl.String})


def _first_broken(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Each row that breaks a rule, with the first one of `rules` that it breaks."""
    if rows.is_empty():
        return _empty_refusals()
    broken = [
        pl.DataFrame({"row": found}, schema={"row": pl.UInt32}).with_columns(
            rank=pl.lit(rank), rule=pl.lit(rules[rank].name)
        )
        for rank, found in _broken_rows(rows, rules)
    ]
    if not broken:
        return _empty_refusals()
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
    expectations = [
        getattr(gx.expectations, rule.expectation)(**rule.arguments, meta={"rank": rank})
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
