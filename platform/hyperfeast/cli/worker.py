"""`hyperfeast worker`."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    once: Annotated[
        bool, typer.Option("--once", help="Refresh once and stop; exit code 1 if it failed.")
    ] = False,
) -> None:
    """Keep features current: every five minutes compute what changed and bring it online."""
    from hyperfeast.app import App

    App().queue().work(once=once)
