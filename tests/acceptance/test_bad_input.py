"""What goes wrong says so in one line, with the right exit code, and leaves nothing half done."""

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import conninfo

from acceptance.shell import Shell
from hyperfeast.db import Database
from hyperfeast.migrate import files
from hyperfeast.types import Edition

USAGE, FAILURE = 2, 1
HEADER = "symbol,date,open,high,low,close,volume\n"
GOOD = "AAA,2020-01-02,10,11,9,10.5,100\n"
INTRADAY = HEADER + "".join(
    GOOD.replace("02,", f"02T14:{minute}:00Z,", 1) for minute in (30, 35, 40)
)


def refused(shell: Shell, code: int, *arguments: str) -> str:
    """Run a command that has to fail; its one line."""
    return one_line(shell.hyperfeast(*arguments), code)


def one_line(ran: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of an error that a call had to end with."""
    assert ran.returncode == code, (ran.args, ran.stdout, ran.stderr)
    assert "Traceback" not in ran.stderr
    lines = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.stderr
    return lines[0]


def stored(database: Database) -> int:
    return int(database.fetch("SELECT count(*) AS n FROM candles")[0]["n"])


UNREADABLE: list[tuple[str, bytes | None, int, str]] = [
    ("missing.csv", None, USAGE, "missing.csv"),
    ("a.xlsx", b"x", FAILURE, "csv"),
    ("empty.csv", b"", FAILURE, "empty"),
    ("header.csv", HEADER.encode(), FAILURE, "no rows"),
    ("columns.csv", b"symbol,date,price\nAAA,2020-01-02,1\n", FAILURE, "--column"),
    ("semicolons.csv", (HEADER + GOOD).replace(",", ";").encode(), FAILURE, "expected commas"),
    ("utf16.csv", (HEADER + GOOD).encode("utf-16"), FAILURE, "UTF-8"),
    ("latin.csv", (HEADER + GOOD.replace("AAA", "\xc4\xc4")).encode("latin-1"), FAILURE, "UTF-8"),
    ("cut.csv.gz", b"\x1f\x8b\x08\x00abc", FAILURE, "gz"),
    ("cut.parquet", b"PAR1abc", FAILURE, "arquet"),
    ("intraday.csv", INTRADAY.encode(), FAILURE, "--tf 5m"),
]  # fmt: skip


def test_files_that_cannot_be_taken(on_database: Shell, database: Database, tmp_path: Path) -> None:
    for name, content, _, _ in UNREADABLE:
        if content is not None:
            (tmp_path / name).write_bytes(content)
    for name, _, code, said in UNREADABLE:
        found = refused(on_database, code, "ingest", "candles", name, "--tf", "1d")
        assert said.lower() in found.lower()
    assert stored(database) == 0


BAD = [
    ("A1,2020-01-03,10,11,9,nan,100", "number_missing"),
    ("A2,2020-01-03,10,inf,9,10,100", "finite"),
    ("A3,2020-01-03,10,1e999,9,10,100", "finite"),
    ("A4,2020-01-03,-10,11,-12,10,100", "price_positive"),
    ("A5,2020-01-03,10,9,11,10,100", "high_is_highest"),
    ("A6,2020-01-03,10,11,10.5,10.2,100", "low_is_lowest"),
    ("A7,2020-01-03,10,11,9,10,-1", "volume_not_negative"),
    ("A8,9999-01-03,10,11,9,10,1", "time_range"),
    ("x'); DROP TABLE signals; --,2020-01-03,10,11,9,10,1", "symbol_format"),
    ("A9,2020-01-03,10,11,9,10,1", "duplicate_key"),
    ("A9,2020-01-03,10,11,9,10.1,1", "duplicate_key"),
]


def test_bad_rows_are_quarantined_by_their_rules_and_the_others_are_in(
    on_database: Shell, database: Database, tmp_path: Path
) -> None:
    """Each bad row is the only one of its instrument, so that none can hide behind another."""
    rows = "\n".join(row for row, _ in BAD)
    (tmp_path / "bars.csv").write_text(HEADER + GOOD + rows + "\n")
    said = refused(on_database, FAILURE, "ingest", "candles", "bars.csv", "--tf", "1d")
    expected = {row.split(",")[0]: rule for row, rule in BAD}
    counts = Counter(rule for _, rule in BAD)
    assert all(f"{rule} {count}" in said for rule, count in counts.items())
    found = database.fetch("SELECT row ->> 'symbol' AS symbol, rule FROM quarantine")
    assert len(found) == len(BAD)
    assert {one["symbol"]: one["rule"] for one in found} == expected
    assert database.fetch("SELECT symbol FROM candles") == [{"symbol": "AAA"}]
    assert database.fetch("SELECT to_regclass('signals') AS kept")[0]["kept"] == "signals"


MISTAKEN: list[tuple[list[str], int, str]] = [
    (["ingest", "candles", "bars.csv", "--tf", "2d"], USAGE, "1m 5m 15m 1h 4h 1d 1w"),
    (
        ["ingest", "candles", "bars.csv", "--tf", "1d", "--column", "close"],
        USAGE,
        "NAME=COLUMN",
    ),
    (["ingest", "candles", "bars.csv", "--tf", "1d", "--calendar", "XNYSE"], USAGE, "XNYS"),
    (["ingest", "metrics", "bars.csv", "--user", "me"], USAGE, "UUID"),
    (["predict", "AAPL"], FAILURE, "hyperfeast train"),
    (["predict", "AAPL", "--model", "nothing"], USAGE, "market_direction"),
    (
        ["materialize", "--start", "2024-01-01", "--end", "2020-01-01"],
        USAGE,
        "nothing lies between",
    ),
    (["materialize", "--end", "2099-01-01"], USAGE, "lies in the future"),
    (["predict", "x'); DROP TABLE signals; --"], FAILURE, "hyperfeast train"),
    (["serve", "--model", "nothing"], USAGE, "market_direction"),
    (["materialize"], FAILURE, "features apply"),
    (["statsu"], USAGE, "No such command 'statsu'"),
    (["migrate", "--to", "x"], USAGE, "--to"),
    (["train"], USAGE, "Missing argument"),
    (["train", "nothing"], USAGE, "market_direction"),
    (["train", "market_direction"], FAILURE, "candles"),
    (["features", "compute", "nothing"], USAGE, "market_technical"),
    (["migrate", "--to", "99"], USAGE, f"to {files.newest_number()}"),
    (["demo", "--report", "no/such/folder/report.html"], USAGE, "no/such/folder"),
]


def test_mistaken_calls(on_database: Shell, tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text(HEADER + GOOD)
    for arguments, code, said in MISTAKEN:
        assert said in refused(on_database, code, *arguments)


def test_a_mistaken_call_of_the_script(on_database: Shell) -> None:
    ran = on_database.run("hyperfeast", "predict", "AAPL", "--model", "none")
    assert "market_direction" in one_line(ran, USAGE)


def test_no_server_at_the_address(make_shell: Callable[..., Shell]) -> None:
    shell = make_shell(
        postgres_dsn="postgresql://u:s3cret@127.0.0.1:9/db", redis_url="redis://127.0.0.1:9"
    )
    said = refused(shell, FAILURE, "migrate")
    assert "127.0.0.1:9/db does not answer" in said
    assert "s3cret" not in said
    status = shell.hyperfeast("status")
    assert status.returncode == FAILURE
    assert "DOWN" in status.stdout
    assert "s3cret" not in status.stdout + status.stderr


def test_a_wrong_password_is_never_printed(
    make_shell: Callable[..., Shell], database: Database
) -> None:
    dsn = conninfo.make_conninfo(database.dsn, password="wr0ng-s3cret")
    shell = make_shell(postgres_dsn=dsn, redis_url="redis://127.0.0.1:9")
    for command in ("migrate", "features compute", "features apply", "predict AAPL"):
        said = refused(shell, FAILURE, *command.split())
        assert "refused the user or the password" in said
        assert "wr0ng-s3cret" not in said


def test_a_wrong_redis_password_is_never_printed(
    make_shell: Callable[..., Shell], database: Database, redis_url: str
) -> None:
    host = redis_url.split("@")[1]
    shell = make_shell(postgres_dsn=database.dsn, redis_url=f"redis://:wr0ng-s3cret@{host}")
    status = shell.hyperfeast("status")
    assert status.returncode == FAILURE
    assert "refused the password" in status.stdout
    assert "wr0ng-s3cret" not in status.stdout + status.stderr


def test_a_newer_schema_is_left_alone(on_database: Shell, database: Database) -> None:
    database.execute(
        "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('x', '0099.later')"
    )
    assert "upgrade" in refused(on_database, FAILURE, "migrate").lower()


def test_an_empty_database_says_migrate(
    make_shell: Callable[..., Shell], empty_database: Database, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "bars.csv").write_text(HEADER + GOOD)
    shell = make_shell(postgres_dsn=empty_database.dsn, redis_url=redis_url)
    assert "hyperfeast migrate" in refused(
        shell, FAILURE, "ingest", "candles", "bars.csv", "--tf", "1d"
    )


@pytest.mark.parametrize(
    "dsn",
    [
        "mysql://hf:t0psecret@h/db",
        "postgres;//hf:t0psecret@h/db",
        "postgresql://hf:t0p/s0secret@127.0.0.1:5432/db",
        "postgresql://hf:t0psecret@h:port/db",
        "t0psecret",
    ],
)
def test_an_address_that_is_none_is_not_printed(make_shell: Callable[..., Shell], dsn: str) -> None:
    said = refused(make_shell(postgres_dsn=dsn), USAGE, "migrate")
    assert "HYPERFEAST_POSTGRES_DSN is not usable: expected postgresql://" in said
    assert "secret" not in said


def test_a_redis_address_that_is_none_is_not_printed(make_shell: Callable[..., Shell]) -> None:
    said = refused(make_shell(redis_url="redis://:t0p/secret@127.0.0.1:6379"), USAGE, "status")
    assert "HYPERFEAST_REDIS_URL is not usable: expected redis://" in said
    assert "secret" not in said


def test_a_setting_that_is_none(make_shell: Callable[..., Shell]) -> None:
    assert "API_PORT" in refused(make_shell(api_port="a lot"), USAGE, "status").upper()


def test_a_misspelled_setting_is_not_passed_over(make_shell: Callable[..., Shell]) -> None:
    said = refused(make_shell(redis_ulr="redis://127.0.0.1:9"), USAGE, "status")
    assert "HYPERFEAST_REDIS_ULR is no setting: did you mean HYPERFEAST_REDIS_URL?" in said


def test_the_api_does_not_serve_an_empty_database(
    make_shell: Callable[..., Shell], empty_database: Database, redis_url: str
) -> None:
    shell = make_shell(postgres_dsn=empty_database.dsn, redis_url=redis_url)
    pending = len(files.of_edition(Edition.PLAIN))
    said = refused(shell, FAILURE, "serve", "--port", "0")
    assert f"{pending} migrations are pending" in said


def test_refused_rows_are_shown_and_kept_once_and_may_be_allowed(
    on_database: Shell, tmp_path: Path
) -> None:
    (tmp_path / "bars.csv").write_text(HEADER + GOOD + "AAA,2020-01-03,10,9,11,10,1\n")
    ingest = ["ingest", "candles", "bars.csv", "--tf", "1d"]
    for _ in range(2):
        assert "high_is_highest" in refused(on_database, FAILURE, *ingest)
    summary = on_database.json(*ingest, "--max-refused", "1")
    assert (summary["inserted"], summary["unchanged"], summary["quarantined"]) == (0, 1, 1)
    assert [(one["rule"], one["row"]["date"]) for one in on_database.json("quarantine")] == [
        ("high_is_highest", "2020-01-03")
    ]
    assert "high_is_highest" in on_database.hyperfeast("quarantine").stdout


def test_debug_shows_the_traceback(make_shell: Callable[..., Shell]) -> None:
    ran = make_shell().hyperfeast("ingest", "candles", "missing.csv", "--tf", "1d", "--debug")
    assert "Traceback" in ran.stderr


def test_typer_says_what_is_missing(make_shell: Callable[..., Shell]) -> None:
    assert "PATH" in refused(make_shell(), USAGE, "ingest", "candles").upper()


def test_a_group_without_a_command_gives_its_help(make_shell: Callable[..., Shell]) -> None:
    ran = make_shell().hyperfeast("ingest")
    assert ran.returncode == USAGE
    assert "candles" in ran.stdout
