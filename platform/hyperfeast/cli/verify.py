"""`hyperfeast verify dual-write`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.errors import DataError, UsageError

if TYPE_CHECKING:
    from hyperfeast.ingest import Comparison

_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    verify = typer.Typer(help="Compare what has to be equal.", no_args_is_help=True)
    verify.callback()(_options)
    verify.command("dual-write")(dual_write)
    app.add_typer(verify, name="verify")


def _options() -> None:
    """Compare what has to be equal."""


def dual_write(
    folder: Annotated[
        Path | None, typer.Argument(help="The copy. Default: HYPERFEAST_DUAL_WRITE.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Compare the database with the Parquet files that were written beside it."""
    from hyperfeast.app import App
    from hyperfeast.ingest import compare

    app = App()
    copy = folder or app.settings.dual_write
    if copy is None:
        raise UsageError("which copy? Give its folder, or set HYPERFEAST_DUAL_WRITE")
    with console.spinner("comparing"):
        found = compare(app.database, copy)
    if as_json:
        console.print_json(found)
    else:
        _print(found)
    if found.mismatched:
        raise DataError(
            f"{found.mismatched:,} of {found.rows:,} rows are not the same in the database and in {copy}"
        )


def _print(found: "Comparison") -> None:
    console.say(f"{found.rows:,} rows compared, {found.mismatched:,} mismatches")
    if found.finished or found.discarded:
        console.say(
            f"files that a kill had left: {found.finished:,} of batches that are in, kept; "
            f"{found.discarded:,} of batches that are not, removed"
        )
    if found.mismatches:
        console.print_table(
            ["table", "row", "is", "columns (database, files)"],
            [
                [
                    one.scope,
                    ", ".join(console.text(value) for value in one.key.values()),
                    one.kind,
                    ", ".join(f"{name} {pair}" for name, pair in one.columns.items()) or None,
                ]
                for one in found.mismatches[:_SHOWN]
            ],
        )
