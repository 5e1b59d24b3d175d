"""Training sets as they would have been: by the function beside a table, else by the created timestamp."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Float64, String

from feast_repos import repo
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.stores.as_known_at import as_known_at

_SYMBOL = Entity(name="symbol", value_type=ValueType.STRING)
_AT = datetime(2024, 3, 10, tzinfo=UTC)
_TABLES = """
    CREATE TABLE closes (symbol text, ts timestamptz, recorded timestamptz, c float8);
    INSERT INTO closes VALUES
        ('a', '2024-03-01', '2024-03-01', 1),
        ('a', '2024-03-01', '2024-03-05', 2),
        ('a', '2024-03-02', '2024-03-08', 3),
        ('a', '2024-03-03', NULL, 4);
    CREATE SCHEMA other;
    CREATE TABLE other."Kept" (symbol text, ts timestamptz, c float8);
    INSERT INTO other."Kept" VALUES ('a', '2024-03-01', 7);
    CREATE FUNCTION other."Kept_as_known_at"(at timestamptz)
    RETURNS TABLE (symbol text, ts timestamptz, c float8) LANGUAGE sql STABLE
    RETURN ROW('a'::text, '2024-03-01'::timestamptz, extract(day FROM at)::float8);
"""


def _view(table: str | None, **source: Any) -> FeatureView:
    return FeatureView(
        name="prices",
        entities=[_SYMBOL],
        ttl=timedelta(0),
        schema=[Field(name="symbol", dtype=String), Field(name="c", dtype=Float64)],
        source=PostgreSQLSource(name="prices", table=table, timestamp_field="ts", **source),
    )


Job = Callable[..., Any]


@pytest.fixture(params=["lookup", "merge"])
def job(request: pytest.FixtureRequest, empty_database: Database, tmp_path: Path) -> Job:
    """A job that asks for a's price on 2024-03-10."""
    with empty_database.connect() as opened:
        opened.execute(_TABLES)

    def made(view: FeatureView, known_at: str | None = None, **how: Any) -> Any:
        options: dict[str, Any] = {"strategy": request.param}
        if known_at:
            options["as_known_at"] = known_at
        store = repo(tmp_path, empty_database.dsn, offline_options=options)
        store.apply([_SYMBOL, view])
        spine = pd.DataFrame({"symbol": ["a"], "event_timestamp": [_AT]})
        return store.get_historical_features(spine, ["prices:c"], **how)

    return made


def _price(job: Any) -> float | None:
    found: list[float | None] = job.to_arrow().column("c").to_pylist()
    return found[0]


_DATED = {"created_timestamp_column": "recorded"}


@pytest.mark.parametrize(
    ("moment", "price"),
    [("2024-02-29", None), ("2024-03-01", 1), ("2024-03-07", 2), ("2024-03-08T00:00:00", 3)],
)
def test_rows_count_that_were_recorded_by_then(job: Job, moment: str, price: float | None) -> None:
    known = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    with as_known_at(known):
        inside = job(_view("closes", **_DATED))
    # The moment was the request's: the answer may be asked for later.
    assert _price(inside) == price
    assert _price(job(_view("closes", **_DATED), known_at=known.isoformat())) == price
    query = "SELECT * FROM closes WHERE symbol > ''"
    assert _price(job(_view(None, query=query, **_DATED), known_at=known.isoformat())) == price


def test_without_a_moment_all_is_known(job: Job) -> None:
    assert _price(job(_view("closes", **_DATED))) == 4


def test_the_context_goes_before_the_key(job: Job) -> None:
    with as_known_at(datetime(2024, 3, 7, tzinfo=UTC)):
        inside = job(_view("closes", **_DATED), known_at="2024-03-01T00:00:00Z")
    assert _price(inside) == 2


def test_the_function_beside_a_table_is_asked(job: Job) -> None:
    view = _view('other."Kept"')
    assert _price(job(view)) == 7
    assert _price(job(view, known_at="2024-03-05T23:00:00-02:00")) == 6


def test_a_function_without_a_recorded_time_has_settled_it(job: Job) -> None:
    view = _view('other."Kept"', created_timestamp_column="recorded")
    known = "2024-03-05T00:00:00Z"
    assert _price(job(view, known_at=known)) == 5
    with pytest.raises(
        FeatureError, match=r"'prices'.*'recorded'.*does not return: return it there"
    ):
        job(view, known_at=known, filter_by_created_timestamp=True).to_arrow()


def test_a_view_that_cannot_tell_what_was_known_is_refused(job: Job) -> None:
    with pytest.raises(
        FeatureError,
        match=r"'prices' cannot be read as known at 2024-03-05.*set created_timestamp_column, or write "
        r"a function closes_as_known_at\(timestamptz\)",
    ):
        job(_view("closes"), known_at="2024-03-05T00:00:00Z").to_arrow()


def test_the_platforms_own_candles_are_read_through_their_function(
    database: Database, tmp_path: Path
) -> None:
    """A correction is a row of its own there, in another table."""
    with database.connect() as opened:
        opened.execute("""
            INSERT INTO instruments (symbol, asset_class, calendar, currency)
            VALUES ('a', 'crypto', '24/7', 'USD');
            INSERT INTO candles (symbol, tf, ts, o, h, l, c, v, source)
            VALUES ('a', '1d', '2024-03-01', 1, 1, 1, 1, 1, 'test');
        """)
    before = database.fetch("SELECT clock_timestamp() AS now")[0]["now"]
    with database.connect() as opened:
        opened.execute("""
            INSERT INTO candle_revisions (symbol, tf, ts, o, h, l, c, v, source, recorded_at)
            SELECT symbol, tf, ts, o, h, l, c, v, source, recorded_at FROM candles;
            UPDATE candles SET h = 2, c = 2, recorded_at = clock_timestamp();
        """)
    view = FeatureView(
        name="daily",
        entities=[_SYMBOL],
        schema=[Field(name="symbol", dtype=String), Field(name="close", dtype=Float64)],
        source=PostgreSQLSource(table="market_data", timestamp_field="time"),
    )
    store = repo(tmp_path, database.dsn)
    store.apply([_SYMBOL, view])
    spine = pd.DataFrame({"symbol": ["a"], "event_timestamp": [_AT]})
    with as_known_at(before):
        then = store.get_historical_features(spine, ["daily:close"])
    now = store.get_historical_features(spine, ["daily:close"])
    assert now.to_arrow().column("close").to_pylist() == [2]
    assert then.to_arrow().column("close").to_pylist() == [1]
