"""The planner's choices, and what it says of them."""

import logging

import pytest

from hyperfeast.stores.offline.plan import Expected, estimate, plan

_BY_INDEX = Expected(cost=2.9, rows=1, width=160)
_WITHOUT = Expected(cost=25_000, rows=1, width=160)
_TABLE = Expected(cost=20_000, rows=500_000, width=170)


def _way(spine_rows: int, one_lookup: Expected = _BY_INDEX, reading: Expected = _TABLE) -> str:
    own = estimate("view", spine_rows, 20, one_lookup, reading)
    return plan([own], spine_rows, "auto", 1024).choices[0].way


def test_few_rows_are_looked_up_and_many_are_merged() -> None:
    assert _way(1_000) == "lookup"
    assert _way(5_000) == "lookup"
    assert _way(1_000_000) == "merge"


def test_without_an_index_even_few_rows_are_merged() -> None:
    assert _way(1_000, _WITHOUT) == "merge"
    assert _way(1, _WITHOUT) == "lookup"


def test_a_small_table_is_merged_sooner() -> None:
    small = Expected(cost=20, rows=1_000, width=170)
    assert _way(1_000, reading=small) == "merge"


@pytest.mark.parametrize("strategy", ["lookup", "merge"])
def test_a_strategy_is_followed(strategy: str) -> None:
    own = estimate("view", 10**9, 20, _BY_INDEX, _TABLE)
    assert plan([own], 10**9, strategy, 1024).choices[0].way == strategy  # type: ignore[arg-type]


def test_costs_grow_with_rows_and_features() -> None:
    one, many = (estimate("view", rows, 20, _BY_INDEX, _TABLE) for rows in (1, 1_000))
    assert many.lookup_s == pytest.approx(1_000 * one.lookup_s)
    wide = estimate("view", 1, 200, _BY_INDEX, _TABLE)
    assert wide.merge_s > 5 * one.merge_s


def test_the_choice_is_logged_with_its_estimates(caplog: pytest.LogCaptureFixture) -> None:
    estimates = [estimate(name, 1_000, 20, _BY_INDEX, _TABLE) for name in ("first", "second")]
    with caplog.at_level(logging.INFO, "hyperfeast.stores"):
        made = plan(estimates, 1_000, "auto", 256)
    head, first, second = made.text().splitlines()
    assert head == "point-in-time join of 1,000 spine rows, strategy auto, memory 256 MiB"
    assert first.startswith("  first: lookup of 20 features (lookup ")
    assert "1,000 x cost 2.9" in second
    assert "500,000 rows, cost 20,000" in second
    assert made.text() in caplog.text
