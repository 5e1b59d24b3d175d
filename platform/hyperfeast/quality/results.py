"""What a check found, and the table `data_quality_results` that keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.sqlfiles import query


@dataclass(frozen=True)
class Result:
    """One check of one scope.

    Attributes:
        check: its name: prices, grid, sessions.
        scope: what was checked: candles/1d, market_technical v1.
        passed: whether what was observed is as expected.
        observed: rows looked at, rows that broke it, examples.
        expectation: which engine checked, and what was expected.
    """

    check: str
    scope: str
    passed: bool
    observed: Mapping[str, Any] = field(default_factory=dict)
    expectation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LatestResult:
    """The newest result of a check and scope, and when (UTC)."""

    ts: datetime
    check: str
    scope: str
    passed: bool
    observed: Mapping[str, Any]


@dataclass(frozen=True)
class PassRate:
    """How many checks of the runs of one UTC day passed."""

    day: datetime
    checks: int
    passed: int


def store(database: Database, results: Sequence[Result]) -> datetime:
    """Keep the results of one run, all under one moment; that moment."""
    moment = clock.now()
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany(
            query("quality", "store_result"),
            [
                {
                    "check": one.check,
                    "scope": one.scope,
                    "ts": moment,
                    "passed": one.passed,
                    "observed": _json(one.observed),
                    "expectation": _json(one.expectation),
                }
                for one in results
            ],
        )
    return moment


def latest(database: Database) -> list[LatestResult]:
    """The newest result of every check and scope, the failed ones first."""
    return [LatestResult(**row) for row in database.fetch(query("quality", "latest_results"))]


def pass_rates(database: Database, *, days: int) -> list[PassRate]:
    """Checks run and passed by UTC day, over the last `days` days that have any, in their order."""
    rows = database.fetch(query("quality", "pass_rates"), {"days": days})
    return [PassRate(**row) for row in rows]


def _json(value: Mapping[str, Any]) -> str:
    # NaN and infinity become null, and numpy's numbers plain ones: jsonb knows neither.
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    # A NUL has no place in jsonb.
    return orjson.dumps(value, default=str, option=options).decode().replace("\\u0000", "")
