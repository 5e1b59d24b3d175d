"""What must hold of whole tables, asked in SQL."""

from collections.abc import Mapping, Sequence
from typing import LiteralString

from psycopg import sql

from hyperfeast.db import Database
from hyperfeast.db.connection import Query
from hyperfeast.features import FeatureSet
from hyperfeast.quality.results import Result
from hyperfeast.sqlfiles import query

_TIME, _FLOAT = "timestamp with time zone", "double precision"
_TYPES = {
    "candles": {
        "symbol": "text",
        "tf": "text",
        "ts": _TIME,
        **dict.fromkeys(["o", "h", "l", "c", "v", "vwap", "taker_buy_vol"], _FLOAT),
        "recorded_at": _TIME,
    },
    "user_baseline_raw": {
        "user_id": "uuid",
        "metric": "text",
        "value": _FLOAT,
        "ts": _TIME,
        "source": "text",
        "recorded_at": _TIME,
    },
    "corporate_actions": {
        "symbol": "text",
        "ex_date": "date",
        "kind": "text",
        "ratio": _FLOAT,
        "amount": _FLOAT,
        "recorded_at": _TIME,
    },
}

_CANDLES = {
    "ohlc_whole": "0 < low <= open, close <= high < infinity",
    "volumes_whole": "0 <= volume < infinity",
    "time_whole": "every intraday bar has closed, no other begins in the future, none is from before 1970",
    "grid_whole": "1m bars open on a minute, daily ones at 00:00 UTC, weekly ones on a Monday",
}


def of_candles(database: Database) -> list[Result]:
    """The bars of every timeframe, their sessions, instruments and revisions."""
    results = [
        _result(check, row["scope"], row[check], expected, rows=row["rows"])
        for row in database.fetch(query("quality", "candle_invariants"))
        for check, expected in _CANDLES.items()
    ]
    return [
        *results,
        _asked(
            database,
            "sessions_whole",
            "candles/1d",
            query("quality", "daily_sessions"),
            "every daily bar is of a session of its instrument's calendar",
        ),
        _asked(
            database,
            "instruments",
            "candles",
            query("quality", "known_instruments"),
            "every bar's symbol is in the table instruments",
        ),
        _asked(
            database,
            "revisions",
            "candle_revisions",
            query("quality", "revision_order"),
            "nothing was replaced before it was recorded",
        ),
    ]


def of_metrics(database: Database) -> Result:
    """The times of all readings."""
    return _asked(
        database,
        "time_whole",
        "user_baseline_raw",
        query("quality", "metric_times"),
        "no reading is from the future or from before 1970",
    )


def of_features(database: Database, feature_set: FeatureSet) -> Result:
    """The times of all rows of a feature set."""
    return _asked(
        database,
        "time_whole",
        scope_of(feature_set),
        sql.SQL(query("quality", "feature_times")).format(table=sql.Identifier(feature_set.table)),
        "no row is from the future, and none was recorded before its event timestamp",
    )


def of_raw_types(database: Database) -> list[Result]:
    """The columns of the raw tables."""
    return [_types(database, table, table, expected) for table, expected in _TYPES.items()]


def of_feature_types(database: Database, feature_set: FeatureSet) -> Result:
    """The columns of a feature set's table, against its declaration."""
    expected = {
        "event_timestamp": _TIME,
        "recorded_at": _TIME,
        **{one.name: one.dtype.value for one in feature_set.features},
    }
    return _types(
        database, scope_of(feature_set), feature_set.table, expected, feature_set.key_columns
    )


def scope_of(feature_set: FeatureSet) -> str:
    """A feature set as a scope: `market_technical v1`."""
    return f"{feature_set.name} v{feature_set.version}"


def _types(
    database: Database,
    scope: str,
    table: str,
    expected: Mapping[str, str],
    keys: Sequence[str] = (),
) -> Result:
    rows = database.fetch(query("quality", "column_types"), {"table": table})
    found = {row["name"]: row["type"] for row in rows}
    wrong = {name: found.get(name) for name, type_ in expected.items() if found.get(name) != type_}
    wrong |= dict.fromkeys(name for name in keys if name not in found)
    return Result(
        "types",
        scope,
        passed=not wrong,
        observed={"columns": len(found), "broken": len(wrong), "examples": wrong},
        expectation={"engine": "sql", "columns": dict(expected)},
    )


def _asked(
    database: Database, check: str, scope: str, statement: LiteralString | Query, expected: str
) -> Result:
    row = database.fetch(statement)[0]
    return _result(check, scope, row["broken"], expected, examples=row["examples"] or [])


def _result(check: str, scope: str, broken: int, expected: str, **more: object) -> Result:
    return Result(
        check,
        scope,
        passed=not broken,
        observed={"broken": broken, **more},
        expectation={"engine": "sql", "holds": expected},
    )
