"""What must hold of a row, declared as data: one declaration is an expectation and a Polars expression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
MATCH_REGEX = "expect_column_values_to_match_regex"
IN_SET = "expect_column_values_to_be_in_set"
PAIR_AT_LEAST = "expect_column_pair_values_a_to_be_greater_than_b"
COMPOUND_UNIQUE = "expect_compound_columns_to_be_unique"

FINITE = {"min_value": -1.7976931348623157e308, "max_value": 1.7976931348623157e308}


@dataclass(frozen=True)
class Rule:
    """What must hold of a row.

    Attributes:
        name: short; the quarantine shows it.
        expectation: the type of the expectation of Great Expectations that says so.
        arguments: that expectation's.
    """

    name: str
    expectation: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The columns that the rule looks at."""
        single = [
            self.arguments[name]
            for name in ("column", "column_A", "column_B")
            if name in self.arguments
        ]
        return [*single, *self.arguments.get("column_list", ())]


def present(name: str, *columns: str) -> list[Rule]:
    """None of the columns is empty; NaN is as empty as null."""
    return [Rule(name, NOT_NULL, {"column": column}) for column in columns]


def within(name: str, *columns: str, **bounds: Any) -> list[Rule]:
    """Every value that is there lies within min_value and max_value, beyond strict_min and strict_max."""
    return [Rule(name, BETWEEN, {"column": column, **bounds}) for column in columns]


def matching(name: str, column: str, pattern: str) -> Rule:
    """The whole text, where there is one, matches the pattern: one that Python and Rust read alike."""
    # The library searches; `\Z`, unlike `$`, does not let a last newline through.
    return Rule(name, MATCH_REGEX, {"column": column, "regex": rf"\A(?:{pattern})\Z"})


def among(name: str, column: str, values: Sequence[Any]) -> Rule:
    """Every value that is there is one of the values."""
    return Rule(name, IN_SET, {"column": column, "value_set": list(values)})


def at_least(name: str, column: str, *others: str) -> list[Rule]:
    """The column is nowhere less than any of the others; a pair of which one alone is empty fails too."""
    return [
        Rule(name, PAIR_AT_LEAST, {"column_A": column, "column_B": other, "or_equal": True})
        for other in others
    ]


def unique(name: str, columns: Sequence[str]) -> Rule:
    """No two rows are equal in all of the columns, two at least."""
    return Rule(name, COMPOUND_UNIQUE, {"column_list": list(columns)})


def suite(rules: Sequence[Rule], name: str = "gate") -> dict[str, Any]:
    """The rules as the JSON of a Great Expectations suite, without loading the library.

    Args:
        rules: in the order in which they are tried.
        name: the suite's.

    Returns:
        What `great_expectations.ExpectationSuite(**suite)` takes: name and expectations, each with its type,
        its kwargs (times in ISO 8601) and, in `meta`, the name of the rule.
    """
    return {
        "name": name,
        "expectations": [
            {
                "type": rule.expectation,
                "kwargs": {key: _plain(value) for key, value in rule.arguments.items()},
                "meta": {"rule": rule.name},
            }
            for rule in rules
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value
