"""`hyperfeast ingest candles | metrics | actions` and `hyperfeast quarantine`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from hyperfeast.cli import console
from hyperfeast.cli.options import timeframe
from hyperfeast.errors import DataError, RowsRefused, UsageError

if TYPE_CHECKING:
    from hyperfeast.ingest import Candles, Ingested, IngestSummary, Metrics

_FilePath = Annotated[Path, typer.Argument(help="A .csv, .csv.gz or .parquet file.")]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="What a column is called in the file: close=px_last. Repeatable."
    ),
]
_Zone = Annotated[
    str | None,
    typer.Option("--tz", help="The zone of times without one: America/New_York. Default UTC."),
]
_MaxRefused = Annotated[
    int,
    typer.Option(min=0, help="How many refused rows are no failure. They go to quarantine anyway."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    ingest = typer.Typer(help="Take in files.", no_args_is_help=True)
    ingest.command()(candles)
    ingest.command()(metrics)
    ingest.command()(actions)
    app.add_typer(ingest, name="ingest")
    app.command()(quarantine)


def candles(
    path: _FilePath,
    tf: Annotated[str, typer.Option(help="Timeframe: 1m 5m 15m 1h 4h 1d 1w.")],
    symbol: Annotated[
        str | None, typer.Option(help="The instrument, for a file that names none.")
    ] = None,
    calendar: Annotated[
        str | None,
        typer.Option(help="Trading calendar of new instruments: XNYS, 24/7. Default 24/7."),
    ] = None,
    column: _Columns = None,
    tz: _Zone = None,
    source: Annotated[str, typer.Option(help="Where the rows come from.")] = "file",
    max_refused: _MaxRefused = 0,
    as_json: console.AsJson = False,
) -> None:
    """Take in OHLCV bars: insert new ones, correct changed ones, leave equal ones alone."""
    from hyperfeast.ingest import Candles

    intake = Candles(
        timeframe=timeframe(tf),
        symbol=symbol,
        columns=_mapping(column),
        source=source,
        calendar=calendar,
        tz=tz,
    )
    _stream(path, intake, as_json=as_json, max_refused=max_refused)


def metrics(
    path: _FilePath,
    user: Annotated[
        str | None, typer.Option(help="The user's UUID, for a file that names none.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="The metric, for a file that names none.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="The device, for a file that names none.")
    ] = None,
    column: _Columns = None,
    tz: _Zone = None,
    source: Annotated[str, typer.Option(help="Where the rows come from.")] = "file",
    max_refused: _MaxRefused = 0,
    as_json: console.AsJson = False,
) -> None:
    """Take in readings of personal metrics."""
    from hyperfeast.ingest import Metrics

    intake = Metrics(
        user=user,
        metric=metric,
        device=device,
        columns=_mapping(column),
        tz=tz,
        source=source,
    )
    _stream(path, intake, as_json=as_json, max_refused=max_refused)


def actions(
    path: _FilePath,
    source: Annotated[str, typer.Option(help="Where the rows come from.")] = "file",
    max_refused: _MaxRefused = 0,
    as_json: console.AsJson = False,
) -> None:
    """Take in corporate actions: symbol, ex_date, kind, ratio, amount."""
    from hyperfeast.app import App
    from hyperfeast.ingest import ingest_actions, read_file

    summary = ingest_actions(App().database, read_file(path), source=source)
    _report(summary, as_json=as_json, max_refused=max_refused)


def quarantine(
    batch: Annotated[UUID | None, typer.Option(help="Rows of this batch only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many rows at most.")] = 20,
    as_json: console.AsJson = False,
) -> None:
    """Show refused rows, the newest first, each with the rule that it broke."""
    from hyperfeast.app import App
    from hyperfeast.ingest import quarantined

    rows = quarantined(App().database, batch_id=batch, limit=limit)
    if as_json:
        console.print_json(rows)
    else:
        console.print_table(
            ["recorded at", "for", "rule", "row"],
            [[one["recorded_at"], one["target"], one["rule"], one["row"]] for one in rows],
        )


def _mapping(pairs: list[str] | None) -> dict[str, str] | None:
    """`close=px_last` as {"close": "px_last"}."""
    split = [pair.partition("=") for pair in pairs or ()]
    for wanted, equals, found in split:
        if not (wanted and equals and found):
            raise UsageError(
                f"--column takes NAME=COLUMN, as in close=px_last; found {wanted + equals + found!r}"
            )
    return {wanted: found for wanted, _, found in split} or None


def _stream(path: Path, intake: "Candles | Metrics", *, as_json: bool, max_refused: int) -> None:
    """Take in a file of any size, batch by batch, and say what came of all of them."""
    from hyperfeast.app import App
    from hyperfeast.ingest import expected_rows, read_batches

    rows = expected_rows(path)
    with console.progress_bar(intake.table) as progress:
        done = App().ingest(read_batches(path), intake, rows=rows, progress=progress)
    _report(done, as_json=as_json, max_refused=max_refused)


def _report(summary: "IngestSummary | Ingested", *, as_json: bool, max_refused: int) -> None:
    """Print what was done.

    Raises:
        DataError: not one row was good.
        RowsRefused: more rows were refused than the caller allows.
    """
    if as_json:
        console.print_json(summary)
    else:
        console.say(
            f"{summary.rows_in:,} rows read: {summary.inserted:,} inserted, {summary.corrected:,} corrected, "
            f"{summary.unchanged:,} unchanged, {summary.quarantined:,} refused "
            f"({summary.seconds:.1f} s, {_batches(summary)})"
        )
    _check_refused(summary, max_refused)


def _batches(summary: "IngestSummary | Ingested") -> str:
    """Which one it was, or how many."""
    ids = summary.batches if hasattr(summary, "batches") else [summary.batch_id]
    return f"batch {ids[0]}" if len(ids) == 1 else f"{len(ids):,} batches"


def _check_refused(summary: "IngestSummary | Ingested", max_refused: int) -> None:
    if summary.quarantined <= max_refused:
        return
    broken = ", ".join(f"{rule} {count:,}" for rule, count in summary.refused.items())
    if summary.quarantined == summary.rows_in:
        raise DataError(
            f"no row could be taken; rules broken: {broken}; `hyperfeast quarantine` shows them"
        )
    raise RowsRefused(
        f"{summary.quarantined:,} of {summary.rows_in:,} rows were refused; rules broken: "
        f"{broken}. `hyperfeast quarantine` shows them. The others are in; --max-refused says how many may be"
    )
