"""`hyperfeast mirror pull`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.cli.options import utc

_To = Annotated[
    Path, typer.Option("--to", help="A folder; what an earlier pull left there is replaced.")
]
_Views = Annotated[
    list[str] | None,
    typer.Option("--view", help="A feature view; may be given again. All of them by default."),
]
_Since = Annotated[
    datetime | None,
    typer.Option(
        help="UTC: the first event time. Leave room for what a training set looks back on."
    ),
]
_Until = Annotated[datetime | None, typer.Option(help="UTC: the last event time.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    mirror = typer.Typer(
        help="Feature sets on this machine, for work without a server.", no_args_is_help=True
    )
    mirror.command("pull")(pull)
    # A group of one command, or Typer would make that command the group.
    mirror.callback()(_group)
    app.add_typer(mirror, name="mirror")


def _group() -> None:
    """Feature sets on this machine, for work without a server."""


def pull(
    to: _To = Path("mirror"),
    views: _Views = None,
    since: _Since = None,
    until: _Until = None,
    as_json: console.AsJson = False,
) -> None:
    """Write feature views as Parquet files, with a Feast repository that reads them by DuckDB."""
    from hyperfeast.app import App

    with console.spinner("pulling (Feast takes some seconds to load)") as say:
        done = App().feast.mirror(
            to,
            names=views or (),
            since=utc(since),
            until=utc(until),
            progress=lambda view, rows: say(f"pulling {view}: {rows:,} rows"),
        )
    if as_json:
        console.print_json(done)
        return
    console.print_table(
        ["feature view", "rows", "size"],
        [[one.view, one.rows, f"{one.size_bytes / 1e6:,.1f} MB"] for one in done],
    )
    console.say(f'open it with: feast.FeatureStore(repo_path="{to}")')
