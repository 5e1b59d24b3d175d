"""Frames by COPY into a real table and back: what is read is what was there, to the last bit."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from psycopg import conninfo

from hyperfeast.db import Database, copy_frame
from hyperfeast.errors import DataError, QueryFailed, SchemaError
from typed_frames import KINDS, frames

COLUMNS = ", ".join(f"{name} {kind.declared}" for name, kind in KINDS.items())
# Types that Arrow has no name for come back as text.
READ = ", ".join(
    f"{name}::text AS {name}" if kind.type_name in {"uuid", "json", "jsonb"} else name
    for name, kind in KINDS.items()
)


@pytest.fixture
def wide(empty_database: Database) -> Database:
    """A database with the table `wide`: a column of each type, and the rows' order."""
    empty_database.execute(f"CREATE TABLE wide (place bigint, {COLUMNS})")
    return empty_database


def stored(database: Database, frame: pl.DataFrame) -> pl.DataFrame:
    with database.connect() as connection:
        connection.execute("TRUNCATE wide")
        assert copy_frame(connection, "wide", frame.with_row_index("place")) == frame.height
    return database.frame(f"SELECT {READ} FROM wide ORDER BY place")


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames())
def test_what_is_read_is_what_was_copied(wide: Database, frame: pl.DataFrame) -> None:
    read = stored(wide, frame)
    assert read.height == frame.height
    for name, kind in KINDS.items():
        _same(read[name], frame[name], kind.type_name)


def _same(read: pl.Series, copied: pl.Series, type_name: str) -> None:
    match type_name:
        case "float4" | "float8":
            assert _bits(read) == _bits(copied)
        case "timestamptz":
            instants = copied.to_physical().to_list()
            scale = {"ns": (1, 1_000), "us": (1, 1), "ms": (1_000, 1)}[copied.dtype.time_unit]  # type: ignore[attr-defined]
            expected = [None if at is None else at * scale[0] // scale[1] for at in instants]
            assert read.dtype == pl.Datetime("us", "UTC")
            assert read.to_physical().to_list() == expected
        case "json" | "jsonb":
            assert [*map(_value, read)] == [*map(_value, copied)]
        case "uuid":
            assert read.to_list() == copied.str.to_lowercase().to_list()
        case _:
            assert read.to_list() == copied.to_list()


def _bits(column: pl.Series) -> list[int | str | None]:
    """Each number's bits: -0.0 is not 0.0, and any NaN is NaN."""
    whole = np.dtype(f"i{column.to_numpy().itemsize}")
    return [
        None if value is None else "NaN" if math.isnan(value) else bits
        for value, bits in zip(
            column, column.fill_null(0).to_numpy().view(whole).tolist(), strict=True
        )
    ]


def _value(text: str | None) -> object:
    return text if text is None else [json.loads(text)]


def test_more_rows_than_a_slice_into_a_temporary_table(empty_database: Database) -> None:
    rows = pl.int_range(200_001)
    frame = pl.select(
        symbol=pl.format("S{}", rows % 1_030),
        ts=(datetime(2020, 1, 1, tzinfo=UTC) + pl.duration(minutes=rows)).cast(
            pl.Datetime("us", "UTC")
        ),
        close=pl.when(rows % 3 > 0).then(rows / 7),
    )
    with empty_database.connect() as connection:
        # One of the same name that is hidden: its types are not those that count.
        connection.execute("CREATE TABLE staged (symbol int, ts int, close int)")
        connection.execute(
            "CREATE TEMPORARY TABLE staged (close float8, ts timestamptz, symbol text)"
        )
        assert copy_frame(connection, "staged", frame) == frame.height
        connection.execute("CREATE TABLE kept AS SELECT * FROM staged")
    read = empty_database.frame("SELECT symbol, ts, close FROM kept ORDER BY ts")
    assert_frame_equal(read, frame, check_exact=True)


def test_columns_that_the_frame_lacks_take_their_defaults(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute('CREATE TABLE "A b" (id int DEFAULT 7, gone int, "C ""d" text)')
        connection.execute('ALTER TABLE "A b" DROP COLUMN gone')
        copy_frame(connection, "A b", pl.DataFrame({'C "d': ["x"]}))
        assert connection.execute('SELECT * FROM "A b"').fetchall() == [{"id": 7, 'C "d': "x"}]


def test_no_rows_are_copied_as_none(wide: Database) -> None:
    assert stored(wide, pl.DataFrame(schema={"word": pl.String})).is_empty()


def test_the_connections_rows_may_be_of_any_kind(empty_database: Database) -> None:
    with psycopg.connect(empty_database.dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE numbers (n int)")
        assert copy_frame(connection, "numbers", pl.DataFrame({"n": [1, 2]})) == 2
        assert connection.execute("SELECT n FROM numbers").fetchall() == [(1,), (2,)]


def test_a_column_that_does_not_fit_is_refused_before_anything_is_sent(wide: Database) -> None:
    with wide.connect() as connection:
        with pytest.raises(DataError, match=r"column at_us is timestamptz .* found Datetime"):
            copy_frame(connection, "wide", pl.DataFrame({"at_us": [datetime(2020, 1, 1)]}))  # noqa: DTZ001
        # The transaction goes on: the server has heard nothing of it.
        assert copy_frame(connection, "wide", pl.DataFrame({"word": ["x"]})) == 1


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 150_000))
def test_a_value_that_does_not_fit_leaves_no_row(wide: Database, place: int) -> None:
    words = pl.select(
        word=pl.when(pl.int_range(150_001) == place).then(pl.lit("a\0")).otherwise(pl.lit("b"))
    )
    with pytest.raises(DataError, match="NUL"), wide.connect() as connection:
        copy_frame(connection, "wide", words)
    assert wide.fetch("SELECT count(*) AS n FROM wide") == [{"n": 0}]


def test_what_the_server_refuses_is_said_in_our_words(wide: Database) -> None:
    with pytest.raises(QueryFailed, match="json"), wide.connect() as connection:
        copy_frame(connection, "wide", pl.DataFrame({"parsed": ["{"]}))
    with pytest.raises(QueryFailed, match="too long"), wide.connect() as connection:
        copy_frame(connection, "wide", pl.DataFrame({"limited": ["x" * 301]}))


def test_an_unknown_table_or_column_is_the_schemas_fault(wide: Database) -> None:
    with pytest.raises(SchemaError, match="nothing_here"), wide.connect() as connection:
        copy_frame(connection, "nothing_here", pl.DataFrame({"word": ["x"]}))
    missing = "wide has no column words_, it has place, flag"
    with pytest.raises(SchemaError, match=missing), wide.connect() as connection:
        copy_frame(connection, "wide", pl.DataFrame({"words_": ["x"], "word": ["x"]}))


def test_a_type_of_ones_own_is_not_taken_for_postgresqls(empty_database: Database) -> None:
    with empty_database.connect() as connection:
        connection.execute("CREATE TYPE public.date AS ENUM ('monday')")
        connection.execute("CREATE TABLE days (day public.date)")
        with pytest.raises(DataError, match=r"column day is public\.date in the table, and only"):
            copy_frame(connection, "days", pl.DataFrame({"day": ["monday"]}))


def test_another_client_encoding_is_refused(wide: Database) -> None:
    latin = Database(conninfo.make_conninfo(wide.dsn, client_encoding="LATIN1"))
    with pytest.raises(SchemaError, match="client_encoding is iso8859-1"), latin.connect() as one:
        copy_frame(one, "wide", pl.DataFrame({"word": ["é"]}))
