"""Names that are SQL, or no text at all: refused by an allow-list or harmless, wherever a name comes in."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import polars as pl
import psycopg
import pytest

from acceptance.shell import shell
from hyperfeast.aggregates import refresh, verify
from hyperfeast.db import Database
from hyperfeast.errors import DataError, HyperfeastError, UsageError
from hyperfeast.ingest import Candles, Metrics, backfill_candles, ingest_candles, ingest_metrics
from hyperfeast.quality import completeness
from hyperfeast.sources import source
from hyperfeast.types import Timeframe

_DROP = "x'; DROP TABLE sentinel; DROP TABLE signals;--"
_USER = "123e4567-e89b-12d3-a456-426614174000"
WORDS = {
    "sql": _DROP,
    "sql-double": _DROP.replace("'", '"'),
    "sql-dollar": "$$; DROP TABLE sentinel; --",
    "sql-comment": "x/*", "sql-percent": "%s %(name)s %%", "sql-brace": "{table}",
    "backslash": "x\\'; DROP TABLE sentinel;--",
    "long": "x" * 64, "longer": "y" * 10_000,
    "nul": "A\0B", "newline": "AAA\n", "control": "A\x07\x1b[31mB", "delete": "A\x7f",
    "right-to-left": "A\u202eBAA", "isolate": "\u2067AAA\u2069", "zero-width": "A\u200bA",
    "lookalike": "\u0410\u0410\u0410", "full-width": "\uff21\uff21\uff21", "emoji": "\U0001f680",
    "surrogates-in-utf16": "\U00010000", "path": "../../etc/passwd", "blank": " ", "empty": "",
    "option": "--help; rm -rf /",
}  # fmt: skip
# What a device or a source may be called is prose; what may not be in it are control characters.
PROSE = {
    "sql", "sql-double", "sql-dollar", "sql-comment", "sql-percent", "sql-brace", "backslash", "long",
    "right-to-left", "isolate", "zero-width", "lookalike", "full-width", "emoji", "surrogates-in-utf16", "path",
    "blank", "option",
}  # fmt: skip


@dataclass(frozen=True)
class Guarded:
    """A database with a sentinel: what stands in it, and every table there is."""

    database: Database
    tables: list[str]

    def untouched(self) -> bool:
        """Whether the sentinel and every table are as they were."""
        rows = self.database.fetch("SELECT word FROM sentinel")
        return [row["word"] for row in rows] == ["alive"] and _tables(self.database) == self.tables

    def stored(self) -> list[str]:
        """The symbols of instruments, which only bars that were taken in add to."""
        return [row["symbol"] for row in self.database.fetch("SELECT symbol FROM instruments")]


def _tables(database: Database) -> list[str]:
    rows = database.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    return [row["relname"] for row in rows]


@pytest.fixture
def guarded(database: Database) -> Iterator[Guarded]:
    """A sentinel that must be there before and after; whatever a test does with names."""
    database.execute("CREATE TABLE sentinel AS SELECT 'alive' AS word")
    one = Guarded(database, _tables(database))
    yield one
    assert one.untouched()


def _bars(symbols: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"symbol": symbols}).with_columns(
        ts=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)),
        open=10.0, high=20.0, low=5.0, close=11.0, volume=100.0,
    )  # fmt: skip


def _readings(**columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(columns).with_columns(
        ts=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)), value=60.0
    )


def _refused(call: Callable[[], object]) -> str:
    """One short line that says what was expected."""
    with pytest.raises(HyperfeastError) as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert "\0" not in said
    assert "\x1b" not in said
    return said


def test_the_names_do_harm_where_they_are_pasted(database: Database) -> None:
    """The control: the same sentinel, and the statement that nobody here writes."""
    database.execute("CREATE TABLE sentinel AS SELECT 'alive' AS word")
    with psycopg.connect(database.dsn) as connection:
        pasted = f"SELECT symbol FROM instruments WHERE symbol = '{WORDS['sql']}'"
        connection.execute(cast("Any", pasted))
    assert not {"sentinel", "signals"} & set(_tables(database))


def test_symbols_in_a_frame(guarded: Guarded) -> None:
    hostile = [*WORDS.values(), *(f"{_DROP}{number}" for number in range(500))]
    summary = ingest_candles(
        guarded.database, _bars([*hostile, "GOOD"]), timeframe=Timeframe.M1, source="test"
    )
    assert summary.refused == {"symbol_format": len(hostile)}
    assert summary.inserted == 1
    assert guarded.stored() == ["GOOD"]
    rows = guarded.database.fetch("SELECT DISTINCT row ->> 'symbol' AS symbol FROM quarantine")
    assert {row["symbol"].replace("\\u0000", "\0") for row in rows} == set(hostile)


def test_five_hundred_proper_symbols_are_no_trouble(guarded: Guarded) -> None:
    symbols = [f"S{number}" for number in range(500)]
    assert (
        ingest_candles(
            guarded.database, _bars(symbols), timeframe=Timeframe.M1, source="test"
        ).inserted
        == 500
    )
    assert refresh(guarded.database, symbols=symbols).days == 500
    assert verify(guarded.database, relation="candles", symbols=symbols) == []


def test_a_symbol_is_no_user(guarded: Guarded) -> None:
    """Without a relation both families are meant, and each has keys of its own."""
    ingest_candles(guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source="test")
    day = datetime(2024, 1, 1, tzinfo=UTC).date()
    assert verify(guarded.database, symbols=["AAA", _USER]) == []
    assert refresh(guarded.database, symbols=["AAA", _USER], since=day).days == 1
    assert verify(guarded.database, symbols=["AAA", _USER]) == []


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_a_symbol_for_all_rows(word: str) -> None:
    assert "is no symbol: expected" in _refused(
        lambda: Candles(timeframe=Timeframe.M1, source="test", symbol=word)
    )


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_what_else_is_given_for_all_rows(word: str) -> None:
    def metrics(**given: str) -> Callable[[], object]:
        return lambda: Metrics(source="test", **given)  # type: ignore[arg-type]

    assert "is no user_id: expected" in _refused(metrics(user=word))
    assert "is no metric: expected" in _refused(metrics(metric=word))
    _refused(metrics(tz=word))
    _refused(lambda: Candles(timeframe=Timeframe.M1, source="test", calendar=word))


def test_users_metrics_and_devices_in_a_frame(guarded: Guarded) -> None:
    words, n = list(WORDS.values()), len(WORDS)
    frame = pl.concat(
        [
            _readings(user_id=words, metric=["hr"] * n, device=["d"] * n),
            _readings(user_id=[_USER] * n, metric=words, device=["d"] * n),
            _readings(user_id=[_USER] * n, metric=["hr"] * n, device=words),
        ]
    )
    summary = ingest_metrics(guarded.database, frame, source="test")
    taken = guarded.database.fetch("SELECT DISTINCT metric, source FROM user_baseline_raw")
    assert summary.refused.pop("user_id_format") == n
    assert summary.refused.pop("metric_format") == n
    assert {row["metric"] for row in taken} == {"hr"}
    # A device's name is prose, and stored letter by letter.
    assert {row["source"] for row in taken} == {WORDS[name] for name in PROSE}
    assert refresh(guarded.database).days == 1
    assert verify(guarded.database) == []


@pytest.mark.parametrize("name", ["sql", "sql-percent", "right-to-left"])
def test_the_name_of_a_source(guarded: Guarded, name: str) -> None:
    """It is prose: stored letter by letter."""
    ingest_candles(guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source=WORDS[name])
    (row,) = guarded.database.fetch("SELECT source FROM candles")
    assert row["source"] == WORDS[name]


@pytest.mark.parametrize("name", ["nul", "control", "longer", "empty"])
def test_the_name_of_a_source_that_is_none(guarded: Guarded, name: str) -> None:
    def send() -> object:
        return ingest_candles(
            guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source=WORDS[name]
        )

    assert "expected" in _refused(send)
    assert guarded.stored() == []


@pytest.mark.parametrize(
    "name", ["sql", "sql-dollar", "nul", "newline", "longer", "emoji", "empty"]
)
def test_an_idempotency_key(guarded: Guarded, name: str) -> None:
    def send(key: str) -> object:
        return ingest_candles(
            guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source="test", idempotency_key=key
        )  # fmt: skip

    assert "is no idempotency key: expected" in _refused(lambda: send(WORDS[name]))
    assert guarded.stored() == []


def test_an_idempotency_key_of_sql_that_is_printable(guarded: Guarded) -> None:
    key = _DROP.replace(" ", "/**/")
    for replayed in (False, True):
        summary = ingest_candles(
            guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source="test", idempotency_key=key
        )  # fmt: skip
        assert summary.replayed is replayed
    (row,) = guarded.database.fetch("SELECT idempotency_key FROM ingest_batches")
    assert row["idempotency_key"] == key


def test_columns_of_a_frame(guarded: Guarded) -> None:
    """A frame's own names never become SQL: only those that are known are looked at."""
    hostile = {word: ["1"] for word in WORDS.values()} | {
        f"{_DROP}{number}": ["1"] for number in range(500)
    }
    frame = _bars(["AAA"]).hstack(pl.DataFrame(hostile))
    done = ingest_candles(guarded.database, frame, timeframe=Timeframe.M1, source="test")
    assert done.inserted == 1
    for mapping in ({"close": _DROP + "!"}, {_DROP: "close"}):
        with pytest.raises((UsageError, DataError)):
            ingest_candles(
                guarded.database, frame, timeframe=Timeframe.M1, source="test", columns=mapping
            )


@pytest.mark.parametrize("name", ["sql", "nul", "longer"])
def test_aggregates_and_completeness(guarded: Guarded, name: str) -> None:
    database, word = guarded.database, WORDS[name]
    ingest_candles(database, _bars(["AAA"]), timeframe=Timeframe.M1, source="test")
    assert "no aggregate" in _refused(lambda: refresh(database, relation=word))
    assert "no aggregate" in _refused(lambda: verify(database, relation=word))
    # Symbols are values: one that nobody has is nobody's, and one that cannot be a text is refused.
    for harmless in (
        lambda: refresh(database, symbols=[word]),
        lambda: refresh(database, symbols=[word], since=datetime(2024, 1, 1, tzinfo=UTC).date()),
        lambda: verify(database, symbols=[word]),
        lambda: completeness(database, symbol=word),
    ):
        with suppress(HyperfeastError):
            harmless()
    assert refresh(database).days == 1
    assert verify(database) == []


_CALLS = [
    "SELECT * FROM data_completeness(%(word)s, '1m')",
    "SELECT * FROM data_completeness('AAA', %(word)s)",
    "SELECT * FROM expected_candles(%(word)s, '1m')",
    "SELECT * FROM recomputed_candles_1w(%(word)s, '2024-01-01', '2024-02-01')",
    "SELECT raw_kept_since(%(word)s, %(word)s)",
    "SELECT * FROM session_bars(%(word)s, %(word)s, '2024-01-01', '2024-01-02', NULL, NULL, true)",
    "SELECT timeframe_width(%(word)s)",
]


@pytest.mark.parametrize("call", _CALLS)
def test_parameters_of_sql_functions(guarded: Guarded, call: str) -> None:
    ingest_candles(guarded.database, _bars(["AAA"]), timeframe=Timeframe.M1, source="test")
    with guarded.database.connect(autocommit=True) as connection:
        for word in WORDS.values():
            try:
                connection.execute(cast("Any", call), {"word": word})
            except psycopg.errors.InvalidParameterValue as error:
                assert str(error).startswith(("no instrument", "no timeframe"))  # noqa: PT017
            except psycopg.DataError as error:
                assert "NUL" in str(error)  # noqa: PT017 - no text of PostgreSQL can hold it


def _folder(at: Path) -> Path:
    folder = at / "bars"
    folder.mkdir()
    _bars(["AAA"]).write_csv(folder / "AAA.csv")
    return folder


@pytest.mark.parametrize("name", ["sql", "nul", "right-to-left", "path"])
def test_symbols_of_a_backfill(guarded: Guarded, tmp_path: Path, name: str) -> None:
    done = None
    with suppress(UsageError):
        done = backfill_candles(
            guarded.database,
            source(str(_folder(tmp_path))),
            [WORDS[name]],
            timeframe=Timeframe.M1,
            start=datetime(2024, 1, 1, tzinfo=UTC),
            end=datetime(2024, 1, 2, tzinfo=UTC),
        )
    assert done is None or done.ingested.inserted == 0
    assert guarded.stored() == []


def _commands(file: str, folder: str) -> list[list[str]]:
    """Options of commands that take a name, each with the hostile one."""
    of_backfill = ["--tf", "1m", "--from", "2024-01-01", "--to", "2024-01-02"]
    return [
        ["ingest", "candles", file, "--tf", "1m", "--symbol", _DROP],
        ["ingest", "candles", file, "--tf", _DROP],
        ["ingest", "metrics", file, "--user", _USER, "--metric", _DROP],
        ["backfill", "candles", "--source", folder, *of_backfill, "--symbol", _DROP],
        ["aggregates", "refresh", "--relation", _DROP],
        ["completeness", "--symbol", _DROP],
    ]


@pytest.mark.slow
def test_options_of_commands(guarded: Guarded, redis_url: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    commands = shell(
        tmp_path, home=str(tmp_path / "home"), postgres_dsn=guarded.database.dsn, redis_url=redis_url
    )  # fmt: skip
    file = str(folder / "AAA.csv")
    for arguments in _commands(file, str(folder)):
        ran = commands.hyperfeast(*arguments)
        assert ran.returncode in (1, 2), (arguments, ran.stdout, ran.stderr)
        assert "Traceback" not in ran.stderr
        assert [line[:7] for line in ran.stderr.splitlines()] == ["error: "], arguments
        assert guarded.untouched()
        assert guarded.stored() == []
    # The control: the same file, rightly named.
    assert commands.json("ingest", "candles", file, "--tf", "1m")["inserted"] == 1
