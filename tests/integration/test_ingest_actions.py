"""Corporate actions into `corporate_actions`."""

from typing import Any

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.errors import DataError
from hyperfeast.ingest import IngestSummary, ingest_actions

_ACTIONS = "SELECT symbol, ratio, amount FROM corporate_actions ORDER BY recorded_at, symbol"


def _split(**cells: Any) -> dict[str, Any]:
    split = {
        "symbol": "AAPL",
        "ex_date": "2000-06-21",
        "kind": "split",
        "ratio": "2",
        "amount": None,
    }
    return split | cells


def _ingest(database: Database, *rows: dict[str, Any]) -> IngestSummary:
    frame = pl.DataFrame(rows, schema_overrides={"amount": pl.String})
    return ingest_actions(database, frame, source="test")


@pytest.fixture
def market(database: Database) -> Database:
    database.execute("INSERT INTO instruments (symbol) VALUES ('AAPL'), ('MSFT')")
    return database


def test_actions_go_in_once_and_are_revised(market: Database) -> None:
    dividend = _split(symbol="MSFT", kind="Dividend", ratio="", amount="0.08", ex_date="2035-02-18")
    first = _ingest(market, _split(), dividend, _split())
    assert (first.inserted, first.corrected, first.unchanged) == (2, 0, 1)
    again = _ingest(market, dividend, _split())
    assert (again.inserted, again.corrected, again.unchanged) == (0, 0, 2)
    revised = _ingest(market, dividend, _split(ratio="2.5"))
    assert (revised.inserted, revised.corrected, revised.unchanged) == (0, 1, 1)
    assert [(row["symbol"], row["ratio"], row["amount"]) for row in market.fetch(_ACTIONS)] == [
        ("AAPL", 2, None), ("MSFT", None, 0.08), ("AAPL", 2.5, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "cells"),
    [
        ("symbol_format", {"symbol": "x y"}),
        ("symbol_known", {"symbol": "IBM"}),
        ("time_missing", {"ex_date": "nil"}),
        ("time_missing", {"ex_date": "2000-06-21 10:00"}),
        ("time_range", {"ex_date": "2101-01-01"}),
        ("kind_known", {"kind": "merger"}),
        ("number_missing", {"ratio": ""}),
        ("number_missing", {"kind": "dividend", "amount": "nil"}),
        ("number_missing", {"amount": "abc"}),
        ("finite", {"ratio": "1e999"}),
        ("ratio_positive", {"ratio": "0"}),
        ("amount_not_negative", {"amount": "-1"}),
    ],
)
def test_an_action_that_breaks_a_rule_goes_to_quarantine(
    market: Database, rule: str, cells: dict[str, Any]
) -> None:
    good = _split(symbol="MSFT", ex_date="2003-02-18")
    summary = _ingest(market, _split(**cells), good)
    assert summary.refused == {rule: 1}
    assert [row["symbol"] for row in market.fetch(_ACTIONS)] == ["MSFT"]


def test_two_ratios_for_one_split_are_both_refused(market: Database) -> None:
    summary = _ingest(market, _split(), _split(ratio="3"))
    assert summary.refused == {"duplicate_key": 2}
    assert market.fetch(_ACTIONS) == []


def test_missing_columns(market: Database) -> None:
    with pytest.raises(DataError, match="recognized as kind"):
        ingest_actions(
            market, pl.DataFrame({"symbol": ["AAPL"], "date": ["2000-06-21"]}), source="test"
        )
