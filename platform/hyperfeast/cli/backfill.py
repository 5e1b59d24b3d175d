"""`hyperfeast backfill candles`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.cli.options import timeframe
from hyperfeast.errors import RowsRefused, SourceError, UsageError

if TYPE_CHECKING:
    from hyperfeast.ingest import Backfilled
    from hyperfeast.sources import Source

_SHOWN = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    backfill = typer.Typer(help="Take in history from a source.", no_args_is_help=True)
    backfill.callback()(_options)
    backfill.command()(candles)
    app.add_typer(backfill, name="backfill")


def _options() -> None:
    """Take in history from a source."""


def candles(
    source: Annotated[
        str, typer.Option(help="Where from: a folder of files, yfinance, ccxt:binance.")
    ],
    tf: Annotated[str, typer.Option(help="Timeframe: 1m 5m 15m 1h 4h 1d 1w.")],
    start: Annotated[
        datetime,
        typer.Option("--from", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="First bar, UTC."),
    ],
    end: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"],
            help="Up to this moment, which is excluded, UTC. Default: the beginning of today.",
        ),
    ] = None,
    symbols: Annotated[
        Path | None, typer.Option(help="A file of symbols, one a line. Default all of a folder.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option(help="An instrument. Repeatable; beside --symbols.")
    ] = None,
    calendar: Annotated[
        str | None,
        typer.Option(help="Trading calendar of new instruments: XNYS, 24/7. Default 24/7."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=24, help="How many instruments at once.")] = 2,
    again: Annotated[
        bool, typer.Option("--again", help="Also fetch what an earlier backfill has taken in.")
    ] = False,
    max_refused: Annotated[
        int, typer.Option(min=0, help="How many refused rows are no failure.")
    ] = 0,
    as_json: console.AsJson = False,
) -> None:
    """Take in bars of many instruments; after a stop or a kill the same command goes on."""
    from hyperfeast import sources
    from hyperfeast.app import App

    feed = sources.source(source)
    app = App()
    with console.progress_bar("backfill") as progress:
        done = app.backfill(
            feed,
            _symbols(feed, symbols, symbol or []),
            timeframe=timeframe(tf),
            start=start.replace(tzinfo=UTC),
            end=end.replace(tzinfo=UTC) if end else _today(),
            calendar=calendar,
            workers=workers,
            again=again,
            progress=progress,
        )
    _report(done, as_json=as_json, max_refused=max_refused)


def _today() -> datetime:
    """A range that ends at the same moment all day, so that the same command goes on from where it was."""
    from hyperfeast import clock

    return clock.now().replace(hour=0, minute=0, second=0, microsecond=0)


def _explain(done: "Backfilled") -> None:
    """Why there was nothing to take in."""
    if done.done_before == done.pieces:
        console.say("all of it was taken in before: --again fetches it anew")
    elif not done.ingested.rows_in and not done.failures:
        console.say("the source has nothing in this range")


def _symbols(feed: "Source", file: Path | None, named: list[str]) -> list[str]:
    """Those of the file, those that are named, or all that the source has."""
    listed = named + (_read(file) if file else [])
    if listed:
        return listed
    if file is not None:
        raise UsageError(f"{file} names no symbol: expected one a line")
    known = feed.symbols()
    if known is None:
        raise UsageError(f"{feed.name} cannot list its symbols: give --symbol or --symbols FILE")
    return known


def _read(file: Path) -> list[str]:
    """One symbol a line; empty lines and what follows a # are passed over, and so is a header `symbol`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as a list of symbols: {error}") from error
    names = [line.partition("#")[0].split(",")[0].strip() for line in lines]
    return [name for name in names if name and name.lower() != "symbol"]


def _report(done: "Backfilled", *, as_json: bool, max_refused: int) -> None:
    """Print what was done.

    Raises:
        SourceError: instruments are not done.
        RowsRefused: more rows were refused than the caller allows.
    """
    rows = done.ingested
    if as_json:
        failures = [{"symbol": one.piece.symbol, "error": str(one.error)} for one in done.failures]
        console.print_json(
            {
                "pieces": done.pieces,
                "done_before": done.done_before,
                "ingested": rows,
                "failures": failures,
            }
        )
    else:
        before = f", {done.done_before:,} of them done before" if done.done_before else ""
        console.say(
            f"pieces: {done.pieces:,}{before}; {rows.rows_in:,} rows read: {rows.inserted:,} inserted, "
            f"{rows.corrected:,} corrected, {rows.unchanged:,} unchanged, {rows.quarantined:,} refused "
            f"({rows.seconds:.1f} s)"
        )
        _explain(done)
    if done.failures:
        first = "; ".join(f"{one.piece.symbol}: {one.error}" for one in done.failures[:_SHOWN])
        raise SourceError(
            f"instruments not done: {len(done.failures)}: {first}. "
            "The same command tries them again, and leaves the others alone"
        )
    if rows.quarantined > max_refused:
        raise RowsRefused(
            f"{rows.quarantined:,} of {rows.rows_in:,} rows were refused: `hyperfeast quarantine` shows them. "
            "The others are in; --max-refused says how many may be"
        )
