"""Ingestion into compressed chunks on TimescaleDB Community: what is not corrected stays compressed."""

from datetime import UTC, datetime, timedelta

import polars as pl

from hyperfeast.db import Database
from hyperfeast.ingest import ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe

START = datetime(2024, 1, 1, tzinfo=UTC)
USER = "00000000-0000-0000-0000-000000000001"
# Rows that lie in the open in the chunks of a table, not in their compressed form.
IN_THE_OPEN = (
    "SELECT sum((xpath('/row/n/text()', query_to_xml(format("
    "'SELECT count(*) AS n FROM ONLY %%I.%%I', chunk_schema, chunk_name), "
    "false, true, '')))[1]::text::bigint) AS n "
    "FROM timescaledb_information.chunks WHERE hypertable_name = %s"
)


def test_equal_and_corrected_bars(migrated_community: Database) -> None:
    database = migrated_community
    bars = _times().with_columns(
        symbol=pl.lit("A"), open=10.0, high=12.0, low=9.0, close=11.0, volume=5.0
    )
    others = bars.with_columns(symbol=pl.lit("B"))
    for frame in (bars, others):
        ingest_candles(database, frame, timeframe=Timeframe.M1, source="test")
    _compress(database, "candles", "symbol, tf", "ts DESC")

    again = ingest_candles(database, bars, timeframe=Timeframe.M1, source="test")
    assert again.unchanged == bars.height
    assert _in_the_open(database, "candles") == 0

    one = bars.slice(700, 1).with_columns(close=10.5)
    corrected = ingest_candles(
        database, pl.concat([one, others]), timeframe=Timeframe.M1, source="test"
    )
    assert (corrected.corrected, corrected.unchanged) == (1, others.height)
    assert 0 < _in_the_open(database, "candles") <= bars.height


def test_equal_readings(migrated_community: Database) -> None:
    database = migrated_community
    readings = _times().with_columns(value=1.5)
    ingest_metrics(database, readings, source="test", user=USER, metric="glucose")
    _compress(database, "user_baseline_raw", "user_id, metric, source", "ts DESC")

    again = ingest_metrics(database, readings, source="test", user=USER, metric="glucose")
    assert again.unchanged == readings.height
    assert _in_the_open(database, "user_baseline_raw") == 0


def _times() -> pl.DataFrame:
    end = START + timedelta(days=1)
    return pl.datetime_range(START, end, "1m", closed="left", time_unit="us", eager=True).to_frame(
        "ts"
    )


def _compress(database: Database, table: str, segment_by: str, order_by: str) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute(
            f"ALTER TABLE {table} SET (timescaledb.compress, timescaledb.compress_segmentby = '{segment_by}', "  # type: ignore[arg-type]
            f"timescaledb.compress_orderby = '{order_by}')"
        )
        connection.execute("SELECT compress_chunk(c) FROM show_chunks(%s) AS c", [table])
    assert _in_the_open(database, table) == 0


def _in_the_open(database: Database, table: str) -> int:
    return int(database.fetch(IN_THE_OPEN, [table])[0]["n"])
